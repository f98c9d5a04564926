"""Values of expressions: tensors with a leading axis of candidates."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..tensors import DOUBLE, Tensor, TensorType
from .ast import RankingError


def string_number(text: str) -> float:
    """The number that a string stands for in rank expressions (a string attribute compared with "text"): equal for
    equal strings only; not Vespa's own number."""
    return float(int.from_bytes(hashlib.blake2b(text.encode(), digest_size=6).digest(), "big"))


@dataclass(frozen=True, eq=False)
class Value:
    """One tensor for all candidates (first axis 1: shared) or one each (first axis n).

    `cells`: [1 | n, *one axis a dimension in the order of type.dimensions]; a mapped dimension's axis runs over
    `labels[name]`, the union of its labels over all candidates. `present`: bool [1 | n, *mapped axes], which blocks
    a candidate has; None where there is no mapped dimension. Absent blocks hold 0."""

    type: TensorType
    cells: np.ndarray
    labels: dict[str, tuple[str, ...]]
    present: np.ndarray | None = None

    @classmethod
    def scalar(cls, number: float | np.ndarray) -> Value:
        """A number for all candidates, or an array [n] with one each."""
        return cls(DOUBLE, np.atleast_1d(np.asarray(number, np.float64)), {})

    @classmethod
    def shared(cls, tensor: Tensor) -> Value:
        """One tensor for all candidates: a query input or a constant."""
        if tensor.type.mapped:
            return cls.each(tensor.type, [tensor])
        return cls(tensor.type, tensor.cells, {})

    @classmethod
    def dense(cls, type: TensorType, rows: np.ndarray) -> Value:
        """A dense tensor each: [n, *type.shape]. Copy-free where the array already has the type's numpy type."""
        return cls(type, np.asarray(rows, type.dtype), {})

    @classmethod
    def each(cls, type: TensorType, tensors: Sequence[Tensor | None]) -> Value:
        """A tensor each; None is Vespa's empty one (zeros, or no blocks)."""
        n = len(tensors)
        if not type.mapped:
            cells = np.zeros((n, *type.shape), type.dtype)
            for i, tensor in enumerate(tensors):
                if tensor is not None:
                    cells[i] = tensor.array
            return cls(type, cells, {})
        index: list[dict[str, int]] = [{} for _ in type.mapped]
        for tensor in tensors:
            for block in tensor.labels if tensor is not None else ():
                for known, label in zip(index, block, strict=True):
                    known.setdefault(label, len(known))
        sizes = tuple(len(known) for known in index)
        blocks = np.zeros((n, *sizes, *type.shape), type.dtype)
        present = np.zeros((n, *sizes), bool)
        for i, tensor in enumerate(tensors):
            for block, cells in zip(tensor.labels, tensor.cells, strict=True) if tensor is not None else ():
                at = (i, *(known[label] for known, label in zip(index, block, strict=True)))
                blocks[at], present[at] = cells, True
        labels = {d.name: tuple(known) for d, known in zip(type.mapped, index, strict=True)}
        order = [d.name for d in type.mapped] + [d.name for d in type.indexed]
        axes = [0, *(1 + order.index(d.name) for d in type.dimensions)]
        return cls(type, blocks.transpose(axes), labels, present)

    @property
    def n(self) -> int:
        """1 for a value that all candidates share, else their number."""
        return len(self.cells)

    def mask(self) -> np.ndarray:
        """bool, `present` with an axis of 1 for each indexed dimension, so that it broadcasts to the cells."""
        assert self.present is not None
        shape, at = [self.present.shape[0]], 1
        for d in self.type.dimensions:
            if d.mapped:
                shape.append(self.present.shape[at])
                at += 1
            else:
                shape.append(1)
        return self.present.reshape(shape)

    def scores(self, n: int) -> np.ndarray:
        """float64 [n] of a scalar value. Raises RankingError for a tensor."""
        if not self.type.is_scalar:
            raise RankingError(f"expected a number, but the expression gives {self.type}")
        numbers = self.cells.astype(np.float64, copy=False)
        return numbers if len(numbers) == n else np.broadcast_to(numbers, (n,))

    def tensor(self, row: int) -> Tensor:
        """The tensor of one candidate."""
        row = row if self.n > 1 else 0
        if self.present is None:
            return Tensor(self.type, ((),), np.asarray(self.cells[row], self.type.dtype)[None])
        order = [d.name for d in self.type.mapped] + [d.name for d in self.type.indexed]
        names = list(self.type.names)
        cells = self.cells[row].transpose([names.index(name) for name in order])
        present = self.present[row if len(self.present) > 1 else 0]
        indices = list(zip(*np.nonzero(present), strict=True))
        known = [self.labels[d.name] for d in self.type.mapped]
        labels = tuple(tuple(k[i] for k, i in zip(known, index, strict=True)) for index in indices)
        blocks = np.array([cells[index] for index in indices], self.type.dtype).reshape(len(indices), *self.type.shape)
        return Tensor(self.type, labels, blocks)
