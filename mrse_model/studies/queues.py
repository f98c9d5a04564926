"""The paper's three recall queues, exactly and offline: Q2I, I2I by the clicked items, I2I by their images.

As `retrieval` asks of Vespa and the rank profile `three_queues` answers (a test holds the two together): the queues
bring candidates, and their closeness to the query vector, which knows the user, orders them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mrse_model.evaluation.rankers import Ranking, search_exact
from mrse_model.serving.exported_model import ItemVectors, attend

TEMPERATURE = 0.1  # of the queues' attention, as in retrieval


def three_queues(
    queries: np.ndarray,
    items: ItemVectors,
    clicked: Sequence[Sequence[int]],
    weights: Sequence[np.ndarray],
    k: int,
) -> Ranking:
    """k candidates of each query [n, d], given the rows that its user clicked and their weights: half of the places are
    Q2I's, a quarter each the other queues'; what those leave free (an item is found twice, or nothing was clicked) goes
    to Q2I again.
    """
    embedding, dims = items.embedding, items.embedding.shape[1]
    i2i, image = np.zeros((len(queries), dims), np.float32), np.zeros((len(queries), dims), np.float32)
    for i, (query, entries, given) in enumerate(zip(queries, clicked, weights, strict=True)):
        rows, weight = np.array(entries, np.int64)[given > 0], given[given > 0]
        if len(rows):
            both = np.vstack([query[None], embedding[rows]])
            i2i[i] = attend(query / TEMPERATURE, both, both, np.concatenate([[1.0], weight]))
        seen = ~np.isnan(items.image_embedding[rows, 0])
        if seen.any():
            shown = rows[seen]
            image[i] = attend(query / TEMPERATURE, embedding[shown], items.image_embedding[shown], weight[seen])
    own = search_exact(queries, embedding, k)
    share = max(k // 4, 1)
    found = [ranking.tolist() for ranking in own.rows[:, : max(k - 2 * share, 0)]]
    for vectors, matrix in ((i2i, embedding), (image, np.nan_to_num(items.image_embedding))):
        ranking = search_exact(vectors, matrix, share)
        for i in np.flatnonzero(np.abs(vectors).sum(1) > 0).tolist():
            found[i] += ranking.rows[i].tolist()
    out = Ranking(np.full((len(queries), k), -1, np.int64), np.full((len(queries), k), -np.inf, np.float32))
    for i, rows in enumerate(found):
        kept = np.array(list(dict.fromkeys([*rows, *own.rows[i].tolist()]))[:k], np.int64)
        scores = embedding[kept] @ queries[i]
        order = np.lexsort((kept, -scores))
        out.rows[i, : len(kept)], out.scores[i, : len(kept)] = kept[order], scores[order]
    return out
