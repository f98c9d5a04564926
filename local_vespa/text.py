"""Words of text: how they are split and stemmed, and an inverted index of one field in memory.

The words are Vespa's for English: SimpleTokenizer's (runs of letters and digits), NFKC, lower case, accents dropped,
Krovetz stems. The index is ours and not a library's because every candidate of a query needs its exact BM25 (with
Vespa's formula, exact field lengths, live documents only) and its positions; tantivy rounds lengths above 40 words,
counts deleted documents and gives no positions.
"""

from __future__ import annotations

import math
import re
import unicodedata
from array import array
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from .stemming import stem

_WORD = re.compile(r"[^\W_]+")
_MARKS = re.compile("[\u0300-\u036f]+")
ELEMENT = 1 << 16  # words of different elements of an array are at least so far apart

K1, B = 1.2, 0.75


@lru_cache(1 << 17)
def normalized(word: str, stemming: bool = True, normalizing: bool = True) -> str:
    """One token as it is indexed and searched."""
    word = unicodedata.normalize("NFKC", word).lower()
    if normalizing and not word.isascii():
        word = _MARKS.sub("", unicodedata.normalize("NFD", word))
    return stem(word) or word if stemming and word.isascii() else word


def tokens(text: str, stemming: bool = True, normalizing: bool = True) -> list[str]:
    """The tokens of a text, in order."""
    words = _WORD.findall(text) if text.isascii() else _words(text)
    return [normalized(word, stemming, normalizing) for word in words]


def _words(text: str) -> list[str]:
    """Runs of letters, marks and digits; every symbol such as a trade mark is a word (SimpleTokenType.java)."""
    found: list[str] = []
    inside = False
    for c in text:
        category = unicodedata.category(c)
        if category == "So":
            found.append(c)
            inside = False
        elif category[0] in "LN" or category in ("Mn", "Mc"):
            if inside:
                found[-1] += c
            else:
                found.append(c)
            inside = True
        else:
            inside = False
    return found


def idf(count: int, total: int) -> float:
    """Vespa's inverse document frequency (bm25_utils.cpp)."""
    total = max(1, total)
    count = min(max(1, count), total)
    return math.log(1 + (total - count + 0.5) / (count + 0.5))


