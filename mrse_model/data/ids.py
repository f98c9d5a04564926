"""Sets of ids that do not fit in memory: 64 bits of each one's hash, in a file that is gone at the end."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Iterator, Sequence
from hashlib import blake2b

SAMPLED = 100  # ids that are kept as such


def key_of(item_id: str) -> int:
    """The 64 bits of an id's hash that stand for it, as SQLite's signed integer."""
    return number(item_id.encode("utf-8", "surrogatepass"))


def number(content: bytes) -> int:
    """64 bits of the hash of a content, as SQLite's signed integer."""
    return int.from_bytes(blake2b(content, digest_size=8).digest(), "big", signed=True)


class Ids:
    """A set of ids on disk: whether one comes twice, and which of an index's are not among them. sample: some of them,
    drawn at random.
    """

    def __init__(self) -> None:
        self.sample: list[str] = []
        self._random, self._added = random.Random(0), 0
        self._db = sqlite3.connect("", isolation_level=None, check_same_thread=False)  # a file that is gone at the end
        self._db.execute("PRAGMA journal_mode = OFF")
        self._db.execute("PRAGMA synchronous = OFF")
        self._db.execute("CREATE TABLE seen(key INTEGER PRIMARY KEY, row INTEGER)")
        self._db.execute("BEGIN")

    def add(self, rows: Sequence[tuple[int, str]]) -> Iterator[tuple[int, str, int]]:
        """Adds (row, id) pairs; yields (row, id, row before) of the ids that were there already."""
        keyed = [(key_of(item_id), row, item_id) for row, item_id in rows]
        before = self._db.total_changes
        insert = "INSERT OR IGNORE INTO seen VALUES (?, ?)"
        self._db.executemany(insert, [(key, row) for key, row, _ in keyed])
        for _, _, item_id in keyed:
            self._added += 1
            if len(self.sample) < SAMPLED:
                self.sample.append(item_id)
            elif (place := self._random.randrange(self._added)) < SAMPLED:
                self.sample[place] = item_id
        if self._db.total_changes - before < len(keyed):
            for key, row, item_id in keyed:
                (first,) = self._db.execute("SELECT row FROM seen WHERE key = ?", (key,)).fetchone()
                if first != row:
                    yield row, item_id, first

    def row(self, item_id: str) -> int | None:
        """The row of an id, None for one that is not there."""
        found = self._db.execute("SELECT row FROM seen WHERE key = ?", (key_of(item_id),)).fetchone()
        return found[0] if found else None

    def __contains__(self, item_id: object) -> bool:
        return self.row(str(item_id)) is not None

    def __len__(self) -> int:
        return self._db.execute("SELECT count(*) FROM seen").fetchone()[0]

    def matched(self, others: Ids) -> Iterator[tuple[int, int]]:
        """(row, row among the others) of each id that both have."""
        theirs = iter(others._db.execute("SELECT key, row FROM seen ORDER BY key"))
        other = next(theirs, None)
        for key, row in self._db.execute("SELECT key, row FROM seen ORDER BY key"):
            while other is not None and other[0] < key:
                other = next(theirs, None)
            if other is not None and other[0] == key:
                yield row, other[1]

    def keys(self) -> Iterator[int]:
        """The keys in ascending order."""
        return (key for (key,) in self._db.execute("SELECT key FROM seen ORDER BY key"))
