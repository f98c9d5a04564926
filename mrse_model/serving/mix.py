"""How the exported package mixes words and vectors: `mix_alpha.json`, a constant of the rank profile hybrid_linear.

Vespa reads no manifest. A constant's file is part of the package: what training chose is deployed with the model.
"""

from __future__ import annotations

import json
from pathlib import Path

FILE = "mix_alpha.json"
FUSION = -1.0  # instead of a weight: reciprocal rank fusion


def mix_constant(weight: float | None) -> str:
    """The constant as Vespa reads it, a tensor<float>(x[1]): the lexical weight from 0 to 1, or FUSION for None.

    >>> mix_constant(0.3)
    '{"cells": [{"address": {"x": "0"}, "value": 0.3}]}'
    """
    value = FUSION if weight is None else float(weight)
    return json.dumps({"cells": [{"address": {"x": "0"}, "value": value}]})


def write_mix(folder: Path, weight: float | None) -> None:
    """Writes FILE into the folder of an exported model."""
    (folder / FILE).write_text(mix_constant(weight) + "\n", "utf-8")


def read_mix(folder: Path) -> float | None:
    """The lexical weight of an exported model; None where it is reciprocal rank fusion."""
    (cell,) = json.loads((folder / FILE).read_text("utf-8"))["cells"]
    return None if cell["value"] < 0 else float(cell["value"])
