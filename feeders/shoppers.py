"""`shopper` documents from the search log: each user's last clicks, carts and orders as {item: Unix seconds}.

Weights and vectors are the reader's business (vespa_app/schemas/shopper.sd says why).
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import orjson

from feeders.journal import Journal
from feeders.operations import Operation
from mrse_model.data.contract import SearchesFile

KEPT = 20  # events of a kind; the paper keeps the last 20 clicks


class ShopperSource:
    """The last events of every user of a log, gathered on disk: memory does not grow with the log."""

    def __init__(self, searches: str | Path, kept: int = KEPT) -> None:
        """Reads and checks the whole log. Raises InputError."""
        self._db = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._db.execute("PRAGMA journal_mode = OFF")
        self._db.execute(
            "CREATE TABLE event(user TEXT, kind TEXT, item TEXT, at INTEGER, "
            "PRIMARY KEY(user, kind, item)) WITHOUT ROWID"
        )
        self._kept = kept
        for batch in SearchesFile(searches).batches():
            self._db.execute("BEGIN")
            for i, user in enumerate(batch.user_ids):
                events = (("clicks", batch.clicked[i]), ("carts", batch.carted[i]), ("orders", batch.ordered[i]))
                rows = [(user, kind, item, int(batch.timestamps[i])) for kind, items in events for item in items]
                if user.strip():
                    self._db.executemany(
                        "INSERT INTO event VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET at = max(at, excluded.at)",
                        rows,
                    )
            self._db.execute("COMMIT")

    def __len__(self) -> int:
        return self._db.execute("SELECT count(DISTINCT user) FROM event").fetchone()[0]

    def operations(self, journal: Journal, *, everything: bool = False) -> Iterator[Operation]:
        """Puts of the people whose events are not in the journal as they are now."""
        rows = self._db.execute("SELECT user, kind, item, at FROM event ORDER BY user, kind, at DESC, item")
        for user, events in groupby(rows, key=lambda row: row[0]):
            fields: dict[str, Any] = {"user_id": user, "updated": 0}
            for kind, some in groupby(events, key=lambda row: row[1]):
                cells = {item: at for _, _, item, at in list(some)[: self._kept]}
                fields[kind] = {"cells": cells}
                fields["updated"] = max(fields["updated"], *cells.values())
            digest = hashlib.blake2b(orjson.dumps(fields), digest_size=16).digest()
            if everything or journal.digest(user) != digest:
                yield Operation("put", "shopper", user, fields, digest)
