"""An inverted index of one text field in memory.

It is ours and not a library's because every candidate of a query needs its exact BM25 (with Vespa's formula, exact
field lengths, live documents only) and its positions; tantivy rounds lengths above 40 words, counts deleted documents
and gives no positions. New texts are a plain list of word numbers, which is scanned; when it is long it becomes a
segment sorted by word, and segments of like size are merged: 8 bytes for each word of a text, built by numpy.
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left
from dataclasses import dataclass

import numpy as np

from ..yql.languages import ENGLISH
from ..yql.tokens import split_words
from .analysis import K1, Hits, bm25_norm, idf, normalized
from .attributes import Growing

ELEMENT = 1 << 16  # words of different elements of an array are at least so far apart
FLUSH = 1 << 16  # words in the list of new texts
_POSITION_BITS = 32  # bits of a position in a key of row and position, at least


class _Numbers(dict[str, int]):
    """The number of each word as it is written in one language; `tokens` has those of the normalised forms, of all
    languages."""

    def __init__(self, tokens: dict[str, int], stemming: bool, normalizing: bool, language: str) -> None:
        super().__init__()
        self.tokens = tokens
        self._how = stemming, normalizing, language

    def __missing__(self, word: str) -> int:
        token = normalized(word, *self._how)
        number = self[word] = self.tokens.setdefault(token, len(self.tokens))
        return number


@dataclass(frozen=True)
class _Segment:
    """Where words occur: `words` ascending; those of words[i] are rows and positions [starts[i]:starts[i+1]], by row
    and position. All int32, but int64 positions where an array has so many elements."""

    words: np.ndarray
    starts: np.ndarray
    rows: np.ndarray
    positions: np.ndarray

    @classmethod
    def sorted(cls, numbers: np.ndarray, rows: np.ndarray, positions: np.ndarray) -> _Segment:
        """Of occurrences by row and position."""
        order = np.argsort(numbers, kind="stable")
        words, starts = np.unique(numbers[order], return_index=True)
        ends = np.append(starts, len(numbers)).astype(np.int32)
        return cls(words, ends, rows[order], positions[order])

    def merged(self, later: _Segment) -> _Segment:
        """With a segment of later rows."""
        words = np.union1d(self.words, later.words)
        mine, its = np.zeros(len(words), np.int32), np.zeros(len(words), np.int32)
        mine[np.searchsorted(words, self.words)] = np.diff(self.starts)
        its[np.searchsorted(words, later.words)] = np.diff(later.starts)
        total = len(self.rows) + len(later.rows)
        rows = np.empty(total, np.int32)
        positions = np.empty(total, np.result_type(self.positions, later.positions))
        before, after = np.cumsum(mine), np.cumsum(its)
        for part, shift in ((self, np.repeat(after - its, mine)), (later, np.repeat(before, its))):
            at = np.arange(len(part.rows)) + shift
            rows[at], positions[at] = part.rows, part.positions
        return _Segment(words, np.append(0, before + after).astype(np.int32), rows, positions)

    def find(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Rows and positions of a word."""
        at = int(np.searchsorted(self.words, number))
        there = at < len(self.words) and self.words[at] == number
        part = slice(self.starts[at], self.starts[at + 1]) if there else slice(0)
        return self.rows[part], self.positions[part]


