"""The queries that led to each item, by clicks or by judgment: the item side's history (paper, H_i), counted on disk.

A temporary SQLite table, because a log may name more (item, query) pairs than fit into memory.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path

from mrse_model.data.contract import SearchesFile, judged_positives
from mrse_model.data.search_log import query_key
from mrse_model.manifest import Manifest


def led_by(
    manifest: Manifest, searches: str | Path | None, judgments: str | Path | None, warn: Callable[[str], object]
) -> LedBy | None:
    """The look-up for this model, None without either file. Warns of what the model was trained with and is not given:
    the items then get the vectors of new ones, which rank worse (docs/quality.md).
    """
    seen = manifest.training.get("examples", {})
    clicks, judged = sum(seen.get(kind, 0) for kind in manifest.event_weights), seen.get("judged", 0)
    for option, file, count, what in (
        ("--searches", searches, clicks, "clicks"),
        ("--judgments", judgments, judged, "judgments"),
    ):
        if count and not file:
            warn(
                f"without {option}: the model was trained with {count:,} {what}, and finds items better that have them"
            )
    return LedBy(manifest, searches, judgments) if searches or judgments else None


class LedBy:
    """Look-up of the most frequent queries of an item, weighted by what they led to (click < cart < order).

    Queries for which the item is a judged positive come after those, as in training (mrse_model/data/search_log.py).
    """

    def __init__(
        self, manifest: Manifest, searches: str | Path | None = None, judgments: str | Path | None = None
    ) -> None:
        self._limit = manifest.item_history_queries
        self._db = sqlite3.connect(
            "", isolation_level=None, check_same_thread=False
        )  # "": a file that vanishes on close
        self._db.execute("PRAGMA journal_mode = OFF")
        self._db.execute("CREATE TABLE led(item TEXT, query TEXT, n REAL, PRIMARY KEY(item, query)) WITHOUT ROWID")
        weights = manifest.event_weights
        for batch in SearchesFile(searches).batches() if searches else ():
            rows = []
            for i, query in enumerate(batch.queries):
                events = (("click", batch.clicked[i]), ("cart", batch.carted[i]), ("order", batch.ordered[i]))
                rows += [(item, query, weights.get(kind, 1.0)) for kind, items in events for item in items]
            self._add(rows)
        for pairs in judged_positives(judgments) if judgments else ():
            self._add([(item, query, 0.0) for query, item in pairs])

    def _add(self, rows: Sequence[tuple[str, str, float]]) -> None:
        add = "INSERT INTO led VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET n = n + excluded.n"
        self._db.execute("BEGIN")
        self._db.executemany(add, ((item, key, n) for item, query, n in rows if (key := query_key(query))))
        self._db.execute("COMMIT")

    def queries(self, item_ids: Sequence[str]) -> list[list[str]]:
        """For each item its queries, the most frequent first, as many as the model takes."""
        best = "SELECT query FROM led WHERE item = ? ORDER BY n DESC, query LIMIT ?"
        return [[q for (q,) in self._db.execute(best, (item, self._limit))] for item in item_ids]
