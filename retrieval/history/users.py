"""A user from Vespa: the last events of the `shopper` document, and the vectors of the items in them.

Functions here are plans (`retrieval.backend`): they yield requests and return what they found.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import numpy as np

from mrse_model.serving.manifest import Manifest
from retrieval.backend import Backend, Deadline, Plan, Reply
from retrieval.history.behaviour import ClickedItems, Event, ranked_events, tensor_values
from retrieval.history.item_vectors import ItemVector, ItemVectorCache

MAX_SPELLINGS = 20  # ids at most that differ in case alone, which a word of an attribute does not tell apart
MAX_KNOWN = 10_000  # users whose events are known at once
KINDS = {"clicks": "click", "carts": "cart", "orders": "order"}
ASKED = "asked"  # tensor of query and item: which query an event was made for
READ = ", ".join(["user_id", *KINDS, ASKED])  # attributes alone: nothing is read from disk
VECTORS = ("embedding", "image_embedding", "text_feature")


def events_query(user: str) -> dict[str, Any]:
    """The body of a search for a `shopper` document: a container for queries need not serve documents
    (variants/cluster).
    """
    return {
        "yql": f"select {READ} from shopper where user_id contains @user",
        "user": user,
        "ranking": "unranked",
        "presentation.format.tensors": "short",
        "hits": MAX_SPELLINGS,
    }


@dataclass(frozen=True)
class StoredEvents:
    """A user's events. fields: of the `shopper` document, as Vespa rendered them."""

    events: list[Event]
    fields: dict[str, Any]


def user_events(
    backend: Backend,
    user: str,
    deadline: Deadline,
    begun: Future[Reply] | None = None,
    known: StoredEvents | None = None,
) -> Plan[StoredEvents]:
    """The events of a `shopper` document; none for a user that Vespa does not know. begun: `events_query`, under way.
    known: what was read before, given back as it is where the document is the same.
    """
    answer = yield from backend.ask(events_query(user), deadline, begun)
    hits = [hit.get("fields", {}) for hit in answer["root"].get("children", [])]
    fields: dict[str, Any] = next((fields for fields in hits if fields.get("user_id") == user), {})
    return known if known is not None and known.fields == fields else StoredEvents(_events(fields), fields)


class KnownHistories:
    """Users' events as they were last read, for `seconds`: a search begins with them while they are read again. An LRU.
    Thread-safe.
    """

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds, self._clock, self._lock = seconds, clock, threading.Lock()
        self._events: OrderedDict[str, tuple[float, StoredEvents | None]] = OrderedDict()

    def get(self, user: str) -> StoredEvents | None:
        with self._lock:
            until, events = self._events.get(user, (0.0, None))
        return events if self._clock() < until else None

    def put(self, user: str, events: StoredEvents) -> None:
        now = self._clock()
        with self._lock:
            self._events[user] = (now + self._seconds, events)
            self._events.move_to_end(user)
            while self._events and (len(self._events) > MAX_KNOWN or next(iter(self._events.values()))[0] <= now):
                self._events.popitem(last=False)

    def forget(self, user: str) -> None:
        with self._lock:
            self._events.pop(user, None)


def some_users(backend: Backend, limit: int, deadline: Deadline) -> Plan[dict[str, list[Event]]]:
    """Some users and their events, in no order: for a demo."""
    body = {
        "yql": f"select {READ} from shopper where true",
        "ranking": "unranked",
        "presentation.format.tensors": "short",
        "hits": limit,
    }
    answer = yield from backend.ask(body, deadline)
    rows = [hit.get("fields", {}) for hit in answer["root"].get("children", [])]
    return {fields["user_id"]: _events(fields) for fields in rows if "user_id" in fields}


def _events(fields: dict[str, Any]) -> list[Event]:
    asked: dict[str, list[tuple[str, float]]] = {}
    for address, at in _cells(fields.get(ASKED)):
        asked.setdefault(address["item"], []).append((address["query"], at))
    events = []
    for field, kind in KINDS.items():
        for address, at in _cells(fields.get(field)):
            item = address["item"]
            events.append(Event(item, kind, at))
            events += [Event(item, kind, when, query) for query, when in asked.get(item, ()) if field == "clicks"]
    return events


