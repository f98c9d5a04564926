"""Mined hard negatives, for queries without judged low grades (the paper has relevance logs; many shops do not).

The nearest items by FtAtt that do not read like a known positive, without the very nearest: an item that scores above
MARGIN of the positive is as likely relevant and unseen as it is wrong (a false negative; sentence-transformers'
mine_hard_negatives).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from rich.console import Console

from mrse_model.training.dataset import Queries
from mrse_model.training.frozen_vectors import FrozenVectors
from mrse_model.training.ragged import Ragged

NEAREST, KEPT, MARGIN, MAX_QUERIES = 64, 16, 0.95, 50_000


@torch.no_grad()
def mine_hard_negatives(vectors: FrozenVectors, console: Console, block: int = 256) -> Queries:
    """Fills `hard` of the real queries that have none, of the pseudo-queries where those are all, and with a teacher of
    both (50,000 at most, real ones first). Call it after FtAtt is trained.
    """
    corpus, model = vectors.corpus, vectors.model
    queries, same = corpus.queries, corpus.same_text
    every = np.ones(len(queries.texts), bool)
    real = queries.real if queries.real is not None and queries.real.any() else every
    lacking = _without_hard(queries, np.flatnonzero(real))
    if corpus.taught is not None:
        made = np.random.default_rng(vectors.config.train.seed).permutation(np.flatnonzero(~real))
        lacking += _without_hard(queries, made)
    empty = lacking[:MAX_QUERIES]
    if not empty:
        return queries
    if len(corpus) <= NEAREST:
        console.print(f"  no hard negatives mined for {len(empty):,} queries: the catalogue is too small")
        return queries
    model.eval()
    items = torch.zeros(len(corpus), model.config.model.dims, device=vectors.device)  # [N, d]
    for at, ids, mask in vectors.item_blocks():
        items[at] = F.normalize(model.item.ft_att(model.ngrams, ids, mask), dim=-1)
    hard = [list(map(int, queries.hard[row])) for row in range(len(queries.texts))]
    mined = 0
    for start in range(0, len(empty), block):
        rows = empty[start : start + block]
        asked = F.normalize(model.query.ft_att(model.ngrams, *vectors.tokens(queries.tokens[rows])), dim=-1)
        scores, nearest = (asked @ items.T).topk(NEAREST)  # [block, NEAREST], the nearest first
        for row, vector, score, near in zip(rows, asked, scores.cpu().numpy(), nearest.cpu().numpy(), strict=True):
            known = queries.known[row]
            best = float((items[known] @ vector).max())
            hard[row] = near[(score < MARGIN * best) & ~np.isin(same[near], same[known])][:KEPT].tolist()
            mined += bool(hard[row])
    console.print(f"  hard negatives mined for {mined:,} of {len(lacking):,} queries that have no judged ones")
    return replace(queries, hard=Ragged.of(hard))


def _without_hard(queries: Queries, rows: np.ndarray) -> list[int]:
    return [row for row in rows.tolist() if not len(queries.hard[row])]
