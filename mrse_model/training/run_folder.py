"""The folder of a training run: its log, its warnings, its lock, the CPU seconds that it took.

cache/ holds what is made once and read by every stage, state/ a file a stage, log.jsonl a line a measurement; the
checkpoint lies beside them. What the folder belongs to is in mrse_model.training.claim.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from rich.console import Console

from mrse_model.atomic_file import atomic_file
from mrse_model.config import TrainConfig
from mrse_model.errors import InputError
from mrse_model.training.distributed import Processes


@dataclass
class Run:
    """A training run's folder: log.jsonl (one line a measurement), state/ (one file a stage), and what looks wrong.
    Only the main process writes.

    signatures: the failure signatures that show at the moment, by name, each with its warning
    (mrse_model.training.diagnostics).
    """

    folder: Path
    train: TrainConfig
    console: Console
    tensorboard: bool = False  # also writes tensorboard/STAGE
    signatures: dict[str, str] = field(default_factory=dict)
    processes: Processes = field(default_factory=Processes)
    _writers: dict[str, Any] = field(default_factory=dict)  # a SummaryWriter a stage

    def __post_init__(self) -> None:
        (self.folder / "state").mkdir(parents=True, exist_ok=True)
        if self.tensorboard:
            import_module("torch.utils.tensorboard")  # that it is missing is said now, not after the data is read

    def log(self, stage: str, step: int, **values: float) -> None:
        """Appends one line to log.jsonl."""
        if not self.processes.main:
            return
        with open(self.folder / "log.jsonl", "a", encoding="utf-8") as file:
            file.write(
                json.dumps({"stage": stage, "step": step, **{k: round(float(v), 6) for k, v in values.items()}}) + "\n"
            )
        if stage in self._writers:
            for name, value in values.items():
                self._writers[stage].add_scalar(name, value, step)
            self._writers[stage].flush()

    def truncate_log(self, stage: str, step: int) -> None:
        """Begins a stage: takes out of log.jsonl and hides in TensorBoard what a killed run wrote of it after its
        checkpoint at `step`, because it comes again. A line that the kill cut short goes, too.
        """
        if not self.processes.main:
            return
        if self.tensorboard:
            writer = import_module("torch.utils.tensorboard").SummaryWriter
            self._writers[stage] = writer(self.folder / "tensorboard" / stage, purge_step=step + 1)
        path = self.folder / "log.jsonl"
        if not path.exists():
            return
        kept = []
        for line in path.read_text("utf-8").splitlines(keepends=True):
            if line.endswith("}\n"):
                row = json.loads(line)
                if row["stage"] != stage or (row["step"] <= step and "best" not in row):
                    kept.append(line)
        with atomic_file(path) as part:
            part.write_text("".join(kept), "utf-8")

    def close(self) -> None:
        """Ends what is written for TensorBoard."""
        for writer in self._writers.values():
            writer.close()

    def rows(self, stage: str) -> list[dict[str, Any]]:
        """The lines of log.jsonl about this stage."""
        path = self.folder / "log.jsonl"
        lines = path.read_text("utf-8").splitlines(keepends=True) if path.exists() else []
        complete = (json.loads(line) for line in lines if line.endswith("}\n"))  # a kill may have cut the last one
        return [row for row in complete if row["stage"] == stage]

    def take_over_log(self, other: Run, stage: str) -> None:
        """Takes the lines about a stage from another run's log, in place of what is here."""
        self.truncate_log(stage, -1)
        with open(self.folder / "log.jsonl", "a", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in other.rows(stage))

    def warn(self, signature: str, message: str | None) -> None:
        """Says what looks wrong with the training when it begins to; what still does is in the run's report. None: all
        is well.
        """
        before = self.signatures.pop(signature, None)
        if message is not None:
            self.signatures[signature] = message
        if message is not None and before is None:
            self.console.print(f"warning: {message}", style="yellow")
        elif message is None and before is not None:
            self.console.print(f"no longer: {before}")


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Two trainings in one folder would write over each other's states. The lock goes with the process."""
    lock = FileLock(folder / "lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        fix = "Wait for it, or give another --out"
        raise InputError("another mrse train is running in this folder", file=folder, fix=fix) from None
    try:
        yield
    finally:
        lock.release()


class CpuSeconds:
    """CPU seconds of each part of a run, kept in its folder: a resumed run does not count what it finds done."""

    def __init__(self, folder: Path) -> None:
        self.path, self.last = folder / "state" / "cpu_seconds.json", time.process_time()
        self.seconds: dict[str, float] = json.loads(self.path.read_text("utf-8")) if self.path.exists() else {}

    def on(self, part: str, at_least: float = 0.0) -> None:
        """All since the last call went into this part; at_least: what its steps took, in whichever run they were."""
        now = time.process_time()
        self.seconds[part] = max(self.seconds.get(part, 0.0), round(now - self.last, 1), at_least)
        self.last = now
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(self.path) as file:
            file.write_text(json.dumps(self.seconds), "utf-8")
