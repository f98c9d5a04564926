"""Engines that run the small application of `tests.helpers.small_app`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from local_vespa.testing import deploy, running_engine
from tests.helpers.small_app import THINGS, package_files, put, zipped


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of an engine with the application and THINGS; tests only read from it."""
    with running_engine(tmp_path_factory.mktemp("shop")) as url:
        deploy(url, zipped(package_files()))
        for id, fields in THINGS.items():
            assert put(url, id, fields)[0] == 200
        yield url


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[str]:
    """The URL of an engine with the application and no documents, for one test."""
    with running_engine(tmp_path / "data") as url:
        deploy(url, zipped(package_files()))
        yield url
