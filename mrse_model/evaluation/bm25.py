"""BM25 over title and category, by bm25s."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from mrse_model.errors import MissingExtra
from mrse_model.evaluation.rankers import Ranking, best

_WORD = re.compile(r"\w+")


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
    """A Ranker with Vespa's scores, of which k1 1.2 and b 0.75 are the defaults; texts are those of all items."""

    name = "BM25"

    def __init__(self, texts: Sequence[str], k1: float = 1.2, b: float = 0.75) -> None:
        try:
            import bm25s
        except ImportError:
            raise MissingExtra("bm25s", "train") from None
        self._index = bm25s.BM25(k1=k1, b=b, method="lucene")
        self._index.index([words(text) for text in texts], show_progress=False)
        self._count, self._factor = len(texts), np.float32(k1 + 1)  # the factor is not in bm25s's

    def search(self, queries: Sequence[str], k: int) -> Ranking:
        """The k best items of each query; an item without a word of the query is no hit."""
        k = min(k, self._count)
        rows = np.full((len(queries), k), -1, np.int64)
        scores = np.full((len(queries), k), -np.inf, np.float32)
        for i, query in enumerate(queries):
            known = self._index.get_tokens_ids(words(query))
            # Its own `retrieve` breaks ties as they come, and keeps at the last rank any of them.
            found = self._index.get_scores_from_ids(known) if known else np.zeros(self._count, np.float32)
            top = best(found[None], k)[0]
            hits = int((found[top] > 0).sum())
            rows[i, :hits], scores[i, :hits] = top[:hits], self._factor * found[top[:hits]]
        return Ranking(rows, scores)
