"""BM25 as the rank profile bm25 has it, by bm25s: title and category as one text, and half as much the description."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mrse_model.errors import MissingExtra
from mrse_model.evaluation.rankers import Ranking, Scores, best

_WORD = re.compile(r"\w+")
DESCRIPTION = 0.5  # of a hit in the title and category


def words(text: str) -> list[str]:
    """Lower-case words; a plural loses its s, so that "dresses" finds "dress": a baseline should not fall over that.

    >>> words("Men's t-shirts and Dresses, glass")
    ['men', 's', 't', 'shirt', 'and', 'dress', 'glass']
    """
    return [_singular(word) for word in _WORD.findall(text.lower())]


def _singular(word: str) -> str:
    """Harman's S stemmer (1991), with -es after a hissing sound."""
    if len(word) <= 3 or not word.endswith("s") or word.endswith(("ss", "us", "is")):
        return word
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    if word.endswith(("sses", "shes", "ches", "xes", "zes")):
        return word[:-2]
    return word[:-1]


class BM25:
    """A Ranker with Vespa's scores, of which k1 1.2 and b 0.75 are the defaults. texts: title and category of all
    items; descriptions: theirs, "" for an item without one.
    """

    name = "BM25"

    def __init__(
        self, texts: Sequence[str], descriptions: Iterable[str] = (), k1: float = 1.2, b: float = 0.75
    ) -> None:
        self._count, self._factor = len(texts), np.float32(k1 + 1)  # the factor is not in bm25s's
        self._texts = _Field.of(texts, 1.0, k1, b)
        self._descriptions = _Field.of(descriptions, DESCRIPTION, k1, b)

    def search(self, queries: Sequence[str], k: int) -> Ranking:
        """The k best items of each query; an item without a word of the query is no hit."""
        k = min(k, self._count)
        rows = np.full((len(queries), k), -1, np.int64)
        scores = np.full((len(queries), k), -np.inf, np.float32)
        for i, query in enumerate(queries):
            # bm25s' own `retrieve` breaks ties as they come, and keeps at the last rank any of them.
            found = self._scores(words(query))
            top = best(found[None], k)[0]
            hits = int((found[top] > 0).sum())
            rows[i, :hits], scores[i, :hits] = top[:hits], self._factor * found[top[:hits]]
        return Ranking(rows, scores)

    def _scores(self, asked: list[str]) -> Scores:
        """What each item's words say, float32 [N], less the factor."""
        found = np.zeros(self._count, np.float32)
        if not len(self._descriptions.rows):
            self._texts.add(asked, 1.0, found)
            return found
        both = (self._texts, self._descriptions)
        for word in asked:  # to Vespa a word is as frequent as it is in all fields of a fieldset together
            frequencies = [field.frequency(word) for field in both]
            rarity = _idf(min(self._count, sum(frequencies)), self._count)
            for field, frequency in zip(both, frequencies, strict=True):
                field.add([word], rarity / _idf(frequency, len(field.rows)), found)
        return found


@dataclass(frozen=True)
class _Field:
    """One field of the items. rows: of the items that have it: those without it count for no average length."""

    index: Any  # None where no item has it
    rows: NDArray[np.int64]
    weight: float

    @classmethod
    def of(cls, texts: Iterable[str], weight: float, k1: float, b: float) -> _Field:
        try:
            import bm25s
        except ImportError:
            raise MissingExtra("bm25s", "train") from None
        there = {row: found for row, text in enumerate(texts) if (found := words(text))}
        index = bm25s.BM25(k1=k1, b=b, method="lucene") if there else None
        if index is not None:
            index.index(list(there.values()), show_progress=False)
        return cls(index, np.array(list(there), np.int64), weight)

    def frequency(self, word: str) -> int:
        """In how many of the items' texts the word is."""
        ids = self.index.get_tokens_ids([word]) if self.index else []
        starts = self.index.scores["indptr"] if ids else ()
        return sum(int(starts[at + 1] - starts[at]) for at in ids)

    def add(self, asked: list[str], factor: float, scores: Scores) -> None:
        """Adds what these words say, times a factor, to scores [N]."""
        if self.index and (ids := self.index.get_tokens_ids(asked)):
            scores[self.rows] += np.float32(self.weight * factor) * self.index.get_scores_from_ids(ids)


def _idf(frequency: int, count: int) -> float:
    """As Vespa and bm25s have it."""
    return math.log(1 + (count - frequency + 0.5) / (frequency + 0.5))
