"""`mrse warm`: the vectors of the queries that users search for, computed ahead into a file; and how much it saves.

The paper caches a week of queries and finds 90 % of its traffic there: that is its traffic. The curve here is measured
on one's own log: warm on what came before, hit rate on what came after.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from mrse_model.atomic_file import atomic_file
from mrse_model.data.contract import SearchesFile
from mrse_model.errors import InputError
from mrse_model.serving.exported_model import ExportedModel
from retrieval.embed_producer import VERSION_KEY, key_hash
from retrieval.query_text import cleaned, key_of

DAY = 86400
HELD_OUT = 0.1  # share of the searches, the last ones, that the curve is measured on
THIN = 0.25  # a window with less than this share of the log's usual searches is said to be thin
SIZES = (100, 1_000, 10_000, 100_000, 1_000_000)
WINDOWS = (1, 7, 30, 90)  # days


@dataclass(frozen=True)
class Searches:
    """A log in time order: key [n] indexes texts, at [n] int64 Unix seconds."""

    texts: list[str]
    key: np.ndarray
    at: np.ndarray

    def __len__(self) -> int:
        return len(self.key)

    def counts(self, start: int, end: int) -> Counter[int]:
        """Searches of each text among rows start to end."""
        found, times = np.unique(self.key[start:end], return_counts=True)
        return Counter(dict(zip(found.tolist(), times.tolist(), strict=True)))


@dataclass(frozen=True)
class Window:
    """What was warmed: rows from `start` on. warning: "" where the log is as dense there as elsewhere."""

    start: int
    searches: int
    warning: str


@dataclass(frozen=True)
class CurvePoint:
    """hit_rate: share of the held-out searches whose query is among the `size` most frequent of the `days` before."""

    days: float
    size: int
    hit_rate: float


def read_log(file: str | Path) -> Searches:
    """The queries of a search log in time order; blank ones drop out. Raises InputError for a log without any."""
    index: dict[str, int] = {}
    keys: list[np.ndarray] = []
    times: list[np.ndarray] = []
    for batch in SearchesFile(file).batches():
        rows = np.full(len(batch), -1, np.int64)
        for i, query in enumerate(batch.queries):
            if not query.isspace() and query:
                try:
                    rows[i] = index.setdefault(key_of(cleaned(query)), len(index))
                except InputError:
                    continue
        keys.append(rows[rows >= 0])
        times.append(np.asarray(batch.timestamps)[rows >= 0])
    if not index:
        raise InputError("the log has no query", file=file, fix="Give a search log")
    key, at = np.concatenate(keys), np.concatenate(times)
    order = np.argsort(at, kind="stable")
    return Searches(list(index), key[order], at[order])


def window(log: Searches, *, last: int | None = None, days: float | None = None) -> Window:
    """The last so many searches, or those of the last so many days; all without either."""
    if (last is not None and last < 1) or (days is not None and not days > 0):
        raise InputError("give 1 or more", field="--last" if last is not None else "--days")
    start = 0
    if last is not None:
        start = max(0, len(log) - last)
    elif days is not None:
        start = int(np.searchsorted(log.at, log.at[-1] - days * DAY, side="right"))
    found = len(log) - start
    span = max((int(log.at[-1]) - int(log.at[0])) / DAY, 1e-9)
    warning = ""
    if days is not None and last is None and span > days:
        usual = len(log) / span * days
        if found < THIN * usual:
            enough = min(len(log), max(1000, round(usual)))
            warning = (
                f"the last {days:g} days hold {found:,} searches, {usual:,.0f} are usual in this log: "
                f"it thins out. Take --last {enough}"
            )
    return Window(start, found, warning)


def curve(log: Searches, sizes: Sequence[int] = SIZES, windows: Sequence[float] = WINDOWS) -> list[CurvePoint]:
    """The hit rate on the log's last tenth, by days of history before it and by queries kept."""
    split = int(len(log) * (1 - HELD_OUT))
    if split < 1 or split >= len(log):
        return []
    held_out = log.key[split:]
    span = (int(log.at[split - 1]) - int(log.at[0])) / DAY
    points = []
    for days in [*(d for d in windows if d < span), span]:
        start = int(np.searchsorted(log.at, log.at[split - 1] - days * DAY, side="left"))
        frequent = [key for key, _ in log.counts(start, split).most_common()]
        for size in [*(s for s in sizes if s < len(frequent)), len(frequent)]:
            rate = float(np.isin(held_out, frequent[:size]).mean())
            points.append(CurvePoint(round(days, 1), size, rate))
    return points


def warm(
    model: ExportedModel, log: Searches, start: int, out: str | Path, *, minimum: int = 1, batch: int = 1024
) -> int:
    """Writes the vectors of the queries from row `start` of the log on; returns how many there are.

    minimum: searches that a query must have had. Arrow IPC: `hash` uint64 ascending, `query` (its key), `searches`
    int64, `vector` float32[128]; the schema's metadata names the model version.
    """
    counts = log.counts(start, len(log))
    kept = sorted((key_hash(log.texts[key]), log.texts[key], n) for key, n in counts.items() if n >= minimum)
    dims = model.manifest.dims
    vectors = np.empty((len(kept), dims), np.float32)
    for first in range(0, len(kept), batch):
        some = kept[first : first + batch]
        vectors[first : first + len(some)] = model.query_vectors([text for _, text, _ in some])
    schema = pa.schema(
        [
            ("hash", pa.uint64()),
            ("query", pa.string()),
            ("searches", pa.int64()),
            ("vector", pa.list_(pa.float32(), dims)),
        ],
        {VERSION_KEY: model.manifest.model_version.encode()},
    )
    columns = [
        pa.array([h for h, _, _ in kept], pa.uint64()),
        pa.array([text for _, text, _ in kept], pa.string()),
        pa.array([n for _, _, n in kept], pa.int64()),
        pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), dims),
    ]
    with atomic_file(out) as part, pa.OSFile(str(part), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        writer.write_batch(pa.record_batch(columns, schema=schema))
    return len(kept)
