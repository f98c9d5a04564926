"""The Embed-Producer (paper, Online system): query texts to vectors, from a cache where it can.

Three steps, in this order: an LRU in memory, a file of queries computed ahead (`retrieval.warm`), the query tower. The
file is Arrow, memory-mapped: processes share its pages, and opening it reads none of them. Only queries without a
history are cached: a personal vector is of no use to anyone else. Query vectors are not kept as documents in Vespa: a
look-up there costs more than the vector.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from mrse_model.errors import InputError
from mrse_model.serving.exported_model import ExportedModel, QueryHistory
from retrieval.query_text import cleaned, key_of

VERSION_KEY = b"mrse.model_version"
BYTES = 64 * 2**20
OVERHEAD = 300  # bytes of an entry beside its vector and its key


@dataclass
class CacheStats:
    """Where query vectors came from since the start. bytes: of the LRU."""

    memory: int = 0
    precomputed: int = 0
    computed: int = 0
    personal: int = 0  # with a history: never cached
    bytes: int = 0

    @property
    def hit_rate(self) -> float:
        """Share of the queries without a history that did not need the model; 0 before the first."""
        hits = self.memory + self.precomputed
        return hits / (hits + self.computed) if hits + self.computed else 0.0


def key_hash(key: str) -> int:
    """64 bits of a query's key, the order of the file's rows."""
    return int.from_bytes(hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")


class WarmVectors:
    """A file of query vectors: Arrow IPC, rows ascending by `hash`."""

    def __init__(self, path: str | Path, version: str, dims: int) -> None:
        """Raises InputError where it is no such file, or one of another model version."""
        fix = "Compute them again: mrse warm"
        try:
            with pa.memory_map(str(path)) as source:
                table = pa.ipc.open_file(source).read_all()
        except FileNotFoundError:
            raise InputError("no such file", file=path, fix=fix) from None
        except (pa.ArrowInvalid, OSError) as error:
            raise InputError(f"not a file of query vectors: {error}", file=path, fix=fix) from None
        found = (table.schema.metadata or {}).get(VERSION_KEY, b"").decode()
        if found != version:
            problem = f"query vectors of {found or 'an unknown model'}, and the model is {version}"
            raise InputError(problem, file=path, field="model_version", fix=fix)
        table = table.combine_chunks() if table.column(0).num_chunks > 1 else table
        self._table = table  # keeps the mapping open
        self._hashes, self._vectors = np.empty(0, np.uint64), np.empty((0, dims), np.float32)
        if len(table):
            self._hashes = table["hash"].chunk(0).to_numpy()
            self._vectors = table["vector"].chunk(0).flatten().to_numpy().reshape(-1, dims)

    def __len__(self) -> int:
        return len(self._hashes)

    def get(self, key: str) -> np.ndarray | None:
        """float32 [d], a view of the file; None for a query that it does not hold."""
        wanted = np.uint64(key_hash(key))
        row = int(np.searchsorted(self._hashes, wanted))
        while row < len(self._hashes) and self._hashes[row] == wanted:
            if self._table["query"][row].as_py() == key:
                return self._vectors[row]
            row += 1
        return None

    def queries(self) -> list[tuple[str, int]]:
        """(query, searches) of all rows: what users search for, for suggestions."""
        return list(zip(self._table["query"].to_pylist(), self._table["searches"].to_pylist(), strict=True))


class EmbedProducer:
    """Query vectors of one model version. Thread-safe."""

    def __init__(self, model: ExportedModel, *, max_bytes: int = BYTES, precomputed: str | Path | None = None) -> None:
        """max_bytes: of the LRU (about 0.9 kB an entry). precomputed: a file of `mrse warm`; InputError if of another
        version.
        """
        self.model, self.stats, self.max_bytes = model, CacheStats(), max_bytes
        self._recent: OrderedDict[str, np.ndarray] = OrderedDict()
        self._lock = threading.Lock()
        self.ahead = WarmVectors(precomputed, self.model_version, model.manifest.dims) if precomputed else None

    @property
    def model_version(self) -> str:
        return self.model.manifest.model_version

    def vectors(self, texts: Sequence[str], histories: Sequence[QueryHistory | None] | None = None) -> np.ndarray:
        """float32 [n, 128], unit norm. Texts are cut and cleaned (`query_text`); raises InputError for a blank one."""
        out = np.empty((len(texts), self.model.manifest.dims), np.float32)
        keys = [key_of(cleaned(text)) for text in texts]
        compute: list[int] = []
        for row, key in enumerate(keys):
            known = None if histories is not None and histories[row] is not None else self._known(key)
            if known is None:
                compute.append(row)
            else:
                out[row] = known
        if compute:
            some = [histories[row] for row in compute] if histories is not None else None
            out[compute] = self.model.query_vectors([keys[row] for row in compute], some)
        with self._lock:
            for row in compute:
                if histories is not None and histories[row] is not None:
                    self.stats.personal += 1
                else:
                    self.stats.computed += 1
                    self._remember(keys[row], out[row])
        return out

    def _known(self, key: str) -> np.ndarray | None:
        with self._lock:
            recent = self._recent.get(key)
            if recent is not None:
                self.stats.memory += 1
                self._recent.move_to_end(key)
                return recent
            found = self.ahead.get(key) if self.ahead is not None else None
            self.stats.precomputed += found is not None
            return found

    def _remember(self, key: str, vector: np.ndarray) -> None:
        if key not in self._recent:
            self.stats.bytes += _size(key, vector)
        self._recent[key] = vector.copy()
        while self.stats.bytes > self.max_bytes:
            old, gone = self._recent.popitem(last=False)
            self.stats.bytes -= _size(old, gone)


def _size(key: str, vector: np.ndarray) -> int:
    return OVERHEAD + 4 * len(key) + vector.nbytes
