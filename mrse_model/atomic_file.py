"""Files that appear whole or not at all: written beside their place under another name, then renamed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_file(path: str | Path) -> Iterator[Path]:
    """Gives `path` with `.part` at its end to write to. It takes the place of `path` when the block ends, and goes when
    the block fails; what a kill leaves is written over by the next try.
    """
    path = Path(path)
    part = path.with_name(path.name + ".part")
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
