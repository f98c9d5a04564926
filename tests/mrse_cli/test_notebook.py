"""The executed notebook is that of its source, and ran without an error."""

from __future__ import annotations

import json
from pathlib import Path

import jupytext

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"


def test_the_executed_tour_is_its_source() -> None:
    source = jupytext.read(NOTEBOOKS / "tour.py")
    executed = json.loads((NOTEBOOKS / "tour.ipynb").read_text("utf-8"))["cells"]
    assert ["".join(cell["source"]) for cell in executed] == [cell["source"] for cell in source["cells"]]
    code = [cell for cell in executed if cell["cell_type"] == "code"]
    assert all(cell["execution_count"] for cell in code), "run: papermill notebooks/tour.ipynb notebooks/tour.ipynb"
    assert not [out for cell in code for out in cell["outputs"] if out["output_type"] == "error"]
