"""Rankers: query texts → the best items of the whole catalogue, exactly; and fusions of two of them.

Every ranking is deterministic: equal scores are ordered by row.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

ITEM_BLOCK, QUERY_BLOCK = 16384, 256  # 16 MB of scores at a time, however large the catalogue
HALF = 20.0  # the score by words, in Vespa's bm25, that counts half in a weighted sum
RERANKED = 200  # rerank-count of hybrid_linear: what stands further down gets no popularity
FUSED = 0.03  # about the best score of a fusion, 2 / 61: what its popularity is scaled by in hybrid_linear


Scores = NDArray[np.float32]


@dataclass(frozen=True)
class Ranking:
    """rows int64 [n, k], best first, -1 where a query has fewer than k hits; scores float32 [n, k], -inf there."""

    rows: NDArray[np.int64]
    scores: NDArray[np.float32]

    def cut(self, k: int) -> Ranking:
        """The first k of every query."""
        return Ranking(self.rows[:, :k], self.scores[:, :k])


class Ranker(Protocol):
    """Whatever ranks the catalogue for query texts."""

    @property
    def name(self) -> str:
        """How it is called in reports and run files."""
        ...

    def search(self, queries: Sequence[str], k: int) -> Ranking:
        """The k best items of each query."""
        ...


def best(scores: NDArray[np.float32], k: int) -> NDArray[np.int64]:
    """Columns of the k largest scores a row, best first, ties by column. scores [n, m] → int64 [n, min(k, m)]."""
    k = min(k, scores.shape[1])
    if k < scores.shape[1]:
        # Whatever lies at or above the k-th largest value; of its ties the first columns are kept.
        limit = np.partition(scores, scores.shape[1] - k, axis=1)[:, -k, None]
        above, tied = scores > limit, scores == limit
        room = k - above.sum(1, keepdims=True)
        chosen = above | (tied & (np.cumsum(tied, axis=1) <= room))
        columns = np.nonzero(chosen)[1].reshape(len(scores), k)
    else:
        columns = np.broadcast_to(np.arange(k), (len(scores), k))
    order = np.argsort(-np.take_along_axis(scores, columns, 1), axis=1, kind="stable")
    return np.take_along_axis(columns, order, 1)


def search_exact(queries: NDArray[np.float32], items: NDArray[np.float32], k: int) -> Ranking:
    """The k items of largest inner product for each query, over all items (a matrix, or a memory-mapped one).

    queries [n, d], items [m, d] → rows and scores [n, min(k, m)]. Memory: one block of scores.
    """
    k = min(k, len(items))
    rows = np.empty((len(queries), k), np.int64)
    scores = np.empty((len(queries), k), np.float32)
    for start in range(0, len(queries), QUERY_BLOCK):
        some = np.ascontiguousarray(queries[start : start + QUERY_BLOCK], dtype=np.float32)
        kept_rows = np.empty((len(some), 0), np.int64)
        kept = np.empty((len(some), 0), np.float32)
        for first in range(0, len(items), ITEM_BLOCK):
            block = some @ np.asarray(items[first : first + ITEM_BLOCK], dtype=np.float32).T
            columns = best(block, k)
            kept_rows = np.concatenate([kept_rows, columns + first], 1)
            kept = np.concatenate([kept, np.take_along_axis(block, columns, 1)], 1)
            order = best(kept, k)
            kept_rows, kept = np.take_along_axis(kept_rows, order, 1), np.take_along_axis(kept, order, 1)
        rows[start : start + len(some)], scores[start : start + len(some)] = kept_rows, kept
    return Ranking(rows, scores)


@dataclass(frozen=True)
class VectorRanker:
    """Exact search with vectors. encode: texts → float32 [n, d]; items: float32 [m, d]; of unit norm for cosine."""

    name: str
    encode: Callable[[Sequence[str]], NDArray[np.float32]]
    items: NDArray[np.float32]

    def search(self, queries: Sequence[str], k: int) -> Ranking:
        return search_exact(self.encode(queries), self.items, k)


@dataclass(frozen=True)
class ReciprocalRankFusion:
    """Sum of 1 / (constant + rank) over the rankers, rank from 1, as Vespa's `reciprocal_rank_fusion` (constant 60)."""

    name: str
    rankers: tuple[Ranker, ...]
    constant: float = 60.0
    depth: int = 1000

    def search(self, queries: Sequence[str], k: int) -> Ranking:
        depth = max(k, self.depth)
        parts = []
        for ranker in self.rankers:
            found = ranker.search(queries, depth)
            value = (1 / (self.constant + 1 + np.arange(found.rows.shape[1]))).astype(np.float32)
            parts.append((found.rows, np.broadcast_to(value, found.rows.shape)))
        return _sum(parts, k)


