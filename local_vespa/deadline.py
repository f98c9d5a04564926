"""When an answer is due, and whether anyone still waits for it. Whatever may take long asks now and then."""

from __future__ import annotations

import threading
import time


class OutOfTime(Exception):
    """The time of a request is over, or its client has gone."""


class Deadline:
    """The end of `seconds` from a moment of time.monotonic(); `gone` is set when the client has closed its
    connection."""

    def __init__(self, seconds: float, started: float | None = None, gone: threading.Event | None = None) -> None:
        self.started = time.monotonic() if started is None else started
        self.end, self._gone = self.started + seconds, gone

    @property
    def passed(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.started

    @property
    def over(self) -> bool:
        return time.monotonic() >= self.end or (self._gone is not None and self._gone.is_set())

    def check(self) -> None:
        """Raises OutOfTime when it is over."""
        if self.over:
            raise OutOfTime

    def sooner(self, share: float) -> Deadline:
        """The deadline after this share of the time that is left."""
        now = time.monotonic()
        return Deadline((self.end - now) * share, now, self._gone)


NEVER = Deadline(float("inf"))
