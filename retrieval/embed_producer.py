"""The Embed-Producer (paper, Online system): query texts to vectors, from a cache where it can.

Three places, in this order: an LRU in memory, a Parquet file of last week's queries computed ahead, the query
tower. Only queries without a history are cached: a personal vector is nobody else's.
"""

from __future__ import annotations

import unicodedata
from collections import Counter, OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mrse_model.atomic_file import atomic_file
from mrse_model.data.contract import SearchesFile
from mrse_model.data.table import Table
from mrse_model.errors import InputError
from mrse_model.serving.exported_model import ExportedModel, QueryHistory

VERSION_KEY = b"mrse.model_version"
DAY = 86400


def normalised(text: str) -> str:
    """The text as a cache key: NFKC, lower case, single spaces. The model's tokenizer sees no difference either.

    >>> normalised("  Red   DRESS ")
    'red dress'
    """
    return " ".join(unicodedata.normalize("NFKC", text).lower().split())


@dataclass
class CacheStats:
    """Where query vectors came from since the start. hit_rate: the paper's is 0.9 with a week computed ahead."""

    memory: int = 0
    precomputed: int = 0
    computed: int = 0
    personal: int = 0  # with a history: never cached

    @property
    def hit_rate(self) -> float:
        """Share of the queries without a history that did not need the model; 0 before the first."""
        hits = self.memory + self.precomputed
        return hits / (hits + self.computed) if hits + self.computed else 0.0


class EmbedProducer:
    """Query vectors of one model version. Not for several threads at once."""

    def __init__(self, model: ExportedModel, *, size: int = 100_000, precomputed: str | Path | None = None) -> None:
        """size: entries of the LRU (0.6 kB each). precomputed: a file of `precompute`; InputError if of another
        version.
        """
        self.model, self.stats = model, CacheStats()
        self._size = size
        self._recent: OrderedDict[str, np.ndarray] = OrderedDict()
        self._ahead: dict[str, int] = {}
        self._ahead_vectors = np.empty((0, model.manifest.dims), np.float32)
        if precomputed is not None:
            self._load(Path(precomputed))

    @property
    def model_version(self) -> str:
        return self.model.manifest.model_version

    def vectors(self, texts: Sequence[str], histories: Sequence[QueryHistory | None] | None = None) -> np.ndarray:
        """float32 [n, 128], unit norm."""
        out = np.empty((len(texts), self.model.manifest.dims), np.float32)
        compute: list[int] = []
        keys = [normalised(text) for text in texts]
        for row, key in enumerate(keys):
            if histories is not None and histories[row] is not None:
                self.stats.personal += 1
                compute.append(row)
            elif (recent := self._recent.get(key)) is not None:
                self.stats.memory += 1
                self._recent.move_to_end(key)
                out[row] = recent
            elif (place := self._ahead.get(key)) is not None:
                self.stats.precomputed += 1
                out[row] = self._ahead_vectors[place]
            else:
                self.stats.computed += 1
                compute.append(row)
        if compute:
            some = [histories[row] for row in compute] if histories is not None else None
            out[compute] = self.model.query_vectors([keys[row] for row in compute], some)
        for row in compute:
            if histories is None or histories[row] is None:
                self._remember(keys[row], out[row])
        return out

    def _remember(self, key: str, vector: np.ndarray) -> None:
        self._recent[key] = vector.copy()
        if len(self._recent) > self._size:
            self._recent.popitem(last=False)

    def _load(self, path: Path) -> None:
        table = Table(path)
        found = (table.schema.metadata or {}).get(VERSION_KEY, b"").decode()
        if found != self.model_version:
            raise table.error(
                f"query vectors of {found or 'an unknown model'}, and the model is {self.model_version}",
                field="model_version",
                fix="Compute them again: mrse query --precompute",
            )
        columns = pq.read_table(path)
        self._ahead = {query: row for row, query in enumerate(columns["query"].to_pylist())}
        vectors = columns["vector"].combine_chunks().flatten().to_numpy()
        self._ahead_vectors = vectors.reshape(-1, self.model.manifest.dims)


def precompute(
    model: ExportedModel, searches: str | Path, out: str | Path, *, days: float = 7, minimum: int = 1, batch: int = 1024
) -> int:
    """Writes the vectors of the last `days` of queries, the most frequent first; returns how many there are.

    minimum: searches that a query must have had. Parquet: `query` (normalised), `searches` int64, `vector`
    float32[128]; the schema's metadata names the model version. Raises InputError when the log is empty.
    """
    log = SearchesFile(searches)
    last = max((int(b.timestamps.max()) for b in log.batches() if len(b)), default=None)
    if last is None:
        raise InputError("it has no rows", file=searches, fix="Give a search log")
    counts: Counter[str] = Counter()
    for some in log.batches():
        recent = some.timestamps > last - days * DAY
        counts.update(key for text, new in zip(some.queries, recent, strict=True) if new and (key := normalised(text)))
    queries = [query for query, n in counts.most_common() if n >= minimum]
    dims = model.manifest.dims
    schema = pa.schema(
        [("query", pa.string()), ("searches", pa.int64()), ("vector", pa.list_(pa.float32(), dims))],
        {VERSION_KEY: model.manifest.model_version.encode()},
    )
    with atomic_file(out) as part, pq.ParquetWriter(part, schema) as writer:
        for start in range(0, len(queries), batch):
            texts = queries[start : start + batch]
            vectors = pa.FixedSizeListArray.from_arrays(pa.array(model.query_vectors(texts).ravel()), dims)
            writer.write_table(pa.table([texts, [counts[t] for t in texts], vectors], schema=schema))
    return len(queries)
