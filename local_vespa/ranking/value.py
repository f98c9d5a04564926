"""Values of expressions: tensors with a leading axis of candidates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..tensors import Tensor, TensorType


def string_number(text: str) -> float:
    """The number that a string stands for in rank expressions (a string attribute compared with "text")."""
    raise NotImplementedError


@dataclass(frozen=True, eq=False)
class Value:
    """One tensor for all candidates (first axis 1: shared) or one each (first axis n).

    `cells`: [1 | n, *one axis a dimension in the order of type.dimensions]; a mapped dimension's axis runs over `labels[name]`,
    the union of its labels over all candidates. `present`: bool [1 | n, *mapped axes], which blocks a candidate has;
    None where there is no mapped dimension. Absent blocks hold 0."""

    type: TensorType
    cells: np.ndarray
    labels: dict[str, tuple[str, ...]]
    present: np.ndarray | None = None

    @classmethod
    def scalar(cls, number: float | np.ndarray) -> Value:
        """A number for all candidates, or an array [n] with one each."""
        raise NotImplementedError

    @classmethod
    def shared(cls, tensor: Tensor) -> Value:
        """One tensor for all candidates: a query input or a constant."""
        raise NotImplementedError

    @classmethod
    def dense(cls, type: TensorType, rows: np.ndarray) -> Value:
        """A dense tensor each: [n, *type.shape]. Copy-free where the array already has the type's numpy type."""
        raise NotImplementedError

    @classmethod
    def each(cls, type: TensorType, tensors: Sequence[Tensor | None]) -> Value:
        """A tensor each; None is Vespa's empty one (zeros, or no blocks)."""
        raise NotImplementedError

    def scores(self, n: int) -> np.ndarray:
        """float64 [n] of a scalar value. Raises RankingError for a tensor."""
        raise NotImplementedError

    def tensor(self, row: int) -> Tensor:
        """The tensor of one candidate."""
        raise NotImplementedError
