"""The engine as a server: durable puts by `vespa feed`, searches over HTTP, memory. It runs in a process of its own."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import orjson

from engine_parts.data import Corpus, cpu_seconds, memory, write_feed, write_package
from local_vespa.testing import deploy, free_port, start

CLIENTS, HITS = 4, 10


@dataclass(frozen=True)
class Fed:
    """Puts by `vespa feed`: a second, CPU milliseconds of the engine for each."""

    puts_s: float
    cpu_ms: float


@dataclass(frozen=True)
class Searched:
    """Searches: a second over all clients, CPU milliseconds of the engine for each, latencies in milliseconds."""

    requests_s: float
    cpu_ms: float
    p50_ms: float
    p99_ms: float


class RunningEngine:
    """An engine in a process, with the benchmark's package deployed. `empty` is its memory before the first document
    (bytes)."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.process = start(folder / "data", self.port)
        deploy(f"http://127.0.0.1:{self.port}", write_package(folder / "package"))
        self.empty = self.memory

    @property
    def memory(self) -> int:
        return memory(self.process.pid)

    def feed(self, corpus: Corpus, start: int, stop: int) -> Fed:
        """Feeds rows with `vespa feed`. Raises RuntimeError where one is refused."""
        import vespacli

        path = write_feed(corpus, self.folder / "feed.jsonl", start, stop)
        before = cpu_seconds(self.process.pid)
        command = [str(vespacli.get_binary_path()), "feed", str(path), "-t", f"http://127.0.0.1:{self.port}"]
        run = subprocess.run(command, capture_output=True, text=True)
        path.unlink()
        figures = json.loads(run.stdout) if run.returncode == 0 else {}
        if figures.get("feeder.ok.count") != stop - start:
            raise RuntimeError(f"vespa feed: {run.stdout[-500:]} {run.stderr[-500:]}")
        used = cpu_seconds(self.process.pid) - before
        return Fed(figures["feeder.ok.rate"], used / (stop - start) * 1e3)

    def search(self, corpus: Corpus, seconds: float) -> Searched:
        """Searches with 4 clients, each in its own process with one connection that is kept."""
        queries = self.folder / "queries.npy"
        np.save(queries, corpus.queries)
        command = [sys.executable, "-m", "engine_parts.server", str(self.port), str(queries), str(seconds)]
        at, pipe = Path(__file__).parents[1], subprocess.PIPE
        clients = [
            subprocess.Popen([*command, str(n)], cwd=at, stdin=pipe, stdout=pipe, text=True) for n in range(CLIENTS)
        ]
        for client in clients:
            assert client.stdout and client.stdin
            client.stdout.readline()  # it is connected and warm
        before = cpu_seconds(self.process.pid)
        for client in clients:
            assert client.stdin
            client.stdin.write("\n")
            client.stdin.flush()
        times = [json.loads(client.communicate()[0]) for client in clients]
        used = cpu_seconds(self.process.pid) - before
        together = np.concatenate(times)
        return Searched(
            len(together) / seconds, used / len(together) * 1e3, float(np.median(together)),
            float(np.quantile(together, 0.99)),
        )  # fmt: skip

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(30)


@contextlib.contextmanager
def running(folder: Path) -> Iterator[RunningEngine]:
    """An engine for the time of the `with` block."""
    engine = RunningEngine(folder)
    try:
        yield engine
    finally:
        engine.stop()


def syncs_per_second(folder: Path, seconds: float = 1.0) -> float:
    """How often this machine makes 4 kB durable in a second: append and fdatasync, one after the other."""
    done, page = 0, b"x" * 4096
    with (folder / "sync").open("wb", buffering=0) as out:
        until = time.perf_counter() + seconds
        while time.perf_counter() < until:
            out.write(page)
            os.fdatasync(out.fileno())
            done += 1
    return done / seconds


def client(port: int, queries: np.ndarray, seconds: float, number: int) -> list[float]:
    """One client: waits for a line on stdin, searches for some seconds; the milliseconds of each search."""
    yql = f"select * from item where {{targetHits:{HITS}}}nearestNeighbor(embedding,q)"
    bodies = [
        orjson.dumps({"yql": yql, "hits": HITS, "ranking": "ann", "input.query(q)": query.tolist()})
        for query in np.roll(queries, 100 * number, 0)[:200]
    ]
    head = f"POST /search/ HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\nContent-Length: "
    requests = [f"{head}{len(body)}\r\n\r\n".encode() + body for body in bodies]
    connection = socket.create_connection(("127.0.0.1", port))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def search(request: bytes) -> None:
        """Without an HTTP library: http.client would take as much of the machine as half a search."""
        connection.sendall(request)
        answer, end, length = b"", -1, 0
        while end < 0 or len(answer) < end + 4 + length:
            part = connection.recv(1 << 16)
            answer += part
            end = answer.find(b"\r\n\r\n") if end < 0 else end
            if end >= 0 and not length:
                length = int(re.search(rb"content-length: *(\d+)", answer[:end].lower())[1])  # type: ignore[index]
            if not part:
                raise RuntimeError("the engine closed the connection")
        if not answer.startswith(b"HTTP/1.1 200") or b'"children"' not in answer:
            raise RuntimeError(answer.decode())

    for request in requests[:20]:
        search(request)
    print("ready", flush=True)
    sys.stdin.readline()
    times: list[float] = []
    until = time.perf_counter() + seconds
    while (began := time.perf_counter()) < until:
        search(requests[len(times) % len(requests)])
        times.append((time.perf_counter() - began) * 1e3)
    return times


if __name__ == "__main__":
    print(json.dumps(client(int(sys.argv[1]), np.load(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4]))))
