"""How popular each item is, as training knows it: by the catalogue's own column `popularity`, else by the events of the
search log before the split.

Training learns how much it counts in the hybrid (tuning), `mrse feed` writes the same number into the field of that
name, and the rank profile hybrid_linear adds log(1 + popularity), times a weight.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mrse_model.config import EVENTS
from mrse_model.data.contract import own_popularity
from mrse_model.data.example_files import JUDGED
from mrse_model.data.search_log import popularity_of, query_key

Source = Literal["column", "clicks"]


def prior(popularity: NDArray[np.float64]) -> NDArray[np.float32]:
    """log(1 + popularity), as hybrid_linear takes it: 0 for an item that has none (NaN), or less than none."""
    return np.log1p(np.maximum(np.nan_to_num(popularity, nan=0.0), 0)).astype(np.float32)


@dataclass(frozen=True)
class Popularity:
    """What a run knows of its items' popularity.

    values: float64 [N], of all that it knows. source: where it comes from. keys: the queries of the events
    (`query_key`). events: int32 [e, 3], which of them, the item's row and the kind; empty for a column.
    """

    values: NDArray[np.float64]
    source: Source
    keys: Sequence[str]
    events: NDArray[np.int32]
    weights: Mapping[str, float]

    @classmethod
    def read(cls, items: Path, count: int, examples: Path, weights: Mapping[str, float]) -> Popularity | None:
        """Of the `count` items of a catalogue and the training examples of a run (RUN/cache/examples), which have the
        events before the split, without bots; None where nothing says that an item is popular.

        Raises InputError for a column that is not of numbers.
        """
        if (column := own_popularity(items)) is not None:
            return cls(column, "column", (), np.zeros((0, 3), np.int32), weights) if prior(column).any() else None
        number: dict[str, int] = {}
        parts = [np.zeros((0, 3), np.int32)]
        for shard in sorted(examples.glob("train-*.parquet")):
            for batch in pq.ParquetFile(shard).iter_batches(65536, columns=["query", "target_item", "kind"]):
                queries = batch["query"].dictionary_encode()
                keys = map(query_key, queries.dictionary.to_pylist())
                codes = np.array([number.setdefault(key, len(number)) for key in keys])
                rows = np.stack([codes[queries.indices], batch["target_item"], batch["kind"]], 1).astype(np.int32)
                parts.append(rows[rows[:, 2] < JUDGED])
        events = np.concatenate(parts)
        values = _counted(events, count, weights)
        return cls(values, "clicks", list(number), events, weights) if values.any() else None

    def without(self, queries: Collection[str]) -> NDArray[np.float64]:
        """The popularity [N] without what these queries' own events say: they are what it is to predict."""
        if self.source == "column":
            return self.values
        asked = set(map(query_key, queries))
        left_out = np.array([key in asked for key in self.keys])
        return _counted(self.events[~left_out[self.events[:, 0]]], len(self.values), self.weights)


def _counted(events: NDArray[np.int32], items: int, weights: Mapping[str, float]) -> NDArray[np.float64]:
    kinds = len(EVENTS)
    counts = np.bincount(events[:, 1] * kinds + events[:, 2], minlength=items * kinds)
    return popularity_of(counts.reshape(items, kinds), weights)
