"""What long jobs show while they run: a bar in a terminal, a line a minute where the output goes to a file."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

LINE_EVERY = 60.0  # seconds


class _Lines(Progress):
    """A bar, or where it is disabled, lines."""

    def __init__(self, *columns: ProgressColumn, **options: Any) -> None:
        super().__init__(*columns, **options)
        self.last = time.monotonic()

    def update(self, task_id: TaskID, **changes: Any) -> None:
        super().update(task_id, **changes)
        self._line(task_id)

    def advance(self, task_id: TaskID, advance: float = 1) -> None:
        super().advance(task_id, advance)
        self._line(task_id)

    def _line(self, task_id: TaskID) -> None:
        now = time.monotonic()
        if self.disable and now - self.last > LINE_EVERY:
            self.last, task = now, self._tasks[task_id]
            of = f" of {task.total:,.0f}" if task.total is not None else ""
            left = f", {task.time_remaining:,.0f} s left" if task.time_remaining is not None else ""
            self.console.print(f"{task.description}: {task.completed:,.0f}{of}{left}")


def progress_bar(console: Console, shown: bool = True) -> Progress:
    """A bar with its name, how many of how many, and the time left; outside a terminal the same as lines. shown: False
    for neither.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    kind = _Lines if shown else Progress
    return kind(*columns, console=console, transient=True, disable=not (shown and console.is_terminal))


@contextmanager
def steps_shown(console: Console) -> Iterator[Callable[[str, int, int], None]]:
    """Gives a function to call with (step, done, total): each step has a bar of its own."""
    with progress_bar(console) as bar:
        tasks: dict[str, TaskID] = {}

        def show(step: str, done: int, total: int) -> None:
            if step not in tasks:
                tasks[step] = bar.add_task(step, total=total)
            bar.update(tasks[step], completed=done, total=total)

        yield show
