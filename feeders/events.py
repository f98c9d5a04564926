"""The one writer of user events: what a shopper clicked, put into a cart or ordered, into their `shopper` document.

    events = EventWriter(Vespa("http://localhost:8080"))
    events.record("u17", "B01", "click")                       # now
    events.record("u17", "B02", "order", 1790000000, "evt-8")  # when it happened, and its id

`mrse feed shoppers`, `mrse watch`, the retrieval service and Python callers all write through this module, so a click
that arrives live is not erased by last night's log, nor the log by the click. An event is a cell {item: Unix seconds}
of the tensor of its kind; where the query is known that it was made for, it is a cell {query, item} of `asked` too (the
paper's H_q). Events may come twice and in any order: of one item the newest time counts, an event id that
was recorded before changes nothing, and of each kind the newest 20 items are kept. A write is a read of the document
and an update on the condition that no other writer came first (`updated`), tried again where one did.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import orjson
from vespa.application import Vespa

from feeders.operations import METHOD, Method, Operation, document_path
from feeders.transport import HEADERS, RETRIED, message_of, said
from mrse_model.errors import InputError

EventKind = Literal["click", "cart", "order"]
FIELDS: dict[str, str] = {"click": "clicks", "cart": "carts", "order": "orders"}  # of the shopper document
KEPT = 20  # items of a kind; the paper keeps the last 20 clicks
KEPT_IDS = 3 * KEPT  # event ids that a document remembers
ASKED, KEPT_ASKED = "asked", 3 * KEPT  # the field of events by query, and how many of them are kept
MAX_QUERY = 256  # characters of a query's key
DAY = 86400
KEEP_DAYS = 365.0  # after the last write of a user's document
RETRY_SECONDS = 60.0  # of one write, while Vespa is busy or away


@dataclass(frozen=True, slots=True)
class UserEvent:
    """One event. timestamp: Unix seconds. event_id: "" for one without, which counts by user, item, kind and time.
    query: the key of the query that it was made for (`retrieval.query_text.key_of`), "" where it is not known.
    """

    user: str
    item: str
    event: EventKind
    timestamp: float
    event_id: str = ""
    query: str = ""

    @classmethod
    def of(cls, record: Mapping[str, Any], now: float | None = None) -> UserEvent:
        """From a record of a stream: user, item, event, and optional timestamp (seconds, else now), event_id and query.

        Raises InputError, with the field, for anything that is none.
        """
        for name in ("user", "item"):
            value = record.get(name)
            if not isinstance(value, str) or not value.strip():
                raise InputError(f"must be a non-blank string, got {value!r}", field=name)
        if record.get("event") not in get_args(EventKind):
            raise InputError(f"unknown event: {record.get('event')!r}", field="event", fix="Write click, cart or order")
        at = record.get("timestamp")
        at = (time.time() if now is None else now) if at is None else at
        if isinstance(at, bool) or not isinstance(at, (int, float)) or not 0 <= at < 1e11:
            fix = "Divide milliseconds by 1000"
            raise InputError(f"{at!r} is not in seconds since 1970", field="timestamp", fix=fix)
        texts = {name: record.get(name) or "" for name in ("event_id", "query")}
        for name, text in texts.items():
            if not isinstance(text, str):
                raise InputError(f"must be a string, got {text!r}", field=name)
        query = texts["query"].strip()[:MAX_QUERY]
        return cls(record["user"], record["item"], record["event"], float(at), texts["event_id"], query)


class ShopperUnavailable(InputError):
    """Vespa did not take an event within the time that it was given."""


@dataclass
class Shopper:
    """A shopper document as read, or an empty one. cells: of each kind {item: Unix seconds}. asked: {(query,
    item): Unix seconds}. updated: microseconds of
    its last write, 0 for a document that has none.
    """

    user: str
    exists: bool = False
    cells: dict[str, dict[str, float]] = field(default_factory=dict)
    event_ids: list[str] = field(default_factory=list)
    updated: int = 0
    asked: dict[tuple[str, str], float] = field(default_factory=dict)

    def change(self, events: Iterable[UserEvent], keep: float, now: float) -> Operation | None:
        """The update that brings these events in; None where the document has them all, or newer ones.

        keep: seconds from now until the document expires. now: Unix seconds.
        """
        cells = {kind: dict(self.cells.get(kind, {})) for kind in FIELDS}
        ids, known, asked = list(self.event_ids), set(self.event_ids), dict(self.asked)
        for event in events:
            if event.event_id and event.event_id in known:
                continue
            if event.event_id:
                known.add(event.event_id)
                ids.append(event.event_id)
            of_kind = cells[event.event]
            of_kind[event.item] = max(event.timestamp, of_kind.get(event.item, event.timestamp))
            if event.query:
                pair = (event.query, event.item)
                asked[pair] = max(event.timestamp, asked.get(pair, event.timestamp))
        fields: dict[str, Any] = {}
        for kind, name in FIELDS.items():
            had = self.cells.get(kind)
            kept = dict(sorted(cells[kind].items(), key=lambda cell: (-cell[1], cell[0]))[:KEPT])
            if kept == (had or {}):
                continue
            if had is None:
                fields[name] = {"assign": {"cells": kept}}
                continue
            added = {item: at for item, at in kept.items() if had.get(item) != at}
            gone = [item for item in had if item not in kept]
            fields[name] = {"add": {"cells": added}} if added else {}
            if gone:
                fields[name]["remove"] = {"addresses": [{"item": item} for item in gone]}
        if change := self._asked(asked):
            fields[ASKED] = change
        if not fields:
            return None
        if ids != self.event_ids:
            fields["event_ids"] = {"assign": ids[-KEPT_IDS:]}
        if not self.exists:
            fields["user_id"] = {"assign": self.user}
        fields["expires"] = {"assign": int(now + keep)}
        fields["updated"] = {"assign": max(int(now * 1e6), self.updated + 1)}
        condition = f"shopper.updated == {self.updated}" if self.updated else "shopper.updated == null"
        # create: the condition is then not asked of a document that is not there. One that was read is not made again
        # from this change alone, without a user_id and with what a deletion took
        return Operation("update", "shopper", self.user, fields, create=not self.exists, condition=condition)

    def _asked(self, asked: dict[tuple[str, str], float]) -> dict[str, Any] | None:
        """The change of the events by query, the newest of which are kept."""
        kept = dict(sorted(asked.items(), key=lambda cell: (-cell[1], cell[0]))[:KEPT_ASKED])
        if kept == self.asked:
            return None
        added = {pair: at for pair, at in kept.items() if self.asked.get(pair) != at}
        cells = [{"address": {"query": query, "item": item}, "value": at} for (query, item), at in added.items()]
        if not self.asked:
            return {"assign": {"cells": cells}}
        change: dict[str, Any] = {"add": {"cells": cells}} if cells else {}
        if gone := [{"query": query, "item": item} for query, item in self.asked if (query, item) not in kept]:
            change["remove"] = {"addresses": gone}
        return change


class EventWriter:
    """Writes events into the shopper documents of one Vespa. Threads may share it. Close it, or use it in `with`.

    keep_days: how long after the last write a user is forgotten (`expires`). retry_seconds: how long one write is
    tried while Vespa is busy or does not answer.
    """

    def __init__(
        self, app: Vespa, *, keep_days: float = KEEP_DAYS, retry_seconds: float = RETRY_SECONDS, timeout: float = 10.0
    ) -> None:
        self._client, self._url = app.get_sync_session(compress=False), app.end_point.rstrip("/")
        self._keep, self._retry, self._timeout = keep_days * DAY, retry_seconds, timeout

    def record(
        self,
        user: str,
        item: str,
        event: EventKind,
        timestamp: float | None = None,
        event_id: str = "",
        query: str = "",
    ) -> bool:
        """Writes one event; returns whether the document changed.

        timestamp: Unix seconds, None for now. event_id: of the source; an event is not counted twice. query: the key
        of the query that it was made for. Raises InputError for what is no event, and ShopperUnavailable where Vespa
        does not take it.
        """
        record = {"user": user, "item": item, "event": event, "timestamp": timestamp, "event_id": event_id}
        record["query"] = query
        return self.record_all(user, [UserEvent.of(record)])

    def record_all(self, user: str, events: Iterable[UserEvent]) -> bool:
        """Writes several events of one user at once; returns whether the document changed. Raises as `record`."""
        events, until, tries = list(events), time.monotonic() + self._retry, 0
        while True:
            status, message = self._try(user, events)
            if status in (200, 304):
                return status == 200
            if status != 412 and status not in RETRIED:
                raise InputError(f"Vespa refuses an event of {user!r} ({said(status, message)})")
            tries += 1
            # Another writer came between read and update (412): soon again. Vespa is busy or away: slower.
            wait = random.uniform(0.5, 1.0) * min(0.01 * 2 ** min(tries, 6) if status == 412 else 0.1 * 2**tries, 2.0)
            if time.monotonic() + wait > until:
                words = "others write it all the time" if status == 412 else said(status, message)
                fix = "Send the event again: it is counted once"
                raise ShopperUnavailable(f"{self._url} does not take events of {user!r} ({words})", fix=fix)
            time.sleep(wait)

    def read(self, user: str) -> Shopper:
        """The document of a user; an empty one where there is none. Raises ShopperUnavailable."""
        status, found = self._read(user)
        if isinstance(found, Shopper):
            return found
        raise ShopperUnavailable(f"{self._url} does not answer for {user!r} ({said(status, found)})")

    def forget(self, user: str) -> bool:
        """Removes the document of a user, and reads it back to be sure; returns whether there was one. Raises
        ShopperUnavailable, also where another writer keeps changing the user meanwhile.
        """
        there = self.read(user).exists
        status, content = self._request("DELETE", document_path("shopper", user))
        if status not in (200, 404) or self.read(user).exists:
            words = said(status, message_of(content)) if status != 200 else "it is there again"
            raise ShopperUnavailable(f"{self._url} did not remove {user!r} ({words})", fix="Remove the user again")
        return there

    def close(self) -> None:
        self._client.close()

    def __enter__(self) -> EventWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _try(self, user: str, events: list[UserEvent]) -> tuple[int, str]:
        """One read and one update: Vespa's status and words; 304 where there is nothing to change."""
        status, found = self._read(user)
        if not isinstance(found, Shopper):
            return status, found
        operation = found.change(events, self._keep, time.time())
        if operation is None:
            return 304, ""
        status, content = self._request(METHOD[operation.kind], operation.path, operation.body)
        return status, message_of(content)

    def _read(self, user: str) -> tuple[int, Shopper | str]:
        status, content = self._request("GET", document_path("shopper", user))
        if status == 404:
            return status, Shopper(user)
        if status != 200:
            return status, message_of(content)
        try:
            fields = orjson.loads(content)["fields"]
        except (orjson.JSONDecodeError, KeyError, TypeError):
            return 599, f"not Vespa's answer: {message_of(content)}"
        cells = {kind: _cells(fields[name]) for kind, name in FIELDS.items() if name in fields}
        ids, updated = list(fields.get("event_ids", [])), int(fields.get("updated", 0))
        asked = _pairs(fields.get(ASKED))
        return status, Shopper(user, True, cells, ids, updated, asked)

    def _request(self, method: Method, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        try:
            response = self._client.request(
                method, self._url + path, content=body, headers=HEADERS, timeout=self._timeout
            )
            return response.status_code, response.content
        except Exception as error:  # httpr's exceptions share no base class with the network's own
            return 0, str(error).encode()


def _cells(tensor: Any) -> dict[str, float]:
    """A mapped tensor of one dimension as Vespa renders it: {"cells": {"B01": 1.0}}, or a list of address and value."""
    cells = tensor.get("cells", {}) if isinstance(tensor, dict) else {}
    if isinstance(cells, dict):
        return {item: float(at) for item, at in cells.items()}
    return {next(iter(cell["address"].values())): float(cell["value"]) for cell in cells}


def _pairs(tensor: Any) -> dict[tuple[str, str], float]:
    """A mapped tensor of query and item as Vespa renders it: a list of address and value."""
    cells = tensor.get("cells", []) if isinstance(tensor, dict) else []
    return {(cell["address"]["query"], cell["address"]["item"]): float(cell["value"]) for cell in cells}
