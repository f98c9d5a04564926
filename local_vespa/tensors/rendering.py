"""Tensors as JSON, in the forms of `format.tensors`."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np

from .hexadecimal import encode_hex
from .types import TensorType
from .values import Tensor

FORMATS = ("short", "long", "short-value", "long-value", "hex", "hex-value")


def render(tensor: Tensor, form: str = "short") -> Any:
    """JSON values (dicts, lists, floats) of a tensor in one of FORMATS, as JsonFormat.java writes them. A scalar
    type is rendered with its type too. Raises ValueError on an unknown form."""
    if form not in FORMATS:
        raise ValueError(f"Value '{form}' for format.tensors is not one of {', '.join(FORMATS)}")
    type = tensor.type
    key, value = "cells", None
    if not form.startswith("long"):
        key, value = _short(tensor, form.startswith("hex"))
    if value is None:
        value = _cells(tensor)
    return value if form.endswith("-value") else {"type": str(type), key: value}


def _short(tensor: Tensor, hexadecimal: bool) -> tuple[str, Any]:
    type = tensor.type
    write = _hex_writer(type) if hexadecimal else _list
    if not type.mapped:
        return "values", write(tensor.array) if type.dimensions else [_list(tensor.array)]
    if not type.indexed:
        if len(type.mapped) > 1:
            return "cells", None
        return "cells", {labels[0]: _list(cell) for labels, cell in tensor.blocks().items()}
    if len(type.mapped) == 1:
        return "blocks", {labels[0]: write(block) for labels, block in tensor.blocks().items()}
    return "blocks", [
        {"address": dict(zip((d.name for d in type.mapped), labels, strict=True)), "values": write(block)}
        for labels, block in tensor.blocks().items()
    ]


def _cells(tensor: Tensor) -> list[dict[str, Any]]:
    """Every cell with its address, in the order of Tensor.cellIterator."""
    cells = []
    for labels, block in tensor.blocks().items():
        for index in itertools.product(*(range(size) for size in tensor.type.shape)):
            mapped, indexed = iter(labels), iter(index)
            address = {d.name: next(mapped) if d.mapped else str(next(indexed)) for d in tensor.type.dimensions}
            cells.append({"address": address, "value": _list(block[index])})
    return cells


def _list(cells: np.ndarray) -> Any:
    """Nested lists of floats (or ints for int8); float32 keeps the double of the same value."""
    return cells.tolist()


def _hex_writer(type: TensorType) -> Callable[[np.ndarray], str]:
    return lambda cells: encode_hex(cells, type.cell)
