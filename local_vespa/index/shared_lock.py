"""A lock that many may share or one holds alone: searches read the tables side by side, a write waits for them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class SharedLock:
    """Who waits to hold it alone goes before those that come later to share it. Not reentrant."""

    def __init__(self) -> None:
        self._changed = threading.Condition(threading.Lock())
        self._sharing = 0
        self._alone = 0  # who holds it alone, and who waits for that
        self._held = False

    @contextmanager
    def shared(self, timeout: float | None = None) -> Iterator[bool]:
        """A block beside others; whether the lock was to be had within the timeout (seconds)."""
        with self._changed:
            got = self._changed.wait_for(lambda: not self._alone, timeout)
            self._sharing += got
        try:
            yield got
        finally:
            if got:
                with self._changed:
                    self._sharing -= 1
                    if not self._sharing:
                        self._changed.notify_all()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """A block that no other thread is in."""
        with self._changed:
            self._alone += 1
            self._changed.wait_for(lambda: not self._sharing and not self._held)
            self._held = True
        try:
            yield
        finally:
            with self._changed:
                self._alone -= 1
                self._held = False
                self._changed.notify_all()
