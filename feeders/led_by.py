"""The queries that led to each item, counted from the search log on disk: the item side's history (paper, H_i).

A temporary SQLite table, because a log may name more (item, query) pairs than fit into memory.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path

from mrse_model.data.contract import SearchesFile
from mrse_model.manifest import Manifest


class LedBy:
    """Look-up of the most frequent queries of an item, weighted by what they led to (click < cart < order)."""

    def __init__(self, searches: str | Path, manifest: Manifest) -> None:
        self._limit = manifest.item_history_queries
        self._db = sqlite3.connect(
            "", isolation_level=None, check_same_thread=False
        )  # "": a file that vanishes on close
        self._db.execute("PRAGMA journal_mode = OFF")
        self._db.execute("CREATE TABLE led(item TEXT, query TEXT, n REAL, PRIMARY KEY(item, query)) WITHOUT ROWID")
        weights = manifest.event_weights
        for batch in SearchesFile(searches).batches():
            self._db.execute("BEGIN")
            for i, query in enumerate(batch.queries):
                events = (("click", batch.clicked[i]), ("cart", batch.carted[i]), ("order", batch.ordered[i]))
                rows = [(item, query.strip(), weights.get(kind, 1.0)) for kind, items in events for item in items]
                if query.strip():
                    self._db.executemany(
                        "INSERT INTO led VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET n = n + excluded.n", rows
                    )
            self._db.execute("COMMIT")

    def queries(self, item_ids: Sequence[str]) -> list[list[str]]:
        """For each item its queries, the most frequent first, as many as the model takes."""
        best = "SELECT query FROM led WHERE item = ? ORDER BY n DESC, query LIMIT ?"
        return [[q for (q,) in self._db.execute(best, (item, self._limit))] for item in item_ids]
