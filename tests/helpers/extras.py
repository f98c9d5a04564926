"""What comes with an extra of the package that `make setup` leaves out."""

from __future__ import annotations

import importlib
import os
from typing import Any

import pytest


def extra(module: str) -> Any:
    """The module, or the test is skipped; with CI set it fails instead."""
    return importlib.import_module(module) if os.environ.get("CI") else pytest.importorskip(module)
