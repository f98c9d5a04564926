"""Where commands print: no markup, since titles and paths may hold brackets, and no wrapping of lines into a pipe."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console


def console() -> Console:
    """The standard output."""
    return Console(markup=False, highlight=False, soft_wrap=True)


@contextmanager
def resumable(out: Console) -> Iterator[None]:
    """Around a job that goes on where it was cut off: says so after Ctrl-C."""
    try:
        yield
    except KeyboardInterrupt:
        out.print("interrupted: the same command goes on where it stopped")
        raise
