"""What the Searcher asks Vespa: a recording server shows every body."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from vespa.application import Vespa

from mrse_model.errors import InputError
from mrse_model.serving.exported_model import ExportedModel
from retrieval.errors import Unavailable, kind_of
from retrieval.filters import Filter, where
from retrieval.history.behaviour import Event
from retrieval.profiles import TABLE
from retrieval.query_text import WORDS
from retrieval.searcher import QueryVector, Searcher

VERSION = "mrse-0123456789ab"
NOW = 1000.0  # soon after the events of these tests
NASTY = 'dress" or true or title contains "x'


@pytest.fixture(scope="module")
def model(package) -> ExportedModel:
    return ExportedModel.load(package / "models")


def sent(body: dict, name: str) -> np.ndarray:
    """A query input as it was sent, in hex."""
    return np.frombuffer(bytes.fromhex(body[f"input.query({name})"]), ">f4")


@pytest.fixture
def searcher(vespa, model, answer) -> Iterator[Searcher]:
    vespa.answer = answer
    one = Searcher(Vespa(vespa.url), model=model, deadline=30, clock=lambda: NOW)
    yield one
    one.close()


def test_a_hit_is_read(searcher) -> None:
    result = searcher.search("red dress")
    assert result.total == 7 and result.hits[0].title == "Red dress" and result.hits[0].features == {"from_query": 0.5}


@pytest.mark.parametrize("profile", TABLE)
def test_no_text_of_the_user_is_in_the_yql(searcher, vespa, profile) -> None:
    searcher.search(
        NASTY, profile=profile, filters=[Filter("brand", "=", (NASTY,))], clicks=[Event(NASTY, "click", 1.0)]
    )
    assert all("true or title" not in body["yql"] for body in vespa.queries)
    body = vespa.queries[-1]
    assert body["query"] == NASTY and body["filter0"] == NASTY and body["ranking"] == profile
    assert "brand contains @filter0" in body["yql"]


def test_three_queues_are_one_query_with_labels(searcher, vespa) -> None:
    searcher.search("red dress", profile="three_queues", clicks=[Event("i1", "click", 1.0), Event("i2", "order", 2.0)])
    body = vespa.queries[-1]
    for label, field, vector in (
        ("q2i", "embedding", "q"),
        ("i2i", "embedding", "i2i"),
        ("image", "image_embedding", "image"),
    ):
        assert f'label: "{label}"' in body["yql"] and f"nearestNeighbor({field}, {vector})" in body["yql"]
        assert np.linalg.norm(sent(body, vector)) == pytest.approx(1, abs=1e-5)
    assert body["yql"].count(" or ") == 2 and "model_version contains @model_version" in body["yql"]


def test_without_clicks_three_queues_are_one(searcher, vespa) -> None:
    searcher.search("red dress", profile="three_queues")
    assert vespa.queries[-1]["yql"].count("nearestNeighbor") == 1


def test_the_user_changes_the_vector_once(searcher, vespa, model) -> None:
    [plain] = model.query_vectors(["red dress"])
    clicks = [Event("i1", "click", 1.0)]
    for profile, moved in (("ann", True), ("three_queues", True), ("hybrid", True), ("query_tower", False)):
        searcher.search("red dress", profile=profile, clicks=clicks)
        same = np.allclose(sent(vespa.queries[-1], "q"), plain, atol=1e-6)
        assert same is not moved, f"{profile}: its rank profile brings the history in itself"
    body = vespa.queries[-1]
    assert len(sent(body, "history_text")) == 20 * 128 and body["input.query(tokens)"].startswith("embed(")


def test_without_a_model_vespa_embeds(vespa, searcher) -> None:
    plain = Searcher(Vespa(vespa.url))
    plain.search("red dress", profile="hybrid")
    body = vespa.queries[-1]
    assert body["input.query(q)"] == "embed(text, @query)" and f"({WORDS})" in body["yql"]
    with pytest.raises(InputError, match="a history needs the exported model"):
        plain.search("red dress", clicks=[Event("i1", "click", 1.0)])
    plain.close()


def test_a_vector_of_another_model_is_refused(vespa, searcher) -> None:
    fields = {"item_id": "i1", "model_version": VERSION}
    hit = {"id": "x", "relevance": 0.0, "fields": fields}
    vespa.answer = lambda body: {
        "root": {
            "fields": {"totalCount": 0 if "model_version" in body else 5},
            "children": [hit] if body["hits"] else [],
        }
    }
    with pytest.raises(
        InputError, match=f"field model_version: .* no vectors of model mrse-new: its items are of model {VERSION}"
    ) as caught:
        searcher.search(QueryVector(np.ones(128, np.float32), "mrse-new"))
    assert kind_of(caught.value) == "caller"


def test_a_user_is_asked_for_by_a_search(searcher, vespa, model, answer) -> None:
    """A container for queries need not serve documents; and two users' ids may differ in case alone."""
    shoppers = [("U1", {"i9": 100.0}), ("u1", {"i1": 100.0, "i2": 200.0})]
    children = [{"fields": {"user_id": user, "clicks": {"cells": cells}}} for user, cells in shoppers]
    vespa.answer = lambda body: (
        {"root": {"fields": {"totalCount": 2}, "children": children}}
        if "user" in body and "shopper" in body["yql"]
        else answer(body)
    )
    vespa.status = lambda method, path, tries: 404
    assert searcher.search("red dress", user="u1", profile="ann", now=300.0).clicks == 2
    assert searcher.search("red dress", user="nobody", profile="ann").clicks == 0
    silent = Searcher(Vespa("http://127.0.0.1:9"), model=model)
    for who in ({"user": "u1"}, {"clicks": [Event("i1", "click", 1.0)]}):
        with pytest.raises(Unavailable, match=r"nothing answers at http://127\.0\.0\.1:9"):
            silent.search("red dress", **who)
    silent.close()


def test_what_is_no_search_is_told(searcher, vespa) -> None:
    vespa.answer = lambda body: {"message": "no such handler"}
    with pytest.raises(Unavailable, match="does not serve searches"):
        searcher.search("red dress", profile="bm25")


@pytest.mark.parametrize(
    ("options", "words"), [({"profile": "nope"}, "unknown profile 'nope'"), ({}, "the query is blank")]
)
def test_bad_queries_are_refused_here(searcher, options, words) -> None:
    with pytest.raises(InputError, match=words):
        searcher.search(" " if not options else "x", **options)


@pytest.mark.parametrize(
    ("text", "yql", "parameters"),
    [
        (
            "colour=red|blue",
            "(colour contains @filter0 or colour contains @filter1)",
            {"filter0": "red", "filter1": "blue"},
        ),
        ("category!=Shoes", "!(category contains @filter0)", {"filter0": "Shoes"}),
        ("price<=50", "price <= 50", {}),
        ("price>9.5", "price > 9.5", {}),
        ("in_stock=true", "in_stock = true", {}),
        ('sizes="38"', "sizes contains @filter0", {"filter0": "38"}),
    ],
)
def test_filters_in_words(text, yql, parameters) -> None:
    assert where([Filter.parse(text)]) == (yql, parameters)


@pytest.mark.parametrize("text", ["price", "price<=cheap", "a b=c", "x) or (y=1", "=1"])
def test_what_is_no_filter_is_refused(text) -> None:
    with pytest.raises(InputError):
        Filter.parse(text)


@given(st.text(min_size=1))
def test_any_text_is_a_parameter(value) -> None:
    yql, parameters = where([Filter("brand", "=", (value,))])
    assert yql == "brand contains @filter0" and parameters == {"filter0": value}
