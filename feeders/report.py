"""What a feed did, counted where each thing happens: sent + unchanged + refused + not reached = rows, at any moment."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Report:
    """rows: of the input. ok: documents that Vespa acknowledged. failed: that it refused. unchanged: left as they are,
    among them `older` (the index has them from an input that was written later: newer_source), `expired`, and `earlier`
    (changed before --since).
    missing: in the index, not in the input. kept: of these, what came from an input that was written later, and was not
    to go. removed, not_removed: what became of those that were to go.
    retries: requests that were repeated. waiting: why nothing happens now. stopped: why the feed gave up, "" if it did
    not.
    """

    rows: int = 0
    ok: int = 0
    failed: int = 0
    unchanged: int = 0
    older: int = 0
    expired: int = 0
    earlier: int = 0
    newer_source: str = ""
    missing: int = 0
    kept: int = 0
    removed: int = 0
    not_removed: int = 0
    retries: int = 0
    seconds: float = 0.0
    first_error: str = ""
    dead_letters: Path | None = None
    note: str = ""
    waiting: str = ""
    stopped: str = ""

    @property
    def per_second(self) -> float:
        return self.ok / self.seconds if self.seconds else 0.0

    @property
    def not_reached(self) -> int:
        """Rows of which it is not known that Vespa has them: the feed ended first."""
        return max(0, self.rows - self.ok - self.failed - self.unchanged)

    @property
    def complete(self) -> bool:
        """Whether the index is as the input wants it."""
        return not (self.failed or self.not_reached or self.not_removed or self.stopped)


Progress = Callable[[Report], None]  # called after each answer, with the counts so far
