"""Regular expressions that strangers send: searched within a time, since a malicious one would run for years."""

from __future__ import annotations

import time

import regex

SECONDS = 1.0


class PatternError(ValueError):
    """A regular expression that is invalid, or that takes too long."""


class Pattern:
    """A regular expression with `SECONDS` for all its searches together. Raises PatternError."""

    def __init__(self, text: str, ignore_case: bool = False) -> None:
        self.text, self._left = text, SECONDS
        try:
            self._compiled = regex.compile(text, regex.IGNORECASE if ignore_case else 0)
        except (regex.error, OverflowError, ValueError) as e:
            raise PatternError(f"The regular expression '{text}' is invalid: {e}") from e

    def found_in(self, value: str) -> bool:
        """Whether it matches anywhere in a text. Raises PatternError when the time is over."""
        started = time.monotonic()
        try:
            return self._compiled.search(value, timeout=max(self._left, 1e-3)) is not None
        except TimeoutError as e:
            raise PatternError(f"The regular expression '{self.text}' takes longer than {SECONDS} s") from e
        finally:
            self._left -= time.monotonic() - started
