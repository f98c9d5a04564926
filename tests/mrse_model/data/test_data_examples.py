"""Training examples: nothing leaks, nothing is lost without being counted."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mrse_model.data.contract import Catalogue, SearchesFile, read_catalogue, read_judgments
from mrse_model.data.example_files import EXAMPLE_SCHEMA, ExampleSummary, item_queries
from mrse_model.data.examples import ExampleSettings, write_examples
from mrse_model.errors import InputError

HOUR = 3600
ITEMS = 12


def catalogue(folder: Path) -> Catalogue:
    path = folder / "items.parquet"
    titles = [f"Red Cup Number {n}" for n in range(ITEMS - 1)] + ["Red Cup Number 0"]
    pq.write_table(pa.table({"item_id": [f"i{n}" for n in range(ITEMS)], "title": titles}), path)
    return read_catalogue(path)


def searches(folder: Path, rows: list[dict[str, Any]]) -> SearchesFile:
    lists = ("shown", "clicked", "carted", "ordered")
    empty = {"search_id": "", "user_id": "u", "timestamp": 0, "query": "q"} | {name: [] for name in lists}
    full = [empty | {"search_id": f"s{n}"} | row for n, row in enumerate(rows)]
    schema = pa.schema(
        [("search_id", pa.string()), ("user_id", pa.string()), ("timestamp", pa.int64()), ("query", pa.string())]
        + [(name, pa.list_(pa.string())) for name in lists]
    )
    pq.write_table(pa.Table.from_pylist(full, schema), folder / "searches.parquet", row_group_size=7)
    return SearchesFile(folder / "searches.parquet")


def read(folder: Path) -> list[dict[str, Any]]:
    return [row for path in sorted(folder.glob("train-*.parquet")) for row in pq.read_table(path).to_pylist()]


events = st.lists(
    st.fixed_dictionaries(
        {
            "user_id": st.sampled_from(["u", "v", ""]),
            "timestamp": st.integers(0, 9).map(lambda t: t * HOUR),
            "query": st.sampled_from(["red cup", "Red  Cup", "mug", "  "]),
            "clicked": st.lists(st.integers(0, ITEMS).map("i{}".format), max_size=3),
            "ordered": st.lists(st.integers(0, ITEMS - 1).map("i{}".format), max_size=1),
        }
    ),
    min_size=1,
    max_size=30,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=events, split=st.integers(0, 10))
def test_no_example_knows_its_future(tmp_path: Path, rows: list[dict[str, Any]], split: int) -> None:
    start = split * HOUR
    config = ExampleSettings(pseudo_queries=0, history_length=3, validation_from=start, shard_rows=4)
    out = tmp_path / "examples"
    try:
        summary = write_examples(out, catalogue(tmp_path), searches=searches(tmp_path, rows), settings=config)
    except InputError as error:
        assert "nothing to train on" in str(error)
        return
    by_id = {f"s{n}": row for n, row in enumerate(rows)}
    done = {
        (row["user_id"], int(item[1:]), row["timestamp"])
        for row in rows
        if row["query"].strip()
        for item in row["clicked"] + row["ordered"]
    }
    train, held_out = read(out), pq.read_table(out / "validation.parquet").to_pylist()
    assert len(train) == summary.rows and len(held_out) == summary.validation_searches
    for row in train + held_out:
        targets = row.get("target_items") or [row["target_item"]]
        assert row["query"] == " ".join(by_id[row["search_id"]]["query"].split())
        assert not set(row["history_items"]) & set(targets) and len(row["history_items"]) <= 3
        assert row["history_age"] == sorted(row["history_age"])  # newest first
        for item, age in zip(row["history_items"], row["history_age"], strict=True):
            assert age > 0 and (row["user_id"], item, row["timestamp"] - int(age)) in done and row["user_id"]
    assert [r["timestamp"] for r in train] == sorted(r["timestamp"] for r in train)
    assert all(r["timestamp"] < start for r in train) and all(r["timestamp"] >= start for r in held_out)
    before = {(r["query"].lower(), r["target_item"]) for r in train}  # what was clicked before the split
    for row in train:
        others = {item for query, item in before if query == row["query"].lower()} - {row["target_item"]}
        assert set(row["known"]) == others
    led = item_queries(out, ITEMS)
    assert {(query, item) for item, queries in enumerate(led) for query in queries} == before
    clicked = [set(r["clicked"] + r["ordered"]) - {f"i{ITEMS}"} for r in rows if r["query"].strip()]
    assert len(train) + sum(len(r["target_items"]) for r in held_out) == sum(map(len, clicked))
    assert summary.dropped.get("nothing clicked", 0) == sum(not c for c in clicked)
    assert summary.dropped.get("blank query", 0) == sum(not r["query"].strip() for r in rows)


def test_the_order_of_the_file_does_not_matter(tmp_path: Path) -> None:
    rows = [
        {"search_id": f"s{n}", "timestamp": n * HOUR, "user_id": "uv"[n % 2], "clicked": [f"i{n % ITEMS}"]}
        for n in range(40)
    ]
    shuffled = random.Random(1).sample(rows, len(rows))
    write_examples(tmp_path / "a", catalogue(tmp_path), searches=searches(tmp_path, rows))
    write_examples(tmp_path / "b", catalogue(tmp_path), searches=searches(tmp_path, shuffled))
    assert read(tmp_path / "a") == read(tmp_path / "b")
    assert item_queries(tmp_path / "a", ITEMS) == item_queries(tmp_path / "b", ITEMS)


def test_one_item_of_one_search_is_one_example_of_the_strongest_kind(tmp_path: Path) -> None:
    row = {"clicked": ["i1", "i2", "i3"], "carted": ["i2", "i3"], "ordered": ["i3", "i4"]}
    config = ExampleSettings(pseudo_queries=0, validation_fraction=0)
    summary = write_examples(tmp_path / "x", catalogue(tmp_path), searches=searches(tmp_path, [row]), settings=config)
    assert [(r["target_item"], r["kind"]) for r in read(tmp_path / "x")] == [(1, 0), (2, 1), (3, 2), (4, 2)]
    assert summary.examples == {"click": 1, "cart": 1, "order": 2, "judged": 0, "pseudo-query": 0}
    assert (summary.split, summary.empty_history_share) == (None, 1.0)


def test_what_was_shown_and_skipped_goes_with_each_click_of_its_search(tmp_path: Path) -> None:
    row = {"shown": ["i5", "gone", "i1", "i2", "i5", "i3"], "clicked": ["i2"], "ordered": ["i3"]}
    judged = read_judgments(judgments(tmp_path, [("q", "i7", 2)]), catalogue(tmp_path))
    config = ExampleSettings(pseudo_queries=0, validation_fraction=0)
    out = tmp_path / "x"
    write_examples(out, catalogue(tmp_path), searches=searches(tmp_path, [row]), judgments=judged, settings=config)
    assert [(r["target_item"], r["skipped"]) for r in read(out)] == [(7, []), (2, [5, 1]), (3, [5, 1])]


def judgments(folder: Path, rows: list[tuple[str, str, int]]) -> Path:
    query, item, grade = zip(*rows, strict=True)
    pq.write_table(pa.table({"query": query, "item_id": item, "grade": grade}), folder / "judgments.parquet")
    return folder / "judgments.parquet"


def test_judged_pairs_are_positives_hard_negatives_and_masks(tmp_path: Path) -> None:
    items = catalogue(tmp_path)
    path = judgments(tmp_path, [("Mug", "i0", 2), ("Mug", "i1", 2), ("Mug", "i2", 1), ("Mug", "i3", 0)])
    log = searches(tmp_path, [{"query": "mug", "clicked": ["i2", "i5"]}])
    config = ExampleSettings(pseudo_queries=0, validation_fraction=0)
    out = tmp_path / "x"
    summary = write_examples(out, items, searches=log, judgments=read_judgments(path, items), settings=config)
    rows = {(r["query"], r["target_item"], r["kind"]): (r["hard"], set(r["known"])) for r in read(out)}
    assert rows == {
        ("Mug", 0, 3): ([2, 3], {1, 5}),
        ("Mug", 1, 3): ([2, 3], {0, 5}),
        ("mug", 2, 0): ([3], {0, 1, 5}),
        ("mug", 5, 0): ([2, 3], {0, 1}),
    }
    assert (summary.hard_share, summary.positive_grade) == (1.0, 2)
    assert all(r["history_items"] == [] and r["timestamp"] == 0 for r in read(out) if r["kind"] == 3)


def test_an_item_is_led_to_by_clicks_and_then_by_the_queries_that_it_is_judged_for(tmp_path: Path) -> None:
    items = catalogue(tmp_path)
    path = judgments(tmp_path, [("Big mug", "i0", 2), ("mug", "i1", 2), ("mug", "i2", 1)])
    log = searches(tmp_path, [{"query": "mug", "clicked": ["i0", "i2"]}, {"query": "big mug", "clicked": ["i3"]}])
    config = ExampleSettings(pseudo_queries=0, validation_fraction=0)
    write_examples(tmp_path / "x", items, searches=log, judgments=read_judgments(path, items), settings=config)
    assert item_queries(tmp_path / "x", ITEMS)[:4] == [["mug", "big mug"], ["mug"], ["mug"], ["big mug"]]


def test_judgments_without_a_relevant_item_are_refused(tmp_path: Path) -> None:
    items = catalogue(tmp_path)
    judged = read_judgments(judgments(tmp_path, [("mug", "i0", 0), ("mug", "i3", 0)]), items)
    with pytest.raises(InputError, match=r"judgments.parquet: no judged item is relevant.*a grade of 1 or more"):
        write_examples(tmp_path / "x", items, judgments=judged)


def test_binary_judgments_have_positives_too(tmp_path: Path) -> None:
    items = catalogue(tmp_path)
    judged = read_judgments(judgments(tmp_path, [("mug", "i0", 1), ("mug", "i3", 0)]), items)
    summary = write_examples(tmp_path / "x", items, judgments=judged, settings=ExampleSettings(pseudo_queries=0))
    assert [(r["target_item"], r["hard"]) for r in read(tmp_path / "x")] == [(0, [3])]
    assert summary.positive_grade == 1


def test_bots_are_removed_and_counted(tmp_path: Path) -> None:
    shown = [f"i{n}" for n in range(6)]
    people = [{"user_id": "p", "timestamp": n * HOUR, "shown": shown, "clicked": ["i1"]} for n in range(30)]
    fast = [{"user_id": "fast", "timestamp": n, "clicked": ["i2"]} for n in range(61)]
    greedy = [{"user_id": "greedy", "timestamp": n * HOUR, "shown": shown, "clicked": shown} for n in range(20)]
    unknown = [{"user_id": "", "timestamp": n, "clicked": ["i3"]} for n in range(99)]
    log = searches(tmp_path, people + fast + greedy + unknown)
    summary = write_examples(tmp_path / "x", catalogue(tmp_path), searches=log)
    assert (summary.spam_users, summary.dropped["spam user"]) == (2, 81)
    assert {r["user_id"] for r in read(tmp_path / "x")} == {"p", ""}
    assert any("2 spam users removed" in line for line in summary.lines())


def test_a_catalogue_alone_gives_pseudo_queries(tmp_path: Path) -> None:
    items = catalogue(tmp_path)
    summary = write_examples(tmp_path / "x", items)
    rows = read(tmp_path / "x")
    assert summary.examples["pseudo-query"] == len(rows) > 2 * ITEMS
    assert {r["target_item"] for r in rows} == set(range(ITEMS)) and {r["kind"] for r in rows} == {4}
    for row in rows:
        assert set(row["query"].split()) <= set(items.titles[row["target_item"]].lower().split())
        assert row["known"] == {0: [ITEMS - 1], ITEMS - 1: [0]}.get(row["target_item"], [])  # the two of one title
    assert any("no searches" in line for line in summary.lines())
    write_examples(tmp_path / "y", items)
    assert read(tmp_path / "y") == rows
    write_examples(tmp_path / "y", items, settings=ExampleSettings(seed=8))
    assert read(tmp_path / "y") != rows


@pytest.mark.parametrize(("clicked", "taught"), [(2, False), (ITEMS, False), (2 * ITEMS, False), (2 * ITEMS, True)])
def test_few_real_queries_have_pseudo_queries_beside_them(tmp_path: Path, clicked: int, taught: bool) -> None:
    rows = [{"query": f"q{n}", "clicked": [f"i{n % ITEMS}"], "timestamp": n} for n in range(clicked)]
    settings = ExampleSettings(validation_fraction=0, taught=taught)
    summary = write_examples(tmp_path / "x", catalogue(tmp_path), searches=searches(tmp_path, rows), settings=settings)
    assert summary.examples["click"] == clicked
    share = 1 / (1 + 2.5 * clicked / (2 * ITEMS)) if taught else max(0, 0.8 * (1 - clicked / ITEMS / 1.5))
    assert summary.pseudo_share == pytest.approx(share)
    assert (summary.examples["pseudo-query"] > ITEMS) == (summary.pseudo_share > 0)
    said = any(f"{summary.pseudo_share:.0%} of each batch" in line for line in summary.lines())
    assert said == (summary.pseudo_share > 0)


def test_pseudo_queries_are_pieces_of_descriptions_too(tmp_path: Path) -> None:
    path = tmp_path / "items.parquet"
    descriptions = ["Flash drive for students", None, "  "]
    rows = {"item_id": ["a", "b", "c"], "title": ["USB stick 16", "HDMI cable", "Lamp"], "description": descriptions}
    pq.write_table(pa.table(rows), path)
    items = read_catalogue(path)
    write_examples(tmp_path / "x", items, settings=ExampleSettings(pseudo_queries=20))
    found: dict[int, set[str]] = {0: set(), 1: set(), 2: set()}
    for row in read(tmp_path / "x"):
        found[row["target_item"]].update(row["query"].split())
    assert found == {0: {"usb", "stick", "16", "flash", "drive", "for", "students"}, 1: {"hdmi", "cable"}, 2: {"lamp"}}
    pq.write_table(pa.table(rows | {"description": [1, 2, 3]}), path)
    with pytest.raises(InputError, match=r"items.parquet, field description"):
        write_examples(tmp_path / "y", items)


def test_shards_hold_what_they_may_and_the_schema(tmp_path: Path) -> None:
    write_examples(tmp_path / "x", catalogue(tmp_path), settings=ExampleSettings(shard_rows=5))
    shards = sorted((tmp_path / "x").glob("train-*.parquet"))
    sizes = [pq.read_metadata(path).num_rows for path in shards]
    assert sizes[:-1] == [5] * (len(sizes) - 1) and 0 < sizes[-1] <= 5
    assert all(pq.read_schema(path).equals(EXAMPLE_SCHEMA) for path in shards)


def test_a_folder_is_whole_or_not_there(tmp_path: Path) -> None:
    items = catalogue(tmp_path)
    log = searches(tmp_path, [{"clicked": ["i1"]}, {"clicked": ["i2"], "timestamp": 10**12}])
    with pytest.raises(InputError, match="row 1, field timestamp"):
        write_examples(tmp_path / "x", items, searches=log)
    log = searches(tmp_path, [{"clicked": []}])
    with pytest.raises(InputError, match="nothing to train on"):
        write_examples(tmp_path / "x", items, searches=log)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["items.parquet", "searches.parquet"]
    with pytest.raises(InputError, match="holds other files"):
        write_examples(tmp_path, items)
    with pytest.raises(InputError, match="not a folder of training examples"):
        ExampleSummary.load(tmp_path)
    first = write_examples(tmp_path / "x", items)
    assert write_examples(tmp_path / "x", items) == first == ExampleSummary.load(tmp_path / "x")


def test_examples_of_another_format_are_refused_with_what_makes_them_anew(tmp_path: Path) -> None:
    write_examples(tmp_path / "x", catalogue(tmp_path))
    path = tmp_path / "x" / "summary.json"
    summary = json.loads(path.read_text())
    del summary["format"]  # the first format had no number
    path.write_text(json.dumps(summary))
    with pytest.raises(InputError, match=r"format 1 instead of 2\)\. Run mrse train in a new folder"):
        ExampleSummary.load(tmp_path / "x")


def test_a_bad_date_is_named(tmp_path: Path) -> None:
    assert ExampleSettings(validation_from="2026-03-01").validation_start() == 1_772_323_200
    with pytest.raises(InputError, match=r"field validation_from: 'March' is not a date"):
        write_examples(tmp_path / "x", catalogue(tmp_path), settings=ExampleSettings(validation_from="March"))
