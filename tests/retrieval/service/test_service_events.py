"""Behaviour over a real engine: what was clicked counts in the next search, and goes when its user does."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient
from vespa.application import Vespa

from retrieval.service.app import create_app
from retrieval.service.bots import BotGuard
from retrieval.service.settings import Settings

SESSION = "0123456789abcdef"


@pytest.fixture(scope="module")
def client(engine: str, package: Path) -> Iterator[TestClient]:
    settings = Settings(endpoint=engine, app=str(package), demo=True, deadline=10)
    with TestClient(create_app(settings), raise_server_exceptions=False) as client:
        yield client


def click(client: TestClient, item: str, **more: object) -> dict:
    answer = client.post("/v1/events", json={"item": item, **more})
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_the_next_search_knows_the_click(client) -> None:
    ask = {"query": "red", "user": "u1", "profile": "three_queues", "ranks": True, "hits": 40}
    before = client.post("/v1/search", json=ask).json()
    assert before["clicks"] == 0 and all(set(hit["queues"]) == {"q2i"} for hit in before["hits"])
    assert click(client, "i9", user="u1", query="Red")["recorded"]
    after = client.post("/v1/search", json=ask).json()
    assert after["clicks"] == 1 and any("i2i" in hit["queues"] for hit in after["hits"])
    scores = lambda answer: {hit["item"]: hit["score"] for hit in answer["hits"]}  # noqa: E731
    assert scores(before) != scores(after), "the query vector is the tower's with the history"
    assert [hit["queues"]["q2i"] for hit in after["hits"]] == list(range(1, len(after["hits"]) + 1))
    assert client.get("/v1/users/u1").json()["events"] == [
        {"item": "i9", "kind": "click", "at": pytest.approx(time.time(), abs=60), "query": "red"}
    ]


def test_an_event_counts_once(client) -> None:
    assert click(client, "i1", user="u2", event_id="e1", at=1000)["recorded"]
    again = click(client, "i1", user="u2", event_id="e1", at=2000)
    assert not again["recorded"] and "known" in again["reason"]
    assert click(client, "i1", user="u2", event_id="e0", at=500)["recorded"] is False, "older, and out of order"
    assert [event["at"] for event in client.get("/v1/users/u2").json()["events"]] == [1000]
    click(client, "i2", user="u2", at=3e9)
    newest = client.get("/v1/users/u2").json()["events"][0]
    assert newest["at"] == pytest.approx(time.time(), abs=60), "not later than now"


def test_a_session_has_a_history_without_an_account(client) -> None:
    click(client, "i3", session=SESSION, kind="cart")
    found = client.post("/v1/search", json={"query": "blue", "session": SESSION}).json()
    assert found["clicks"] == 1
    assert client.delete(f"/v1/sessions/{SESSION}").json()["deleted"]
    assert client.post("/v1/search", json={"query": "blue", "session": SESSION}).json()["clicks"] == 0
    assert client.post("/v1/events", json={"item": "i3"}).json()["error"]["field"] == "user"


def test_a_deleted_user_is_gone(client, engine) -> None:
    click(client, "i4", user="u3", query="hat")
    assert client.delete("/v1/users/u3").json() == {"user": "u3", "deleted": True}
    assert Vespa(engine).get_data("shopper", "u3", namespace="item").status_code == 404
    assert client.post("/v1/search", json={"query": "hat", "user": "u3"}).json()["clicks"] == 0
    assert client.delete("/v1/users/u3").json()["deleted"] is False


def test_a_history_ages_out(client, engine) -> None:
    click(client, "i4", user="u4")
    click(client, "i4", session=SESSION[::-1])
    expires = {
        name: Vespa(engine).get_data("shopper", name, namespace="item").json["fields"]["expires"] - time.time()
        for name in ("u4", "session:" + SESSION[::-1])
    }
    assert [round(seconds / 86400) for seconds in expires.values()] == [180, 1]


def test_an_item_is_explained(client) -> None:
    click(client, "i9", user="u5")
    found = client.post("/v1/explain", json={"query": "red dress", "item": "i8", "user": "u5"}).json()
    assert found["clicks"] == 1 and {"input_query_text", "input_history"} <= found["shares"].keys()
    assert found["queues"]["q2i"] >= 1
    assert client.post("/v1/explain", json={"query": "red dress", "item": "none"}).status_code == 404


def test_the_list_of_users_is_the_demos(client, engine, package) -> None:
    click(client, "i9", user="u6")
    click(client, "i9", session=SESSION)
    users = [row["user"] for row in client.get("/v1/users").json()]
    assert "u6" in users and not any(user.startswith("session:") for user in users)
    with TestClient(create_app(Settings(endpoint=engine, app=str(package)))) as other:
        assert other.get("/v1/users").status_code == 404
        assert other.post("/v1/search", json={"query": "red", "user": "u6"}).status_code == 403


def test_bots_are_told_apart_as_in_training() -> None:
    guard = BotGuard()
    for n in range(61):
        guard.searched("fast", 10, 3600 * 5 + n)
        guard.searched("person", 10, 3600 * n)
    for _ in range(20):
        guard.searched("greedy", 5, 0)
    for n in range(70):
        guard.searched("scrolls", 10, 3600 * 5 + n, further=n % 10 > 0)
    assert guard.acted("fast", "click") and not guard.acted("person", "click")
    assert not guard.acted("scrolls", "click"), "pages of one search are one row of the log"
    assert not any(guard.acted("greedy", "order") for _ in range(99)), "training's rule is of clicks"
    assert not any(guard.acted("greedy", "click") for _ in range(79)) and guard.acted("greedy", "click")
