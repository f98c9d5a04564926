"""The hard and the easy pool of Fig. 5b (the paper does not define them; this is ours)."""

from __future__ import annotations

from typing import Literal

import numpy as np

from mrse_model.evaluation.queries import QuerySet

Pool = Literal["hard", "easy"]
POOLS: tuple[Pool, ...] = ("hard", "easy")
EASY = 4000  # items drawn for the easy pool of each query


def r_precision(queries: QuerySet, vectors: np.ndarray, items: np.ndarray, pool: Pool, seed: int = 0) -> np.ndarray:
    """Each query's P positives against the pool's negatives: the share of positives among the first P, [n].

    hard: all items judged below the positive grade for the query. easy: 4,000 items, the same draw for every model,
    from those that are not judged for it. A tie counts against the positive. A query without negatives counts 1.
    vectors [n, d], items [m, d].
    """
    out = np.ones(len(queries))
    for i, (rows, grades) in enumerate(zip(queries.items, queries.grades, strict=True)):
        positives = rows[grades >= queries.positive]
        if pool == "hard":
            negatives = rows[grades < queries.positive].astype(np.int64)
        else:
            drawn = np.random.default_rng([seed, i]).permutation(len(items))[: EASY + len(rows)]
            negatives = drawn[~np.isin(drawn, rows)][:EASY]
        if not len(negatives):
            continue
        good, bad = items[positives] @ vectors[i], items[negatives] @ vectors[i]
        above = (bad[None, :] >= good[:, None]).sum(1)  # negatives before each positive
        rank = np.argsort(np.argsort(-good, kind="stable"), kind="stable") + above
        out[i] = (rank < len(positives)).mean()
    return out
