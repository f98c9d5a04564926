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

REPO = Path(__file__).parents[2]
SUITES = sorted((REPO / "vespa_app" / "tests" / "system-test").glob("*.json"))


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    work = tmp_path_factory.mktemp("engine")
    shutil.copytree(REPO / "vespa_app", work / "app", ignore=shutil.ignore_patterns("models"))
    make_models(work / "app" / "models")
    with running_engine(work / "data") as url:
        deploy(url, work / "app")
        yield url


@pytest.mark.parametrize("suite", SUITES, ids=lambda path: path.stem)
def test_suite_passes(engine: str, suite: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [vespacli.get_binary_path(), "test", str(suite), "--target", engine],
        env=os.environ | {"VESPA_CLI_HOME": str(tmp_path), "VESPA_CLI_API_KEY": ""},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_cli_sees_a_failure(engine: str, tmp_path: Path) -> None:
    """The CLI's exit code is what the test above rests on."""
    suite = tmp_path / "wrong.json"
    suite.write_text(
        '{"steps": [{"request": {"uri": "/document/v1/item/item/docid/none"}, "response": {"code": 200}}]}'
    )
    done = subprocess.run(
        [vespacli.get_binary_path(), "test", str(suite), "--target", engine],
        env=os.environ | {"VESPA_CLI_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0
