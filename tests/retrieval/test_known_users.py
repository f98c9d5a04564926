"""A user who was read lately is searched for while his events are read again: what changed counts all the same."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from vespa.application import Vespa

from mrse_model.serving.exported_model import ExportedModel
from retrieval import AsyncSearcher, Event, Searcher, Unavailable
from retrieval.history.users import KnownHistories, StoredEvents


@pytest.fixture(params=["sync", "async"])
def search(request, vespa, package) -> Callable[..., Any]:
    options: dict[str, Any] = {"model": ExportedModel.load(package / "models"), "deadline": 30, "known_seconds": 60}
    kind = Searcher if request.param == "sync" else AsyncSearcher
    searcher = kind(Vespa(vespa.url), clock=lambda: 1000.0, **options)

    def ask(**more: Any) -> Any:
        found = searcher.search("red dress", user="u1", **more)
        return asyncio.run(found) if asyncio.iscoroutine(found) else found

    yield ask
    searcher.backend.close()


@pytest.fixture
def clicks(vespa, answer) -> dict[str, float]:
    """What the user clicked, as Vespa has it; {"down": 0} while Vespa does not answer for users."""
    cells: dict[str, float] = {"i1": 900.0}

    def reply(body: dict[str, Any]) -> dict[str, Any]:
        if "from shopper" not in body["yql"]:
            return answer(body)
        if "down" in cells:
            return {"root": {"errors": [{"code": 10, "message": "no shopper here"}]}}
        shopper = {"fields": {"user_id": "u1", "clicks": {"cells": dict(cells)}}}
        return {"root": {"fields": {"totalCount": 1}, "children": [shopper]}}

    vespa.answer = reply
    return cells


def asked(vespa: Any) -> list[str]:
    """What was asked for since the last call, without an order: two of them are under way at once."""
    kinds = [
        "user" if "from shopper" in body["yql"] else "hits" for body in vespa.queries if "vectors" not in str(body)
    ]
    vespa.queries.clear()
    return sorted(kinds)


def test_one_who_has_not_changed_is_searched_for_once(search, vespa, clicks) -> None:
    first = search()
    assert asked(vespa) == ["hits", "user"]
    again = search()
    assert asked(vespa) == ["hits", "user"] and again.clicks == first.clicks == 1
    assert [hit.item_id for hit in again.hits] == [hit.item_id for hit in first.hits]
    assert again.stages.keys() == first.stages.keys()


def test_what_was_clicked_since_counts(search, vespa, clicks) -> None:
    assert search().clicks == 1
    clicks["i2"] = 950.0
    asked(vespa)
    assert search().clicks == 2 and asked(vespa) == ["hits", "hits", "user"]
    assert search().clicks == 2 and asked(vespa) == ["hits", "user"]
    clicks.clear()
    assert search().clicks == 0, "a history that was deleted is gone"


def test_where_it_cannot_be_read_again_the_answer_says_so(search, clicks) -> None:
    search()
    clicks["down"] = 0.0
    found = search()
    assert found.clicks == 1 and [fallback.step for fallback in found.fallbacks] == ["history"]
    with pytest.raises(Unavailable):
        search(strict=True)


def test_where_the_second_search_fails_the_first_is_the_answer(search, vespa, clicks) -> None:
    search()
    answer, searches = vespa.answer, []

    def once(body: dict[str, Any]) -> dict[str, Any]:
        if "from item" in body["yql"] and "vectors" not in str(body):
            searches.append(body)
            if len(searches) % 2 == 0:
                return {"root": {"errors": [{"code": 10, "message": "no more"}]}}
        return answer(body)

    vespa.answer = once
    clicks["i2"] = 950.0
    found = search()
    assert found.hits and found.clicks == 1 and [fallback.step for fallback in found.fallbacks] == ["history"]
    clicks["i3"] = 960.0
    with pytest.raises(Unavailable):
        search(strict=True)
    clicks.clear()
    with pytest.raises(Unavailable):  # of a history that was deleted there is no answer
        search()


def test_histories_age_and_are_few(monkeypatch) -> None:
    now = [0.0]
    monkeypatch.setattr("retrieval.history.users.MAX_KNOWN", 2)
    known, events = KnownHistories(60, lambda: now[0]), StoredEvents([Event("i1", "click", 1.0)], {})
    for user in ("u1", "u2", "u3"):
        known.put(user, events)
    assert known.get("u1") is None and known.get("u2") == known.get("u3") == events
    known.forget("u2")
    assert known.get("u2") is None
    now[0] = 60.0
    assert known.get("u3") is None
    known.put("u4", events)
    assert len(known._events) == 1, "what is too old is dropped"
    never = KnownHistories(0)
    never.put("u1", events)
    assert never.get("u1") is None
