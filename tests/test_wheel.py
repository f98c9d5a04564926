"""The wheel, as a stranger gets it: the package and its variants are in it, extras are as the commands say, and the
commands of the start work from an empty folder.

.ci/run installs it with its extras into an empty environment and runs the whole demo there.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from mrse_cli.main import COMMANDS, EXTRA_OF, NEEDS

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


def name_of(requirement: str) -> str:
    """A distribution's name as metadata spells it: `gensim>=4.4` → gensim."""
    return requirement.split(";")[0].split("[")[0].split(">")[0].split("=")[0].strip().lower().replace("_", "-")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from the files that git knows: what lies about in a checkout must not be needed."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    (source / "vespa_app" / "models").mkdir()
    (source / "vespa_app" / "models" / "query_text.onnx").write_bytes(b"a model of this machine")
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "--quiet",
        "-w",
        str(out),
        ".",
    ]
    subprocess.run(command, cwd=source, check=True, capture_output=True)
    [built] = out.glob("*.whl")
    return built


def test_package_and_variants_travel_and_models_do_not(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tracked = subprocess.run(["git", "ls-files", "vespa_app", "variants"], cwd=ROOT, capture_output=True, text=True)
    for name in tracked.stdout.split():
        if (ROOT / name).is_file() and not Path(name).name.startswith("."):
            assert f"vespa_package/bundle/{name}" in names
    assert not [name for name in names if name.endswith(".onnx") or name.startswith("tests/")]
    for package in ("mrse_model", "feeders", "retrieval", "local_vespa", "mrse_cli", "vespa_package"):
        assert f"{package}/py.typed" in names
    assert wheel.name.split("-")[1] == PROJECT["version"]


def test_the_first_commands_work_from_an_empty_folder(wheel: Path, tmp_path: Path) -> None:
    site, empty = tmp_path / "site", tmp_path / "empty"
    zipfile.ZipFile(wheel).extractall(site)
    empty.mkdir()

    def python(*arguments: str) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {"PYTHONPATH": str(site)}
        return subprocess.run([sys.executable, *arguments], cwd=empty, env=environment, capture_output=True, text=True)

    def mrse(*arguments: str) -> subprocess.CompletedProcess[str]:
        return python("-c", "from mrse_cli.main import main; main()", *arguments)

    assert str(site) in python("-c", "import vespa_package; print(vespa_package.__file__)").stdout
    for command in (["validate"], ["deploy"], ["export"], ["feed", "items.parquet"]):
        done = mrse(*command)
        assert done.returncode == 2 and len(done.stderr.splitlines()) <= 2, (command, done.stderr)
    assert "mrse init" in mrse("validate").stderr and "mrse init" in mrse("deploy", "vespa_app").stderr
    assert mrse("init").returncode == 0
    assert (empty / "vespa_app" / "services.xml").is_file() and (empty / "variants" / "variants.toml").is_file()
    assert not (empty / "vespa_app" / "models").exists()
    again = mrse("init")
    assert again.returncode == 2 and "vespa_app: the file or folder exists already" in again.stderr
    lacks = mrse("validate")
    assert lacks.returncode == 2 and "mrse export" in lacks.stderr and "manifest.json" in lacks.stderr
    assert mrse("init", "shop").returncode == 0 and (empty / "shop" / "vespa_app" / "schemas" / "item.sd").is_file()
    assert mrse("size", "--items", "1M").returncode == 0


def test_extras_are_what_the_commands_say() -> None:
    """EXTRA_OF has the modules of the extras' distributions, no other, and no command needs what the base has."""
    extras = {name: {name_of(r) for r in wanted} for name, wanted in PROJECT["optional-dependencies"].items()}
    modules = importlib.metadata.packages_distributions()
    for module, extra in EXTRA_OF.items():
        assert extra in extras, f"{module}: there is no extra {extra}"
        distributions = {name_of(d) for d in modules.get(module, [])}
        assert not distributions or distributions & extras[extra], f"{module} is in none of {extra}'s distributions"
    for extra in ("train", "local", "web"):
        known = {name_of(d) for module, of in EXTRA_OF.items() if of == extra for d in modules.get(module, [])}
        assert extras[extra] <= known, f"EXTRA_OF lacks modules of {extras[extra] - known}"
    assert set(NEEDS) <= set(COMMANDS)
    assert {module for needed in NEEDS.values() for module in needed} <= set(EXTRA_OF)


def test_pages_name_extras_that_exist() -> None:
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        for named in re.findall(r"(?:mrse-vespa|'?\.)\[([a-z,]+)\]", page.read_text("utf-8")):
            assert set(named.split(",")) <= set(PROJECT["optional-dependencies"]), page.name
