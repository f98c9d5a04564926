"""The feeders: documents a second beside `vespa feed` and pyvespa, encoding, memory, failures, kills, a live edit.

All ways run in turns against one server in one run. Documents have three 128-d vectors; `vespa feed` reads ready JSONL
with hex vectors, pyvespa's feed_iterable gets lists of floats. The null server answers 200 and nothing else.
* speed: against the null server and the embedded engine; rendering our JSON is in our figures, and measured apart.
* encoding: items a CPU-second of `mrse encode`'s function, and against `session.run` on the same padded batches.
* memory: peak resident bytes of a client that encodes and sends 10k, 100k, 400k items to the null server, and of one
  that encodes them into a shard (`mrse encode`, all in one row group).
* faults: a proxy fails a fifth of the writes, half of them after the engine has written, with bodies of JSON, HTML and
  none.
* outage: the proxy refuses every connection for 30 s in the middle of a feed.
* kills: kill -9 in the middle of a feed of 5,000, again and again; how many documents were sent twice.
* live: one edit in a file of 100,000 by the command, one through `mrse watch`, and one user event.
With --bars it ends in lines `bar NAME VALUE TARGET ok|short` and exits with 1 if one is short. --app is a package with
an exported model; without, an untrained `base` model is exported first (two minutes), since weights make no difference
to the time. Needs two free cores: other work lowers all rates alike.

    python benchmarks/feed.py --bars --app vespa_app
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import vespacli
from bars import Bar, verdict
from vespa.application import Vespa

from feeders.encoding import bfloat16_hex
from feeders.image_features import NoImages
from feeders.items import ItemSource
from feeders.operations import Operation
from feeders.transport import Transport
from local_vespa.testing import deploy, free_port, running_engine
from mrse_cli.main import ARROW
from mrse_model.serving.exported_model import ExportedModel
from mrse_model.serving.texts import item_texts, token_lists
from vespa_package.fields import DocumentType

HERE = Path(__file__).parent
PARTS = ("speed", "encoding", "memory", "faults", "outage", "kills", "live")
VECTORS = ("embedding", "image_embedding", "text_feature")
TEXT = "red blue green dress shoe boot hat summer winter leather cotton long short women men sport classic wide"
WORDS = TEXT.split(" ")
DISTINCT = 5000  # titles but for a number
IN_FLIGHT_AND_UNCOMMITTED = 48
OUTAGE = 30.0  # seconds


@contextmanager
def server(*arguments: str, port: int = 0) -> Iterator[str]:
    """The URL of one of feed_servers.py."""
    kind, *more = arguments
    port = port or free_port()
    command = [sys.executable, "feed_servers.py", kind, str(port), *more]
    process = subprocess.Popen(command, cwd=HERE)
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(200):
            try:
                httpx.get(f"{url}/counted", timeout=5, trust_env=False)
                break
            except httpx.HTTPError:
                time.sleep(0.05)
        yield url
    finally:
        process.terminate()
        process.wait()


@contextmanager
def engine(package: Path) -> Iterator[str]:
    """The URL of an embedded engine that runs the package."""
    with tempfile.TemporaryDirectory() as data, running_engine(data) as url:
        deploy(url, package)
        yield url


def mrse(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mrse_cli.main", *map(str, arguments)]
    return subprocess.run(command, cwd=HERE.parent, capture_output=True, text=True, **options)


def documents(n: int) -> Iterator[dict[str, Any]]:
    """Fields of documents with hex vectors."""
    vectors = bfloat16_hex(np.random.default_rng(0).normal(size=(256, 128)).astype(np.float32))
    for k in range(n):
        fields = {name: {"values": vectors[(k + shift) % 256]} for shift, name in enumerate(VECTORS)}
        text = {"item_id": f"p{k}", "title": f"red dress {k}", "category": ["women", "dress"], "price": 9.5}
        yield text | fields | {"model_version": "mrse-0123456789ab"}


def spent(who: int) -> float:
    usage = resource.getrusage(who)
    return usage.ru_utime + usage.ru_stime


def ours(url: str, n: int, jsonl: Path) -> tuple[float, float]:
    """(documents a second, CPU milliseconds a document) of our transport, rendering included."""
    answered = [0]

    def on_result(result: Any) -> None:
        answered[0] += result.ok

    begin, cpu = time.perf_counter(), time.process_time()
    Transport(Vespa(url), on_result).send(Operation("put", "item", f"p{k}", f) for k, f in enumerate(documents(n)))
    assert answered[0] == n, answered
    return n / (time.perf_counter() - begin), (time.process_time() - cpu) / n * 1000


def go_client(url: str, n: int, jsonl: Path) -> tuple[float, float]:
    """The same of `vespa feed`."""
    begin, cpu = time.perf_counter(), spent(resource.RUSAGE_CHILDREN)
    command = [vespacli.get_binary_path(), "feed", str(jsonl), "--target", url]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert json.loads(out)["feeder.ok.count"] == n, out
    return n / (time.perf_counter() - begin), (spent(resource.RUSAGE_CHILDREN) - cpu) / n * 1000


def pyvespa(url: str, n: int, jsonl: Path) -> tuple[float, float]:
    """The same of pyvespa's feed_iterable with lists of floats; a tenth of the documents."""
    n, cells = max(100, n // 10), np.random.default_rng(0).normal(size=128).tolist()
    data = [
        {"id": f"p{k}", "fields": {"item_id": f"p{k}", "title": f"red dress {k}", **{v: cells for v in VECTORS}}}
        for k in range(n)
    ]
    begin, cpu = time.perf_counter(), time.process_time()
    Vespa(url).feed_iterable(data, schema="item", namespace="item")
    return n / (time.perf_counter() - begin), (time.process_time() - cpu) / n * 1000


def speed(args: argparse.Namespace) -> list[Bar]:
    n, bars = args.documents, []
    with tempfile.TemporaryDirectory() as folder:
        jsonl = Path(folder) / "feed.jsonl"
        with jsonl.open("wb") as out:
            for k, fields in enumerate(documents(n)):
                out.write(Operation("put", "item", f"p{k}", fields).json_line())
        cpu = time.process_time()
        for k, fields in enumerate(documents(n)):
            orjson.dumps({"fields": fields}), Operation("put", "item", f"p{k}").path
        rendering = (time.process_time() - cpu) / n * 1000
        print(
            f"## Speed: {n:,} documents, {args.rounds} rounds in turns; rendering alone {rendering:.3f} CPU ms each\n"
        )
        print("| server | way | documents/s (median) | CPU ms a document |\n| --- | --- | --- | --- |")
        ways: dict[str, Callable[[str, int, Path], tuple[float, float]]] = {
            "ours": ours, "vespa feed": go_client, "pyvespa feed_iterable": pyvespa,
        }  # fmt: skip
        for name, running in (("null", server("null")), ("engine", engine(args.app))):
            with running as url:
                found: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
                for _ in range(args.rounds):
                    for way, run in ways.items():
                        found[way].append(run(url, n, jsonl))
            middle = {way: [statistics.median(x) for x in zip(*runs, strict=True)] for way, runs in found.items()}
            for way, (rate, ms) in middle.items():
                print(f"| {name} | {way} | {rate:.0f} | {ms:.3f} |", flush=True)
            bars.append(Bar(f"feed/{name}/of-vespa-feed", middle["ours"][0] / middle["vespa feed"][0], 1.0))
            if name == "null":
                bars.append(
                    Bar("feed/null/of-feed_iterable", middle["ours"][0] / middle["pyvespa feed_iterable"][0], 5.0)
                )
                bars.append(Bar("feed/null/cpu-of-vespa-feed", middle["ours"][1] / middle["vespa feed"][1], 1.0, "<="))
    return bars


def catalogue(file: Path, n: int, words: int = 8, **more: list[Any]) -> Path:
    """An items file; the titles have about this many words."""
    chance = random.Random(0)
    few = [" ".join(chance.choices(WORDS, k=words)) for _ in range(DISTINCT)]
    titles = [f"{few[k % DISTINCT]} {k:06}" for k in range(n)]  # of the same lengths, whatever n is
    pq.write_table(pa.table({"item_id": [f"i{k}" for k in range(n)], "title": titles, **more}), file)
    return file


def titles_of(model: ExportedModel, category: list[str], tokens: int, n: int) -> list[str]:
    """Titles with which the item tower reads exactly this many tokens, [CLS] and [SEP] aside."""
    chance, found = random.Random(0), list[str]()
    while len(found) < n:
        words = [" ".join(chance.choices(WORDS, k=k)) for k in range(1, tokens) for _ in range(64)]
        texts = item_texts(model.manifest.item_text, words, [category] * len(words))
        lengths = map(len, token_lists(model._tokenizer, texts, tokens + 3))
        found += [title for title, length in zip(words, lengths, strict=True) if length == tokens + 2]
    return found[:n]


def encoding(args: argparse.Namespace) -> list[Bar]:
    from feeders.shards.encode import by_length

    model, bars, n, category = ExportedModel.load(args.app / "models"), [], 2048, ["women", "dress"]
    categories = [category] * n
    features = np.random.default_rng(0).normal(size=(n, model._image_width())).astype(np.float32)
    print(f"\n## Encoding: {n:,} items with features, one thread\n")
    print("| tokens | items/CPU-s | of session.run |\n| --- | --- | --- |")
    for tokens, goal in ((12, 1000.0), (30, 600.0)):
        titles = titles_of(model, category, tokens, n)
        inputs = _inputs_of(model, lambda titles=titles: by_length(model, titles, categories, features, None))
        ratios, rates = [], []
        for _ in range(args.rounds):
            cpu = time.process_time()
            by_length(model, titles, categories, features, None)
            whole = time.process_time() - cpu
            cpu = time.process_time()
            for given in inputs:
                model._run("item_tower", given)
            ratios.append((time.process_time() - cpu) / whole)
            rates.append(n / whole)
        print(f"| {tokens} | {statistics.median(rates):.0f} | {statistics.median(ratios):.2f} |", flush=True)
        bars.append(Bar(f"encode/{tokens}-tokens", statistics.median(rates), goal))
        bars.append(Bar(f"encode/{tokens}-tokens/of-session.run", statistics.median(ratios), 0.9))
    return bars


def _inputs_of(model: ExportedModel, encode: Callable[[], object]) -> list[dict[str, np.ndarray]]:
    """What the item tower is run on while something is encoded."""
    found: list[dict[str, np.ndarray]] = []
    run = model._run

    def noted(name: str, given: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        found.append(given)
        return run(name, given)

    model._run = noted  # type: ignore[method-assign]
    try:
        encode()
    finally:
        model._run = run  # type: ignore[method-assign]
    return found


def memory(args: argparse.Namespace) -> list[Bar]:
    ways: dict[str, list[float]] = {"send_file": [], "encode_file": []}
    print("\n## Memory: peak of a client, MB\n\n| items | check, encode, send | encode |\n| --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder, server("null") as url:
        for n in args.sizes:
            file = catalogue(Path(folder) / f"{n}.parquet", n, words=2)
            for way, peaks in ways.items():
                code = f"import feed; feed.{way}({str(file)!r}, {str(args.app)!r}, {url!r})"
                path = os.pathsep.join([str(HERE), str(HERE.parent)])
                out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True,
                                     env=os.environ | ARROW | {"PYTHONPATH": path})  # fmt: skip
                peaks.append(int(out.stdout) / 1024)
            print(f"| {n:,} | {' | '.join(f'{peaks[-1]:.0f}' for peaks in ways.values())} |", flush=True)
    return [Bar(f"memory/{way}/of-smallest", max(peaks) / peaks[0], 1.1, "<=") for way, peaks in ways.items()]


def encode_file(file: str, app: str, url: str) -> None:
    """Encodes an items file into shards; prints the peak of resident memory, kB."""
    from feeders.shards.encode import Job, encode_groups, groups_of
    from mrse_model.data.contract import ItemsFile

    assert encode_groups(groups_of(ItemsFile(file), Path(file).with_suffix(".shards")), Job(Path(app) / "models"))
    print(_peak())


def send_file(file: str, app: str, url: str) -> None:
    """Checks, encodes and sends an items file with a journal; prints the peak of resident memory, kB."""
    from feeders.feed import send_all
    from feeders.index.journal import Journal
    from feeders.report import Report

    model = ExportedModel.load(Path(app) / "models")
    source = ItemSource.open(Path(file), DocumentType.load(app), model, NoImages())
    state = Path(file).with_suffix(".sqlite")
    report = Report(rows=source.items.rows)
    with Journal(state, "null item") as journal:
        operations = source.operations(journal, report)
        send_all(Vespa(url), operations, state.with_suffix(".refused.jsonl"), journal=journal, report=report)
    assert report.ok == report.rows, report
    print(_peak())


def _peak() -> int:
    """Peak of resident memory of this program, kB. Not getrusage's: that begins with the parent's."""
    return int(re.findall(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[0])


def faults(args: argparse.Namespace) -> list[Bar]:
    n = args.fault_items
    with tempfile.TemporaryDirectory() as folder, engine(args.app) as url, server("proxy", url, "0.2") as faulty:
        file = catalogue(Path(folder) / "items.parquet", n)
        out = mrse("feed", "items", file, "--app", args.app, "-e", faulty, "--state", Path(folder) / "s.sqlite")
        right = _right(args.app, url, file)
    print(f"\n## Faults: a fifth of the writes fail, {n:,} items\n\n{out.stdout}{out.stderr}")
    print(f"exit code {out.returncode}; in the index {right:,} are right")
    true = out.returncode == 0 and f"\n{n} fed in" in out.stdout
    return [Bar("faults/right", right / n, 1.0), Bar("faults/true-counts", float(true), 1.0)]


def outage(args: argparse.Namespace) -> list[Bar]:
    n = args.fault_items
    with tempfile.TemporaryDirectory() as folder, engine(args.app) as url:
        file, port = catalogue(Path(folder) / "items.parquet", n), free_port()
        arguments = ("feed", "items", file, "--app", args.app, "-e", f"http://127.0.0.1:{port}", "--state",
                     Path(folder) / "s.sqlite")  # fmt: skip
        command = [sys.executable, "-m", "mrse_cli.main", *map(str, arguments)]
        with server("proxy", url, "0", port=port) as before:
            process = subprocess.Popen(
                command, cwd=HERE.parent, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
            )
            while sum(httpx.get(f"{before}/counted").json().values()) < n // 3 and process.poll() is None:
                time.sleep(0.01)
            running = process.poll() is None
            arrived = len(httpx.get(f"{before}/counted").json())
        time.sleep(OUTAGE)
        with server("proxy", url, "0", port=port):
            out, _ = process.communicate()
        right = _right(args.app, url, file)
    print(f"\n## Outage: {OUTAGE:.0f} s without a server, after {arrived:,} of {n:,} items\n\n{out}")
    print(f"exit code {process.returncode}; in the index {right:,} are right")
    return [Bar("outage/fed-by-the-same-run", right / n if running and process.returncode == 0 else 0.0, 1.0)]


def _right(app: Path, url: str, file: Path) -> int:
    """How many items are in the index as the file has them, fields and vectors (`mrse verify`)."""
    out = mrse("verify", file, "--app", app, "-e", url).stdout
    return int(out.split(" right", 1)[0].replace(",", ""))


def kills(args: argparse.Namespace) -> list[Bar]:
    chance, n = random.Random(0), 5000
    with tempfile.TemporaryDirectory() as folder, engine(args.app) as url, server("proxy", url, "0") as counting:
        file = catalogue(Path(folder) / "items.parquet", n)
        arguments = ["feed", "items", file, "--app", args.app, "-e", counting, "--state", Path(folder) / "s.sqlite"]
        command = [sys.executable, "-m", "mrse_cli.main", *map(str, arguments)]
        done, twice, worst = 0, 0, 0
        while done < args.kills:
            process = subprocess.Popen(command, cwd=HERE.parent, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            at = sum(httpx.get(f"{counting}/counted").json().values()) + chance.randrange(1, max(2, n // args.kills))
            while process.poll() is None:
                counted = httpx.get(f"{counting}/counted").json()
                if sum(counted.values()) >= at:
                    break
                time.sleep(0.005)
            process.send_signal(signal.SIGKILL)
            process.wait()
            counted = httpx.get(f"{counting}/counted").json()
            again = sum(counted.values()) - len(counted)
            worst, twice, done = max(worst, again - twice), again, done + 1
        last = mrse(*arguments)
        counted = httpx.get(f"{counting}/counted").json()
        worst = max(worst, sum(counted.values()) - len(counted) - twice)
    twice = sum(counted.values()) - n
    print(f"\n## Kills: {done} of a feed of {n:,}\n\n{len(counted):,} of {n:,} arrived, {twice} were sent twice in "
          f"all, at most {worst} after one kill; {last.stdout.strip().splitlines()[-1]}")  # fmt: skip
    return [Bar("kills/lost", n - len(counted), 0.0, "<="),
            Bar("kills/sent-twice-a-kill", worst, IN_FLIGHT_AND_UNCOMMITTED, "<=")]  # fmt: skip


def live(args: argparse.Namespace) -> list[Bar]:
    names = (("live/edit-by-command-s", 6.0), ("live/edit-by-watch-s", 2.0), ("live/event-s", 1.0))
    seconds = []
    with tempfile.TemporaryDirectory() as folder, engine(args.app) as url:
        file, state = Path(folder) / "items.parquet", Path(folder) / "s.sqlite"
        catalogue(file, args.live_items)
        feed = ("feed", "items", file, "--app", args.app, "-e", url, "--state", state)
        mrse(*feed, check=True)
        table = pq.read_table(file).to_pydict()
        table["title"][7] = "purple umbrella"
        pq.write_table(pa.table(table), file)
        seconds.append(_until_found(url, "purple umbrella", lambda: mrse(*feed, check=True)))
        drops = Path(folder) / "drops"
        arguments = ["watch", drops, "--app", args.app, "-e", url, "--state", state]
        process = subprocess.Popen(
            [sys.executable, "-m", "mrse_cli.main", *map(str, arguments)], cwd=HERE.parent, stdout=subprocess.PIPE
        )
        process.stdout.readline()  # type: ignore[union-attr]
        time.sleep(1)
        line = orjson.dumps({"op": "item", "item_id": "i9", "title": "yellow bathtub"})
        seconds.append(_until_found(url, "yellow bathtub", lambda: _drop(drops, "a.jsonl", line)))
        event = orjson.dumps({"op": "event", "user": "u1", "item": "i9", "event": "click"})
        begin = time.perf_counter()
        _drop(drops, "b.jsonl", event)
        while httpx.get(f"{url}/document/v1/item/shopper/docid/u1").status_code != 200:
            time.sleep(0.01)
        seconds.append(time.perf_counter() - begin)
        process.terminate()
        process.wait()
    print(f"\n## Live: one edit in {args.live_items:,} items\n\nby the command {seconds[0]:.2f} s, by a running watch "
          f"{seconds[1]:.2f} s, an event {seconds[2]:.2f} s")  # fmt: skip
    return [Bar(name, value, goal, "<=") for (name, goal), value in zip(names, seconds, strict=True)]


def _drop(folder: Path, name: str, content: bytes) -> None:
    (folder / f".{name}").write_bytes(content)
    (folder / f".{name}").rename(folder / name)


def _until_found(url: str, words: str, change: Callable[[], object]) -> float:
    """Seconds from the change until a search finds the words."""
    begin = time.perf_counter()
    change()
    while True:
        body = {"yql": "select item_id from item where userInput(@w)", "w": words, "hits": 1, "ranking": "unranked"}
        found = httpx.post(f"{url}/search/", json=body | {"model.type": "all"}).json()
        if found["root"]["fields"]["totalCount"]:
            return time.perf_counter() - begin
        time.sleep(0.01)


@contextmanager
def package(app: Path | None) -> Iterator[Path]:
    """The package to measure with: this one, or ours with an untrained `base` model."""
    if app is not None:
        yield app.resolve()
        return
    from quality import Data, sample_data
    from query_vector import untrained

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "vespa_app"
        shutil.copytree(HERE.parent / "vespa_app", folder, ignore=shutil.ignore_patterns("models"))
        untrained(Data.find(sample_data(Path(name) / "sample")), folder)
        yield folder


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bars", action="store_true")
    parser.add_argument("--app", type=Path, help="package with an exported model; default: untrained")
    parser.add_argument("--only", choices=PARTS, action="append")
    parser.add_argument("--documents", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000, 400_000])
    parser.add_argument("--fault-items", type=int, default=5000)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--live-items", type=int, default=100_000)
    args = parser.parse_args()
    with package(args.app) as args.app:
        bars = [bar for part in args.only or PARTS for bar in globals()[part](args)]
    print()
    return verdict(bars) if args.bars else 0


if __name__ == "__main__":
    sys.exit(main())
