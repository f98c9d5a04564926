"""Lists of different lengths in two flat arrays, so that millions of them cost no Python object each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Ragged:
    """Lists of ints end to end: row i is values[start[i]:start[i + 1]]."""

    start: np.ndarray
    values: np.ndarray

    @classmethod
    def of(cls, lists: Sequence[Sequence[int]]) -> Ragged:
        start = np.zeros(len(lists) + 1, np.int64)
        np.cumsum([len(some) for some in lists], out=start[1:])
        values = np.fromiter((v for some in lists for v in some), np.int32, int(start[-1]))
        return cls(start, values)

    def __getitem__(self, row: int) -> np.ndarray:
        return self.values[self.start[row] : self.start[row + 1]]

    def __len__(self) -> int:
        return len(self.start) - 1

    def rows(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The values of these rows end to end, and for each the index in `rows` of its row."""
        low, sizes = self.start[rows], self.start[rows + 1] - self.start[rows]
        return self.values[np.repeat(low, sizes) + positions_within(sizes)], np.repeat(np.arange(len(rows)), sizes)

    def sample(self, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """One value of each row at random, -1 where a row has none."""
        low, high = self.start[rows], self.start[rows + 1]
        index = low + (rng.random(len(rows)) * (high - low)).astype(np.int64)
        return np.where(
            high > low, self.values[np.minimum(index, len(self.values) - 1)] if len(self.values) else -1, -1
        )

    def where(self, keep: np.ndarray) -> Ragged:
        """The same rows with those of their values v alone for which keep[v]."""
        kept = keep[self.values]
        return Ragged(np.concatenate([[0], np.cumsum(kept)])[self.start], self.values[kept])


def positions_within(sizes: np.ndarray) -> np.ndarray:
    """Of lists of these sizes end to end, each value's index in its own list: [2, 3] → 0 1 0 1 2."""
    return np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
