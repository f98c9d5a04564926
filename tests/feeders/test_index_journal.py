"""The journal belongs to the index: files that change their name, come in parts, are old, or leave items out."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from vespa.application import Vespa

from feeders.feed import feed_items, feed_updates
from feeders.image_features import NoImages
from feeders.index.journal import COMMIT_EVERY, Journal, JournalBusy, index_name
from feeders.items import ItemSource
from feeders.operations import DeliveryResult, ItemDigest, Operation
from feeders.report import Report
from feeders.updates import UpdateSource
from mrse_cli.console import console
from mrse_cli.feeding.feed import counted
from mrse_model.data.ids import Ids
from mrse_model.errors import InputError
from mrse_model.serving.exported_model import ExportedModel
from tests.helpers.recording_vespa import RecordingVespa
from vespa_package.fields import DocumentType


@pytest.fixture
def feed(vespa: RecordingVespa, package: Path, tmp_path: Path):
    """Feeds files into one index, with one journal."""

    def run(*files: Path, url: str = vespa.url, state: str = "index.sqlite", **options) -> Report:
        model = ExportedModel.load(package / "models")
        source = ItemSource.open(list(files), DocumentType.load(package), model, NoImages())
        return feed_items(Vespa(url), source, tmp_path / state, **options)

    return run


def write(file: Path, written: int | None = None, **columns: list) -> Path:
    """A Parquet file; written: its time, seconds."""
    file.parent.mkdir(exist_ok=True)
    pq.write_table(pa.table(columns), file)
    if written is not None:
        os.utime(file, (written, written))
    return file


def items(file: Path, ids: list[str], price: float | None = None, written: int | None = None) -> Path:
    extra = {} if price is None else {"price": [price] * len(ids)}
    return write(file, written, item_id=ids, title=[f"red shoe {i}" for i in ids], **extra)


def held(vespa: RecordingVespa) -> dict[str, float | None]:
    return {i.split("::")[1]: fields.get("price") for i, fields in vespa.documents.items()}


def test_a_new_file_each_day_keeps_what_updates_brought(vespa, feed, package, tmp_path) -> None:
    feed(items(tmp_path / "day1.parquet", ["a", "b", "c"]))
    prices = write(tmp_path / "prices.parquet", item_id=["a", "b", "c"], price=[10.0, 20.0, 30.0])
    feed_updates(Vespa(vespa.url), UpdateSource.open(prices, DocumentType.load(package)), tmp_path / "updates")
    report = feed(items(tmp_path / "day2.parquet", ["a", "b"]), delete_missing=True)
    assert (report.ok, report.unchanged, report.removed) == (0, 2, 1) and held(vespa) == {"a": 10.0, "b": 20.0}


def test_another_spelling_of_the_address_is_the_same_index(vespa, feed, tmp_path) -> None:
    file = items(tmp_path / "items.parquet", ["a", "b"])
    feed(file)
    assert feed(file, url=vespa.url.replace("127.0.0.1", "LOCALHOST")).unchanged == 2
    assert index_name("https://v.example:443/", "item") == index_name("https://V.example.", "item")
    assert index_name("http://v.example:8080", "item") != index_name("http://v.example:8081", "item")


def test_what_the_index_holds_and_the_journal_lost_is_updated_not_replaced(vespa, feed, package, tmp_path) -> None:
    file = items(tmp_path / "items.parquet", ["a", "b"])
    feed(file)
    prices = write(tmp_path / "prices.parquet", item_id=["a"], price=[10.0])
    feed_updates(Vespa(vespa.url), UpdateSource.open(prices, DocumentType.load(package)), tmp_path / "updates")
    vespa.operations.clear()
    report = feed(items(tmp_path / "more.parquet", ["a", "b", "c"]), state="new.sqlite")
    assert report.ok == 3 and {method for method, *_ in vespa.operations} == {"PUT"}
    assert held(vespa) == {"a": 10.0, "b": None, "c": None} and vespa.documents["id:item:item::c"]["title"]


def test_full_then_delta_then_full_reverts_nothing(vespa, feed, tmp_path) -> None:
    full = items(tmp_path / "full.parquet", ["a", "b", "c"], price=1.0, written=1_000_000)
    feed(full)
    feed(items(tmp_path / "delta.parquet", ["b", "d"], price=2.0, written=1_000_010))
    report = feed(full)
    assert (report.ok, report.unchanged, report.older, report.missing) == (0, 3, 1, 1)
    assert report.newer_source.endswith("delta.parquet")
    assert held(vespa) == {"a": 1.0, "b": 2.0, "c": 1.0, "d": 2.0}
    assert feed(items(full, ["a", "b", "c"], price=1.0, written=1_000_020)).ok == 1, "a price that goes back"
    assert held(vespa)["b"] == 1.0
    assert feed(full, full=True).ok == 3


def test_an_older_file_removes_nothing_that_a_newer_one_brought(vespa, feed, tmp_path) -> None:
    full = items(tmp_path / "full.parquet", ["a", "b"], written=1_000_000)
    feed(items(tmp_path / "before.parquet", ["z"], written=999_999))
    feed(full)
    feed(items(tmp_path / "delta.parquet", ["d"], written=1_000_010))
    report = feed(full, delete_missing=True)
    assert (report.removed, report.kept, report.missing, report.complete) == (1, 1, 1, True)
    assert set(held(vespa)) == {"a", "b", "d"}
    assert feed(full, delete_missing=True, full=True).removed == 1 and set(held(vespa)) == {"a", "b"}


def test_what_was_to_go_is_counted_however_it_ends(vespa, feed, tmp_path) -> None:
    feed(items(tmp_path / "all.parquet", [f"i{n}" for n in range(90)]))
    some = items(tmp_path / "some.parquet", ["i0", "new"])

    def interrupt(report: Report) -> None:
        if report.removed:
            raise KeyboardInterrupt

    report = Report()
    with pytest.raises(KeyboardInterrupt):
        feed(some, delete_missing=True, report=report, progress=interrupt)
    assert report.missing == 89 and 0 < report.removed < 89 and report.not_removed == 89 - report.removed
    assert feed(some, delete_missing=True, limit=3).complete
    assert not feed(some, delete_missing=True).not_removed and set(held(vespa)) == {"i0", "new"}


def test_a_folder_of_part_files_is_one_input(vespa, feed, tmp_path) -> None:
    folder = tmp_path / "items"
    items(folder / "part-0.parquet", ["a", "b"])
    moved = items(folder / "part-1.parquet", ["c"])
    (folder / "_SUCCESS").touch()
    write(folder / "_tmp.parquet", x=[1])
    assert feed(folder).ok == 3
    items(folder / "part-0.parquet", ["b"])
    items(moved, ["c", "a"])
    report = feed(folder, delete_missing=True)
    assert (report.unchanged, report.removed, report.rows) == (3, 0, 3) and set(held(vespa)) == {"a", "b", "c"}
    assert feed(folder / "part-0.parquet", moved).unchanged == 3
    write(folder / "part-2.parquet", item_id=["d", "e"], title=["red shoe", " "])
    with pytest.raises(InputError, match=r"part-2.parquet, row 1, field title: it is empty"):
        feed(folder)
    write(folder / "part-2.parquet", item_id=["d"], title=["red shoe"], brand=["x"])
    with pytest.raises(InputError, match=r"part-0.parquet, field brand: the column is missing here"):
        feed(folder)


def test_many_removals_need_a_word(vespa, feed, tmp_path) -> None:
    feed(items(tmp_path / "all.parquet", [f"i{n}" for n in range(300)]))
    some = items(tmp_path / "some.parquet", [f"i{n}" for n in range(150)])
    with pytest.raises(InputError, match=r"150 of the 300 items of the index are not in the file.*--max-removals 150"):
        feed(some, delete_missing=True)
    assert len(vespa.documents) == 300
    assert feed(some, delete_missing=True, max_removals=150).removed == 150


def test_an_index_that_another_feed_filled_is_looked_at(vespa, feed, tmp_path) -> None:
    file = items(tmp_path / "items.parquet", ["a"])
    feed(file)
    vespa.documents["id:item:item::stranger/1"] = dict(vespa.documents["id:item:item::a"])
    assert feed(file, delete_missing=True).removed == 1 and set(held(vespa)) == {"a"}


def test_expired_items_are_left_out_and_come_back_with_another_date(vespa, feed, tmp_path) -> None:
    def file(expires: int) -> Path:
        titles = ["red shoe", "blue boot"]
        return write(tmp_path / "items.parquet", item_id=["a", "b"], title=titles, expires=[expires, None])

    report = feed(file(10))
    assert (report.ok, report.unchanged, report.expired) == (1, 1, 1) and set(held(vespa)) == {"b"}
    assert feed(file(10)).ok == 0
    assert feed(file(10**10)).ok == 1 and set(held(vespa)) == {"a", "b"}


def test_acknowledgements_are_written_down_sixteen_at_a_time(tmp_path) -> None:
    journal = Journal(tmp_path / "j.sqlite", "index")
    for n in range(COMMIT_EVERY + 3):
        journal.acknowledge(DeliveryResult(Operation("put", "item", f"i{n}", {}, ItemDigest(n, n, 1)), 200))
    copy = tmp_path / "copy.sqlite"  # as a kill leaves the files
    for suffix in ("", "-wal"):
        copy.with_name(copy.name + suffix).write_bytes((tmp_path / f"j.sqlite{suffix}").read_bytes())
    with Journal(copy, "index") as found:
        assert len(found) == COMMIT_EVERY
        assert found.known(["i3", "i99"])[0].digest == ItemDigest(3, 3, 1) and found.known(["i99"]) == [None]
    journal.acknowledge(DeliveryResult(Operation("remove", "item", "i0"), 200))
    journal.close()
    with Journal(tmp_path / "j.sqlite", "index") as found:
        assert len(found) == COMMIT_EVERY + 2 and found.known(["i0"]) == [None]
    with Journal(tmp_path / "j.sqlite", "another index") as other:
        assert len(other) == 0


def test_whoever_waits_for_the_journal_says_so_once(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("feeders.index.journal.BUSY_SECONDS", 0.1)
    file, told, found = tmp_path / "j.sqlite", list[str](), list[Journal | None]()

    def wait(stop: threading.Event) -> threading.Thread:
        thread = threading.Thread(target=lambda: found.append(Journal.when_free(file, "index", told.append, stop)))
        thread.start()
        return thread

    with Journal(file, "index"):
        with pytest.raises(JournalBusy, match="another feed, watch or migration is writing to this index"):
            Journal(file, "index")
        stop = threading.Event()
        stopped = wait(stop)
        stop.set()
        stopped.join(30)
        waiting = wait(threading.Event())
        while len(told) < 2:
            time.sleep(0.01)
    waiting.join(30)
    assert found[0] is None and found[1] is not None and len(told) == 2
    found[1].close()


def test_a_full_disk_is_told_with_the_file_and_the_counts(tmp_path, capsys) -> None:
    journal = Journal(tmp_path / "j.sqlite", "index")
    journal._db.execute("PRAGMA max_page_count = 12")
    with pytest.raises(InputError, match=r"j.sqlite: the journal cannot be written .database or disk is full"):
        for n in range(5000):
            journal.acknowledge(DeliveryResult(Operation("put", "item", f"i{n}", {}, ItemDigest(n, n, 1)), 200))
    with pytest.raises(OSError), counted(console()) as (report, _):
        report.rows, report.ok = 5, 3
        raise OSError("No space left on device")
    assert "3 fed" in (said := capsys.readouterr().out) and "2 not reached" in said


def test_the_journal_is_small(tmp_path) -> None:
    with Journal(tmp_path / "j.sqlite", "index") as journal:
        for n in range(20_000):
            digest = ItemDigest(hash(str(n)) >> 1, hash(str(-n)) >> 1, 7)
            journal.acknowledge(DeliveryResult(Operation("put", "item", f"item-number-{n}", {}, digest), 200))
    db = sqlite3.connect(tmp_path / "j.sqlite")
    (free,), (pages,) = db.execute("PRAGMA freelist_count").fetchone(), db.execute("PRAGMA page_count").fetchone()
    db.close()
    assert (pages - free) * 4096 / 20_000 < 60, "bytes an item"


def test_ids_find_what_comes_twice_and_what_is_missing() -> None:
    ids, others = Ids(), Ids()
    assert list(ids.add([(0, "a"), (1, "b"), (2, "a")])) == [(2, "a", 0)]
    assert list(others.add([(0, "b"), (1, "c")])) == [] and list(ids.matched(others)) == [(1, 0)]
    assert ids.row("b") == 1 and "c" not in ids and len(ids) == 2 and set(ids.sample) == {"a", "b"}
