"""Memory of reading items and of writing training examples, at 1× and at 10× the rows: is it flat?

Ran against: itself. Each measurement is a process of its own; what is printed is its peak resident memory. The logs are
generated, so there is no data to bring. `--bars` ends in lines `bar NAME VALUE TARGET ok|short`, with exit code 1 if
one is short.

    python benchmarks/reading.py --bars
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from bars import Bar, verdict

ITEMS, IMAGE_BYTES = 2_000, 20_000
SEARCHES, USERS, QUERIES, CATALOGUE = 20_000, 2_000, 3_000, 5_000
TIMES = 10
FLAT = 1.25  # peak at 10× over peak at 1×


def write_items(path: Path, items: int) -> None:
    rng = np.random.default_rng(0)
    with pq.ParquetWriter(path, pa.schema([("item_id", "string"), ("title", "string"), ("image", "binary")])) as out:
        for start in range(0, items, 1000):
            ids = [f"i{n}" for n in range(start, min(start + 1000, items))]
            out.write_table(pa.table({"item_id": ids, "title": ids, "image": [rng.bytes(IMAGE_BYTES) for _ in ids]}))


def write_searches(path: Path, searches: int) -> None:
    rng = np.random.default_rng(0)
    lists = ("shown", "clicked")
    schema = pa.schema(
        [("search_id", "string"), ("user_id", "string"), ("timestamp", "int64"), ("query", "string")]
        + [(name, pa.list_(pa.string())) for name in lists]
    )
    with pq.ParquetWriter(path, schema) as out:
        for start in range(0, searches, 10_000):
            n = min(10_000, searches - start)
            shown = rng.integers(0, CATALOGUE, (n, 20))
            rows = {
                "search_id": [f"s{start + i}" for i in range(n)],
                "user_id": [f"u{u}" for u in rng.integers(0, USERS, n)],
                "timestamp": rng.integers(0, 90 * 86_400, n) + 1_700_000_000,  # unsorted
                "query": [f"query {q}" for q in rng.zipf(1.3, n) % QUERIES],
                "shown": [[f"i{i}" for i in row] for row in shown.tolist()],
                "clicked": [[f"i{i}" for i in row[:3]] for row in shown.tolist()],
            }
            out.write_table(pa.table(rows, schema=schema))


def read_items(folder: Path) -> None:
    from mrse_model.data.contract import ItemsFile

    total = sum(
        len(image or b"") for b in ItemsFile(folder / "items.parquet").batches(64, images=True) for image in b.images
    )
    assert total % IMAGE_BYTES == 0 and total


def examples(folder: Path) -> None:
    from mrse_model.data.contract import SearchesFile, read_catalogue
    from mrse_model.data.examples import write_examples

    catalogue = read_catalogue(folder / "catalogue.parquet")
    summary = write_examples(folder / "examples", catalogue, searches=SearchesFile(folder / "searches.parquet"))
    assert summary.rows


def peak_mib() -> float:
    """Peak resident memory of this process, in MiB."""
    status = Path("/proc/self/status")
    if status.exists():  # Linux's ru_maxrss counts the parent's memory at the fork, too
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1 << 10)


def measure(what: str, folder: Path) -> tuple[float, float]:
    """Peak MiB and seconds of one of MEASURED in a process of its own."""
    begin = time.perf_counter()
    out = subprocess.run(
        [sys.executable, __file__, "--child", what, str(folder)], check=True, capture_output=True, text=True
    ).stdout
    return float(out.split()[-1]), time.perf_counter() - begin


MEASURED = {"read_items": read_items, "examples": examples}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bars", action="store_true")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        MEASURED[args.child[0]](Path(args.child[1]))
        print(peak_mib())
        return 0
    peaks: dict[str, list[float]] = {what: [] for what in MEASURED}
    for scale in (1, TIMES):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            write_items(folder / "items.parquet", ITEMS * scale)
            ids = [f"i{n}" for n in range(CATALOGUE)]
            pq.write_table(pa.table({"item_id": ids, "title": ids}), folder / "catalogue.parquet")
            write_searches(folder / "searches.parquet", SEARCHES * scale)
            for what in MEASURED:
                peak, seconds = measure(what, folder)
                peaks[what].append(peak)
                rows = (ITEMS if what == "read_items" else SEARCHES) * scale
                print(f"{what:12} {rows:>9,} rows  peak {peak:6.0f} MiB  {seconds:6.1f} s", flush=True)
    if not args.bars:
        return 0
    return verdict(
        [Bar(f"{what}_memory_at_{TIMES}x", large / small, FLAT, "<=") for what, (small, large) in peaks.items()]
    )


if __name__ == "__main__":
    sys.exit(main())
