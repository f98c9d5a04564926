"""The vectors of clicked items, kept in memory: they are most of what a personal search reads.

Keyed by model version, so that a new model's vectors never meet an old one's; bounded by bytes; an entry is read again
after ten minutes, because an item's vectors change with its queries, and an absent item after one.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

BYTES = 64 * 2**20
PRESENT, ABSENT = 600.0, 60.0  # seconds that an entry lives
OVERHEAD = 400  # bytes of an entry beside its vectors and its id


@dataclass(frozen=True)
class ItemVector:
    """float32 [d] each; image_embedding is NaN where there is no image."""

    embedding: np.ndarray
    image_embedding: np.ndarray
    text_feature: np.ndarray

    @property
    def nbytes(self) -> int:
        return self.embedding.nbytes + self.image_embedding.nbytes + self.text_feature.nbytes


@dataclass
class CacheCount:
    """hits, misses: look-ups. bytes: in use."""

    hits: int = 0
    misses: int = 0
    bytes: int = 0


class ItemVectorCache:
    """An LRU of vectors by (version, item id); None stands for an item that the index does not hold. Thread-safe."""

    def __init__(self, max_bytes: int = BYTES, clock: Callable[[], float] = time.monotonic) -> None:
        self.max_bytes, self.count = max_bytes, CacheCount()
        self._clock, self._lock = clock, threading.Lock()
        self._entries: OrderedDict[tuple[str, str], tuple[float, ItemVector | None]] = OrderedDict()

    def get(self, version: str, item_ids: Iterable[str]) -> dict[str, ItemVector | None]:
        """Those of the items that are known, with None for one known to be absent."""
        found: dict[str, ItemVector | None] = {}
        now = self._clock()
        with self._lock:
            for item_id in item_ids:
                entry = self._entries.get((version, item_id))
                if entry is None or entry[0] < now:
                    self.count.misses += 1
                    continue
                self.count.hits += 1
                self._entries.move_to_end((version, item_id))
                found[item_id] = entry[1]
        return found

    def put(self, version: str, vectors: dict[str, ItemVector | None]) -> None:
        now = self._clock()
        with self._lock:
            for item_id, vector in vectors.items():
                self._drop((version, item_id))
                self._entries[version, item_id] = (now + (ABSENT if vector is None else PRESENT), vector)
                self.count.bytes += _size(item_id, vector)
            while self.count.bytes > self.max_bytes and self._entries:
                self._drop(next(iter(self._entries)))

    def _drop(self, key: tuple[str, str]) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self.count.bytes -= _size(key[1], entry[1])


def _size(item_id: str, vector: ItemVector | None) -> int:
    return OVERHEAD + len(item_id) + (vector.nbytes if vector is not None else 0)
