"""Flat events and UBI exports become searches."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mrse_model.data.contract import SearchesFile
from mrse_model.data.convert import convert_events, convert_ubi
from mrse_model.errors import InputError


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    columns = dict.fromkeys(name for row in rows for name in row)
    pq.write_table(pa.table({name: [row.get(name) for row in rows] for name in columns}), path)
    return path


def read(path: Path) -> list[dict[str, Any]]:
    SearchesFile(path)
    return [row | {"timestamp": int(row["timestamp"].timestamp())} for row in pq.read_table(path).to_pylist()]


def event(time: int, event: str, item: str | None, query: str = "mug", user: str = "u", **more: Any) -> dict[str, Any]:
    return {"user_id": user, "timestamp": time, "event": event, "query": query, "item_id": item} | more


def test_events_are_grouped_by_user_query_and_pause(tmp_path: Path) -> None:
    rows = [
        event(5000, "click", "d"),  # more than 30 minutes later: another search
        event(100, "impression", "b", position=2),
        event(100, "impression", "a", position=1),
        event(130, "click", "a", query=" Mug "),
        event(140, "click", "a"),
        event(200, "add_to_cart", "a"),
        event(300, "purchase", "a"),
        event(150, "click", "c", user="v"),
        event(160, "login", None),
        event(170, "click", "x", query=""),
        event(180, "click", ""),
    ]
    done = convert_events(write(tmp_path / "e.parquet", rows), tmp_path / "s.parquet")
    found = read(tmp_path / "s.parquet")
    assert [(r["user_id"], r["timestamp"], r["query"]) for r in found] == [
        ("u", 100, "mug"),
        ("v", 150, "mug"),
        ("u", 5000, "mug"),
    ]
    assert [found[0][name] for name in ("shown", "clicked", "carted", "ordered")] == [["a", "b"], ["a"], ["a"], ["a"]]
    assert (done.searches, done.events) == (3, 5)
    assert done.dropped == {"event 'login'": 1, "event without a query": 1, "event without an item": 1}
    assert len({r["search_id"] for r in found}) == 3
    assert sorted(p.name for p in tmp_path.iterdir()) == ["e.parquet", "s.parquet"]


def test_events_with_a_search_id_need_no_query_each(tmp_path: Path) -> None:
    rows = [
        event(100, "click", "a", search_id="s1"),
        event(90_000, "purchase", "a", query="", search_id="s1"),
        event(100, "click", "b", search_id="s2"),
        event(120, "click", "c", search_id=" "),
    ]
    convert_events(write(tmp_path / "e.parquet", rows), tmp_path / "s.parquet")
    found = read(tmp_path / "s.parquet")
    assert [(r["search_id"], r["query"], r["clicked"], r["ordered"]) for r in found] == [
        ("s1", "mug", ["a"], ["a"]),
        ("s2", "mug", ["b"], []),
        (found[2]["search_id"], "mug", ["c"], []),  # a blank one is none: by user, query and pause
    ]


@pytest.mark.parametrize("as_json", [False, True])
def test_ubi(tmp_path: Path, as_json: bool) -> None:
    queries = [
        {"query_id": "q2", "user_query": "cup", "client_id": "v", "timestamp": "2026-03-01T12:00:05.5Z"},
        {"query_id": "q1", "user_query": "mug", "client_id": "u", "timestamp": "2026-03-01T12:00:00+00:00"},
    ]
    hits = {"q1": ["a", "b"], "q2": None}

    def acted(action: str, query_id: str | None, item: str | None) -> dict[str, Any]:
        attributes: Any = {"object": {"object_id": item, "object_id_field": "sku"}, "position": {"ordinal": 1}}
        attributes = json.dumps(attributes) if as_json else attributes
        at = "2026-03-01T12:01:00Z"
        return {"action_name": action, "query_id": query_id, "timestamp": at, "event_attributes": attributes}

    events = [
        acted("click", "q1", "b"),
        acted("add_to_cart", "q1", "b"),
        acted("brand_filter", "q1", None),
        acted("click", "gone", "b"),
        acted("click", "q1", None),
    ]
    asked = write(tmp_path / "q.parquet", [q | {"query_response_hit_ids": hits[q["query_id"]]} for q in queries])
    done = convert_ubi(asked, write(tmp_path / "e.parquet", events), tmp_path / "s.parquet")
    first, second = read(tmp_path / "s.parquet")
    assert first == {
        "search_id": "q1", "user_id": "u", "timestamp": 1_772_366_400, "query": "mug",
        "shown": ["a", "b"], "clicked": ["b"], "carted": ["b"], "ordered": [],
    }  # fmt: skip
    assert (second["search_id"], second["timestamp"], second["shown"]) == ("q2", 1_772_366_405, [])
    assert done.dropped == {
        "event 'brand_filter'": 1,
        "event without an item": 1,
        "event of an unknown query_id": 1,
    }


def test_ubi_of_integer_ids(tmp_path: Path) -> None:
    """As JSON has them; a number with a point is the id of no item."""
    at = "2026-03-01T12:00:00Z"
    asked = write(tmp_path / "q.parquet", [{"query_id": "q", "user_query": "mug", "client_id": 5, "timestamp": at}])
    acted = {"action_name": "click", "query_id": "q", "timestamp": at}
    events = write(tmp_path / "e.parquet", [acted | {"event_attributes": {"object": {"object_id": 7}}}])
    convert_ubi(asked, events, tmp_path / "s.parquet")
    assert [(row["user_id"], row["clicked"]) for row in read(tmp_path / "s.parquet")] == [("5", ["7"])]
    write(events, [acted | {"event_attributes": {"object": {"object_id": 7.0}}}])
    with pytest.raises(InputError, match=r"row 0, field event_attributes: object_id is the number 7\.0\. Write"):
        convert_ubi(asked, events, tmp_path / "s.parquet")
    for source in (asked, events):
        with pytest.raises(InputError, match="it is the file that is read"):
            convert_ubi(asked, events, source)


def test_errors_name_the_row_and_leave_nothing(tmp_path: Path) -> None:
    out = tmp_path / "s.parquet"
    bad_time = write(tmp_path / "e.parquet", [event(1, "click", "a") | {"timestamp": "soon"}])
    with pytest.raises(InputError, match=r"e\.parquet, row 0, field timestamp: 'soon' is not a time"):
        convert_events(bad_time, out)
    with pytest.raises(InputError, match=r"no click, cart or order \(event 'login'\)"):
        convert_events(write(tmp_path / "e.parquet", [event(1, "login", "a")]), out)
    with pytest.raises(InputError, match="field query_id: the column is missing"):
        convert_ubi(bad_time, bad_time, out)
    blank = {"query_id": " ", "user_query": "cup", "client_id": "v", "timestamp": "2026-03-01T12:00:05Z"}
    acted = {"action_name": "click", "query_id": " ", "timestamp": "2026-03-01T12:01:00Z", "event_attributes": "{}"}
    with pytest.raises(InputError, match=r"e\.parquet, row 0, field query_id: it is empty"):
        convert_ubi(write(tmp_path / "e.parquet", [blank | acted]), tmp_path / "e.parquet", out)
    assert [p.name for p in tmp_path.iterdir()] == ["e.parquet"]
