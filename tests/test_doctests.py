"""The examples in docstrings are true."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("mrse_model", "feeders", "retrieval", "local_vespa", "vespa_package")
MODULES = [
    module.name
    for package in PACKAGES
    for module in pkgutil.walk_packages([str(ROOT / package)], f"{package}.")
    if not module.ispkg and ">>> " in (ROOT / Path(*module.name.split("."))).with_suffix(".py").read_text("utf-8")
]


@pytest.mark.parametrize("module", MODULES)
def test_examples(module: str) -> None:
    found = doctest.testmod(importlib.import_module(module))
    assert found.attempted and not found.failed
