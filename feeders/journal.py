"""What has been acknowledged, so that a feed goes on where it stopped and a second one sends only what changed.

A SQLite file beside the input (or in --state): for each endpoint the id and the digest (content, features and model
version) of every acknowledged document. Memory stays flat; a crash loses at most the acknowledgements of the last
second, and sending those again does no harm.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from feeders.operations import DeliveryResult
from mrse_model.errors import InputError

FORMAT = 1
COMMIT_SECONDS = 1.0


class Journal:
    """The acknowledged documents of one target (endpoint and document type)."""

    def __init__(self, path: Path, target: str) -> None:
        self.path, self.target = path, target
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(path, isolation_level=None, timeout=0.5, check_same_thread=False)
            self._db.execute("PRAGMA locking_mode = EXCLUSIVE")
            self._db.execute("BEGIN EXCLUSIVE")
            version = self._db.execute("PRAGMA user_version").fetchone()[0]
            if version not in (0, FORMAT):
                raise InputError("the journal is of another version", file=path, fix="Remove it: all is fed again")
            self._db.execute(
                "CREATE TABLE IF NOT EXISTS fed"
                "(target TEXT, id TEXT, digest BLOB, PRIMARY KEY(target, id)) WITHOUT ROWID"
            )
            self._db.execute(f"PRAGMA user_version = {FORMAT}")
            self._db.execute("CREATE TEMP TABLE present(id TEXT PRIMARY KEY) WITHOUT ROWID")
        except (sqlite3.Error, OSError) as error:
            busy = "locked" in str(error)
            raise InputError(
                "another feed of this file is running" if busy else f"the journal cannot be written ({error})",
                file=path,
                fix="Wait for it" if busy else "Give a writable folder with --state, or remove the file",
            ) from None
        self._committed = time.monotonic()
        self._lock = threading.Lock()  # one thread encodes and asks, another hears the acknowledgements

    def __len__(self) -> int:
        return self._db.execute("SELECT count(*) FROM fed WHERE target = ?", (self.target,)).fetchone()[0]

    def digest(self, item_id: str) -> bytes | None:
        """The digest of the acknowledged document, None where there is none."""
        with self._lock:
            row = self._db.execute("SELECT digest FROM fed WHERE target = ? AND id = ?", (self.target, item_id))
            found = row.fetchone()
        return found[0] if found else None

    def acknowledge(self, result: DeliveryResult) -> None:
        """Notes a delivered put (or that a document is gone); of an operation without a digest nothing is noted."""
        operation = result.operation
        with self._lock:
            if operation.kind == "remove":
                self._db.execute("DELETE FROM fed WHERE target = ? AND id = ?", (self.target, operation.id))
            elif operation.digest:
                row = (self.target, operation.id, operation.digest)
                self._db.execute("INSERT OR REPLACE INTO fed VALUES (?, ?, ?)", row)
            if time.monotonic() - self._committed > COMMIT_SECONDS:
                self._db.execute("COMMIT")
                self._db.execute("BEGIN EXCLUSIVE")
                self._committed = time.monotonic()

    def sample(self, most: int) -> list[str]:
        """Some acknowledged ids, drawn at random."""
        rows = self._db.execute("SELECT id FROM fed WHERE target = ? ORDER BY random() LIMIT ?", (self.target, most))
        return [item_id for (item_id,) in rows]

    def keep_only(self, ids: Iterable[str]) -> int:
        """Forgets the documents that are not among these, and returns how many they were."""
        self._db.execute("CREATE TEMP TABLE held(id TEXT PRIMARY KEY) WITHOUT ROWID")
        self._db.executemany("INSERT OR IGNORE INTO held VALUES (?)", ((i,) for i in ids))
        lost = self._db.execute(
            "DELETE FROM fed WHERE target = ? AND id NOT IN (SELECT id FROM held)", (self.target,)
        ).rowcount
        self._db.execute("DROP TABLE held")
        return lost

    def mark_present(self, ids: Iterable[str]) -> None:
        """Notes that these ids are in the input file."""
        with self._lock:
            self._db.executemany("INSERT OR IGNORE INTO present VALUES (?)", ((i,) for i in ids))

    def missing(self) -> Iterator[str]:
        """The acknowledged ids that were not marked present in this run: items that left the catalogue."""
        rows = self._db.execute(
            "SELECT id FROM fed WHERE target = ? AND id NOT IN (SELECT id FROM present)", (self.target,)
        ).fetchall()
        return (row[0] for row in rows)

    def close(self) -> None:
        self._db.execute("COMMIT")
        self._db.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
