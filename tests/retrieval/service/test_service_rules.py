"""Rules, collapsing and interleaving through the service, over the embedded engine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from starlette.testclient import TestClient

from mrse_model.errors import InputError
from retrieval.profiles import TABLE
from retrieval.service.settings import Settings

RULES = """
[synonyms]
gown = "dress"
[[queries]]
query = "red dress"
pinned = ["i31", "unknown", "i2"]
buried = ["i0", "i8"]
"""
Search = Callable[..., dict[str, Any]]


@pytest.fixture
def search_of(client_of, engine, tmp_path) -> Callable[..., Search]:
    def make(**given: Any) -> Search:
        client: TestClient = client_of(endpoint=engine, **given)

        def search(query: str, **more: Any) -> dict[str, Any]:
            answer = client.post("/v1/search", json={"query": query, **more})
            assert answer.status_code == 200, answer.text
            return answer.json()

        search.client = client  # type: ignore[attr-defined]
        return search

    return make


@pytest.fixture
def rules(tmp_path) -> str:
    (tmp_path / "rules.toml").write_text(RULES)
    return str(tmp_path / "rules.toml")


def ids(answer: dict[str, Any]) -> list[str]:
    return [hit["item"] for hit in answer["hits"]]


@pytest.mark.parametrize("profile", TABLE)
def test_every_profile_s_candidates_can_be_sorted(search_of, profile) -> None:
    search = search_of()
    found = ids(search("red dress", hits=40, profile=profile, sort=["-item_id"]))
    assert found == sorted(ids(search("red dress", hits=40, profile=profile)), reverse=True) and len(found) > 4


@pytest.mark.parametrize("sort", [[], ["-item_id"]])
@pytest.mark.parametrize("profile", TABLE)
def test_pages_past_the_target_hits_repeat_nothing(search_of, profile, sort) -> None:
    search = search_of()
    ask = {"query": "red dress", "profile": profile, "sort": sort, "target_hits": 10}
    pages = [ids(search(**ask, hits=4, offset=at)) for at in range(0, 44, 4)]
    found = [item for page in pages for item in page]
    assert len(found) == len(set(found)) >= 10
    assert found == ids(search(**ask, hits=10)) + found[10:], "in the order of one long page"


@pytest.mark.parametrize("profile", ["ann", "bm25"])
def test_pinned_items_lead_buried_ones_end_and_pages_hold_each_once(search_of, rules, profile) -> None:
    plain, ruled = search_of(), search_of(rules=rules)
    before = ids(plain("red dress", hits=40, profile=profile))
    others = [item for item in before if item not in ("i31", "i2", "i0", "i8")]
    expected = ["i31", "i2", *others, *(item for item in before if item in ("i0", "i8"))]
    whole = ruled("Red GOWN", hits=40, profile=profile)
    assert ids(whole) == expected and whole["total"] == len(expected) and whole["query"] == "Red dress"
    assert [hit["pinned"] for hit in whole["hits"]][:3] == [True, True, False]
    for size in (1, 3, 7):
        pages = [ids(ruled("red gown", hits=size, offset=at, profile=profile)) for at in range(0, 42, size)]
        assert [item for page in pages for item in page] == expected, size
    assert ids(ruled("blue dress", hits=40)) == ids(plain("blue dress", hits=40)), "a rule is of its query alone"


def test_filters_hold_for_pinned_and_buried_items(search_of, rules) -> None:
    ruled = search_of(rules=rules)
    found = ids(ruled("red dress", hits=40, filters=["colour=blue"]))
    assert "i31" in ids(ruled("red dress", hits=1)) and not {"i2", "i0"} & set(found)
    assert len(found) == len(set(found)) == 18


@pytest.mark.parametrize("profile", ["ann", "hybrid", "hybrid_linear"])
def test_of_each_value_the_best_hit_and_every_item_without_one(search_of, rules, profile) -> None:
    search = search_of()
    plain = search("red dress", hits=40, profile=profile)["hits"]
    best: dict[str, str] = {}
    for hit in plain:
        best.setdefault(hit["fields"].get("colour", hit["item"]), hit["item"])
    found = search("red dress", profile=profile, collapse="colour", facets=["colour"])
    assert ids(found) == list(best.values()) and len(best) == 6
    assert found["hits"][0] == plain[0], "features and all"
    assert {bucket["count"] for bucket in found["facets"]["colour"] if bucket["value"]} == {18}
    assert ids(search("red dress", profile=profile, collapse="colour", hits=2, offset=3)) == list(best.values())[3:5]
    ruled = search_of(rules=rules)("red dress", profile=profile, collapse="colour")
    colours = [hit["fields"].get("colour") for hit in ruled["hits"]]
    assert ids(ruled)[:2] == ["i31", "i2"]
    assert colours == ["blue", "red", *[None] * 4], "a pinned item stands for its group"
    for size in (1, 4):
        pages = [
            ids(search("red dress", profile=profile, collapse="gender", hits=size, offset=at))
            for at in range(0, 40, size)
        ]
        assert [item for page in pages for item in page] == [hit["item"] for hit in plain], "no item has a gender"
    for wrong in ({"collapse": "colr"}, {"collapse": "colour", "sort": ["price"]}):
        answer = search.client.post("/v1/search", json={"query": "dress", **wrong})
        assert answer.status_code == 400 and answer.json()["error"]["field"] in ("colr", "collapse")


def test_two_profiles_share_a_page_and_clicks_say_which_won(search_of, tmp_path) -> None:
    folder = tmp_path / "served"
    search = search_of(interleave=("ann", "bm25"), log=str(folder), demo=True)
    lists = {name: ids(search_of()("red dress", hits=12, profile=name)) for name in ("ann", "bm25")}
    found = search("red dress", hits=6, search_id="search-number-1")
    more = search("red dress", hits=6, offset=6, search_id="search-number-1")
    drafted = found["hits"] + more["hits"]
    assert len({hit["item"] for hit in drafted}) == 12 and {hit["team"] for hit in drafted} == {"ann", "bm25"}
    for team, order in lists.items():
        of_team = [hit["item"] for hit in drafted if hit["team"] == team]
        assert of_team == sorted(of_team, key=order.index), "as its profile has them"
    assert {hit["team"] for hit in search("red dress", profile="hybrid")["hits"]} == {""}, "of the test alone"
    log = search.client.app.state.service.log
    clicked = next(hit["item"] for hit in drafted if hit["team"] == "bm25")
    log.event("search-number-1", clicked, "click", 1.0)
    log.event("search-unknown", clicked, "click", 1.0)
    report = search.client.get("/v1/reports/interleaving").json()
    assert report == {"profiles": ["ann", "bm25"], "wins": [0, 1], "ties": 0, "p": 1.0}


def test_a_profile_of_one_s_own_is_served(client_of, vespa, tmp_path, monkeypatch) -> None:
    file = tmp_path / "serve.toml"
    file.write_text('[[profiles]]\nname = "mine"\nrecall = ["query", "words"]\n')
    read = Settings.read(file, interleave=["ann", "mine"])
    for name, value in read.environment().items():
        monkeypatch.setenv(name, value)
    assert Settings.from_environment() == read
    client = client_of(profiles=read.profiles)
    assert client.post("/v1/search", json={"query": "dress", "profile": "mine"}).status_code == 200
    asked = vespa.queries[-1]
    assert asked["ranking"] == "mine" and "userInput" in asked["yql"] and "nearestNeighbor" in asked["yql"]
    shown = {one["name"]: one["cosine"] for one in client.get("/v1/page").json()["profiles"]}
    assert shown["ann"] and shown["mine"] is False
    for wrong, says in (
        ('name = "ann"', "name of another"),
        ('name = "a b"', "not a rank profile name"),
        ('name = "a"\nrecall = ["quarry"]', "recall of a cannot be quarry"),
        ('name = "a"\nuser = "me"', "user of a cannot be me"),
        ('name = "a"\nrank = 1', "malformed"),
    ):
        file.write_text(f"[[profiles]]\n{wrong}\n")
        with pytest.raises(InputError, match=says):
            Settings.read(file)


def test_pages_of_two_profiles_repeat_nothing_past_the_target_hits(search_of) -> None:
    search = search_of(interleave=("ann", "hybrid"))
    ask = {"query": "red dress", "target_hits": 10, "search_id": "search-number-2", "hits": 4}
    pages = [ids(search(**ask, offset=at)) for at in range(0, 40, 4)]
    found = [item for page in pages for item in page]
    assert len(found) == len(set(found)) >= 10
    assert {hit["team"] for hit in search(**ask)["hits"]} == {"ann", "hybrid"}


def test_settings_of_a_test_are_two_known_profiles(tmp_path) -> None:
    file = tmp_path / "serve.toml"
    file.write_text('interleave = ["ann", "bm25"]\n')
    assert Settings.read(file).interleave == ("ann", "bm25")
    for wrong in (("ann",), ("ann", "ann"), ("ann", "b25")):
        with pytest.raises(InputError, match=r"two different profiles|unknown profile"):
            Settings(interleave=wrong)
