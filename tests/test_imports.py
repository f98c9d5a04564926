"""Which folder may import which (docs/contracts.md): the table, the layers in two folders, no circle, no torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
OURS = ("mrse_model", "feeders", "retrieval", "local_vespa", "mrse_cli", "vespa_package")
WITHOUT_TORCH = {f"mrse_model.{name}" for name in ("errors", "serving", "atomic_file", "data")}
MAY = {
    "mrse_model": set(),
    "local_vespa": set(),
    "feeders": WITHOUT_TORCH | {"mrse_model.images.features", "vespa_package"},
    "retrieval": WITHOUT_TORCH | {"vespa_package", "feeders.events"},
    "vespa_package": {
        "mrse_model.errors",
        "mrse_model.serving",
        "mrse_model.data",
        "local_vespa.package.sd",
    },
}
# From top to bottom: a room imports from lower lines alone (why: docs/engine.md, docs/architecture.md).
LAYERS = {
    "local_vespa": (
        {"__main__"},
        {"server", "testing"},
        {"api"},
        {"engine", "search"},
        {"application"},
        {"ranking"},
        {"matching"},
        {"matching_terms"},
        {"index"},
        {"documents"},
        {"package"},
        {"expressions"},
        {"yql", "tensors"},
        {"grouping"},
        {"store", "http", "patterns", "deadline", "errors"},
    ),
    "vespa_package": (
        {"checks", "second_set", "variants", "deploy"},
        {"overlay", "fields", "attributes"},
        {"schema", "sizing", "bundled"},
    ),
    "mrse_model": (
        {"evaluate", "studies"},
        {"training", "baselines"},
        {"evaluation", "export"},
        {"model"},
        {"towers"},
        {"experts"},
        {"layers"},
        {"teacher"},
        {"images", "losses"},
        {"serving", "sample"},
        {"data"},
        {"config", "progress", "cpu_threads"},
        {"atomic_file", "environment", "errors", "fingerprint"},
    ),
}
MAX_MODULES = {
    "benchmarks": 14,
    "local_vespa": 12,
    "feeders": 14,
    "mrse_cli": 14,
    "mrse_model": 14,
    "retrieval": 14,
    "vespa_package": 14,
}


@cache
def modules() -> dict[str, Path]:
    """Our modules by their dotted name; a package is its `__init__`."""
    found = {}
    for path in sorted(p for folder in OURS for p in (ROOT / folder).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
def imports(module: str) -> frozenset[str]:
    """The modules of ours that a module imports, at its top or inside a function; a name of a package that is not a
    module counts as the package."""
    path, found = modules()[module], set()
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*parts, *([node.module] if node.module else [])])
            found |= {name if (name := f"{base}.{alias.name}") in modules() else base for alias in node.names}
    return frozenset(name for name in found if name.split(".")[0] in OURS and name != module)


@pytest.mark.parametrize("folder", sorted(MAY))
def test_a_folder_imports_only_what_it_may(folder: str) -> None:
    wrong = []
    for module in modules():
        for name in imports(module) if module.split(".")[0] == folder else ():
            allowed = name.split(".")[0] == folder or any(name == a or name.startswith(a + ".") for a in MAY[folder])
            if not allowed:
                wrong.append(f"{module} imports {name}")
    assert not wrong


def test_no_import_goes_in_a_circle() -> None:
    try:
        TopologicalSorter({module: imports(module) for module in modules()}).prepare()
    except CycleError as e:
        pytest.fail(f"imports go in a circle: {' -> '.join(e.args[1])}")


@pytest.mark.parametrize("folder", sorted(LAYERS))
def test_no_import_goes_upwards(folder: str) -> None:
    depth = {name: i for i, layer in enumerate(LAYERS[folder]) for name in layer}
    inside = {m: m.split(".")[1] for m in modules() if m.startswith(folder + ".")}
    assert set(inside.values()) == set(depth), "LAYERS has a line for each room of the folder"
    wrong = [
        f"{module} imports {name}"
        for module, room in inside.items()
        for name in imports(module)
        if name in inside and inside[name] != room and depth[inside[name]] <= depth[room]
    ]
    assert not wrong


@pytest.mark.parametrize("folder", sorted(MAX_MODULES))
def test_no_room_holds_too_many_modules(folder: str) -> None:
    rooms = {path.parent for path in (ROOT / folder).rglob("*.py")}
    counts = {str(room.relative_to(ROOT)): len(set(room.glob("*.py")) - {room / "__init__.py"}) for room in rooms}
    assert {room: n for room, n in counts.items() if n > MAX_MODULES[folder]} == {}


@pytest.mark.parametrize(
    "module",
    [
        "mrse_model.serving.exported_model",
        "mrse_model.data.examples",
        "feeders.feed",
        "retrieval.searcher",
        "mrse_cli.main",
    ],
)
def test_the_base_needs_no_training_packages(module: str) -> None:
    code = (
        f"import sys, {module}; "
        "print([m for m in ('torch', 'transformers', 'gensim', 'pandas', 'onnx') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert found.stdout.strip() == "[]"


def test_the_package_gives_its_names_without_torch() -> None:
    code = (
        "import sys, mrse_model; mrse_model.ExportedModel, mrse_model.ItemsFile, mrse_model.Manifest; "
        "print('torch' in sys.modules); "
        "print([n for n in mrse_model.__all__ if getattr(mrse_model, n).__name__ != n])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert found.stdout.split("\n")[:2] == ["False", "[]"]


def test_the_page_of_the_architecture_has_a_line_for_each_module() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    listed = page.count("\n| `") - page.split("## mrse_model", maxsplit=1)[0].count("\n| `")
    ours = {m: path for m, path in modules().items() if not m.startswith("local_vespa") and path.name != "__init__.py"}
    assert [m for m in ours if f"\n| `{m.rpartition('.')[2]}` |" not in page] == []
    assert listed == len(ours), "a module that is gone is still on the page"
