"""Where commands print: no markup, since titles and paths may hold brackets, and no wrapping of lines into a pipe."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console


def console() -> Console:
    """The standard output."""
    return Console(markup=False, highlight=False, soft_wrap=True)


def remark(out: Console) -> Callable[[str], None]:
    """Prints the remarks of a long job, its warnings in yellow."""
    return lambda line: out.print(line, style="yellow" if line.startswith("warning") else None)


@contextmanager
def resumable(out: Console) -> Iterator[None]:
    """Around a job that can be resumed: says so after Ctrl-C."""
    try:
        yield
    except KeyboardInterrupt:
        out.print("interrupted: run the same command again to resume")
        raise
