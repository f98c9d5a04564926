"""The paper's three recall queues, exactly and offline: Q2I, I2I by the clicked items, I2I by their images.

What `retrieval` asks of Vespa and the rank profile `three_queues` answers (a test holds the two together): each queue's
nearest items, scored by the best queue's closeness 1 / (2 - cosine), with a weight for each queue.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mrse_model.evaluation.rankers import Ranking, search_exact
from mrse_model.serving.exported_model import ItemVectors, attend

I2I_WEIGHT, IMAGE_WEIGHT = 0.9, 0.8  # as in the rank profile


def three_queues(
    queries: np.ndarray,
    items: ItemVectors,
    clicked: Sequence[Sequence[int]],
    weights: Sequence[np.ndarray],
    k: int,
) -> Ranking:
    """The union of the queues: queries [n, d], each with the rows that its user clicked and their weights.

    The Q2I queue has k hits, the others half as many. A query without clicks has its own queue alone.
    """
    embedding, dims = items.embedding, items.embedding.shape[1]
    i2i, image = np.zeros((len(queries), dims), np.float32), np.zeros((len(queries), dims), np.float32)
    for i, (query, entries, given) in enumerate(zip(queries, clicked, weights, strict=True)):
        rows, weight = np.array(entries, np.int64)[given > 0], given[given > 0]
        if len(rows):
            both = np.vstack([query[None], embedding[rows]])
            i2i[i] = attend(query, both, both, np.concatenate([[1.0], weight]))
        seen = ~np.isnan(items.image_embedding[rows, 0])
        if seen.any():
            image[i] = attend(query, embedding[rows[seen]], items.image_embedding[rows[seen]], weight[seen])
    best = [np.zeros(0)] * len(queries)
    found = [np.zeros(0, np.int64)] * len(queries)
    images = np.nan_to_num(items.image_embedding)
    for vectors, matrix, factor, hits in (
        (queries, embedding, 1.0, k),
        (i2i, embedding, I2I_WEIGHT, k // 2),
        (image, images, IMAGE_WEIGHT, k // 2),
    ):
        ranking = search_exact(vectors, matrix, hits)
        scores = factor / (2 - ranking.scores)
        for i in np.flatnonzero(np.abs(vectors).sum(1) > 0).tolist():
            found[i], best[i] = np.concatenate([found[i], ranking.rows[i]]), np.concatenate([best[i], scores[i]])
    out = Ranking(np.full((len(queries), k), -1, np.int64), np.full((len(queries), k), -np.inf, np.float32))
    for i, (rows, scores) in enumerate(zip(found, best, strict=True)):
        order = np.lexsort((rows, -scores))
        _, first = np.unique(rows[order], return_index=True)  # an item's best queue
        kept = order[np.sort(first)][:k]
        out.rows[i, : len(kept)], out.scores[i, : len(kept)] = rows[kept], scores[kept]
    return out
