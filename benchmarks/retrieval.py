"""What the Searcher and the service cost beside the bare query, in one run.

    python benchmarks/retrieval.py --endpoint http://localhost:8080 --app vespa_app --searches searches.parquet --bars

A fed index is asked the log's last queries three ways, each beside the same text through pyvespa alone (embed() in the
container, one nearestNeighbor): P50 of both, interleaved, so that what else the machine does falls on both. Then the
service with one worker stands before a backend that takes 50 ms, and 16 clients ask it and the backend itself.
`--soak SECONDS` keeps a mixed load on the service and reads its memory.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path[0] = str(Path(__file__).resolve().parents[1])  # `retrieval` is the package, not this file

import httpr  # noqa: E402
import numpy as np  # noqa: E402
import pyarrow.parquet as pq  # noqa: E402
from vespa.application import Vespa  # noqa: E402

from benchmarks.bars import Bar, verdict  # noqa: E402
from local_vespa.testing import free_port  # noqa: E402
from mrse_model.serving.exported_model import ExportedModel  # noqa: E402
from retrieval import Searcher  # noqa: E402
from retrieval.embed_producer import EmbedProducer  # noqa: E402
from retrieval.service.models import KNOWN_SECONDS  # noqa: E402

CLIENTS, BACKEND_SECONDS = 16, 0.05
HITS = 10


def bare(text: str) -> dict[str, Any]:
    """The same search as pyvespa's user writes it."""
    return {
        "yql": "select * from item where {targetHits: 200}nearestNeighbor(embedding, q)",
        "query": text,
        "input.query(q)": "embed(text, @query)",
        "ranking": "ann",
        "hits": HITS,
    }


def ratios(endpoint: str, app: Path, searches: Path, n: int) -> dict[str, tuple[float, float]]:
    """way → (P50 of pyvespa alone, P50 of the Searcher), milliseconds."""
    log = pq.read_table(searches, columns=["user_id", "query", "timestamp"]).sort_by("timestamp").to_pylist()
    asked = [row for row in log if row["user_id"] and row["query"].strip()]
    before, rows = asked[-2 * n : -n], asked[-n:]
    end = log[-1]["timestamp"]
    now = float(end if isinstance(end, int) else end.timestamp())
    producer = EmbedProducer(ExportedModel.load(app / "models"))
    searcher = Searcher(Vespa(endpoint), producer=producer, deadline=30, known_seconds=KNOWN_SECONDS, clock=lambda: now)
    ways: dict[str, Callable[[dict[str, Any]], Any]] = {
        "text": lambda row: searcher.search(row["query"], hits=HITS),
        "user": lambda row: searcher.search(row["query"], user=row["user_id"], hits=HITS),
        "three queues": lambda row: searcher.search(
            row["query"], user=row["user_id"], profile="three_queues", hits=HITS
        ),
    }
    out = {}
    with Vespa(endpoint).syncio() as session:
        for name, search in ways.items():
            times: dict[str, list[float]] = {"bare": [], "ours": []}
            for turn, row in enumerate([*before, *rows]):  # what came before warms both up
                for what, ask in (("bare", lambda r: session.query(body=bare(r["query"]))), ("ours", search)):
                    begin = time.perf_counter()
                    ask(row)
                    if turn >= len(before):
                        times[what].append(1000 * (time.perf_counter() - begin))
            out[name] = (statistics.median(times["bare"]), statistics.median(times["ours"]))
    searcher.close()
    return out


