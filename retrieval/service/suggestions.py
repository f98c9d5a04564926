"""Search as you type: the queries of the log (a file of `mrse warm`) that begin so, the most frequent first."""

from __future__ import annotations

import bisect
import heapq
from collections.abc import Iterable

from retrieval.query_text import key_of

SCANNED = 5000  # queries of one prefix that are looked at


class Suggestions:
    def __init__(self, queries: Iterable[tuple[str, int]], minimum: int = 2) -> None:
        """queries: (key, searches). minimum: searches that a suggestion must have had: what one user typed once is not
        shown to others.
        """
        self._rows = sorted((query, n) for query, n in queries if n >= minimum)
        self._texts = [query for query, _ in self._rows]

    def of(self, prefix: str, limit: int = 8) -> list[tuple[str, int]]:
        """(query, searches); [] for a blank prefix."""
        key = key_of(prefix)
        if not key:
            return []
        start = bisect.bisect_left(self._texts, key)
        end = min(bisect.bisect_left(self._texts, key + "\U0010ffff", start), start + SCANNED)
        return heapq.nsmallest(limit, self._rows[start:end], key=lambda row: (-row[1], row[0]))

    def top(self, limit: int) -> list[str]:
        """The most frequent queries."""
        return [query for query, _ in heapq.nsmallest(limit, self._rows, key=lambda row: (-row[1], row[0]))]
