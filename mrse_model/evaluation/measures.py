"""Measures per query: nDCG and recall by ir-measures, and Rele@K (Jiang et al. 2024, §Experiments).

* nDCG@10: gain 2^grade − 1 (so 3 for exact, 1 for a near miss), discount log2(rank + 1).
* Recall@K = |relevant ∩ top K| / |relevant|; relevant from grade `positive` on. `_w` weighs queries by their traffic,
  `_u` counts every distinct query once.
* Rele@K = mean over the top K of grade / highest grade; unjudged items count 0. The paper's appendix is not public;
  this is its wording, "mean graded relevance", scaled to 0..1.
"""

from __future__ import annotations

from collections.abc import Sequence

import ir_measures
import numpy as np
from ir_measures import R, nDCG
from numpy.typing import NDArray

from mrse_model.evaluation.queries import QuerySet
from mrse_model.evaluation.rankers import Ranking
from mrse_model.evaluation.trec import query_id, run_lines

NDCG_CUT = 10


def gains(queries: QuerySet) -> dict[int, int]:
    """Grade → gain, 2^grade − 1."""
    return {grade: 2**grade - 1 for grade in range(1, queries.top_grade + 1)}


def per_query(queries: QuerySet, ranking: Ranking, cuts: Sequence[int] = (100, 500)) -> dict[str, NDArray[np.float64]]:
    """Measure → its value for each query [n]: nDCG@10, Recall@K and Rele@K for each K of `cuts`.

    A ranking may be shorter than a cut; what is missing counts as not found. A query without hits counts 0.
    """
    ndcg = nDCG(gains=gains(queries)) @ NDCG_CUT
    recalls = {R(rel=queries.positive) @ k: f"Recall@{k}" for k in cuts}
    names = {ndcg: f"nDCG@{NDCG_CUT}", **recalls}
    out = {name: np.zeros(len(queries)) for name in names.values()}
    qrels = [
        ir_measures.Qrel(query_id(i), str(row), int(grade))
        for i, (rows, grades) in enumerate(zip(queries.items, queries.grades, strict=True))
        for row, grade in zip(rows, grades, strict=True)
    ]
    run = [
        ir_measures.ScoredDoc(query_id(i), str(row), score)
        for i, row, _, score in run_lines(ranking.cut(max(*cuts, NDCG_CUT)))
    ]
    index = {query_id(i): i for i in range(len(queries))}
    for found in ir_measures.iter_calc(list(names), qrels, run):
        out[names[found.measure]][index[found.query_id]] = found.value
    for k in cuts:
        out[f"Rele@{k}"] = relevance_at(queries, ranking, k)
    return out


def relevance_at(queries: QuerySet, ranking: Ranking, k: int) -> NDArray[np.float64]:
    """Rele@K of each query [n]."""
    top = queries.top_grade
    out = np.zeros(len(queries))
    for i, (rows, grades) in enumerate(zip(queries.items, queries.grades, strict=True)):
        order = np.argsort(rows)
        found = ranking.rows[i, :k]
        index = np.minimum(np.searchsorted(rows, found, sorter=order), len(rows) - 1)
        hit = rows[order[index]] == found
        out[i] = (grades[order[index]] * hit).sum() / (top * k)
    return out


def unjudged_share(queries: QuerySet, ranking: Ranking, k: int = NDCG_CUT) -> float:
    """The share of the hits in the top k that were never judged, the mean over the queries that have any (0 where none
    has): high means that the measures say little.

    Where a rule has judged everything and lists only what holds, an unlisted pair is irrelevant and this is no warning.
    """
    hits = [found[found >= 0] for found in ranking.rows[:, :k]]
    shares = [np.isin(h, rows, invert=True).mean() for h, rows in zip(hits, queries.items, strict=True) if len(h)]
    return float(np.mean(shares)) if shares else 0.0


def condensed(queries: QuerySet, ranking: Ranking) -> Ranking:
    """The ranking without what was never judged (Sakai 2007): for judgments that are a sample, like relevance logs."""
    rows, scores = np.full_like(ranking.rows, -1), np.full_like(ranking.scores, -np.inf)
    for i, judged in enumerate(queries.items):
        keep = np.isin(ranking.rows[i], judged)
        rows[i, : keep.sum()], scores[i, : keep.sum()] = ranking.rows[i, keep], ranking.scores[i, keep]
    return Ranking(rows, scores)
