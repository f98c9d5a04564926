"""Tensor values: blocks of dense cells under the labels of the mapped dimensions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .types import TensorType


def round_cells(cell: str, values: np.ndarray, *, nearest: bool = False) -> np.ndarray:
    """Values as cells of that type hold them, in the type's numpy type.

    bfloat16 stays in float32 with its low 16 bits zero: cut off, as Vespa's container does with documents and queries,
    or rounded to the nearest even as its content node does in expressions (`nearest`). int8 is cut towards zero."""
    if cell == "double":
        return np.asarray(values, np.float64)
    if cell == "int8":
        whole = np.trunc(np.nan_to_num(np.asarray(values, np.float64), posinf=127, neginf=-128))
        return np.clip(whole, -(2**62), 2**62).astype(np.int64).astype(np.int8)
    with np.errstate(over="ignore"):
        floats = np.asarray(values, np.float32)
    if cell == "float":
        return floats
    bits = floats.view(np.uint32)
    if nearest:
        bits = np.where(np.isnan(floats), bits, bits + (0x7FFF + ((bits >> 16) & 1)))
    return (bits & np.uint32(0xFFFF0000)).astype(np.uint32).view(np.float32)


@dataclass(frozen=True, eq=False)
class Tensor:
    """A value of a tensor type.

    `labels`: one tuple of labels (in the order of `type.mapped`) a block; a dense tensor and a scalar have the one
    block `()`. `cells`: [blocks, *type.shape] of `type.dtype`, already rounded to the cell type.
    """

    type: TensorType
    labels: tuple[tuple[str, ...], ...]
    cells: np.ndarray

    @classmethod
    def dense(cls, type: TensorType, cells: np.ndarray) -> Tensor:
        """A tensor without mapped dimensions from an array of `type.shape` (or flat), rounded to the cell type."""
        return cls(type, ((),), round_cells(type.cell, cells).reshape((1, *type.shape)))

    @classmethod
    def of_blocks(cls, type: TensorType, blocks: dict[tuple[str, ...], np.ndarray]) -> Tensor:
        """A tensor from its blocks, each of `type.shape` (or flat), rounded to the cell type."""
        cells = np.array(list(blocks.values()), np.float64).reshape((len(blocks), *type.shape))
        return cls(type, tuple(blocks), round_cells(type.cell, cells))

    @classmethod
    def empty(cls, type: TensorType) -> Tensor:
        """What Vespa takes for a missing value: zeros of a dense type, no blocks of a mapped or mixed one."""
        if type.mapped:
            return cls(type, (), np.zeros((0, *type.shape), type.dtype))
        return cls(type, ((),), np.zeros((1, *type.shape), type.dtype))

    @property
    def array(self) -> np.ndarray:
        """The cells of a dense tensor, of shape `type.shape`."""
        return self.cells[0]

    def blocks(self) -> dict[tuple[str, ...], np.ndarray]:
        """Each block under its labels."""
        return dict(zip(self.labels, self.cells, strict=True))

    def __eq__(self, other: object) -> bool:
        """The same type, the same labels in any order, the same cells (NaN equals NaN)."""
        if not isinstance(other, Tensor) or self.type != other.type or set(self.labels) != set(other.labels):
            return False
        mine, theirs = self.blocks(), other.blocks()
        return all(np.array_equal(mine[k], theirs[k], equal_nan=True) for k in mine)
