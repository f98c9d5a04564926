"""When an answer is due. Long-running code asks its deadline, and stops once the client has disconnected."""

from __future__ import annotations

import threading
import time


class OutOfTime(Exception):
    """The time of a request is over, or its client has disconnected."""


class Deadline:
    """The end of `seconds` from a moment of time.monotonic(); `disconnected` is set when the client has closed its
    connection."""

    def __init__(
        self, seconds: float, started: float | None = None, disconnected: threading.Event | None = None
    ) -> None:
        self.started = time.monotonic() if started is None else started
        self.end, self._disconnected = self.started + seconds, disconnected

    @property
    def passed(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.started

    @property
    def over(self) -> bool:
        return time.monotonic() >= self.end or (self._disconnected is not None and self._disconnected.is_set())

    def check(self) -> None:
        """Raises OutOfTime when it is over."""
        if self.over:
            raise OutOfTime

    def sooner(self, share: float) -> Deadline:
        """The deadline after this share of the time that is left."""
        now = time.monotonic()
        return Deadline((self.end - now) * share, now, self._disconnected)


NEVER = Deadline(float("inf"))
