"""The embedded engine: its vectors against bare faiss, its server, its memory, and other embedded vector databases.

Ran against, on the same machine, with the same clustered vectors (128-d, made from one seed):
* vectors: bare faiss in the same process, in turns, CPU time for the top 100 at equal recall, without a filter and
  with filters that leave 50 %, 5 % and 0.5 % of the rows; --graph: the same where the engine has an HNSW graph.
* server: `vespa feed` into an engine process, then searches by 4 client processes over HTTP/1.1; beside it how often
  this machine's disk makes 4 kB durable in a second.
* memory: resident bytes of that process after all documents and searches, against the raw vectors and text.
* databases: LanceDB, Qdrant Edge, Milvus Lite, Chroma, each in a process of its own, as many as are installed.
With --bars it ends in lines `bar NAME VALUE TARGET ok|short` and exits with 1 if one is short. The server needs two
cores that are free: other work on the machine lowers its rates. Linux only (it reads /proc).

    python benchmarks/engine.py --bars
    python -m venv peers && peers/bin/pip install numpy lancedb qdrant-edge-py milvus-lite pymilvus chromadb
    python benchmarks/engine.py --only databases --python peers/bin/python
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import engine_parts.peers as engine_peers
import engine_parts.server as engine_server
import engine_parts.vectors as engine_vectors
import numpy as np
from bars import Bar, verdict
from engine_parts.data import Corpus, make_corpus, nearest
from engine_parts.vectors import Comparison

PARTS = ("vectors", "server", "memory", "databases")
RATIO, REQUESTS_S, PUTS_S, MEMORY = 1.5, 600, 1500, 2.5
ACKED = 200


def vectors(args: argparse.Namespace) -> list[Bar]:
    """The engine's vector search against bare faiss."""
    corpus = make_corpus(30_000 if args.quick else 100_000)
    queries, rounds = (100, 5) if args.quick else (300, 10)
    print(f"## Vectors: the engine against bare faiss {importlib.metadata.version('faiss-cpu')}, "
          f"{len(corpus.vectors):,} x 128, top {engine_vectors.K}, 1 thread, {rounds} rounds in turns\n")  # fmt: skip
    print("| index | rows left | engine, CPU ms | faiss, CPU ms | ratio (median round) | recall, engine / faiss |")
    print("| --- | --- | --- | --- | --- | --- |")
    found = engine_vectors.compare(corpus, queries, rounds)
    if args.graph:
        found += engine_vectors.compare_graphs(corpus, queries, rounds)
    for c in found:
        print(f"| {c.index} | {c.share:.1%} | {c.engine_ms:.3f} | {c.faiss_ms:.3f} | {c.ratio:.2f} "
              f"| {c.engine_recall:.3f} / {c.faiss_recall:.3f} |", flush=True)  # fmt: skip
    return [Bar(_name(c), c.ratio, RATIO, "<=") for c in found]


def _name(c: Comparison) -> str:
    return f"engine_cpu_over_faiss_{c.index.split(',')[0].lower()}_{c.share * 100:g}_percent"


def server(args: argparse.Namespace) -> list[Bar]:
    """Puts, searches and memory of one engine process."""
    rows = 5_000 if args.quick else args.rows
    total = rows if "memory" not in args.only else max(rows, 5_000 if args.quick else 100_000)
    corpus = make_corpus(total)
    bars: list[Bar] = []
    with tempfile.TemporaryDirectory() as name, engine_server.running(Path(name)) as engine:
        print("\n## Server: one engine process\n")
        syncs = engine_server.syncs_per_second(Path(name))
        fed = engine.feed(corpus, 0, rows)
        print(f"vespa feed, {rows:,} documents: {fed.puts_s:.0f} durable puts/s, {fed.cpu_ms:.2f} CPU ms of the engine "
              f"each; this disk: {syncs:.0f} fdatasync/s")  # fmt: skip
        seconds = 2.0 if args.quick else 8.0
        found = engine.search(corpus.head(rows), seconds)
        print(f"search over HTTP, {rows:,} x 128, {engine_server.CLIENTS} clients, top {engine_server.HITS} with "
              f"summaries: {found.requests_s:.0f} requests/s, {found.cpu_ms:.2f} CPU ms of the engine each, "
              f"P50 {found.p50_ms:.1f} ms, P99 {found.p99_ms:.1f} ms", flush=True)  # fmt: skip
        if "server" in args.only:
            bars += [
                Bar("engine_durable_puts_per_second", fed.puts_s, PUTS_S),
                Bar("engine_http_searches_per_second", found.requests_s, REQUESTS_S),
            ]
        if "memory" in args.only:
            if total > rows:
                engine.feed(corpus, rows, total)
            engine.search(corpus, 1.0)
            bars.append(_memory(corpus, engine.empty, engine.memory))
    return bars


