"""Tensor values: blocks of dense cells under the labels of the mapped dimensions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .types import TensorType


def round_cells(cell: str, values: np.ndarray) -> np.ndarray:
    """Values as cells of that type hold them (bfloat16: nearest even, in float32; int8: cut towards zero)."""
    raise NotImplementedError


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
        raise NotImplementedError

    @classmethod
    def empty(cls, type: TensorType) -> Tensor:
        """What Vespa takes for a missing value: zeros of a dense type, no blocks of a mapped or mixed one."""
        raise NotImplementedError

    @property
    def array(self) -> np.ndarray:
        """The cells of a dense tensor, of shape `type.shape`."""
        return self.cells[0]

    def blocks(self) -> dict[tuple[str, ...], np.ndarray]:
        """Each block under its labels."""
        return dict(zip(self.labels, self.cells, strict=True))

    def __eq__(self, other: object) -> bool:
        raise NotImplementedError