@dataclass(frozen=True)
class Hits:
    """Where a term occurs: ascending rows; for each how often and at which position first. `frequency` is the document
    frequency that Vespa ranks with, where that is not the number of rows: of a phrase that of its rarest word, of words
    that count as one that of the most frequent."""

    rows: np.ndarray
    counts: np.ndarray
    first: np.ndarray
    frequency: int | None = None

    @classmethod
    def none(cls) -> Hits:
        return cls.once(np.empty(0, np.int64))

    @classmethod
    def once(cls, rows: np.ndarray) -> Hits:
        """Rows of a term that occurs once in each, at the start."""
        return cls(rows, np.ones(len(rows), np.int64), np.zeros(len(rows), np.int64))

    @property
    def document_frequency(self) -> int:
        return len(self.rows) if self.frequency is None else self.frequency

    def at(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """For candidate rows: bool, whether the term is there, and the index of its entry (any where it is not)."""
        if not len(self.rows):
            return np.zeros(len(rows), bool), np.zeros(len(rows), np.int64)
        index = np.minimum(np.searchsorted(self.rows, rows), len(self.rows) - 1)
        return self.rows[index] == rows, index


def union(parts: list[Hits]) -> Hits:
    """Terms that count as one: the rows of any, occurrences added."""
    parts = [p for p in parts if len(p.rows)]
    if not parts:
        return Hits.none()
    rows, where = np.unique(np.concatenate([p.rows for p in parts]), return_inverse=True)
    counts, first = np.zeros(len(rows), np.int64), np.full(len(rows), np.iinfo(np.int64).max)
    np.add.at(counts, where, np.concatenate([p.counts for p in parts]))
    np.minimum.at(first, where, np.concatenate([p.first for p in parts]))
    return Hits(rows, counts, first, max(p.document_frequency for p in parts))


class _Posting:
    __slots__ = ("counts", "last", "positions", "rows")

    def __init__(self) -> None:
        self.last = -1  # the last of rows
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
        postings = self._postings
        for element, text in enumerate([value] if isinstance(value, str) else value or ()):
            words = tokens(text, self.stemming, self.normalizing)
            for position, word in enumerate(words, element * ELEMENT):
                posting = postings.get(word)
                if posting is None:
                    posting = postings[word] = _Posting()
                if posting.last == row:
                    posting.counts[-1] += 1
                else:
                    posting.last = row
                    posting.rows.append(row)
                    posting.counts.append(1)
                posting.positions.append(position)
            length += len(words)
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
        rows, counts = np.array(posting.rows, np.int64), np.array(posting.counts, np.int64)
        first = np.array(posting.positions, np.int64)[np.cumsum(counts) - counts]
        keep = live[rows]
        return Hits(rows[keep], counts[keep], first[keep])

    def positions(self, words: tuple[str, ...], rows: np.ndarray) -> list[list[int]]:
        """Where a phrase (of one word or more) starts in each of some rows."""
        each = [self._positions(word, rows) for word in words]
        if len(each) == 1:
            return each[0]
        return [_phrases(lists) for lists in zip(*each, strict=True)]

    def _positions(self, token: str, rows: np.ndarray) -> list[list[int]]:
        posting = self._postings.get(token)
        if posting is None:
            return [[] for _ in rows]
        known, ends = np.array(posting.rows, np.int64), np.cumsum(np.array(posting.counts, np.int64))
        at = np.minimum(np.searchsorted(known, rows), len(known) - 1)
        return [
            list(posting.positions[ends[i] - posting.counts[i] : ends[i]]) if known[i] == row else []
            for row, i in zip(rows, at, strict=True)
        ]

    def phrase(self, words: tuple[str, ...], live: np.ndarray) -> Hits:
        """The rows that hold the tokens one after another, and how often."""
        if len(words) == 1:
            return self.word(words[0], live)
        rows = self._common(words, live)
        starts = self.positions(words, rows)
        found = np.array([bool(s) for s in starts], bool)
        counts, first = (np.array([f(s) for s in starts if s], np.int64) for f in (len, min))
        return Hits(rows[found], counts, first, min(len(self.word(word, live).rows) for word in words))

    def near(self, words: tuple[str, ...], distance: int, ordered: bool, live: np.ndarray) -> np.ndarray:
        """The rows that hold all tokens, the first and last at most `distance` + words - 2 positions apart
        (near.cpp)."""
        rows = self._common(words, live)
        each = [self._positions(word, rows) for word in words]
        return rows[np.array([_within(lists, distance, ordered) for lists in zip(*each, strict=True)], bool)]

    def _common(self, words: tuple[str, ...], live: np.ndarray) -> np.ndarray:
        rows = self.word(words[0], live).rows
        for word in words[1:]:
            rows = np.intersect1d(rows, self.word(word, live).rows, assume_unique=True)
        return rows

    def bm25(self, terms: list[Hits], rows: np.ndarray, live: np.ndarray, total: int) -> np.ndarray:
        """bm25 of candidate rows for a query's terms, float64 [rows]. `total` is the number of live documents."""
        lengths = self.lengths
        counted = (lengths > 0) & live[: len(lengths)]
        average = float(lengths[counted].mean()) if counted.any() else 1.0
        scores = np.zeros(len(rows))
        norm = K1 * (1 - B) + K1 * B * lengths[rows] / average
        for hits in terms:
            there, at = hits.at(rows)
            if there.any():
                count = np.where(there, hits.counts[at], 0)
                scores += idf(hits.document_frequency, total) * (K1 + 1) * count / (count + norm)
        return scores


def _phrases(lists: tuple[list[int], ...]) -> list[int]:
    rest = [set(later) for later in lists[1:]]
    return [start for start in lists[0] if all(start + i in later for i, later in enumerate(rest, 1))]


def _within(lists: tuple[list[int], ...], reach: int, ordered: bool) -> bool:
    """Whether one position of every list (in ascending order, if asked) lies within a window."""
    if ordered:
        for start in lists[0]:
            at: int | None = start
            for later in lists[1:]:
                at = next((p for p in later if at is not None and p > at), None)
            if at is not None and at - start <= reach:
                return True
        return False
    merged = sorted((p, n) for n, places in enumerate(lists) for p in places)
    return any(
        {n for p, n in merged[i:] if p - start <= reach} == set(range(len(lists)))
        for i, (start, _) in enumerate(merged)
    )
