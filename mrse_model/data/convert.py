"""Other search logs to the `searches` contract: clicks, a flat table of events, and the UBI standard.

UBI is OpenSearch's User Behavior Insights (https://docs.opensearch.org/docs/search-plugins/ubi/schemas): `ubi_queries`
with query_id, user_query, client_id, timestamp, query_response_hit_ids; `ubi_events` with action_name, query_id,
timestamp and event_attributes.object.object_id. A temporary SQLite file groups and sorts them: memory is flat.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import pyarrow as pa

from mrse_model.data.contract import required_texts
from mrse_model.data.search_log import CACHE_KIB, query_key
from mrse_model.data.shards import ShardWriter
from mrse_model.data.table import RenamedTable, Table

SESSION_GAP = 30 * 60  # seconds without an event after which the same query of the same user is a new search
LISTS = ("shown", "clicked", "carted", "ordered")
ACTIONS = {
    **dict.fromkeys(("impression", "view_item_list", "shown", "show"), "shown"),
    **dict.fromkeys(("click", "click_through", "product_click", "select_item"), "clicked"),
    **dict.fromkeys(("cart", "add_to_cart", "carted"), "carted"),
    **dict.fromkeys(("order", "purchase", "buy", "ordered"), "ordered"),
}
SEARCHES_SCHEMA = pa.schema(
    {"search_id": pa.string(), "user_id": pa.string(), "timestamp": pa.timestamp("s", "UTC"), "query": pa.string()}
    | dict.fromkeys(LISTS, pa.list_(pa.string()))
)
EVENT_COLUMNS = "search, user, key, time, query, list, item, row"
MAX_COUNT = 100  # searches that one row of clicks with a count stands for
EPOCH = 1_700_000_000
TIMES = ("timestamp or integer seconds", "string")


@dataclass(frozen=True)
class Converted:
    """What a conversion wrote, what it left out by reason, and what it took as something else."""

    searches: int
    events: int
    dropped: dict[str, int]
    notices: list[str]


def convert_clicks(clicks: str | Path, searches: str | Path, *, columns: Mapping[str, str] | None = None) -> Converted:
    """Writes a `searches` file from a table of clicks: `query` and `item_id`; optional `user_id`, `timestamp`, `count`.

    Clicks of one user for one query without a pause of 30 minutes are one search; without `user_id`, each is one.
    Without `timestamp` all clicks of a query get one time, drawn from the query: a hold-out by time is then one by
    query. A row with a `count` stands for that many searches, at most MAX_COUNT, of which one is the user's and the
    others are anonymous. columns: the names where they differ.
    """
    table = RenamedTable(clicks, columns or {}, ("query", "item_id", "user_id", "timestamp", "count"))
    table.check_output(searches)
    table.require("query", "string")
    table.require("item_id", "string id")
    has = {
        "user_id": table.require("user_id", "string id", optional=True),
        "timestamp": table.require("timestamp", *TIMES, optional=True),
        "count": table.require("count", "integer", optional=True),
    }
    if not has["timestamp"]:
        table.notices.append("no column timestamp: all clicks of a query get one made-up time, so that the validation "
                             "set has only queries that training has not seen")  # fmt: skip
    if not has["user_id"]:
        table.notices.append("no column user_id: each click is a search of its own, and no user has a history")
    dropped: Counter[str] = Counter()
    with _event_store(searches) as store:
        for first, batch in table.batches(["query", "item_id", *(name for name, kind in has.items() if kind)], 8192):
            queries = [" ".join(text.split()) for text in table.texts(batch, "query", first, null="")]
            items = table.texts(batch, "item_id", first, null="")
            users = table.texts(batch, "user_id", first, null="") if has["user_id"] else [""] * len(items)
            times = table.seconds(batch, "timestamp", first).tolist() if has["timestamp"] else map(_drawn_time, queries)
            counts = table.values(batch, "count", first) if has["count"] else [1] * len(items)
            rows = []
            for row, (query, item, user, time, count) in enumerate(
                zip(queries, items, users, times, counts, strict=True), first
            ):
                if count is None or count < 0:
                    raise table.error(f"{count} is not a count", row=row, field="count", fix="Give 0, 1, 2, …")
                reason = "" if query and item else "click without a query" if item else "click without an item"
                if reason:
                    dropped[reason] += 1
                    continue
                dropped[f"click beyond {MAX_COUNT} of one row"] += max(count - MAX_COUNT, 0)
                for number in range(min(count, MAX_COUNT)):  # one search of the user's: with all, he would be a bot
                    one = f"c{row}-{number}" if not user or number else ""
                    whose = "" if number else user
                    rows.append((one, whose, query_key(query), time, query, "clicked", item, row))
            store.executemany(f"INSERT INTO event ({EVENT_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)
        return _write(table, store, searches, _searches_of_events(_events_in_order(store)), dropped)


def _drawn_time(query: str) -> int:
    """Seconds since 1970 within a year, the same for a query every time."""
    return EPOCH + int.from_bytes(hashlib.sha256(query_key(query).encode()).digest()[:8], "big") % (365 * 86_400)


def convert_events(events: str | Path, searches: str | Path, *, columns: Mapping[str, str] | None = None) -> Converted:
    """Writes a `searches` file from a flat table of events.

    Columns: `user_id`, `timestamp` (a timestamp, seconds since 1970, or ISO 8601 text), `event` (see ACTIONS), `query`,
    `item_id`; optional `search_id` and `position` (of an impression). Without `search_id`, events of one user with one
    query and no gap above 30 minutes are one search. An event that is none of ACTIONS or has no query is left out and
    counted.
    """
    known = ("user_id", "timestamp", "event", "query", "item_id", "search_id", "position")
    table = RenamedTable(events, columns or {}, known)
    table.check_output(searches)
    for column in ("event", "query"):
        table.require(column, "string")
    for column in ("user_id", "item_id"):
        table.require(column, "string id")
    table.require("timestamp", *TIMES)
    has_search = table.require("search_id", "string id", optional=True) is not None
    # pandas makes floats of positions, which clicks do not have
    has_position = table.require("position", "integer", "number", optional=True) is not None
    names = [*known[:5], *["search_id"] * has_search, *["position"] * has_position]
    dropped: Counter[str] = Counter()
    with _event_store(searches) as store:
        for first, batch in table.batches(names, 8192):
            texts = {name: table.texts(batch, name, first, null="") for name in ("user_id", "event", "query")}
            items = table.texts(batch, "item_id", first, null="")
            times = table.seconds(batch, "timestamp", first).tolist()
            ids = [""] * batch.num_rows
            if has_search:
                ids = [search.strip() for search in table.texts(batch, "search_id", first, null="")]
            positions = table.values(batch, "position", first) if has_position else [None] * batch.num_rows
            rows = []
            for i, (user, event, query) in enumerate(zip(*texts.values(), strict=True)):
                name, query = ACTIONS.get(event.strip().lower()), " ".join(query.split())
                reason = _why_not(name, event, items[i]) or ("" if query or ids[i] else "event without a query")
                if reason:
                    dropped[reason] += 1
                    continue
                position = positions[i]
                if position is None or position != position:  # null or NaN
                    position = first + i
                rows.append((ids[i], user, query_key(query), times[i], query, name, items[i], first + i, position))
            store.executemany(f"INSERT INTO event ({EVENT_COLUMNS}, position) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)
        return _write(table, store, searches, _searches_of_events(_events_in_order(store)), dropped)


@contextmanager
def _event_store(beside: str | Path) -> Iterator[sqlite3.Connection]:
    with _store(beside) as store:
        store.execute(
            """CREATE TABLE event (search TEXT, user TEXT, key TEXT, time INTEGER, query TEXT, list TEXT, item TEXT,
                                   row INTEGER, position INTEGER)"""
        )
        yield store


def _events_in_order(store: sqlite3.Connection) -> Iterable[tuple[Any, ...]]:
    return store.execute(
        "SELECT search, user, key, time, query, list, item, position, row FROM event "
        "ORDER BY search, CASE search WHEN '' THEN user END, CASE search WHEN '' THEN key END, time, row"
    )


def convert_ubi(queries: str | Path, events: str | Path, searches: str | Path) -> Converted:
    """Writes a `searches` file from exports of `ubi_queries` and `ubi_events`.

    A search is a query_id; its user is the client_id. `event_attributes` is a struct or JSON text. An event of another
    kind, without an object or of an unknown query is left out and counted.
    """
    asked, acted = Table(queries), Table(events)
    for table in (asked, acted):
        table.check_output(searches)
    for column in ("query_id", "user_query"):
        asked.require(column, "string")
    asked.require("client_id", "string id")
    asked.require("timestamp", *TIMES)
    has_hits = asked.require("query_response_hit_ids", "list<string> ids", optional=True) is not None
    for column in ("query_id", "action_name"):
        acted.require(column, "string")
    acted.require("timestamp", *TIMES)
    acted.require("event_attributes", "struct", "string")
    dropped: Counter[str] = Counter()
    with _store(searches) as store:
        store.execute(
            "CREATE TABLE asked (id TEXT PRIMARY KEY, row INTEGER, user TEXT, time INTEGER, query TEXT, shown TEXT)"
        )
        store.execute("CREATE TABLE event (id TEXT, time INTEGER, row INTEGER, list TEXT, item TEXT)")
        columns = ["query_id", "user_query", "client_id", "timestamp", *["query_response_hit_ids"] * has_hits]
        for first, batch in asked.batches(columns, 8192):
            ids = required_texts(asked, batch, "query_id", first, "query")
            users = asked.texts(batch, "client_id", first, null="")
            words = asked.texts(batch, "user_query", first, null="")
            times = asked.seconds(batch, "timestamp", first).tolist()
            hits = asked.text_lists(batch, "query_response_hit_ids", first) if has_hits else [[]] * len(ids)
            for i, query_id in enumerate(ids):
                row = (query_id, first + i, users[i], times[i], " ".join(words[i].split()), json.dumps(hits[i]))
                if not store.execute("INSERT OR IGNORE INTO asked VALUES (?, ?, ?, ?, ?, ?)", row).rowcount:
                    (before,) = store.execute("SELECT row FROM asked WHERE id = ?", (query_id,)).fetchone()
                    problem = f"{query_id!r} is also the id of row {before}"
                    raise asked.error(problem, row=first + i, field="query_id", fix="Keep one of them")
        for first, batch in acted.batches(["query_id", "action_name", "timestamp", "event_attributes"], 8192):
            ids = acted.texts(batch, "query_id", first, null="")
            actions = acted.texts(batch, "action_name", first, null="")
            times = acted.seconds(batch, "timestamp", first).tolist()
            attributes = acted.values(batch, "event_attributes", first)
            rows = []
            for i, action in enumerate(actions):
                item, name = _object_id(acted, attributes[i], first + i), ACTIONS.get(action.strip().lower())
                if reason := _why_not(name, action, item):
                    dropped[reason] += 1
                else:
                    rows.append((ids[i], times[i], first + i, name, item))
            store.executemany("INSERT INTO event VALUES (?, ?, ?, ?, ?)", rows)
        unknown = "FROM event WHERE id NOT IN (SELECT id FROM asked)"
        dropped["event of an unknown query_id"] += store.execute(f"SELECT count(*) {unknown}").fetchone()[0]
        store.execute(f"DELETE {unknown}")
        found = store.execute(
            """SELECT asked.id, user, asked.time, query, shown, list, item FROM asked
               LEFT JOIN event ON event.id = asked.id ORDER BY asked.id, event.time, event.row"""
        )
        return _write(acted, store, searches, _searches_of_ubi(found), dropped)


def _why_not(name: str | None, event: str, item: str) -> str:
    if name is None:
        return f"event {event!r}"
    return "" if item else "event without an item"


def _object_id(table: Table, attributes: Any, row: int) -> str:
    if isinstance(attributes, str):
        try:
            attributes = json.loads(attributes)
        except ValueError as error:
            raise table.error(
                "it is not JSON", row=row, field="event_attributes", fix="Write a struct or JSON"
            ) from error
    thing = attributes.get("object") if isinstance(attributes, dict) else None
    item = thing.get("object_id") if isinstance(thing, dict) else None
    if isinstance(item, float):
        fix = "Write object_id as a string or an integer, as the items file has it"
        raise table.error(f"object_id is the number {item}", row=row, field="event_attributes", fix=fix)
    return "" if item is None else str(item)


@contextmanager
def _store(beside: str | Path) -> Iterator[sqlite3.Connection]:
    """A temporary database on the disk that the result goes to."""
    folder = Path(beside).parent
    folder.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(suffix=".sqlite", prefix=".convert-", dir=folder)
    os.close(handle)
    connection = sqlite3.connect(name, isolation_level=None)
    try:
        connection.executescript(
            f"""PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA temp_store = FILE;
                PRAGMA cache_size = -{CACHE_KIB}; BEGIN;"""
        )
        yield connection
    finally:
        connection.close()
        os.unlink(name)


def _searches_of_events(rows: Iterable[tuple[Any, ...]]) -> Iterator[dict[str, Any]]:
    """Rows come by search (or user and query) and time; a long pause starts a new search where there is no id."""
    for (search, _, _), group in groupby(rows, key=lambda r: (r[0], "" if r[0] else r[1], "" if r[0] else r[2])):
        current: dict[str, Any] | None = None
        shown: list[tuple[int, str]] = []
        last = 0
        for _, user, _, time, query, name, item, position, row in group:
            if current is None or (not search and time - last > SESSION_GAP):
                if current is not None:
                    yield current | {"shown": _distinct(i for _, i in sorted(shown))}
                current = {"search_id": search or f"e{row}", "user_id": user, "timestamp": time, "query": query}
                current |= {key: [] for key in LISTS}
                shown = []
            current["query"] = current["query"] or query
            last = time
            if name == "shown":
                shown.append((position, item))
            elif item not in current[name]:
                current[name].append(item)
        if current is not None:
            yield current | {"shown": _distinct(i for _, i in sorted(shown))}


def _searches_of_ubi(rows: Iterable[tuple[Any, ...]]) -> Iterator[dict[str, Any]]:
    for (query_id, user, time, query, shown), group in groupby(rows, key=lambda r: r[:5]):
        lists: dict[str, list[str]] = {key: [] for key in LISTS}
        lists["shown"] = json.loads(shown)
        for *_, name, item in group:
            if name is not None and item not in lists[name]:
                lists[name].append(item)
        yield {"search_id": query_id, "user_id": user, "timestamp": time, "query": query} | lists


def _distinct(items: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(items))


def _write(
    source: Table, store: sqlite3.Connection, path: str | Path, found: Iterator[dict[str, Any]], dropped: Counter[str]
) -> Converted:
    """Sorts the searches by time and writes them; raises InputError if there is none with a click, cart or order."""
    store.execute("CREATE TABLE search (time INTEGER, id TEXT, row TEXT)")
    store.executemany(
        "INSERT INTO search VALUES (?, ?, ?)", ((s["timestamp"], s["search_id"], json.dumps(s)) for s in found)
    )
    path = Path(path)
    part = path.with_name(path.name + ".part")
    searches = events = 0
    try:
        with ShardWriter(part.parent, part.name, SEARCHES_SCHEMA, single=True) as out:
            for (row,) in store.execute("SELECT row FROM search ORDER BY time, id"):
                search = json.loads(row)
                out.add(search)
                searches += 1
                events += sum(len(search[name]) for name in LISTS[1:])
        if not events:
            seen = ", ".join(dropped) or "no events at all"
            raise source.error(f"no click, cart or order ({seen})", fix="Name them click, add_to_cart, purchase")
        part.with_name(part.name + ".parquet").replace(path)
    finally:
        part.with_name(part.name + ".parquet").unlink(missing_ok=True)
    return Converted(searches, events, {reason: n for reason, n in dropped.items() if n}, source.notices)
