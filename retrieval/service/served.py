"""The loop closes: searches that were served, and what was clicked in them, as the log that `mrse train --searches`
reads.

Each worker appends lines of JSON to a file of its own (`served-….jsonl`): a search with what it showed, an event with
the search it was in. `to_parquet` joins them by search id.
"""

from __future__ import annotations

import logging
import os
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from mrse_model.atomic_file import atomic_file
from mrse_model.errors import InputError
from retrieval.errors import Unavailable
from retrieval.interleave import sign_test
from retrieval.query_text import key_of

KINDS = {"click": "clicked", "cart": "carted", "order": "ordered"}
SCHEMA = pa.schema(
    [
        ("search_id", pa.string()),
        ("user_id", pa.string()),
        ("timestamp", pa.int64()),
        ("query", pa.string()),
        ("shown", pa.list_(pa.string())),
        ("clicked", pa.list_(pa.string())),
        ("carted", pa.list_(pa.string())),
        ("ordered", pa.list_(pa.string())),
    ]
)
ROTATE = 64 * 2**20  # bytes of one file


class ServedLog:
    """Appends to a folder. One a process: lines of one write never mix."""

    def __init__(self, folder: str | Path) -> None:
        """Raises InputError for a folder that cannot be written."""
        self.folder = Path(folder)
        self._file: BinaryIO | None = None  # opened with the first line
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if not os.access(self.folder, os.W_OK):
                raise PermissionError(13, "Permission denied")
        except OSError as error:
            raise InputError(f"cannot be written: {error.strerror}", file=folder, field="--log") from None

    def _open(self) -> BinaryIO:
        name = f"served-{int(time.time())}-{os.getpid()}-{uuid.uuid4().hex[:6]}.jsonl"
        return open(self.folder / name, "ab", buffering=0)  # (kept open)

    def search(self, search_id: str, user: str, at: float, query: str, shown: Sequence[str], **more: Any) -> None:
        """A page of a search that was served. more: anything else worth keeping, as the profile."""
        line = {"search_id": search_id, "user_id": user, "timestamp": int(at), "query": query, "shown": list(shown)}
        self._keep(line | more)

    def event(self, search_id: str, item: str, kind: str, at: float, **more: Any) -> None:
        """A click, cart or order of an item that a search showed."""
        self._keep({"event": kind, "search_id": search_id, "item": item, "timestamp": int(at)} | more)

    def forget(self, user: str, at: float) -> None:
        """The user is deleted: `to_parquet` leaves out what he searched for until then. Raises Unavailable."""
        try:
            self._write({"deleted": user, "timestamp": int(at)})
        except OSError as error:
            raise Unavailable(f"{self.folder} cannot be written: {error}", fix="Delete again once it can") from None

    def _keep(self, line: dict[str, Any]) -> None:
        """A disk that is full costs the line, not the search."""
        try:
            self._write(line)
        except OSError as error:
            told = {"time": time.time(), "kind": "log", "error": f"{self.folder} cannot be written: {error}"}
            logging.getLogger("mrse.serve").error(orjson.dumps(told).decode())

    def _write(self, line: dict[str, Any]) -> None:
        if self._file is None or self._file.tell() > ROTATE or not os.fstat(self._file.fileno()).st_nlink:  # removed
            self.close()
            self._file = self._open()
        self._file.write(orjson.dumps(line) + b"\n")

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def _entries(folder: str | Path) -> Iterator[dict[str, Any]]:
    """What the folder's files hold, file by file; a line that was cut off, by a kill, is left out."""
    for file in sorted(Path(folder).glob("served-*.jsonl")):
        with open(file, "rb") as lines:
            for line in lines:
                try:
                    yield orjson.loads(line)
                except ValueError:
                    continue


def to_parquet(folder: str | Path, out: str | Path) -> int:
    """The searches of a folder's logs with their events, by time, as a `searches` file; returns how many there are.

    Pages of one search are one row, in the order of the pages, whichever worker served them; what a caller searched for
    under the id of another search is a row of its own. Left out are lines that were cut off, by a kill, events of
    searches that the folder does not hold, and the searches of deleted users. Raises InputError where none is left.
    """
    pages: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    events: list[dict[str, Any]] = []
    deleted: dict[str, int] = {}
    for entry in _entries(folder):
        if "deleted" in entry:
            deleted[entry["deleted"]] = max(entry["timestamp"], deleted.get(entry["deleted"], 0))
        elif "event" in entry:
            events.append(entry)
        else:
            pages.setdefault((entry["search_id"], entry["user_id"], key_of(entry["query"])), []).append(entry)
    found = [_joined(some) for some in pages.values()]
    rows = [row for row in found if row["timestamp"] > deleted.get(row["user_id"], -1)]
    if not rows:
        raise InputError("no search was served", file=folder, fix="Start: mrse serve --log FOLDER")
    rows.sort(key=lambda row: row["timestamp"])  # of one second: as they were served
    searches: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        searches.setdefault(row["search_id"], []).append(row)
    for event in events:
        of_id, column = searches.get(event["search_id"]), KINDS.get(event["event"])
        if of_id and column:
            clicked = next((row for row in of_id if event["item"] in row["shown"]), of_id[0])[column]
            clicked += [event["item"]] * (event["item"] not in clicked)
    with atomic_file(out) as part:
        pq.write_table(pa.Table.from_pylist([{n: row[n] for n in SCHEMA.names} for row in rows], schema=SCHEMA), part)
    return len(rows)


def _joined(pages: list[dict[str, Any]]) -> dict[str, Any]:
    """The row of a search, without its events."""
    pages.sort(key=lambda page: page.get("offset", 0))
    shown = list(dict.fromkeys(item for page in pages for item in page["shown"]))
    events: dict[str, Any] = {name: [] for name in KINDS.values()}
    return pages[0] | {"timestamp": min(page["timestamp"] for page in pages), "shown": shown} | events


def without_results(folder: str | Path, limit: int = 100) -> list[tuple[str, int]]:
    """The queries that found nothing on their first page, the most frequent first, with their searches."""
    counts: dict[str, int] = {}
    for entry in _entries(folder):
        if "query" in entry and not entry["shown"] and not entry.get("offset"):
            key = key_of(entry["query"])
            counts[key] = counts.get(key, 0) + 1
    return sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))[:limit]


def interleaved_wins(folder: str | Path, first: str, second: str) -> dict[str, Any]:
    """Which of two interleaved profiles won how many of the folder's searches: the one whose hits got more clicks.

    A search without a click of either's hits says nothing and is not counted.
    """
    teams: dict[str, dict[str, str]] = {}
    clicked: dict[str, set[str]] = {}
    for entry in _entries(folder):
        if entry.get("event") == "click":
            clicked.setdefault(entry["search_id"], set()).add(entry["item"])
        elif "teams" in entry:
            of_search = teams.setdefault(entry["search_id"], {})
            of_search |= dict(zip(entry["shown"], entry["teams"], strict=True))
    wins, ties = [0, 0], 0
    for search_id, items in clicked.items():
        picked = [teams.get(search_id, {}).get(item, "") for item in items]
        one, two = picked.count(first), picked.count(second)
        if one + two == 0:
            continue
        if one == two:
            ties += 1
        else:
            wins[one < two] += 1
    return {"profiles": [first, second], "wins": wins, "ties": ties, "p": sign_test(*wins)}
