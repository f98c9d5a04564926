"""The loop closes: what the service served and what was clicked trains the next model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from mrse_model.data.contract import SearchesFile
from mrse_model.data.search_log import CLICK
from mrse_model.errors import InputError
from retrieval.service.served import ServedLog, to_parquet, without_results

SESSION = "0123456789abcdef"


def ask(client: Any, text: str, clicked: str | None = None, **more: Any) -> dict:
    found = client.post("/v1/search", json={"query": text, "session": SESSION, **more}).json()
    if clicked:
        event = {"item": clicked, "session": SESSION, "search_id": found["search_id"], "query": text}
        assert client.post("/v1/events", json=event).json() == {"recorded": True, "reason": ""}
    return found


def test_served_searches_are_a_search_log(client_of, vespa, tmp_path) -> None:
    folder = tmp_path / "served"
    client = client_of(log=str(folder), demo=True)
    client.app.state.service.sessions.record = lambda *_: True  # the recording server knows no tensor updates
    first = ask(client, "red dress", clicked="i1")
    ask(client, "red dress", search_id=first["search_id"], offset=10)
    vespa.answer = lambda body: {"root": {"fields": {"totalCount": 0 if "userInput" in body["yql"] else 7}}}
    ask(client, "Nothing  Here", profile="bm25")
    ask(client, "ＮＯＴＨＩＮＧ here", profile="bm25")
    ask(client, "Nothing here", profile="bm25", hits=0)  # facets alone: nothing is shown
    out = tmp_path / "searches.parquet"
    assert to_parquet(folder, out) == 3
    [batch] = SearchesFile(out).batches()
    assert batch.queries == ["red dress", "Nothing Here", "ＮＯＴＨＩＮＧ here"]
    assert batch.user_ids == [f"session:{SESSION}"] * 3
    assert batch.shown == [["i1"], [], []] and batch.clicked == [["i1"], [], []]
    assert batch.search_ids[0] == first["search_id"] and batch.timestamps.tolist() == [1000] * 3
    assert client.get("/v1/reports/no-results").json() == [{"query": "nothing here", "searches": 2}]


def test_a_line_that_was_cut_off_and_foreign_events_are_left_out(tmp_path) -> None:
    log = ServedLog(tmp_path)
    assert list(tmp_path.iterdir()) == [], "nothing is written before something is served"
    log.search("s1", "u1", 5.0, "dress", ["a", "b"])
    log.event("s1", "b", "order", 6.0)
    log.event("s1", "b", "order", 6.0)
    log.event("unknown", "a", "click", 6.0)
    log.close()
    [file] = tmp_path.iterdir()
    file.write_bytes(file.read_bytes() + b'{"search_id": "s2", "us')
    assert to_parquet(tmp_path, tmp_path / "out.parquet") == 1
    assert pq.read_table(tmp_path / "out.parquet").to_pylist() == [
        {
            "search_id": "s1", "user_id": "u1", "timestamp": 5, "query": "dress",
            "shown": ["a", "b"], "clicked": [], "carted": [], "ordered": ["b"],
        }
    ]  # fmt: skip
    assert without_results(tmp_path) == []
    with pytest.raises(InputError, match="no search was served"):
        to_parquet(tmp_path / "none", tmp_path / "out.parquet")


def rows_of(folder: Path) -> list[tuple[Any, ...]]:
    to_parquet(folder, folder / "out.parquet")
    return [
        (row["search_id"], row["user_id"], row["timestamp"], row["query"], row["shown"], row["clicked"])
        for row in pq.read_table(folder / "out.parquet").to_pylist()
    ]


def test_pages_of_several_workers_are_joined_in_their_order(tmp_path) -> None:
    log = ServedLog(tmp_path)
    log.search("s1", "u1", 7.0, "Dress", ["c", "b"], offset=2)  # as where another worker's file is read first
    log.search("s1", "u1", 5.0, "dress", ["a", "b"], offset=0)
    log.search("s1", "u2", 8.0, "dress", ["x"], offset=0)
    log.search("s1", "u1", 9.0, "hat", ["h"], offset=0)
    log.event("s1", "c", "click", 9.0)
    log.event("s1", "h", "click", 9.0)
    assert rows_of(tmp_path) == [
        ("s1", "u1", 5, "dress", ["a", "b", "c"], ["c"]),
        ("s1", "u2", 8, "dress", ["x"], []),
        ("s1", "u1", 9, "hat", ["h"], ["h"]),
    ]


def test_what_deleted_users_searched_for_is_left_out(client_of, tmp_path) -> None:
    folder = tmp_path / "served"
    client, gone = client_of(log=str(folder), demo=True), []
    service = client.app.state.service
    service.writer.forget = service.sessions.forget = lambda user: gone.append(user) or True
    for at, who in enumerate(({"user": "u1"}, {"user": "u2"}, {"session": SESSION}, {"user": "u1"})):
        service.now = lambda at=at: float(at)
        client.post("/v1/search", json={"query": f"dress {at}", **who})
        if at == 2:
            assert client.delete("/v1/users/u1").json()["deleted"]
            assert client.delete(f"/v1/sessions/{SESSION}").json()["deleted"]
    assert gone == ["u1", f"session:{SESSION}"]
    assert [row[1:4] for row in rows_of(folder)] == [("u2", 1, "dress 1"), ("u1", 3, "dress 3")]
    client.delete("/v1/users/u1")
    client.delete("/v1/users/u2")
    with pytest.raises(InputError, match="no search was served"):
        rows_of(folder)


def test_a_file_that_was_removed_is_followed_by_another(tmp_path) -> None:
    log = ServedLog(tmp_path)
    log.search("s1", "", 5.0, "dress", ["a"])
    [first] = tmp_path.glob("*.jsonl")
    first.unlink()
    log.search("s2", "", 6.0, "dress", ["a"])
    assert [row[0] for row in rows_of(tmp_path)] == ["s2"]


def test_a_full_disk_costs_the_log_and_no_search(client_of, tmp_path, monkeypatch, caplog) -> None:
    client = client_of(log=str(tmp_path / "served"), demo=True)
    client.app.state.service.sessions.record = client.app.state.service.writer.forget = lambda *_: True

    def full(_: ServedLog) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(ServedLog, "_open", full)
    assert ask(client, "red dress", clicked="i1")["hits"]
    assert "cannot be written: [Errno 28] No space" in caplog.text
    deleted = client.delete("/v1/users/u1")
    assert deleted.status_code == 503 and "cannot be written" in deleted.json()["error"]["message"]


def test_a_folder_that_cannot_be_written_is_refused(tmp_path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="cannot be written"):
        ServedLog(tmp_path / "file")


@pytest.mark.slow
def test_served_searches_train_a_model(client_of, vespa, tmp_path: Path) -> None:
    """Searches and clicks through the service, then `train` on its log."""
    pytest.importorskip("torch")
    from rich.console import Console

    from mrse_model.sample.catalogue import write_sample
    from mrse_model.training.pipeline import Inputs, train
    from tests.conftest import few_steps

    sample = write_sample(tmp_path / "sample", items=240, users=40, searches=300)
    folder = tmp_path / "served"
    client = client_of(log=str(folder), demo=True, deadline=30)
    rows = pq.read_table(sample.searches).to_pylist()
    asked: dict[str, Any] = {}

    def reply(body: dict) -> dict:
        hits = [{"id": i, "relevance": 1.0, "fields": {"item_id": i, "title": i}} for i in asked["shown"]]
        return {"root": {"fields": {"totalCount": len(hits)}, "children": hits if body["hits"] else []}}

    vespa.answer = reply
    service = client.app.state.service
    log = service.log
    for turn, row in enumerate(rows):
        asked, service.now = row, lambda at=1000.0 * turn: at
        found = client.post("/v1/search", json={"query": row["query"], "hits": 40, "profile": "bm25"}).json()
        for item in row["clicked"]:
            log.event(found["search_id"], item, "click", service.now())
    out = tmp_path / "served.parquet"
    assert to_parquet(folder, out) == len([row for row in rows if row["query"].strip()])
    run = tmp_path / "run"
    train(Inputs(sample.items, out, sample.judgments, image_size=64), run, few_steps(2), Console(quiet=True))
    shards = [pq.read_table(file) for file in (run / "cache" / "examples").glob("*.parquet")]
    kinds = [kind for shard in shards if "kind" in shard.column_names for kind in shard["kind"].to_pylist()]
    assert kinds.count(CLICK) > 50, "the clicks that were served are what was learnt"
