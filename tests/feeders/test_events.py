"""The one writer of user events against the embedded engine: twice, out of order, side by side, and never too many."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from vespa.application import Vespa

from feeders.events import KEPT, KEPT_ASKED, EventWriter, UserEvent
from feeders.operations import DeliveryResult, Operation
from feeders.transport import Transport
from local_vespa.testing import deploy, running_engine
from mrse_model.errors import InputError


@pytest.fixture(scope="module")
def engine(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vespa]:
    with running_engine(tmp_path_factory.mktemp("engine")) as url:
        deploy(url, package)
        yield Vespa(url)


@pytest.fixture
def events(engine: Vespa) -> Iterator[EventWriter]:
    with EventWriter(engine) as writer:
        yield writer


def test_an_event_is_a_cell_of_its_kind(events) -> None:
    assert events.record("u1", "B01", "click", 100)
    assert events.record("u1", "B02", "order", 200)
    read = events.read("u1")
    assert read.cells == {"click": {"B01": 100}, "order": {"B02": 200}} and read.updated > 1e15
    assert events.read("nobody") == type(read)("nobody")


def test_what_comes_twice_or_late_changes_nothing(events) -> None:
    assert events.record("u2", "B01", "click", 100, "e1")
    assert not events.record("u2", "B01", "click", 100, "e1")
    assert not events.record("u2", "B01", "click", 900, "e1"), "the id is known, whatever the time says"
    assert not events.record("u2", "B01", "click", 50), "an older click of the same item"
    assert events.record("u2", "B01", "click", 300, "e2")
    assert events.read("u2").cells == {"click": {"B01": 300}}


def test_events_are_kept_by_the_query_that_they_were_made_for(events) -> None:
    assert events.record("u6", "B01", "click", 100, query="red dress")
    assert events.record("u6", "B01", "click", 100, query="gown"), "the same click, found by another query"
    assert not events.record("u6", "B01", "click", 100, query="gown")
    for n in range(KEPT_ASKED):
        events.record("u6", f"C{n}", "cart", 200 + n, query="boots")
    assert events.read("u6").asked == {("boots", f"C{n}"): 200 + n for n in range(KEPT_ASKED)}


def test_a_user_is_forgotten(events) -> None:
    events.record("u7", "B01", "click", 100, query="red dress")
    assert events.forget("u7") and not events.read("u7").exists
    assert not events.forget("u7")
    assert events.record("u7", "B01", "click", 100), "nothing is left that knows the event"


def test_what_was_read_before_a_deletion_is_read_again(engine, events, monkeypatch) -> None:
    events.record("u8", "B01", "click", 100, "e1")
    before = [events._read("u8")]
    events.forget("u8")
    read = events._read
    monkeypatch.setattr(events, "_read", lambda user: before.pop() if before else read(user))
    assert events.record("u8", "B02", "click", 200, "e2") and not before
    found = events.read("u8")
    assert (found.cells, found.event_ids) == ({"click": {"B02": 200}}, ["e2"]), "nothing of what was deleted"
    stored = engine.get_data("shopper", "u8", namespace="item").json["fields"]
    assert stored["user_id"] == "u8", "a search finds the user by it"


def test_the_last_items_are_kept_in_any_order_of_arrival(events) -> None:
    order = [*range(0, 30, 2), *range(29, 0, -2)]
    for n in order:
        events.record("u3", f"B{n:02}", "click", 1000 + n)
    assert events.read("u3").cells["click"] == {f"B{n:02}": 1000 + n for n in range(10, 30)}
    assert not events.record("u3", "B00", "click", 1000), f"older than the last {KEPT}"


def test_writers_side_by_side_lose_nothing(engine) -> None:
    def write(worker: int) -> None:
        with EventWriter(engine) as writer:
            for n in range(4):
                writer.record("u4", f"B{worker}-{n}", "click", 100 * worker + n, f"{worker}-{n}")

    threads = [threading.Thread(target=write, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with EventWriter(engine) as writer:
        found = writer.read("u4")
    assert found.cells["click"] == {f"B{w}-{n}": 100 * w + n for w in range(4) for n in range(4)}
    assert sorted(found.event_ids) == sorted(f"{w}-{n}" for w in range(4) for n in range(4))


def test_a_document_of_an_earlier_version_is_taken_on(engine, events) -> None:
    results: list[DeliveryResult] = []
    old = {"user_id": "u/../5", "clicks": {"cells": {"B01": 100}}, "updated": 100}
    Transport(engine, results.append).send([Operation("put", "shopper", "u/../5", old)])
    assert [result.status for result in results] == [200]
    assert events.record_all("u/../5", [UserEvent("u/../5", "B02", "click", 200)])
    assert events.read("u/../5").cells == {"click": {"B01": 100, "B02": 200}}


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (("", "B01", "click", 1), "field user: "),
        (("u", " ", "click", 1), "field item: "),
        (("u", "B01", "look", 1), "field event: unknown event"),
        (("u", "B01", "click", 1_700_000_000_000), "field timestamp: .*Divide milliseconds by 1000"),
    ],
)
def test_what_is_no_event_is_refused(events, record, message) -> None:
    with pytest.raises(InputError, match=message):
        events.record(*record)
