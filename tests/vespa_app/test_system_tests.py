"""The suites that ship with the package, run by the real `vespa` CLI against the embedded engine."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import vespacli

from local_vespa.testing import deploy, running_engine
from tests.helpers.make_models import make_models
from vespa_package.variants import build_variant

REPO = Path(__file__).parents[2]


@pytest.fixture(scope="module", params=[None, "int8", "compact"])
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """(URL, the suites of the package that runs there)"""
    work = tmp_path_factory.mktemp("engine")
    app = work / "app"
    shutil.copytree(REPO / "vespa_app", app, ignore=shutil.ignore_patterns("models"))
    make_models(app / "models")
    if request.param:
        app = build_variant(app, REPO / "variants", request.param, work / request.param)
    with running_engine(work / "data") as url:
        deploy(url, app)
        yield url, app / "tests" / "system-test"


def test_the_suites_pass(engine: tuple[str, Path], tmp_path: Path) -> None:
    url, suites = engine
    assert len(list(suites.glob("*.json"))) >= (2 if suites.parents[1].name == "compact" else 3)
    done = subprocess.run(
        [vespacli.get_binary_path(), "test", str(suites), "--target", url],
        env=os.environ | {"VESPA_CLI_HOME": str(tmp_path), "VESPA_CLI_API_KEY": ""},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_cli_sees_a_failure(engine: tuple[str, Path], tmp_path: Path) -> None:
    """The CLI's exit code is what the test above rests on."""
    suite = tmp_path / "wrong.json"
    suite.write_text(
        '{"steps": [{"request": {"uri": "/document/v1/item/item/docid/none"}, "response": {"code": 200}}]}'
    )
    done = subprocess.run(
        [vespacli.get_binary_path(), "test", str(suite), "--target", engine[0]],
        env=os.environ | {"VESPA_CLI_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0
