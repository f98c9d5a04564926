"""The truth: documents and application packages in one SQLite file.

WAL with synchronous=FULL: a commit is on the disk when it returns, so what was acknowledged survives a kill and a power
cut. One writer; readers have their own connections and see the last commit.
"""

from __future__ import annotations

import fcntl
import sqlite3
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

_TABLES = """
CREATE TABLE IF NOT EXISTS document(
  seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, schema TEXT NOT NULL, fields BLOB NOT NULL, cells
  BLOB NOT NULL); CREATE TABLE IF NOT EXISTS generation(
  id INTEGER PRIMARY KEY AUTOINCREMENT, package BLOB NOT NULL, time REAL NOT NULL, active INTEGER NOT NULL DEFAULT 0);
"""
FILE, FORMAT = "local_vespa.sqlite", 1
KEPT_PACKAGES = 5  # prepared, but never activated

Row = tuple[str, str, bytes, bytes]
"""id, schema, fields, cells"""


def is_full(error: BaseException) -> bool:
    """Whether SQLite failed for want of room: SQLITE_FULL, or a write that the file system refused."""
    full = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_SHMSIZE)
    return isinstance(error, sqlite3.Error) and getattr(error, "sqlite_errorcode", None) in full


@contextmanager
def readable(folder: Path) -> Iterator[None]:
    """A block that reads the store at start. Raises RuntimeError with advice where what is stored is damaged: the
    store is the one truth, so nothing can be rebuilt, and nothing is thrown away."""
    try:
        yield
    except (sqlite3.DatabaseError, ValueError, LookupError) as e:
        code = getattr(e, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF
        if code not in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            raise
        raise RuntimeError(
            f"{folder / FILE} is damaged ({e}). It is left as it is. Put a copy of the folder back; or save what can "
            f"be saved: sqlite3 {folder / FILE} .recover; or start with another data folder, deploy and feed again"
        ) from e


class Store:
    """Documents by id, in a folder that no other process may use meanwhile (RuntimeError)."""

    def __init__(self, folder: Path) -> None:
        folder = folder.resolve()  # each thread opens the file for itself, whatever the working directory is by then
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / FILE
        self._lock = (folder / "lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as e:
            raise RuntimeError(f"{folder} is in use by another local_vespa") from e
        self._local = threading.local()
        self._all: list[sqlite3.Connection] = []
        self.writer = self._connect()
        found = self.writer.execute("PRAGMA user_version").fetchone()[0]
        if found not in (0, FORMAT):
            raise RuntimeError(
                f"{self.path} was written by another version of local_vespa (format {found}, not {FORMAT})"
            )
        self.writer.executescript(_TABLES)
        self.writer.execute(f"PRAGMA user_version={FORMAT}")

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA busy_timeout=10000")
        self._all.append(connection)
        return connection

    @property
    def reader(self) -> sqlite3.Connection:
        """This thread's connection for reading."""
        if not hasattr(self._local, "connection"):
            self._local.connection = self._connect()
        return self._local.connection

    def get(self, id: str, writer: bool = False) -> Row | None:
        """One document; `writer` sees what its open transaction has written."""
        connection = self.writer if writer else self.reader
        return connection.execute("SELECT id, schema, fields, cells FROM document WHERE id=?", (id,)).fetchone()

    def get_all(self, ids: list[str]) -> dict[str, Row]:
        """Several documents by id."""
        found: dict[str, Row] = {}
        for start in range(0, len(ids), 500):
            part = ids[start : start + 500]
            marks = ",".join("?" * len(part))
            rows = self.reader.execute(f"SELECT id, schema, fields, cells FROM document WHERE id IN ({marks})", part)
            found |= {row[0]: row for row in rows}
        return found

    def put(self, id: str, schema: str, fields: bytes, cells: bytes) -> None:
        """Writes a document in the open transaction."""
        self.writer.execute(
            "INSERT INTO document(id, schema, fields, cells) VALUES(?,?,?,?) "
            "ON CONFLICT(id) DO UPDATE SET fields=excluded.fields, cells=excluded.cells",
            (id, schema, fields, cells),
        )

    def remove(self, id: str) -> bool:
        """Removes a document in the open transaction; whether there was one."""
        return self.writer.execute("DELETE FROM document WHERE id=?", (id,)).rowcount > 0

    def remove_schema(self, schema: str) -> None:
        """Removes all documents of a type in the open transaction."""
        self.writer.execute("DELETE FROM document WHERE schema=?", (schema,))

    def documents(self, schema: str | None = None) -> Generator[Row, None, None]:
        """All documents (of a type) in the order in which they were first put."""
        where, values = ("WHERE schema=?", (schema,)) if schema else ("", ())
        yield from self._connect_once(f"SELECT id, schema, fields, cells FROM document {where} ORDER BY seq", values)

    def page(self, after: int, limit: int, schema: str | None = None) -> list[tuple[int, Row]]:
        """Up to `limit` documents with a sequence number above `after`, each with its number."""
        where, values = ("AND schema=?", (schema,)) if schema else ("", ())
        found = self.reader.execute(
            f"SELECT seq, id, schema, fields, cells FROM document WHERE seq>? {where} ORDER BY seq LIMIT ?",
            (after, *values, limit),
        )
        return [(row[0], row[1:]) for row in found]

    def _connect_once(self, sql: str, values: tuple[str, ...]) -> Iterator[Row]:
        connection = self._connect()
        try:
            yield from connection.execute(sql, values)
        finally:
            self._all.remove(connection)
            connection.close()

    def add_generation(self, package: bytes, time: float) -> int:
        """Stores a package that is not active yet, and forgets those before the last KEPT_PACKAGES; its generation."""
        new = self.writer.execute("INSERT INTO generation(package, time) VALUES(?,?)", (package, time)).lastrowid or 0
        self.writer.execute("DELETE FROM generation WHERE active=0 AND id<=?", (new - KEPT_PACKAGES,))
        return new

    def activate(self, generation: int) -> None:
        """Makes a generation the active one and forgets older packages, in the open transaction."""
        self.writer.execute("UPDATE generation SET active=(id=?)", (generation,))
        self.writer.execute("DELETE FROM generation WHERE id<?", (generation,))

    def package(self, generation: int | None = None) -> tuple[int, bytes, float] | None:
        """A generation's number, package and time; without a number the active one's."""
        where, values = ("id=?", (generation,)) if generation is not None else ("active=1", ())
        return self.reader.execute(f"SELECT id, package, time FROM generation WHERE {where}", values).fetchone()

    def close(self) -> None:
        """Closes all connections, folding the write-ahead log into the file."""
        for connection in self._all:
            connection.close()
        self._lock.close()
