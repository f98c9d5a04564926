"""Regular expressions, strings and misspelt words. They come from untrusted requests: a search has a time limit, since
a malicious one would run for years."""

from __future__ import annotations

import time

import regex

SECONDS = 1.0
# A string of YQL or grouping. One that nothing closes runs to the end: else each quote in it would be tried as a start.
QUOTED = r"""'(?:\\.?|[^\\'])*(?:'|\Z)|"(?:\\.?|[^\\"])*(?:"|\Z)"""


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


class FuzzyMatcher:
    """A text that may be written with some wrong, missing or additional characters after its first
    `prefix_length`; with `prefix`, anything may follow."""

    def __init__(self, text: str, most: int, prefix_length: int = 0, prefix: bool = False) -> None:
        self._head, self._tail = text[:prefix_length], text[prefix_length:]
        self._most, self._prefix = most, prefix

    def is_near(self, value: str) -> bool:
        """Whether the edit distance is at most `most`."""
        if not value.startswith(self._head):
            return False
        value = value[len(self._head) :]
        if self._prefix:
            value = value[: len(self._tail) + self._most]
        elif abs(len(value) - len(self._tail)) > self._most:
            return False
        row = list(range(len(value) + 1))
        for i, expected in enumerate(self._tail, 1):
            before, row = row, [i]
            for j, found in enumerate(value):
                row.append(min(before[j] + (found != expected), before[j + 1] + 1, row[j] + 1))
            if min(row) > self._most:
                return False
        return (min(row) if self._prefix else row[-1]) <= self._most
