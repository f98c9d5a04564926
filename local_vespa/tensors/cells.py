"""Cells under addresses, to a tensor."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from .types import Dimension, TensorError, TensorType
from .values import Tensor


def read_address(dimensions: tuple[Dimension, ...], address: Any, type: TensorType) -> tuple[str, ...]:
    """Labels in the order of the dimensions from {"dimension": "label"}. Raises TensorError."""
    if not isinstance(address, dict):
        raise TensorError("Expected an 'address' object")
    names = {d.name for d in dimensions}
    for name in address:
        if name not in names:
            raise TensorError(f"Dimension '{name}' is not in {type}")
    missing = [d.name for d in dimensions if d.name not in address]
    if missing:
        raise TensorError(f"Missing a label for dimension '{missing[0]}' for {type}")
    return tuple(str(address[d.name]) for d in dimensions)


def read_index(dimension: Dimension, label: str, type: TensorType) -> int:
    """The index that a label of an indexed dimension says. Raises TensorError outside its bounds."""
    try:
        index = int(label)
    except ValueError:
        raise TensorError(f"Dimension '{dimension.name}' of {type} is indexed, but got the label '{label}'") from None
    if not 0 <= index < (dimension.size or 0):
        raise TensorError(f"Dimension '{dimension.name}' has label '{label}' but type is {type}")
    return index


def put_cells(type: TensorType, cells: Iterable[tuple[tuple[str, ...], float]]) -> Tensor:
    """A tensor from cells; what they leave out of a block is 0."""
    blocks: dict[tuple[str, ...], np.ndarray] = {} if type.mapped else {(): np.zeros(type.shape)}
    for address, number in cells:
        labels = tuple(a for a, d in zip(address, type.dimensions, strict=True) if d.mapped)
        index = tuple(read_index(d, a, type) for a, d in zip(address, type.dimensions, strict=True) if not d.mapped)
        if labels not in blocks:
            blocks[labels] = np.zeros(type.shape)
        blocks[labels][index] = number
    return Tensor.of_blocks(type, blocks)
