"""Words of text: how they are split and stemmed, and an inverted index of one field in memory.

The words are Vespa's for English: SimpleTokenizer's (runs of letters and digits), NFKC, lower case, accents dropped, Krovetz
stems. The index is ours and not a library's because every candidate of a query needs its exact BM25 (with Vespa's
formula, exact field lengths, live documents only) and its positions; tantivy rounds lengths above 40 words, counts deleted
documents and gives no positions.
"""

from __future__ import annotations

import math
import re
import unicodedata
from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from krovetzstemmer import Stemmer

_WORD = re.compile(r"[^\W_]+")
_MARKS = re.compile("[\u0300-\u036f]+")
_stem = Stemmer().stem
ELEMENT = 1 << 16  # words of different elements of an array are at least so far apart

K1, B = 1.2, 0.75


@lru_cache(1 << 17)
def normalized(word: str, stemming: bool = True, normalizing: bool = True) -> str:
    """One token as it is indexed and searched."""
    word = unicodedata.normalize("NFKC", word).lower()
    if normalizing and not word.isascii():
        word = _MARKS.sub("", unicodedata.normalize("NFD", word))
    return _stem(word) or word if stemming and word.isascii() else word


def tokens(text: str, stemming: bool = True, normalizing: bool = True) -> list[str]:
    """The tokens of a text, in order."""
    return [normalized(word, stemming, normalizing) for word in _WORD.findall(text)]


def idf(count: int, total: int) -> float:
    """Vespa's inverse document frequency (bm25_utils.cpp)."""
    total = max(1, total)
    count = min(max(1, count), total)
    return math.log(1 + (total - count + 0.5) / (count + 0.5))


@dataclass(frozen=True)
class Hits:
    """Where a term occurs: ascending rows, and for each how often."""

    rows: np.ndarray
    counts: np.ndarray

    @classmethod
    def none(cls) -> Hits:
        return cls(np.empty(0, np.int64), np.empty(0, np.int64))


class _Posting:
    __slots__ = ("counts", "positions", "rows")

    def __init__(self) -> None:
        self.rows, self.counts, self.positions = array("I"), array("I"), array("I")


class TextIndex:
    """The words of one field of all rows. Rows are added in ascending order; dead ones are filtered when read."""

    def __init__(self, stemming: bool, normalizing: bool) -> None:
        self.stemming, self.normalizing = stemming, normalizing
        self._postings: dict[str, _Posting] = {}
        self._lengths = array("I")

    def append(self, value: str | list[str] | None) -> None:
        """The next row's text or texts."""
        row, length = len(self._lengths), 0
        found: dict[str, list[int]] = {}
        for element, text in enumerate([value] if isinstance(value, str) else value or ()):
            words = tokens(text, self.stemming, self.normalizing)
            for position, word in enumerate(words, element * ELEMENT):
                found.setdefault(word, []).append(position)
            length += len(words)
        for word, positions in found.items():
            posting = self._postings.get(word)
            if posting is None:
                posting = self._postings[word] = _Posting()
            posting.rows.append(row)
            posting.counts.append(len(positions))
            posting.positions.extend(positions)
        self._lengths.append(length)

    @property
    def lengths(self) -> np.ndarray:
        """Words in each row."""
        return np.array(self._lengths, np.int64)

    def word(self, token: str, live: np.ndarray) -> Hits:
        """The live rows that hold a normalised token."""
        posting = self._postings.get(token)
        if posting is None:
            return Hits.none()
        rows = np.array(posting.rows, np.int64)
        keep = live[rows]
        return Hits(rows[keep], np.array(posting.counts, np.int64)[keep])

    def positions(self, token: str, rows: Iterable[int]) -> dict[int, list[int]]:
        """The positions of a token in some rows."""
        posting = self._postings.get(token)
        if posting is None:
            return {}
        starts = np.concatenate([[0], np.cumsum(np.array(posting.counts, np.int64))])
        known = np.array(posting.rows, np.int64)
        wanted = np.asarray(list(rows), np.int64)
        at = np.searchsorted(known, wanted)
        return {
            int(row): list(posting.positions[starts[i] : starts[i + 1]])
            for row, i in zip(wanted, at, strict=True)
            if i < len(known) and known[i] == row
        }

    def phrase(self, words: list[str], live: np.ndarray) -> Hits:
        """The rows that hold the tokens one after another, and how often."""
        if len(words) == 1:
            return self.word(words[0], live)
        return self._together(words, live, lambda lists: _phrases(lists))

    def near(self, words: list[str], distance: int, ordered: bool, live: np.ndarray) -> Hits:
        """The rows that hold all tokens within a window: `distance` more positions than the words need in order."""
        if len(words) == 1:
            return self.word(words[0], live)
        return self._together(words, live, lambda lists: _windows(lists, distance, ordered))

    def _together(self, words: list[str], live: np.ndarray, count) -> Hits:  # type: ignore[no-untyped-def]
        common: np.ndarray | None = None
        for word in words:
            rows = self.word(word, live).rows
            common = rows if common is None else np.intersect1d(common, rows, assume_unique=True)
        assert common is not None
        places = [self.positions(word, common) for word in words]
        counts = np.array([count([p[int(row)] for p in places]) for row in common], np.int64)
        return Hits(common[counts > 0], counts[counts > 0]) if len(common) else Hits.none()

    def bm25(self, terms: list[Hits], rows: np.ndarray, live: np.ndarray, total: int) -> np.ndarray:
        """bm25 of candidate rows (ascending or not) for a query's terms, float64 [rows]. `total` is the number of live documents."""
        lengths = self.lengths
        counted = (lengths > 0) & live[: len(lengths)]
        average = float(lengths[counted].mean()) if counted.any() else 1.0
        scores = np.zeros(len(rows))
        norm = K1 * (1 - B) + K1 * B * lengths[rows] / average
        for hits in terms:
            if not len(hits.rows):
                continue
            at = np.minimum(np.searchsorted(hits.rows, rows), len(hits.rows) - 1)
            count = np.where(hits.rows[at] == rows, hits.counts[at], 0)
            scores += idf(len(hits.rows), total) * (K1 + 1) * count / (count + norm)
        return scores

    def vocabulary(self) -> Iterable[str]:
        """All tokens ever indexed."""
        return self._postings.keys()


def _phrases(lists: list[list[int]]) -> int:
    rest = [set(later) for later in lists[1:]]
    return sum(all(start + i in later for i, later in enumerate(rest, 1)) for start in lists[0])


def _windows(lists: list[list[int]], distance: int, ordered: bool) -> int:
    """How many windows of len(lists) - 1 + distance positions hold one position of every list."""
    reach = distance + len(lists) - 1 if not ordered else distance + len(lists) - 1
    found = 0
    if ordered:
        for start in lists[0]:
            at: int | None = start
            for later in lists[1:]:
                at = next((p for p in later if at is not None and p > at), None)
            found += at is not None and at - start <= reach
        return found
    merged = sorted((p, n) for n, places in enumerate(lists) for p in places)
    for i, (start, _) in enumerate(merged):
        seen = {n for p, n in merged[i:] if p - start <= reach}
        found += len(seen) == len(lists)
    return found