def _memory(corpus: Corpus, empty: int, full: int) -> Bar:
    raw = corpus.raw_bytes
    grown = (full - empty) / raw
    print(f"memory, {len(corpus.titles):,} documents: {full / 1e6:.0f} MB resident, of which {empty / 1e6:.0f} MB "
          f"before the first document; raw vectors and text {raw / 1e6:.0f} MB; growth {grown:.2f} times that, "
          f"all of it {full / raw:.2f} times")  # fmt: skip
    return Bar("engine_memory_growth_over_raw", grown, MEMORY, "<=")


def databases(args: argparse.Namespace) -> None:
    """The table of embedded vector databases."""
    corpus = make_corpus(2_000 if args.quick else args.peer_rows, 100)
    print(f"\n## Embedded databases: {len(corpus.vectors):,} x 128, top {engine_peers.K}, one process each\n")
    print("| | recall@10 | CPU ms | recall@10, 5 % filter | CPU ms | load, CPU s | single puts/s | memory, MB "
          "| lost after kill -9 |")  # fmt: skip
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    missing = []
    with tempfile.TemporaryDirectory() as name:
        data = Path(name) / "data.npz"
        np.savez(
            data, vectors=corpus.vectors, prices=corpus.prices, queries=corpus.queries,
            all_truth=nearest(corpus, corpus.queries, engine_peers.K),
            filtered_truth=nearest(corpus, corpus.queries, engine_peers.K, engine_peers.SHARE),
        )  # fmt: skip
        for database, kind in engine_peers.DATABASES.items():
            python = sys.executable if database == "local_vespa" else args.python
            folder = Path(name) / database.replace(" ", "-")
            step = [python, engine_peers.__file__, database]
            run = _run([*step, "measure", str(folder / "measured"), str(data)])
            if run is None or run.returncode:
                why = "took too long" if run is None else run.stderr.strip().splitlines()[-1]
                missing.append(f"{database} left out ({why}); pip install {kind.package}, or --python PATH")
                continue
            f: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
            lost = _lost_after_kill(step, folder / "killed", data)
            print(
                f"| {database} {f['version']} | {f['all_recall']:.3f} | {f['all_ms']:.2f} | {f['filtered_recall']:.3f} "
                f"| {f['filtered_ms']:.2f} | {f['load_cpu_s']:.1f} | {f['puts_s']:.0f} | {f['memory'] / 1e6:.0f} "
                f"| {lost} |",
                flush=True,
            )
    for line in missing:
        print(line)


def _run(command: list[str], given: str = "") -> subprocess.CompletedProcess[str] | None:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    try:
        return subprocess.run(command, input=given, capture_output=True, text=True, timeout=180, env=environment)
    except subprocess.TimeoutExpired:
        return None


def _lost_after_kill(step: list[str], folder: Path, data: Path) -> str:
    """How many of the first acknowledged puts are gone after a kill -9 in the midst of putting."""
    process = subprocess.Popen(
        [*step, "put", str(folder), str(data)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert process.stdout
    acknowledged = [line.strip() for line, _ in zip(process.stdout, range(ACKED), strict=False)]
    process.kill()
    process.wait()
    if not acknowledged:
        return "?"
    run = _run([*step, "check", str(folder), str(data)], "\n".join(acknowledged))
    if run is None or run.returncode:
        return "does not open"
    return f"{len(acknowledged) - int(run.stdout.split()[-1])} of {len(acknowledged)}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", type=lambda text: text.split(","), default=list(PARTS), help=", ".join(PARTS))
    parser.add_argument("--rows", type=int, default=50_000, help="documents of the server's puts and searches")
    parser.add_argument("--peer-rows", type=int, default=10_000, help="vectors of the databases' table")
    parser.add_argument("--python", default=sys.executable, help="an interpreter that has the other databases")
    parser.add_argument("--graph", action="store_true", help="also HNSW graphs (builds one: a minute)")
    parser.add_argument("--quick", action="store_true", help="small data: shows that it runs; its figures mean little")
    parser.add_argument("--bars", action="store_true")
    args = parser.parse_args()
    if unknown := set(args.only) - set(PARTS):
        parser.error(f"--only knows {', '.join(PARTS)}, not {', '.join(sorted(unknown))}")
    load = os.getloadavg()[0]
    print(f"{os.cpu_count()} cores, load {load:.1f} before it began\n")
    bars: list[Bar] = []
    if "vectors" in args.only:
        bars += vectors(args)
    if {"server", "memory"} & set(args.only):
        bars += server(args)
    if "databases" in args.only:
        databases(args)
    return verdict(bars) if args.bars else 0


if __name__ == "__main__":
    sys.exit(main())
