"""Words of text: how they are split and stemmed, where a term was found, and how rare it is.

The words are Vespa's: SimpleTokenizer's (runs of letters and digits), NFKC, lower case, accents dropped, stems of the
text's language.
"""

from __future__ import annotations

import math
import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ..yql.languages import ENGLISH
from ..yql.tokens import split_words
from .stemming import stem

_MARKS = re.compile("[\u0300-\u036f]+")
K1, B = 1.2, 0.75
MAX_REMEMBERED = 40  # characters of a word that is kept: all of them together are a few megabytes


def normalized(word: str, stemming: bool = True, normalizing: bool = True, language: str = ENGLISH) -> str:
    """One token as it is indexed and searched."""
    known = _remembered if len(word) <= MAX_REMEMBERED else _normalized
    return known(word, stemming, normalizing, language)


def _normalized(word: str, stemming: bool, normalizing: bool, language: str) -> str:
    word = unicodedata.normalize("NFKC", word).lower()
    if normalizing and not word.isascii():
        word = _MARKS.sub("", unicodedata.normalize("NFD", word))
    return stem(word, language) if stemming else word


_remembered = lru_cache(1 << 14)(_normalized)


def tokens(text: str, stemming: bool = True, normalizing: bool = True, language: str = ENGLISH) -> list[str]:
    """The tokens of a text, in order."""
    return [normalized(word, stemming, normalizing, language) for word in split_words(text)]


def idf(count: int, total: int) -> float:
    """Vespa's inverse document frequency (bm25_utils.cpp)."""
    total = max(1, total)
    count = min(max(1, count), total)
    return math.log(1 + (total - count + 0.5) / (count + 0.5))


def bm25_norm(lengths: np.ndarray, average: float) -> np.ndarray:
    """What BM25 adds to a term's count for the length of a field."""
    return K1 * (1 - B) + K1 * B * lengths / average


_NO_ROWS = np.empty(0, np.int64)


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
    def none(cls, frequency: int | None = None) -> Hits:
        return cls(_NO_ROWS, _NO_ROWS, _NO_ROWS, frequency)

    @classmethod
    def once(cls, rows: np.ndarray) -> Hits:
        """Rows of a term that occurs once in each, at the start."""
        return cls(rows, np.ones(len(rows), np.int64), np.zeros(len(rows), np.int64))

    @property
    def document_frequency(self) -> int:
        return len(self.rows) if self.frequency is None else self.frequency

    def within(self, mask: np.ndarray) -> Hits:
        """Those in some rows (bool [rows]), as frequent as all of them."""
        keep = mask[self.rows]
        if keep.all():
            return self
        return Hits(self.rows[keep], self.counts[keep], self.first[keep], self.document_frequency)

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
