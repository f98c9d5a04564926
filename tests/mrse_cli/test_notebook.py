"""The executed notebooks are those of their sources, and ran without an error."""

from __future__ import annotations

import json
from pathlib import Path

import jupytext
import pytest

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"
SOURCES = sorted(NOTEBOOKS.glob("*.py"))


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_the_executed_notebook_is_its_source(path: Path) -> None:
    source = jupytext.read(path)
    executed = json.loads(path.with_suffix(".ipynb").read_text("utf-8"))["cells"]
    assert ["".join(cell["source"]) for cell in executed] == [cell["source"] for cell in source["cells"]]
    code = [cell for cell in executed if cell["cell_type"] == "code"]
    again = f"run: jupytext --to ipynb {path.name}, then papermill {path.stem}.ipynb {path.stem}.ipynb"
    assert all(cell["execution_count"] for cell in code), again
    assert not [out for cell in code for out in cell["outputs"] if out["output_type"] == "error"]
    assert any("image/png" in out.get("data", {}) for cell in code for out in cell["outputs"]), "it has a plot"
