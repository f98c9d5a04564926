"""How the exported package mixes words, vectors and popularity: `mix_alpha.json` and `mix_popularity.json`, constants
of the rank profile hybrid_linear.

Vespa reads no manifest. A constant's file is part of the package: what training chose is deployed with the model.
"""

from __future__ import annotations

import json
from pathlib import Path

ALPHA_FILE, POPULARITY_FILE = "mix_alpha.json", "mix_popularity.json"
FUSION = -1.0  # instead of a weight: reciprocal rank fusion


def mix_constant(value: float) -> str:
    """A constant as Vespa reads it, a tensor<float>(x[1]).

    >>> mix_constant(0.3)
    '{"cells": [{"address": {"x": "0"}, "value": 0.3}]}'
    """
    return json.dumps({"cells": [{"address": {"x": "0"}, "value": float(value)}]})


def write_mix(folder: Path, weight: float | None, popularity: float = 0.0) -> None:
    """Writes both files into the folder of an exported model. weight: of the words, from 0 to 1; None for reciprocal
    rank fusion. popularity: the weight of log(1 + popularity).
    """
    (folder / ALPHA_FILE).write_text(mix_constant(FUSION if weight is None else weight) + "\n", "utf-8")
    (folder / POPULARITY_FILE).write_text(mix_constant(popularity) + "\n", "utf-8")


def read_mix(folder: Path) -> tuple[float | None, float]:
    """The lexical weight of an exported model, None where it is reciprocal rank fusion, and that of popularity."""
    weight, popularity = _value(folder / ALPHA_FILE), _value(folder / POPULARITY_FILE)
    return None if weight < 0 else weight, popularity


def _value(file: Path) -> float:
    (cell,) = json.loads(file.read_text("utf-8"))["cells"]
    return float(cell["value"])