def throughput(url: str, bodies: list[bytes], seconds: float, allowed: tuple[int, ...] = (200,)) -> float:
    """Answers a second to 16 clients, each with a connection of its own. Raises RuntimeError for a status that is not
    allowed.
    """
    done, stop = [0] * CLIENTS, time.perf_counter() + seconds
    failed: list[str] = []

    def ask(client: int) -> None:
        with httpr.Client(timeout=10) as http:
            turn = client
            while time.perf_counter() < stop:
                body = bodies[turn % len(bodies)]
                answer = http.post(url, content=body, headers={"content-type": "application/json"})
                if answer.status_code not in allowed:
                    failed.append(answer.text[:200])
                    return
                done[client] += 1
                turn += CLIENTS

    begin = time.perf_counter()
    threads = [threading.Thread(target=ask, args=(client,)) for client in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise RuntimeError(failed[0])
    return sum(done) / (time.perf_counter() - begin)


async def backend(port: int, model_version: str) -> None:
    """Answers every search after 50 ms, as Vespa does."""
    children = [
        {"id": f"x{n}", "relevance": 1.0, "fields": {"item_id": f"i{n}", "title": f"item {n}", "category": ["a"]}}
        for n in range(HITS)
    ]
    body = json.dumps({"root": {"fields": {"totalCount": 200}, "children": children}}).encode()
    head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n".encode()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while request := await reader.readuntil(b"\r\n\r\n"):
                lines = request.lower().split(b"\r\n")
                length = next((int(line[15:]) for line in lines if line.startswith(b"content-length:")), 0)
                await reader.readexactly(length)
                await asyncio.sleep(BACKEND_SECONDS)
                writer.write(head + body)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", port, backlog=256)
    async with server:
        await server.serve_forever()


class Running:
    """A backend of 50 ms and the service before it, as processes of their own."""

    def __init__(self, app: Path, log: Path) -> None:
        self.backend_port, self.port = free_port(), free_port()
        script = str(Path(__file__).resolve())
        self._backend = subprocess.Popen([sys.executable, script, "--backend", str(self.backend_port)])
        command = [sys.executable, "-m", "mrse_cli.main", "serve", "--app", str(app), "--port", str(self.port)]
        command += ["-e", f"http://127.0.0.1:{self.backend_port}", "--demo"]
        self._log = open(log, "wb")  # noqa: SIM115 (closed below)
        self._service = subprocess.Popen(command, stdout=self._log, stderr=self._log)
        for _ in range(600):
            try:
                if httpr.get(f"{self.url}/ready", timeout=2).status_code == 200:
                    return
            except Exception:
                time.sleep(0.05)
        self.close()
        raise RuntimeError(f"the service does not start: {log.read_text()[-2000:]}")

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def rss(self) -> int:
        """Kilobytes of the service's worker: the largest of its processes."""
        children = Path(f"/proc/{self._service.pid}/task/{self._service.pid}/children").read_text().split()
        sizes = []
        for pid in [str(self._service.pid), *children]:
            for line in Path(f"/proc/{pid}/status").read_text().splitlines():
                if line.startswith("VmRSS:"):
                    sizes.append(int(line.split()[1]))
        return max(sizes)

    def close(self) -> None:
        for process in (self._service, self._backend):
            process.terminate()
            process.wait(20)
        self._log.close()


def soak(running: Running, seconds: float) -> tuple[int, int]:
    """RSS in kB at a fifth of a mixed load and at its end; a busy machine's refusals are answers too."""
    rng = np.random.default_rng(0)
    words = [f"word{n}" for n in range(2000)]

    def body() -> bytes:
        text = " ".join(rng.choice(words, 3))
        more = {"user": f"u{rng.integers(500)}"} if rng.random() < 0.3 else {}
        profile = str(rng.choice(["ann", "hybrid", "bm25", "three_queues"]))
        return json.dumps({"query": text, "profile": profile, "facets": ["colour"], **more}).encode()

    sizes = []
    for _ in range(5):
        throughput(f"{running.url}/v1/search", [body() for _ in range(4000)], seconds / 5, (200, 429, 504))
        sizes.append(running.rss())
    return sizes[0], sizes[-1]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--endpoint", default="http://localhost:8080")
    parser.add_argument("--app", type=Path, default=Path("vespa_app"))
    parser.add_argument("--searches", type=Path)
    parser.add_argument("--queries", type=int, default=300)
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--soak", type=float, default=0)
    parser.add_argument("--bars", action="store_true")
    parser.add_argument("--backend", type=int)
    options = parser.parse_args()
    if options.backend:
        asyncio.run(backend(options.backend, ""))
        return 0
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    bars: list[Bar] = []
    if options.searches:
        most = {"text": 1.1, "user": 1.6, "three queues": 2.0}
        for name, (theirs, ours) in ratios(options.endpoint, options.app, options.searches, options.queries).items():
            print(f"{name}: P50 {ours:.2f} ms, pyvespa alone {theirs:.2f} ms, {ours / theirs:.2f} times")
            bars.append(Bar(f"{name}, times the bare query", ours / theirs, most[name], "<="))
    with tempfile.TemporaryDirectory() as folder:
        running = Running(options.app, Path(folder) / "service.log")
        try:
            body = [json.dumps({"query": f"red dress {n}"}).encode() for n in range(50)]
            asked = [json.dumps(bare(f"red dress {n}")).encode() for n in range(50)]
            throughput(f"{running.url}/v1/search", body, 1)
            own = throughput(f"http://127.0.0.1:{running.backend_port}/search/", asked, options.seconds)
            ours = throughput(f"{running.url}/v1/search", body, options.seconds)
            print(f"service: {ours:.0f} searches/s of the backend's {own:.0f}, {ours / own:.1%}")
            bars.append(Bar("service, share of the backend's throughput", ours / own, 0.9, ">="))
            if options.soak:
                fifth, end = soak(running, options.soak)
                print(f"memory after a fifth {fifth / 1024:.0f} MB, at the end {end / 1024:.0f} MB, {end / fifth:.3f}")
                bars.append(Bar("memory at the end, of that at a fifth", end / fifth, 1.05, "<="))
        finally:
            running.close()
    return verdict(bars) if options.bars else 0


if __name__ == "__main__":
    sys.exit(main())
