"""Changes as they happen, against the embedded engine: from a folder, lines, Kafka; in order, and none lost."""

from __future__ import annotations

import base64
import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from vespa.application import Vespa

from feeders.events import EventWriter
from feeders.feed import feed_again, feed_items
from feeders.image_features import NoImages
from feeders.index.journal import Journal, index_name
from feeders.items import ItemSource
from feeders.live.changes import Batch, change_of, read_change, records_of
from feeders.live.images import fetch
from feeders.live.sources import DONE, FAILED, Folder, Lines, Topic
from feeders.live.watch import Watch, letters_file, unreadable_file
from feeders.operations import Operation
from local_vespa.testing import deploy, running_engine
from mrse_model.errors import InputError
from mrse_model.serving.exported_model import ExportedModel
from tests.helpers.extras import extra
from tests.helpers.feeding import image
from vespa_package.fields import DocumentType

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def url(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_engine(tmp_path_factory.mktemp("engine")) as url:
        deploy(url, package)
        yield url


@pytest.fixture
def watch(url: str, package: Path, tmp_path: Path) -> Callable[..., Watch]:
    def made(**options: Any) -> Watch:
        model = ExportedModel.load(package / "models")
        return Watch(Vespa(url), package, model, tmp_path / "index.sqlite", **options)

    return made


def line(op: str, **fields: Any) -> str:
    return json.dumps({"op": op, **fields}) + "\n"


def stream(*lines: str) -> Lines:
    return Lines(io.BytesIO("".join(lines).encode()))


def document(url: str, item_id: str) -> dict[str, Any] | None:
    return httpx.get(f"{url}/document/v1/item/item/docid/{item_id}").json().get("fields")


def test_lines_of_all_kinds_in_their_order(url, watch, tmp_path) -> None:
    metrics = watch().run(
        stream(
            line("item", item_id="l1", title="red dress", category=["women"], price=9.5),
            line("item", item_id="l2", title="blue boot"),
            line("update", item_id="l1", price=8.5),
            line("update", item_id="l1", price=7.5),
            line("remove", item_id="l2"),
            line("item", item_id="l3", title="green hat"),
            line("event", user="w1", item="l1", event="click", timestamp=100, event_id="e1"),
            line("event", user="w1", item="l3", event="order", timestamp=200),
            line("item", item_id="l1", title="red dress, new"),
        ),
        threading.Event(),
    )
    assert (metrics.changes, metrics.refused, metrics.stopped) == (9, 0, "")
    first = document(url, "l1")
    assert first["price"] == 7.5 and first["title"] == "red dress, new" and first["embedding"]
    assert document(url, "l2") is None and document(url, "l3")["title"] == "green hat"
    with EventWriter(Vespa(url)) as events:
        assert events.read("w1").cells == {"click": {"l1": 100}, "order": {"l3": 200}}


def test_ids_that_are_integers_are_text_in_lines_and_drops(url, watch, tmp_path) -> None:
    click = line("event", user=7, item=41, event="click", timestamp=9, event_id=3)
    lines = [line("item", item_id=41, title="red dress"), click]
    metrics = watch().run(stream(*lines, line("remove", item_id=True)), threading.Event())
    assert (metrics.changes, metrics.refused) == (2, 1)
    assert document(url, "41")["item_id"] == "41"
    with EventWriter(Vespa(url)) as events:
        assert events.read("7").cells == {"click": {"41": 9}}
    pq.write_table(pa.table({"item_id": [41], "price": [2.5]}), tmp_path / "drop.parquet")
    assert [change_of("update", record).key for record in records_of(tmp_path / "drop.parquet")] == ["41"]


def test_a_change_is_held_against_what_came_before_it(url, watch) -> None:
    """The journal knows what was acknowledged: what is under way must not be passed over."""
    same = line("item", item_id="o1", title="red dress")
    update = line("update", item_id="o1", price=1.0)
    for _ in range(5):  # it was a race
        watch().run(stream(same, line("remove", item_id="o1"), same), threading.Event())
        assert document(url, "o1")["title"] == "red dress"
        watch().run(stream(line("item", item_id="o1", title="blue boot"), update, same), threading.Event())
        assert document(url, "o1")["title"] == "red dress"


def test_what_was_refused_outlives_the_watch_and_is_fed_again(vespa, package, items, tmp_path) -> None:
    app, model, state = Vespa(vespa.url), ExportedModel.load(package / "models"), tmp_path / "index.sqlite"
    vespa.status = lambda method, path, tries: 400 if path.endswith(("/x1", "/x2", "/w1")) and method == "PUT" else 200
    for name in ("x1", "x2"):
        Watch(app, package, model, state).run(stream(line("item", item_id=name, title="red dress")), threading.Event())
    source = ItemSource.open(items, DocumentType.load(package), model, NoImages())
    assert feed_items(app, source, state).failed == 0
    letters = letters_file(state)
    assert [json.loads(text)["update"] for text in letters.read_text().splitlines()] == [
        "id:item:item::x1", "id:item:item::x2",
    ]  # fmt: skip
    Watch(app, package, model, state).run(
        stream(line("event", user="w1", item="x1", event="click", timestamp=7)), threading.Event()
    )
    [entry] = map(json.loads, unreadable_file(state).read_text().splitlines())
    assert (entry["change"]["user"], entry["change"]["item"], entry["change"]["timestamp"]) == ("w1", "x1", 7)

    def status(method: str, path: str, tries: int) -> int:
        if path.endswith("/x1"):  # while it is fed again, a watch writes down another
            with letters.open("ab") as file:
                file.write(Operation("remove", "item", "x3").json_line())
        return 400 if path.endswith("/x2") else 200

    vespa.status = status
    assert (feed_again(app, letters).failed, "id:item:item::x1" in vespa.documents) == (1, True)
    left = [orjson.loads(text) for text in letters.read_bytes().splitlines()]
    assert [entry.get("update") or entry.get("remove") for entry in left] == ["id:item:item::x2", "id:item:item::x3"]


@pytest.mark.parametrize("kind", ["lines", "items", "removals"])
def test_it_ends_within_a_large_drop_and_reads_it_again(url, watch, tmp_path, kind) -> None:
    folder, stop, n = tmp_path / "drops", threading.Event(), 3000
    folder.mkdir()
    ids = [f"{kind}{k}" for k in range(n)]
    if kind == "lines":
        drop(folder, "a.jsonl", text="".join(line("item", item_id=i, title="red dress") for i in ids))
    else:
        drop(folder, "a.parquet", {"item_id": ids} | ({"title": ["red dress"] * n} if kind == "items" else {}))
    watching = watch()
    on_result = watching._on_result
    watching._on_result = lambda result: (stop.set(), on_result(result))  # type: ignore[method-assign]
    taken = watching.run(Folder(folder), stop).changes
    assert 0 < taken < n and any(folder.glob("a.*"))
    if kind == "items":
        stop = threading.Event()
        thread = threading.Thread(target=lambda: watch().run(Folder(folder), stop))
        thread.start()
        wait_for(lambda: (folder / DONE / "a.parquet").exists(), 60)
        stop.set()
        thread.join(30)
        assert document(url, ids[-1])


@pytest.mark.parametrize("kind", ["event", "remove"])
def test_a_drop_that_breaks_off_is_put_aside(url, watch, tmp_path, kind) -> None:
    (folder := tmp_path / "drops").mkdir()
    columns = {"item_id": [f"v{n}" for n in range(9000)]}
    if kind == "event":
        columns = {"user": columns["item_id"], "item": columns["item_id"], "event": ["click"] * 9000}
    drop(folder, "good.parquet", columns)
    whole = (folder / "good.parquet").read_bytes()
    (folder / "good.parquet").write_bytes(whole[:40] + b"\xff" * 4000 + whole[4040:])
    drop(folder, "later.jsonl", text=line("item", item_id=f"after-{kind}", title="red dress"))
    stop = threading.Event()
    thread = threading.Thread(target=lambda: watch().run(Folder(folder), stop))
    thread.start()
    wait_for(lambda: document(url, f"after-{kind}"))
    stop.set()
    thread.join(30)
    assert (folder / FAILED / "good.parquet").exists()
    assert "good.parquet" in unreadable_file(tmp_path / "index.sqlite").read_text()


def test_nothing_is_committed_that_was_not_written_down(url, watch, monkeypatch) -> None:
    committed: list[bool] = []

    class Source:
        def batches(self, stop):
            change = read_change(line("item", item_id="q1", title="red dress").encode())
            yield Batch([change], commit=committed.append)

    def full(self, result) -> None:
        raise InputError("the journal cannot be written (database or disk is full)")

    monkeypatch.setattr(Journal, "acknowledge", full)
    with pytest.raises(InputError, match="disk is full"):
        watch().run(Source(), threading.Event())
    assert committed == []


def test_a_removal_names_its_item(url, watch, tmp_path) -> None:
    (folder := tmp_path / "drops").mkdir()
    there = [line("item", item_id=name, title="red dress") for name in ("None", "7")]
    watch().run(stream(*there), threading.Event())
    stop = threading.Event()
    drop(folder, "gone.parquet", {"item_id": pa.array([None, 7])})
    thread = threading.Thread(target=lambda: watch().run(Folder(folder), stop))
    thread.start()
    wait_for(lambda: (folder / FAILED / "gone.parquet").exists())
    stop.set()
    thread.join(30)
    assert document(url, "None") and not document(url, "7")


def test_no_watch_runs_during_a_migration(vespa, package, tmp_path) -> None:
    under_way = pytest.raises(InputError, match=r"a migration to another model is under way.*--next-models")
    app, model, state = Vespa(vespa.url), ExportedModel.load(package / "models"), tmp_path / "index.sqlite"
    fields = vespa.fields

    class Source:
        def batches(self, stop):
            for n in range(2):
                yield Batch([read_change(line("item", item_id=f"g{n}", title="red dress").encode())])
                vespa.fields = fields | {"embedding_next"}

    with under_way:
        Watch(app, package, model, state).run(Source(), threading.Event())
    assert "id:item:item::g0" in vespa.documents and "id:item:item::g1" not in vespa.documents
    with under_way:
        Watch.open(app, package, state)


def test_a_feed_runs_beside_a_watch(url, watch, package, items, tmp_path) -> None:
    folder, stop, told = tmp_path / "drops", threading.Event(), list[str]()
    folder.mkdir()
    thread = threading.Thread(target=lambda: watch(on_wait=told.append).run(Folder(folder), stop))
    thread.start()
    try:
        drop(folder, "a.jsonl", text=line("item", item_id="n1", title="red dress"))
        wait_for(lambda: (folder / DONE / "a.jsonl").exists())
        model = ExportedModel.load(package / "models")
        source = ItemSource.open(items, DocumentType.load(package), model, NoImages())
        assert feed_items(Vespa(url), source, tmp_path / "index.sqlite").ok == 12
        with Journal(tmp_path / "index.sqlite", index_name(url, "item")):
            drop(folder, "b.jsonl", text=line("item", item_id="n2", title="red dress"))
            wait_for(lambda: told)
            assert "another feed" in told[0] and not document(url, "n2")
            event = line("event", user="w7", item="n1", event="click", timestamp=100)
            watch().run(stream(line("update", item_id="n1", price=2.0), event), threading.Event())
            assert document(url, "n1")["price"] == 2.0, "what needs no journal does not wait"
            with EventWriter(Vespa(url)) as events:
                assert events.read("w7").cells == {"click": {"n1": 100}}
        wait_for(lambda: document(url, "n2"))
    finally:
        stop.set()
        thread.join(30)


def test_what_is_bad_is_written_down_and_the_rest_goes_on(url, watch, tmp_path) -> None:
    metrics = watch().run(
        stream(
            "no json\n",
            line("paint", item_id="b0"),
            line("item", item_id="b1", title="red dress"),
            line("item", item_id="b2", title=" "),
            line("item", item_id="b3", title="bad \x0c title"),
            line("update", item_id="b1", price="much"),
            line("item", item_id="b5", title="red dress", added=2**63),
            line("event", user="w2", item="b1", event="look"),
            line("item", item_id="b4", title="blue boot"),
        ),
        threading.Event(),
    )
    assert metrics.refused == 7 and document(url, "b1")["title"] and document(url, "b4") and not document(url, "b2")
    written = [json.loads(text) for text in unreadable_file(tmp_path / "index.sqlite").read_text().splitlines()]
    assert len(written) == 7 and all(entry["message"] for entry in written)


def test_an_image_is_part_of_a_live_item(url, watch, package, tmp_path) -> None:
    with pytest.raises(InputError, match="is an address of a private network"):
        fetch("http://127.0.0.1:1/x.png")
    with pytest.raises(InputError, match="not an http or https URL"):
        fetch("file:///etc/passwd")

    for address in ("[64:ff9b::7f00:1]", "[2002:7f00:1::]", "[::127.0.0.1]", "169.254.169.254", "[::ffff:10.0.0.1]"):
        with pytest.raises(InputError, match=r"private network|cannot be reached"):
            fetch(f"http://{address}:1/x.png")

    class Encoder:
        """Stands for image_encoder.onnx: the mean of the bytes."""

        name, dims, size = "stand-in", 0, 96
        path = Path("encoder")

        def features(self, images):
            import numpy as np

            return np.stack([np.full(self.dims, np.nan if i is None else len(i), np.float32) for i in images])

    manifest = ExportedModel.load(package / "models").manifest
    Encoder.dims = manifest.image_encoder.dims
    (tmp_path / "red.png").write_bytes(image("red"))
    metrics = watch(encoder=Encoder(), folder=tmp_path).run(
        stream(
            line("item", item_id="p1", title="red dress", image=base64.b64encode(image("red")).decode()),
            line("item", item_id="p2", title="red dress", image_path="red.png"),
            line("item", item_id="p3", title="red dress"),
            line("item", item_id="p4", title="red dress", image_path="none.png"),
        ),
        threading.Event(),
    )
    assert metrics.refused == 1 and document(url, "p4") is None
    assert [bool(document(url, i).get("image_embedding")) for i in ("p1", "p2", "p3")] == [True, True, False]


def test_images_are_fetched_side_by_side_and_once(url, watch, package, monkeypatch) -> None:
    """A slow host holds up the others' images no longer than its own, also where one of the batch is bad."""
    asked: list[str] = []
    together = threading.Barrier(4)

    def slow(record, folder):
        asked.append(record["item_id"])
        together.wait(30)  # passes when four are under way
        if record["item_id"] == "z3":
            raise InputError("it cannot be read", field="image_url")

    monkeypatch.setattr("feeders.live.watch.image_of", slow)
    watching = watch(encoder=object())
    monkeypatch.setattr(watching, "_operations", lambda kind, file: iter(pq.read_table(file)["item_id"].to_pylist()))
    taken: list[str] = []
    monkeypatch.setattr(watching, "_submit", taken.extend)
    watching.run(stream(*(line("item", item_id=f"z{n}", title="red dress") for n in range(32))), threading.Event())
    assert sorted(asked) == sorted(f"z{n}" for n in range(32))
    assert len(taken) == 31 and watching.metrics.refused == 1


@pytest.mark.parametrize("start", [b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n", b""])
def test_an_image_that_comes_byte_by_byte_is_cut_off(monkeypatch, start) -> None:
    monkeypatch.setattr("feeders.live.images.SECONDS", 0.5)
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def drip() -> None:
            connection, _ = server.accept()
            with connection, suppress(OSError):
                connection.recv(1000)
                connection.sendall(start)
                while not over.wait(0.1):
                    connection.sendall(b"x")

        thread = threading.Thread(target=drip)
        thread.start()
        with pytest.raises(InputError, match=r"exceeds 20 MB or|cannot be read"):
            fetch(f"http://127.0.0.1:{server.getsockname()[1]}/x.png", inside=True)
        over.set()
        thread.join(10)


def drop(folder: Path, name: str, columns: dict[str, list] | None = None, text: str = "") -> None:
    """A file that appears whole."""
    if columns is not None:
        pq.write_table(pa.table(columns), folder / f".{name}")
    else:
        (folder / f".{name}").write_text(text)
    (folder / f".{name}").rename(folder / name)


def wait_for(true: Callable[[], object], seconds: float = 30) -> None:
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until, "it did not happen"
        time.sleep(0.02)


def test_a_folder_of_drops(url, watch, tmp_path) -> None:
    folder, stop = tmp_path / "drops", threading.Event()
    folder.mkdir()
    drop(folder, "before.parquet", {"item_id": ["f1", "f2"], "title": ["red dress", "blue boot"], "price": [1.0, 2.0]})
    thread = threading.Thread(target=lambda: watch().run(Folder(folder), stop))
    thread.start()
    try:
        wait_for(lambda: document(url, "f2"))
        drop(folder, "prices.parquet", {"item_id": ["f1"], "price": [5.0]})
        wait_for(lambda: document(url, "f1")["price"] == 5.0)
        drop(folder, "clicks.parquet", {"user": ["w3"], "item": ["f1"], "event": ["click"], "timestamp": [100]})
        drop(folder, "gone.parquet", {"item_id": ["f2"]})
        drop(folder, "more.jsonl", text=line("item", item_id="f3", title="green hat"))
        drop(folder, "strange.parquet", {"x": [1]})
        wait_for(
            lambda: document(url, "f3") and not document(url, "f2") and (folder / FAILED / "strange.parquet").exists()
        )
    finally:
        stop.set()
        thread.join(30)
    done = {"before.parquet", "prices.parquet", "clicks.parquet", "gone.parquet", "more.jsonl"}
    assert {file.name for file in (folder / DONE).iterdir()} == done
    with EventWriter(Vespa(url)) as events:
        assert events.read("w3").cells == {"click": {"f1": 100}}


def test_a_batch_is_committed_after_its_answers_alone(url, watch) -> None:
    committed: list[str] = []

    class Source:
        def batches(self, stop):
            for name in ("c1", "c2"):
                change = read_change(line("item", item_id=name, title="red dress").encode())
                commit = lambda well, name=name: committed.append(f"{name} {well} {bool(document(url, name))}")  # noqa: E731
                yield Batch([change], commit=commit, since=time.time())

    metrics = watch().run(Source(), threading.Event())
    assert committed == ["c1 True True", "c2 True True"] and 0 <= metrics.lag < 60
    assert "mrse_watch_changes_total 2\n" in metrics.prometheus()


@pytest.mark.slow
def test_a_topic_is_read_on_from_what_was_committed(url, watch) -> None:
    kafka = extra("confluent_kafka")
    cluster = kafka.Producer({"bootstrap.servers": "mock", "test.mock.num.brokers": 1})
    brokers = _mock_brokers(cluster)
    for n in range(20):
        cluster.produce("changes", line("item", item_id=f"k{n}", title=f"red dress {n}").encode(), key=f"k{n}")
    cluster.produce("changes", line("event", user="w4", item="k1", event="click", timestamp=100).encode(), key="w4")
    cluster.flush(30)
    settings = {"topic_metadata_refresh_interval_ms": "200", "session_timeout_ms": "6000"}

    def run(enough: Callable[[], object]) -> None:
        stop, watching = threading.Event(), watch()
        thread = threading.Thread(target=lambda: watching.run(Topic(brokers, "changes", **settings), stop))
        thread.start()
        try:
            wait_for(enough, 60)
            wait_for(lambda: watching.metrics.batches)
        finally:
            stop.set()
            thread.join(30)
        seen.append(watching.metrics.changes)

    seen: list[int] = []
    with EventWriter(Vespa(url)) as events:
        run(lambda: document(url, "k19") and events.read("w4").cells == {"click": {"k1": 100}})
    cluster.produce("changes", line("update", item_id="k1", price=4.5).encode(), key="k1")
    cluster.flush(30)
    run(lambda: document(url, "k1").get("price") == 4.5)
    assert seen == [21, 1]


def _mock_brokers(client: Any) -> str:
    """The address of a client's mock cluster."""
    brokers = client.list_topics(timeout=30).brokers.values()
    return ",".join(f"{broker.host}:{broker.port}" for broker in brokers)


def test_the_command_ends_in_order(url, package, tmp_path) -> None:
    folder = tmp_path / "drops"
    folder.mkdir()
    arguments = ["watch", folder, "--app", package, "-e", url, "--state", tmp_path / "state.sqlite"]
    command = [sys.executable, "-m", "mrse_cli.main", *map(str, arguments)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, env=dict(os.environ))
    try:
        drop(folder, "one.jsonl", text=line("item", item_id="s1", title="red dress"))
        wait_for(lambda: document(url, "s1"), 60)
        wait_for(lambda: (folder / DONE / "one.jsonl").exists())
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 0 and "1 changes" in out and "0 refused" in out
