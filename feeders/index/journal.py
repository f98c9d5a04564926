"""What an index holds as far as its feeds know, so that a feed resumes where it stopped and sends only what changed.

One SQLite file an index (beside the application package, or --state), whatever the input files are called. Of each
acknowledged document it has a key (64 bits of its id's hash), two digests, and which input they came from.
Acknowledgements are appended to a log, 16 in a transaction, and merged into the table in the order of its keys when
the journal is closed, or opened after a kill: some hundred bytes of writes an item, and no memory that grows. A kill
loses at most 16 acknowledgements; to send those again does no harm.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from feeders.operations import DeliveryResult, ItemDigest
from mrse_model.data.ids import Ids, key_of
from mrse_model.errors import InputError

FORMAT = 2
COMMIT_EVERY = 16  # acknowledgements
BUSY_SECONDS = 2.0  # a batch of `mrse watch` takes less
LOOPBACK = {"localhost", "127.0.0.1", "::1", "0.0.0.0"}
PORTS = {"http": 80, "https": 443}
SCHEMA = """
CREATE TABLE IF NOT EXISTS target(n INTEGER PRIMARY KEY, name TEXT UNIQUE);
CREATE TABLE IF NOT EXISTS source(n INTEGER PRIMARY KEY, written INTEGER, name TEXT, UNIQUE(written, name));
CREATE TABLE IF NOT EXISTS fed(target INTEGER, key INTEGER, columns INTEGER, inputs INTEGER, vectors INTEGER,
    source INTEGER, PRIMARY KEY(target, key)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS log(n INTEGER PRIMARY KEY, target INTEGER, key INTEGER, columns INTEGER, inputs INTEGER,
    vectors INTEGER, source INTEGER);
"""


@dataclass(frozen=True, slots=True)
class Known:
    """What the journal has of a document. written: when the input was that it came from, nanoseconds since 1970."""

    digest: ItemDigest
    written: int
    source: str


def index_name(end_point: str, doctype: str) -> str:
    """One name for an index, however its address is spelled.

    >>> index_name("http://LOCALHOST:8080/", "item") == index_name("http://127.0.0.1:8080", "item")
    True
    """
    parts = urlsplit(end_point)
    host = (parts.hostname or "").rstrip(".")
    host = "localhost" if host in LOOPBACK else host
    return f"{host}:{parts.port or PORTS.get(parts.scheme, 0)}{parts.path.rstrip('/')} {doctype}"


def journal_file(app: str | Path, what: str = "") -> Path:
    """The journal of the index that a package is deployed to: beside the package, whatever the input is called.

    >>> journal_file("/shop/vespa_app", "updates").name
    'vespa_app.feed.updates.sqlite'
    """
    folder = Path(app).resolve()
    return folder.with_name(f"{folder.name}.feed{'.' + what if what else ''}.sqlite")


class JournalBusy(InputError):
    """Another process has the journal open."""


class Journal:
    """The acknowledged documents of one index (`index_name`); one process at a time has it open. keep_recent:
    acknowledgements are merged each time that so many were logged, and asked for meanwhile (`mrse watch`).
    """

    def __init__(self, path: Path, target: str, *, keep_recent: int = 0) -> None:
        self.path, self.target = path, target
        self._lock = threading.RLock()  # one thread encodes and asks, others hear the acknowledgements
        self._recent: dict[int, Known | None] = {}
        self._keep_recent, self._logged, self._uncommitted = keep_recent, 0, 0
        self._source, self._read = 0, (0, "")  # the input: its number, when it was written and its name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(path, isolation_level=None, timeout=BUSY_SECONDS, check_same_thread=False)
            self._db.execute("PRAGMA locking_mode = EXCLUSIVE")
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = NORMAL")
            self._db.execute("BEGIN EXCLUSIVE")
            version = self._db.execute("PRAGMA user_version").fetchone()[0]
            if version not in (0, FORMAT):
                fix = "Remove it: what the index holds is then updated once, not replaced"
                raise InputError("another version of mrse wrote the journal", file=path, fix=fix)
            for statement in SCHEMA.split(";"):
                self._db.execute(statement)
            self._db.execute(f"PRAGMA user_version = {FORMAT}")
            self._db.execute("INSERT OR IGNORE INTO target(name) VALUES (?)", (target,))
            (self._target,) = self._db.execute("SELECT n FROM target WHERE name = ?", (target,)).fetchone()
            self._merge()
            self._db.execute("COMMIT")
            self._db.execute("BEGIN")
        except (sqlite3.Error, OSError) as error:
            raise self._unwritten(error) from None

    @classmethod
    def when_free(
        cls, path: Path, target: str, say: Callable[[str], object], stop: threading.Event, *, keep_recent: int = 0
    ) -> Journal | None:
        """Opens it as soon as no other process has it; None if `stop` is set first. say: is told once why it waits."""
        told = False
        while True:
            try:
                return cls(path, target, keep_recent=keep_recent)
            except JournalBusy as busy:
                if not told:
                    say(f"waiting: {busy.problem}")
                told = True
                if stop.wait(1.0):
                    return None

    def _unwritten(self, error: Exception) -> InputError:
        if "locked" in str(error):
            problem = "another feed, watch or migration is writing to this index"
            return JournalBusy(problem, file=self.path, fix="Wait for it, or end it")
        fix = "Free some space, give a writable folder with --state, or remove the file"
        return InputError(f"the journal cannot be written ({error})", file=self.path, fix=fix)

    def __len__(self) -> int:
        with self._lock:
            return self._db.execute("SELECT count(*) FROM fed WHERE target = ?", (self._target,)).fetchone()[0]

    def read_from(self, name: str, written: int) -> None:
        """Says which input the next acknowledgements come from. written: when it was, nanoseconds since 1970."""
        with self._lock:
            self._db.execute("INSERT OR IGNORE INTO source(written, name) VALUES (?, ?)", (written, name))
            found = self._db.execute("SELECT n FROM source WHERE written = ? AND name = ?", (written, name))
            (self._source,) = found.fetchone()
            self._read = (written, name)

    def known(self, ids: Iterable[str]) -> list[Known | None]:
        """What it has of these documents, None where it has nothing."""
        with self._lock:
            return [self._known(key) for key in map(key_of, ids)]

    def _known(self, key: int) -> Known | None:
        if key in self._recent:
            return self._recent[key]
        row = self._db.execute(
            "SELECT columns, inputs, vectors, ifnull(written, 0), ifnull(name, '') FROM fed "
            "LEFT JOIN source ON n = source WHERE target = ? AND key = ?",
            (self._target, key),
        ).fetchone()
        return Known(ItemDigest(*row[:3]), *row[3:]) if row else None

    def acknowledge(self, result: DeliveryResult) -> None:
        """Notes a delivered operation; of one without a digest, nothing, unless the document is gone. Raises InputError
        where it cannot be written.
        """
        try:
            self._acknowledge(result)
        except sqlite3.Error as error:
            raise self._unwritten(error) from None

    def _acknowledge(self, result: DeliveryResult) -> None:
        operation = result.operation
        if operation.digest is None and operation.kind != "remove":
            return
        digest, key = operation.digest, key_of(operation.id)
        columns, inputs, vectors = (digest.columns, digest.inputs, digest.vectors) if digest else (None, None, None)
        with self._lock:
            row = (self._target, key, columns, inputs, vectors, self._source)
            self._db.execute(
                "INSERT INTO log(target, key, columns, inputs, vectors, source) VALUES (?, ?, ?, ?, ?, ?)", row
            )
            if self._keep_recent:
                self._recent[key] = Known(digest, *self._read) if digest else None
            self._logged += 1
            self._uncommitted += 1
            if self._uncommitted >= COMMIT_EVERY:
                self.commit()
            if self._keep_recent and self._logged >= self._keep_recent:
                self._merge()
                self.commit()

    def commit(self) -> None:
        """Makes durable what was noted so far."""
        with self._lock:
            self._db.execute("COMMIT")
            self._db.execute("BEGIN")
            self._uncommitted = 0

    def keep_only(self, ids: Iterable[str]) -> int:
        """Forgets the documents that are not among these, and returns how many they were."""
        with self._lock:
            self._db.execute("CREATE TEMP TABLE held(key INTEGER PRIMARY KEY)")
            self._db.executemany("INSERT OR IGNORE INTO held VALUES (?)", ((key_of(i),) for i in ids))
            lost = self._db.execute(
                "DELETE FROM fed WHERE target = ? AND key NOT IN (SELECT key FROM held)", (self._target,)
            ).rowcount
            self._db.execute("DROP TABLE held")
            self.commit()
        return lost

    def forget_target(self, target: str) -> None:
        """Forgets another index's documents (the second set of vectors of a migration)."""
        with self._lock:
            self._db.execute("DELETE FROM fed WHERE target = (SELECT n FROM target WHERE name = ?)", (target,))
            self.commit()

    def missing(self, ids: Ids) -> int:
        """How many acknowledged documents are not among these ids."""
        with self._lock:
            mine = self._db.execute("SELECT key FROM fed WHERE target = ? ORDER BY key", (self._target,))
            theirs, other, missing = ids.keys(), None, 0
            for (key,) in mine:
                while other is None or other < key:
                    other = next(theirs, 1 << 63)
                missing += other != key
        return missing

    def close(self) -> None:
        """Merges the log and writes all down. Raises InputError where that cannot be."""
        with self._lock:
            try:
                self._merge()
                self._db.execute("COMMIT")
            except sqlite3.Error as error:
                raise self._unwritten(error) from None
            finally:
                self._db.close()

    def _merge(self) -> None:
        """The log into the table, the last word of each document, in the order of the keys: pages are written once."""
        last = "SELECT max(n) FROM log GROUP BY target, key"
        self._db.execute(
            f"DELETE FROM fed WHERE (target, key) IN (SELECT target, key FROM log WHERE n IN ({last}) "
            "AND columns IS NULL)"
        )
        self._db.execute(
            "INSERT OR REPLACE INTO fed SELECT target, key, columns, inputs, vectors, source FROM log "
            f"WHERE n IN ({last}) AND columns IS NOT NULL ORDER BY target, key"
        )
        self._db.execute("DELETE FROM log")
        self._logged = 0
        self._recent.clear()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