@dataclass(frozen=True)
class Candidates:
    """What a linear fusion ranks, an entry a query: rows int64 [c], their cosine and their words' score, float32 [c].

    As in the rank profile hybrid_linear, every candidate has its cosine, whoever found it, and one without a word of
    the query scores 0 by words.
    """

    rows: list[NDArray[np.int64]]
    cosine: list[NDArray[np.float32]]
    words: list[NDArray[np.float32]]

    def mix(self, weight: float, k: int) -> Ranking:
        """The k best by (1 − weight) · cosine + weight · evidence(words)."""
        return self.ranked(lambda cosine, words: (1 - weight) * cosine + weight * evidence(words), k)

    def ranked(self, score: Callable[[Scores, Scores], Scores], k: int) -> Ranking:
        """The k best by a score of a query's cosines and its words' scores, float32 [c] each → [c]."""
        out = _nothing(len(self.rows), k)
        for i, (rows, cosine, words) in enumerate(zip(self.rows, self.cosine, self.words, strict=True)):
            total = score(cosine, words)
            order = np.lexsort((rows, -total))[:k]
            out.rows[i, : len(order)], out.scores[i, : len(order)] = rows[order], total[order]
        return out


def evidence(words: Scores) -> Scores:
    """How much a score by words says, from 0 to 1: one common word little, several rare ones much. So the words count
    less where a query is misspelt, or all items have its one word; scaled to the best candidate they would always count
    in full.

    >>> evidence(np.array([0.0, 5, 20, 60])).round(2).tolist()
    [0.0, 0.06, 0.5, 0.9]
    """
    return words**2 / (words**2 + HALF**2)


@dataclass(frozen=True)
class LinearFusion:
    """Vectors and words by the weighted sum of Candidates.mix over the `depth` best of each: the rank profile
    hybrid_linear, whose query(alpha) is `weight`.
    """

    name: str
    vectors: VectorRanker
    words: Ranker
    weight: float
    depth: int = 1000

    def search(self, queries: Sequence[str], k: int) -> Ranking:
        return replace(self, depth=max(k, self.depth)).candidates(queries).mix(self.weight, k)

    def candidates(self, queries: Sequence[str]) -> Candidates:
        """What both sides find."""
        asked, said = self.vectors.encode(queries), self.words.search(queries, self.depth)
        near = search_exact(asked, self.vectors.items, self.depth).rows
        rows, cosine, words = [], [], []
        for i, vector in enumerate(asked):
            hits = said.rows[i] >= 0
            both, index = np.unique(np.concatenate([said.rows[i, hits], near[i]]), return_inverse=True)
            score = np.zeros(len(both), np.float32)
            score[index[: hits.sum()]] = said.scores[i, hits]
            rows.append(both)
            cosine.append(np.asarray(self.vectors.items[both], dtype=np.float32) @ vector)
            words.append(score)
        return Candidates(rows, cosine, words)


@dataclass(frozen=True)
class WithPopularity:
    """Another ranker's hits, the first of them by their scores and what popularity adds to each: prior, float32 [m].
    depth: how many it is asked for.
    """

    name: str
    ranker: Ranker
    prior: Scores
    depth: int = 1000

    def search(self, queries: Sequence[str], k: int) -> Ranking:
        return add_prior(self.ranker.search(queries, max(k, self.depth)), self.prior).cut(k)


def add_prior(ranking: Ranking, prior: Scores) -> Ranking:
    """The same hits, the first RERANKED by their score and prior[row], float32 [m]; ties by row."""
    top = ranking.cut(RERANKED)
    scores = np.where(top.rows < 0, -np.inf, top.scores + prior[top.rows]).astype(np.float32)
    order = np.lexsort((top.rows, -scores), axis=-1)
    best, raised = np.take_along_axis(top.rows, order, 1), np.take_along_axis(scores, order, 1)
    below = ranking.rows[:, RERANKED:], ranking.scores[:, RERANKED:]
    return Ranking(np.concatenate([best, below[0]], 1), np.concatenate([raised, below[1]], 1))


def _nothing(queries: int, k: int) -> Ranking:
    return Ranking(np.full((queries, k), -1, np.int64), np.full((queries, k), -np.inf, np.float32))


def _sum(parts: Sequence[tuple[NDArray[np.int64], NDArray[np.float32]]], k: int) -> Ranking:
    """Adds the scores that parts of (rows, scores) [n, *] give to each row, and ranks: → [n, k], ties by row."""
    count = len(parts[0][0])
    out = _nothing(count, k)
    for i in range(count):
        rows = np.concatenate([part[i] for part, _ in parts])
        scores = np.concatenate([part[i] for _, part in parts])[rows >= 0]
        distinct, inverse = np.unique(rows[rows >= 0], return_inverse=True)
        total = np.bincount(inverse, scores, len(distinct))
        order = np.lexsort((distinct, -total))[:k]
        out.rows[i, : len(order)], out.scores[i, : len(order)] = distinct[order], total[order]
    return out
