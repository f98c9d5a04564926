"""Memory of a whole training at 1× and at 10× the searches, the catalogue and its users the same: is it flat?

Ran against: itself. Each training (examples from the log, tokenizer, n-grams, every stage for some steps; no images)
is a process of its own; what is printed is its peak resident memory. The log is the generated sample's, so there is no
data to bring. `--bars` ends in a line `bar NAME VALUE TARGET ok|short`, with exit code 1 if it is short.

    python benchmarks/training_memory.py --bars
"""

from __future__ import annotations

import argparse
import dataclasses
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bars import Bar, verdict
from reading import peak_mib
from rich.console import Console

ITEMS, USERS, SEARCHES = 1_000, 1_000, 10_000
TIMES = 10
FLAT = 1.15  # peak at 10× over peak at 1×


def child(folder: Path, steps: int) -> None:
    from mrse_model.config import preset
    from mrse_model.training.claim import Inputs
    from mrse_model.training.pipeline import train

    tiny = preset("tiny")
    names = ("adaptor", "ft_att", "light_bert", "vbert", "dssm")
    stages = {name: dataclasses.replace(getattr(tiny.train, name), max_steps=steps, epochs=1e6) for name in names}
    config = dataclasses.replace(
        tiny,
        model=dataclasses.replace(tiny.model, use_images=False),
        train=dataclasses.replace(tiny.train, patience=1000, **stages),
    )
    sample = folder / "sample"
    inputs = Inputs(sample / "items.parquet", sample / "searches.parquet", sample / "judgments.parquet")
    train(inputs, folder / "run", config, Console(quiet=True))
    print((folder / "run" / "cache" / "examples.bin").stat().st_size, peak_mib())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--searches", type=int, default=SEARCHES, help="at 1×")
    parser.add_argument("--steps", type=int, default=60, help="of each stage")
    parser.add_argument("--bars", action="store_true")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(args.child, args.steps)
        return 0
    from mrse_model.sample.catalogue import write_sample

    peaks = []
    for searches in (args.searches, TIMES * args.searches):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            write_sample(folder / "sample", items=ITEMS, users=USERS, searches=searches)
            began = time.perf_counter()
            command = [sys.executable, __file__, "--child", name, "--steps", str(args.steps)]
            found = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
            size, peak = int(found[-2]), float(found[-1])
            peaks.append(peak)
            print(f"{searches:>9,} searches  examples {size / 2**20:6.1f} MiB on disk  peak {peak:6.0f} MiB  "
                  f"{time.perf_counter() - began:6.1f} s", flush=True)  # fmt: skip
    ratio = peaks[1] / peaks[0]
    return verdict([Bar(f"training_memory_at_{TIMES}x", ratio, FLAT, "<=")]) if args.bars else 0


if __name__ == "__main__":
    sys.exit(main())
