"""What can be gone without is gone without, and the answer says so; a strict search raises instead."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from vespa.application import Vespa

from mrse_model.errors import InputError
from mrse_model.serving.exported_model import ExportedModel
from retrieval import Event, Searcher, Unavailable
from retrieval.history.users import clicked_items

VERSION = "mrse-0123456789ab"
CLICKS = [Event("i1", "click", 900.0), Event("i2", "click", 800.0)]


@pytest.fixture(scope="module")
def model(package) -> ExportedModel:
    return ExportedModel.load(package / "models")


@pytest.fixture
def searcher(vespa, model, answer) -> Iterator[Searcher]:
    vespa.answer = answer
    with Searcher(Vespa(vespa.url), model=model, deadline=30, clock=lambda: 1000.0) as one:
        yield one


def failing(answer: Callable[[dict], dict], where: str, code: int, words: str) -> Callable[[dict], dict]:
    """Answers, but for bodies in which `where` is found: those with an error of Vespa's."""
    error: dict[str, Any] = {"root": {"errors": [{"code": code, "message": words}], "fields": {"totalCount": 0}}}
    return lambda body: error if where in str(body) else answer(body)


def steps(result: Any) -> list[str]:
    return [fallback.step for fallback in result.fallbacks]


def test_without_the_user_a_search_is_a_strangers(searcher, vespa, answer) -> None:
    vespa.answer = failing(answer, "from shopper", 10, "no shopper here")
    result = searcher.search("red dress", user="u1")
    assert result.hits and result.clicks == 0 and steps(result) == ["history"]
    assert "no shopper here" in result.fallbacks[0].reason
    with pytest.raises(Unavailable):
        searcher.search("red dress", user="u1", strict=True)


def test_the_clicks_of_the_session_count_without_the_stored_ones(searcher, vespa, answer) -> None:
    vespa.answer = failing(answer, "from shopper", 10, "no shopper here")
    assert searcher.search("red dress", user="u1", clicks=CLICKS).clicks == 2


def test_clicks_come_on_top_of_the_stored_history(searcher, vespa, answer) -> None:
    shopper = {"fields": {"user_id": "u1", "clicks": {"cells": {"i7": 100.0, "i1": 50.0}}}}
    vespa.answer = lambda body: (
        {"root": {"fields": {"totalCount": 1}, "children": [shopper]}}
        if "from shopper" in body["yql"]
        else answer(body)
    )
    assert searcher.search("red dress", user="u1", clicks=CLICKS).clicks == 3


def test_without_the_image_index_the_other_queues_go_on(searcher, vespa, answer) -> None:
    vespa.answer = failing(answer, "nearestNeighbor(image_embedding", 4, "Field 'image_embedding' does not exist")
    result = searcher.search("red dress", clicks=CLICKS, profile="three_queues")
    assert result.hits and steps(result) == ["images"]
    assert 'label: "i2i"' in vespa.queries[-1]["yql"] and "image" not in vespa.queries[-1]["yql"]


def test_without_an_embedder_words_are_searched(vespa, answer) -> None:
    vespa.answer = failing(answer, "embed(text", 4, "Can't find embedder 'text'")
    with Searcher(Vespa(vespa.url), deadline=30) as searcher:
        result = searcher.search("red dress", filters=[])
        assert result.profile == "bm25" and steps(result) == ["embedder"]
        assert vespa.queries[-1]["ranking"] == "bm25" and "input.query(q)" not in vespa.queries[-1]
        with pytest.raises(InputError):
            searcher.search("red dress", strict=True)


def test_a_model_here_that_fails_leaves_it_to_vespa(searcher, vespa, monkeypatch) -> None:
    def broken(*_: Any) -> np.ndarray:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(searcher.producer.model, "query_vectors", broken)
    result = searcher.search("red dress", clicks=CLICKS)
    assert steps(result) == ["embedder"] and vespa.queries[-1]["input.query(q)"] == "embed(text, @query)"


def test_a_searcher_lives_through_a_change_of_the_model(searcher, vespa, answer) -> None:
    assert searcher.search("red dress").fallbacks == []
    hit = {"id": "x", "relevance": 1.0, "fields": {"item_id": "i1", "model_version": "mrse-new"}}

    def changed(body: dict) -> dict:
        found = 0 if "@model_version" in body["yql"] else 5
        return {"root": {"fields": {"totalCount": found}, "children": [hit] if found and body["hits"] else []}}

    vespa.answer = changed
    result = searcher.search("red dress")
    assert result.hits and result.profile == "bm25" and steps(result) == ["model"]
    assert "its items are of model mrse-new" in result.fallbacks[0].reason
    for ask in ({"query": "red dress", "strict": True}, {"query": "!?"}):  # no words to go on with
        with pytest.raises(Unavailable, match=r"field model_version: .* no vectors of model"):
            searcher.search(**ask)
    vespa.answer = answer
    assert searcher.search("red dress").fallbacks == [], "and it comes back"


def test_a_filter_that_leaves_nothing_is_no_change_of_the_model(searcher, vespa) -> None:
    vespa.answer = lambda body: {"root": {"fields": {"totalCount": 0 if "nearestNeighbor" in body["yql"] else 9}}}
    for _ in range(3):
        assert searcher.search("red dress").fallbacks == []
    counted = [body for body in vespa.queries if body["hits"] == 0]
    assert len(counted) == 1, "asked once, and believed for a while"


def test_punctuation_alone_is_answered_by_vectors(searcher, vespa) -> None:
    assert searcher.search("-- !?", profile="bm25").profile == "ann"
    hybrid = searcher.search("-- !?", profile="hybrid")
    assert hybrid.hits and "userInput" not in vespa.queries[-1]["yql"]


def test_items_that_left_the_index_use_up_none_of_the_twenty(searcher, vespa, answer, model) -> None:
    def some_gone(body: dict) -> dict:
        found = answer(body)
        if body.get("presentation.summary") == "vectors":
            kept = [c for c in found["root"]["children"] if not c["fields"]["item_id"].startswith("gone")]
            found["root"]["children"] = kept
        return found

    vespa.answer = some_gone
    events = [Event(f"gone{n}", "click", 900.0 + n) for n in range(15)]
    events += [Event(f"here{n:02}", "click", 800.0 + n) for n in range(30)]
    plan = clicked_items(searcher.backend, events, model.manifest, searcher.vectors, deadline=_later(), now=1000.0)
    found = searcher.backend.run(plan)
    assert found.ids == [f"here{n:02}" for n in range(29, 9, -1)]
    asked = len(vespa.queries)
    assert searcher.search("red dress", clicks=events).clicks == 20
    assert len(vespa.queries) == asked + 1, "vectors, and what is known to be gone, are kept"


def test_a_history_of_nothing_that_counts_is_said(searcher) -> None:
    result = searcher.search("red dress", clicks=[Event("i1", "click", 900.0)], now=400 * 86400.0)
    assert result.clicks == 0 and steps(result) == ["history"] and "too old" in result.fallbacks[0].reason


def _later() -> Any:
    from retrieval.backend import Deadline

    return Deadline(30)
