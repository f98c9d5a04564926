"""The default package with stand-in models, copied for each test that changes it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.helpers.make_models import make_models

REPO = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Read only."""
    app = tmp_path_factory.mktemp("package") / "app"
    shutil.copytree(REPO / "vespa_app", app, ignore=shutil.ignore_patterns("models"))
    make_models(app / "models")
    return app


@pytest.fixture
def app(package: Path, tmp_path: Path) -> Path:
    """The test's own copy."""
    return Path(shutil.copytree(package, tmp_path / "app"))