def _cells(tensor: Any) -> list[tuple[dict[str, str], float]]:
    """A mapped tensor as Vespa renders it: {"cells": {"B01": 1.0}} for one dimension, else a list of addresses."""
    cells = tensor.get("cells", {}) if isinstance(tensor, dict) else {}
    if isinstance(cells, dict):
        return [({"item": label}, value) for label, value in cells.items()]
    return [(cell["address"], cell["value"]) for cell in cells]


def clicked_items(
    backend: Backend,
    events: Sequence[Event],
    manifest: Manifest,
    cache: ItemVectorCache,
    deadline: Deadline,
    *,
    now: float,
    query: str | None = None,
    suffix: str = "",
) -> Plan[ClickedItems]:
    """The vectors of the items of the last events. Items that left the index, or are of another model, use up none of
    the places of the history.

    now: Unix seconds. query: the key of the query that is asked. suffix: of the second set of vectors (mrse migrate).
    """
    ranked = ranked_events(events, manifest, now, query)
    kept: list[tuple[str, float, ItemVector]] = []
    length = manifest.history_length
    while ranked and len(kept) < length:
        some, ranked = ranked[: length - len(kept)], ranked[length - len(kept) :]
        ids = [event.item_id for event, _ in some]
        found = yield from item_vectors(backend, ids, manifest, cache, deadline, suffix)
        kept += [(e.item_id, weight, vector) for e, weight in some if (vector := found.get(e.item_id)) is not None]
    asked = {event.item_id for event in events if query is not None and event.query == query}

    rows = [getattr(vector, name) for _, _, vector in kept for name in VECTORS]
    joined = np.concatenate(rows) if rows else np.empty(0, np.float32)  # thrice as fast as a stack of each
    embedding, image_embedding, text_feature = joined.reshape(-1, len(VECTORS), manifest.dims).swapaxes(0, 1)
    return ClickedItems(
        ids=[item_id for item_id, _, _ in kept],
        embedding=embedding,
        image_embedding=image_embedding,
        text_feature=text_feature,
        weight=np.array([weight for _, weight, _ in kept], np.float32),
        for_query=np.array([item_id in asked for item_id, _, _ in kept], bool),
    )


def item_vectors(
    backend: Backend,
    item_ids: Iterable[str],
    manifest: Manifest,
    cache: ItemVectorCache,
    deadline: Deadline,
    suffix: str = "",
) -> Plan[dict[str, ItemVector | None]]:
    """The items' vectors, None for an item that the index does not hold with this model's; asked for what the cache
    lacks.
    """
    wanted = list(dict.fromkeys(item_ids))
    place = manifest.model_version + suffix
    found = cache.get(place, wanted)
    missing = [item_id for item_id in wanted if item_id not in found]
    if missing:
        read = yield from _read_vectors(backend, missing, manifest, deadline, suffix)
        fresh = {item_id: read.get(item_id) for item_id in missing}
        cache.put(place, fresh)
        found |= fresh
    return found


def items_by_id(item_ids: Sequence[str]) -> tuple[str, dict[str, Any]]:
    """A condition that these items meet, and the part of a request's body that belongs to it. Ids that differ in case
    alone meet it too.
    """
    names = {f"item{i}": item_id for i, item_id in enumerate(item_ids)}
    condition = " or ".join(f"item_id contains @{name}" for name in names)
    return f"({condition})", {"hits": min(MAX_SPELLINGS * len(item_ids), 400), **names}  # 400 is Vespa's limit


def _read_vectors(
    backend: Backend, item_ids: Sequence[str], manifest: Manifest, deadline: Deadline, suffix: str
) -> Plan[dict[str, ItemVector]]:
    condition, looked_up = items_by_id(item_ids)
    body = looked_up | {
        "yql": f"select * from item where {condition} and model_version{suffix} contains @model_version",
        "model_version": manifest.model_version,
        "ranking": "unranked",
        "presentation.summary": "vectors",
        "presentation.format.tensors": "hex-value",
    }
    answer = yield from backend.ask(body, deadline)
    rows = {hit["fields"]["item_id"]: hit["fields"] for hit in answer["root"].get("children", [])}
    return {
        item_id: ItemVector(*(tensor_values(row.get(name + suffix), manifest.dims) for name in VECTORS))
        for item_id, row in rows.items()
        if item_id in item_ids
    }
