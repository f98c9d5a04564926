"""Scores, sort keys and groups that are NaN or infinite, as Vespa's source treats them in each phase."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from local_vespa.testing import deploy, running_engine
from tests.helpers.small_app import package_files, put, search, zipped

DOCUMENTS = {
    "a": {"title": "a", "stock": 1, "price": 10.0},
    "b": {"title": "b", "stock": 2},  # an unset price is NaN in an expression
    "c": {"title": "c", "stock": 3, "price": 30.0},
    "d": {"title": "d", "stock": 4, "price": 40.0},
}
FIRST, SECOND, GLOBAL = "first-phase", "second-phase", "global-phase"
NAN, LOWEST, GREATEST = "NaN", "-Infinity", "Infinity"
BROKEN = "log(-1)"
CASES: dict[str, tuple[dict[str, str], dict[str, Any]]] = {
    # first phase: NaN and both infinities are the lowest score
    "first_nan": ({FIRST: "attribute(price)"}, {"d": 40, "c": 30, "a": 10, "b": LOWEST}),
    "first_inf": ({FIRST: "1 / (attribute(stock) - 2)"}, {"c": 1, "d": 0.5, "a": -1, "b": LOWEST}),
    "first_less": ({FIRST: "-1 / (attribute(stock) - 2)"}, {"a": 1, "d": -0.5, "c": -1, "b": LOWEST}),
    # second phase, of the best two: NaN has no part in the range by which the others are moved
    "second": ({FIRST: "attribute(stock)", SECOND: "attribute(price)"}, {"d": 40, "c": 30, "b": 2, "a": 1}),
    "moved": (
        {FIRST: "attribute(stock)", SECOND: "attribute(price) - 100"},
        {"d": -60, "c": -70, "b": -80, "a": -90},
    ),
    "second_nan": (
        {FIRST: "attribute(stock)", SECOND: f"if(attribute(stock) == 3, {BROKEN}, attribute(price) - 100)"},
        {"d": -60, "b": -61, "a": -62, "c": LOWEST},
    ),
    "second_all_nan": ({FIRST: "attribute(stock)", SECOND: BROKEN}, {"b": 2, "a": 1, "c": LOWEST, "d": LOWEST}),
    "both_nan": (
        {FIRST: "attribute(price)", SECOND: f"if(attribute(stock) == 3, {BROKEN}, attribute(price) - 100)"},
        {"d": -60, "a": -62, "b": LOWEST, "c": LOWEST},
    ),
    # an infinite range leaves nothing of the others' scores, in Vespa too
    "second_inf": (
        {FIRST: "attribute(stock)", SECOND: "1 / (attribute(stock) - 3)"},
        {"c": GREATEST, "d": 1, "a": LOWEST, "b": LOWEST},
    ),
    "second_less": (
        {FIRST: "attribute(stock)", SECOND: "log(attribute(stock) - 3)"},
        {"d": 0, "a": LOWEST, "b": LOWEST, "c": LOWEST},
    ),
    # global phase, of the best two: NaN stays, below all
    "global_nan": (
        {FIRST: "attribute(stock)", GLOBAL: f"if(attribute(stock) == 4, {BROKEN}, attribute(price) - 100)"},
        {"c": -70, "b": -71, "a": -72, "d": NAN},
    ),
    "global_inf": (
        {FIRST: "attribute(stock)", GLOBAL: "1 / (attribute(stock) - 3)"},
        {"c": GREATEST, "d": 1, "a": NAN, "b": NAN},
    ),
    "global_after_nan": (
        {FIRST: "attribute(price)", GLOBAL: "attribute(stock)"},
        {"d": 4, "c": 3, "a": 1, "b": LOWEST},
    ),
}


def _profile(name: str, phases: dict[str, str]) -> str:
    body = "".join(
        f"{phase} {{ expression: {expression}\n{'rerank-count: 2' if phase != FIRST else ''} }}\n"
        for phase, expression in phases.items()
    )
    return f"rank-profile {name} inherits base {{\n{body}}}\n"


@pytest.fixture(scope="module")
def numbers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    files = package_files()
    for name, (phases, _) in CASES.items():
        files[f"schemas/thing/{name}.profile"] = _profile(name, phases).encode()
    with running_engine(tmp_path_factory.mktemp("numbers")) as url:
        deploy(url, zipped(files))
        for id, fields in DOCUMENTS.items():
            assert put(url, id, fields)[0] == 200
        yield url


def children(answer: tuple[int, Any]) -> list[Any]:
    assert answer[0] == 200, answer
    return answer[1]["root"].get("children", [])


@pytest.mark.parametrize("name", CASES)
def test_every_hit_keeps_its_place(numbers: str, name: str) -> None:
    phases, expected = CASES[name]
    found = search(numbers, yql="select title from thing where true", ranking=name)
    hits = [(hit["fields"]["title"], hit["relevance"]) for hit in children(found)]
    assert found[1]["root"]["fields"]["totalCount"] == 4
    assert {title: pytest.approx(score) for title, score in hits} == expected
    order = {NAN: (0, 0), LOWEST: (1, 0), GREATEST: (3, 0)}
    keys = [order.get(score) or (2, score) for _, score in hits]
    assert keys == sorted(keys, reverse=True)
    if GLOBAL in phases:
        return  # it reranks the hits that the container has, and with fewer it has fewer
    best = children(search(numbers, yql="select title from thing where true", ranking=name, hits=2))
    assert [hit["relevance"] for hit in best] == [score for _, score in hits[:2]]


@pytest.mark.parametrize(
    ("name", "parameter", "left"),
    [
        ("first_nan", "ranking.rankScoreDropLimit", {"c", "d"}),
        ("second_nan", "ranking.secondPhase.rankScoreDropLimit", set()),
        ("global_nan", "ranking.globalPhase.rankScoreDropLimit", {"d"}),  # NaN is not below a limit
    ],
)
def test_what_is_no_number_and_a_drop_limit(numbers: str, name: str, parameter: str, left: set[str]) -> None:
    answer = search(numbers, yql="select title from thing where true", ranking=name, **{parameter: 20})
    assert {hit["fields"]["title"] for hit in children(answer)} == left
    assert answer[1]["root"]["fields"]["totalCount"] == len(left)


def test_groups_of_scores_that_are_no_numbers(numbers: str) -> None:
    yql = "select title from thing where true limit 0 | all(group(stock) each(output(count())))"
    (root,) = children(search(numbers, yql=yql, ranking="second_nan"))
    found = {g["value"]: g["relevance"] for g in root["children"][0]["children"]}
    assert found == {"4": -60, "2": -61, "1": -62, "3": LOWEST}


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    prices = {"a": 5.0, "b": None, "c": "NaN", "d": "-Infinity", "e": "Infinity", "f": -5.0}
    with running_engine(tmp_path_factory.mktemp("odd")) as url:
        deploy(url, zipped(package_files()))
        for id, price in prices.items():
            fields = {"title": id} if price is None else {"title": id, "price": price}
            assert put(url, id, fields)[0] == 200
        yield url


@pytest.mark.parametrize(("order", "expected"), [("asc", "bcdfae"), ("desc", "eafdbc")])
def test_what_is_no_number_sorts_as_unset(odd: str, order: str, expected: str) -> None:
    hits = children(search(odd, yql=f"select title from thing where true order by price {order}"))
    assert "".join(hit["fields"]["title"] for hit in hits) == expected


def test_what_is_no_number_is_one_group(odd: str) -> None:
    yql = "select title from thing where true limit 0 | all(group(price) order(-count()) each(output(count()))) "
    (root,) = children(search(odd, yql=yql))
    assert root["children"][0]["children"][0]["fields"] == {"count()": 2}
    yql = (
        "select title from thing where true limit 0 | "
        "all(group(fixedwidth(price, 10)) order(-count()) output(count()) "
        "each(output(count(), min(price), max(price))))"
    )
    (root,) = children(search(odd, yql=yql))
    first = root["children"][0]["children"][0]
    assert root["fields"] == {"count()": 5}
    assert first["limits"] == {"from": "NaN", "to": "NaN"} and first["fields"]["count()"] == 2
    assert first["fields"]["max(price)"] == -first["fields"]["min(price)"] < -1e308
