"""The shards of a catalogue by Ray Data, for more cores than one machine has: `mrse encode --ray ADDRESS`.

The same function as in one process (`Encoder.shard`), an actor a core; the files must lie where every node reads and
writes them. Extra: mrse-vespa[ray].
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import ray
import ray.data

from feeders.shards.encode import Encoder, Group, Job


class _Shards:
    """An actor: holds a model, makes one shard after the other."""

    def __init__(self, job: Job) -> None:
        self._encoder = Encoder(job)

    def __call__(self, groups: dict[str, Any]) -> dict[str, Any]:
        made = [
            self._encoder.shard(Group(Path(file), int(group), int(first), int(rows), Path(shard)))
            for file, group, first, rows, shard in zip(
                *(groups[name] for name in ("file", "group", "first", "rows", "shard")), strict=True
            )
        ]
        return {"rows": groups["rows"], "made": np.array(made)}


def encode_with_ray(
    groups: Sequence[Group],
    job: Job,
    *,
    workers: int,
    address: str | None = None,
    progress: Callable[[int], object] = lambda rows: None,
) -> int:
    """Makes the shards that are not there with this many workers, and returns how many were. address: of a running
    cluster; None starts one here.
    """
    for folder in {group.shard.parent for group in groups}:
        folder.mkdir(parents=True, exist_ok=True)
    started = not ray.is_initialized()
    if started:
        ray.init(address=address, include_dashboard=False, log_to_driver=False)
    try:
        return _run(groups, job, workers, progress)
    finally:
        if started:
            ray.shutdown()


def _run(groups: Sequence[Group], job: Job, workers: int, progress: Callable[[int], object]) -> int:
    rows = [{name: str(value) if isinstance(value, Path) else value for name, value in asdict(group).items()}
            for group in groups]  # fmt: skip
    made = 0
    data = ray.data.from_items(rows, override_num_blocks=max(workers, min(len(rows), 4 * workers)))
    done = data.map_batches(
        _Shards, fn_constructor_args=(job,), batch_size=1, concurrency=workers, num_cpus=job.threads
    )
    for batch in done.iter_batches(batch_size=1):
        made += int(batch["made"].sum())
        progress(int(batch["rows"].sum()))
    return made