class TextIndex:
    """The words of one field of all rows. Rows are added in ascending order; dead ones are filtered when read."""

    def __init__(self, stemming: bool, normalizing: bool) -> None:
        self.stemming, self.normalizing = stemming, normalizing
        self._tokens: dict[str, int] = {}
        self._numbers: dict[str, _Numbers] = {}  # by language
        self._lengths = Growing(np.int32)
        self._segments: list[_Segment] = []
        self._clear()

    def _clear(self) -> None:
        """Forgets the new texts: their words, and of each text its row, first position and end among the words."""
        self._new, self._new_rows, self._new_ends = (array("i") for _ in range(3))
        self._new_first = array("q")

    def append(self, value: str | list[str] | None, language: str = ENGLISH) -> None:
        """The next row's text or texts."""
        row, began = self._lengths.n, len(self._new)
        numbers = self._numbers.get(language)
        if numbers is None:
            numbers = _Numbers(self._tokens, self.stemming, self.normalizing, language)
            self._numbers[language] = numbers
        for element, text in enumerate([value] if isinstance(value, str) else value or ()):
            self._new.extend(map(numbers.__getitem__, split_words(text)))
            self._new_rows.append(row)
            self._new_first.append(element * ELEMENT)
            self._new_ends.append(len(self._new))
        self._lengths.append(len(self._new) - began)
        if len(self._new) >= FLUSH:
            self._flush()

    def _flush(self) -> None:
        """Makes a segment of the new texts, and merges those that are of like size."""
        numbers = np.array(self._new, np.int32)
        self._segments.append(_Segment.sorted(numbers, *self._located(np.arange(len(numbers)))))
        self._clear()
        while len(self._segments) > 1 and len(self._segments[-2].rows) < 2 * len(self._segments[-1].rows):
            last = self._segments.pop()
            self._segments[-1] = self._segments[-1].merged(last)

    def _located(self, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rows and positions of words of the new texts, as narrow as a segment has them."""
        ends = np.array(self._new_ends, np.int64)
        text = np.searchsorted(ends, at, "right")
        first = np.array(self._new_first, np.int64) - np.append(0, ends[:-1])
        positions = at + first[text]
        wide = positions.max(initial=0) > np.iinfo(np.int32).max
        return np.array(self._new_rows, np.int32)[text], positions if wide else positions.astype(np.int32)

    @property
    def lengths(self) -> np.ndarray:
        """Words in each row; not to be kept over an append."""
        return self._lengths.view

    def _occurrences(self, token: str) -> tuple[np.ndarray, np.ndarray]:
        """Rows and positions (int64) of a normalised token, by row and position."""
        number = self._tokens.get(token)
        if number is None:
            return np.empty(0, np.int64), np.empty(0, np.int64)
        found = [segment.find(number) for segment in self._segments]
        if self._new:
            found.append(self._located(np.flatnonzero(np.array(self._new, np.int32) == number)))
        rows, positions = (np.concatenate(parts).astype(np.int64) for parts in zip(*found, strict=True))
        return rows, positions

    def _starts(self, words: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
        """Rows and positions where the tokens stand one after another."""
        if len(words) == 1:
            return self._occurrences(words[0])
        common: np.ndarray | None = None
        found = [self._occurrences(word) for word in words]
        bits = max(_POSITION_BITS, *(int(positions.max(initial=0)).bit_length() for _, positions in found))
        for i, (rows, positions) in enumerate(found):
            keys = (rows << bits) + positions - i
            keys = keys[positions >= i]
            common = keys if common is None else np.intersect1d(common, keys, assume_unique=True)
        assert common is not None
        return common >> bits, common & ((1 << bits) - 1)

    def word(self, token: str, live: np.ndarray) -> Hits:
        """The live rows that hold a normalised token."""
        return self._hits((token,), live, None)

    def phrase(self, words: tuple[str, ...], live: np.ndarray) -> Hits:
        """The rows that hold the tokens one after another, and how often."""
        if len(words) == 1:
            return self.word(words[0], live)
        return self._hits(words, live, min(len(self.word(word, live).rows) for word in words))

    def _hits(self, words: tuple[str, ...], live: np.ndarray, frequency: int | None) -> Hits:
        rows, positions = self._starts(words)
        keep = live[rows]
        rows, positions = rows[keep], positions[keep]
        if not len(rows):
            return Hits.none(frequency)
        starts = np.flatnonzero(np.diff(rows, prepend=-1))
        return Hits(rows[starts], np.diff(np.append(starts, len(rows))), positions[starts], frequency)

    def positions(self, words: tuple[str, ...], rows: np.ndarray) -> list[list[int]]:
        """Where a phrase (of one word or more) starts in each of some rows."""
        known, positions = self._starts(words)
        first, last = np.searchsorted(known, rows), np.searchsorted(known, rows, "right")
        return [positions[i:j].tolist() for i, j in zip(first.tolist(), last.tolist(), strict=True)]

    def near(self, parts: tuple[tuple[str, ...], ...], distance: int, ordered: bool, live: np.ndarray) -> np.ndarray:
        """The rows that hold all parts, each a token or a phrase, within a window of `distance` positions, counted
        from where a phrase starts (nearsearch.cpp)."""
        rows = self.phrase(parts[0], live).rows
        for part in parts[1:]:
            rows = np.intersect1d(rows, self.phrase(part, live).rows, assume_unique=True)
        each = [self.positions(part, rows) for part in parts]
        return rows[np.array([_within(lists, distance, ordered) for lists in zip(*each, strict=True)], bool)]

    def bm25(self, terms: list[Hits], rows: np.ndarray, live: np.ndarray, total: int) -> np.ndarray:
        """bm25 of candidate rows for a query's terms, float64 [rows]. `total` is the number of live documents."""
        lengths = self.lengths
        counted = (lengths > 0) & live[: len(lengths)]
        average = float(lengths[counted].mean()) if counted.any() else 1.0
        scores = np.zeros(len(rows))
        norm = bm25_norm(lengths[rows], average)
        for hits in terms:
            there, at = hits.at(rows)
            if there.any():
                count = np.where(there, hits.counts[at], 0)
                scores += idf(hits.document_frequency, total) * (K1 + 1) * count / (count + norm)
        return scores


def _within(lists: tuple[list[int], ...], reach: int, ordered: bool) -> bool:
    """Whether one position of every list (in ascending order, if asked) lies within a window. Each is ascending."""
    if not ordered:
        starts = (start for positions in lists for start in positions)
        return any(all(_next(later, start) - start <= reach for later in lists) for start in starts)
    for start in lists[0]:
        at: int | float = start
        for later in lists[1:]:
            at = _next(later, at + 1)
        if at - start <= reach:
            return True
    return False


def _next(positions: list[int], at: int | float) -> int | float:
    """The first of ascending positions that is not before another; infinity where there is none."""
    found = bisect_left(positions, at)
    return positions[found] if found < len(positions) else math.inf
