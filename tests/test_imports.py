"""Who may import whom (docs/contracts.md): the folders' table, and that serving needs no torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
OURS = {"mrse_model", "feeders", "retrieval", "local_vespa", "mrse_cli", "vespa_package"}
WITHOUT_TORCH = {f"mrse_model.{name}" for name in ("errors", "serving", "atomic_file", "data")}
MAY = {
    "mrse_model": set(),
    "local_vespa": set(),
    "feeders": WITHOUT_TORCH | {"mrse_model.images.features", "vespa_package"},
    "retrieval": WITHOUT_TORCH | {"vespa_package"},
    "vespa_package": {
        "mrse_model.errors",
        "mrse_model.serving",
        "mrse_model.data.contract",
        "mrse_model.data.table",
        "local_vespa.package.sd",
    },
}


def imports(path: Path) -> set[str]:
    """Absolute names of ours that a file imports, at its top or inside a function."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found |= {node.module}
    return {name for name in found if name.split(".")[0] in OURS}


@pytest.mark.parametrize("folder", sorted(MAY))
def test_a_folder_imports_only_what_it_may(folder: str) -> None:
    wrong = []
    for path in sorted((ROOT / folder).rglob("*.py")):
        for name in imports(path):
            allowed = name.split(".")[0] == folder or any(name == a or name.startswith(a + ".") for a in MAY[folder])
            if not allowed:
                wrong.append(f"{path.relative_to(ROOT)} imports {name}")
    assert not wrong


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
