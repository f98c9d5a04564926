"""Mined hard negatives, for queries without judged low grades (the paper has relevance logs; many shops do not).

The nearest items by FtAtt that are not known positives, without the very nearest: an item that scores above MARGIN of
the positive is as likely relevant and unseen as it is wrong (a false negative; sentence-transformers'
mine_hard_negatives).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from rich.console import Console

from mrse_model.arrays import Queries, Ragged
from mrse_model.model import MRSE
from mrse_model.stages import Corpus

NEAREST, KEPT, MARGIN, MOST_QUERIES = 64, 16, 0.95, 50_000


@torch.no_grad()
def mine_hard_negatives(model: MRSE, corpus: Corpus, console: Console, block: int = 256) -> Queries:
    """Fills `hard` of the queries that have none (50,000 at most). Call it after FtAtt is trained."""
    queries = corpus.queries
    empty = [row for row in range(len(queries.texts)) if not len(queries.hard[row])][:MOST_QUERIES]
    if not empty or len(corpus.item_tokens) <= NEAREST:
        return queries
    model.eval()
    device = next(model.parameters()).device
    items = torch.cat(
        [
            F.normalize(model.item.ft_att(model.ngrams, ids, (ids != 0).long()), dim=-1)
            for ids in torch.from_numpy(corpus.item_tokens.astype(np.int64)).to(device).split(2048)
        ]
    )
    hard = [list(map(int, queries.hard[row])) for row in range(len(queries.texts))]
    mined = 0
    for start in range(0, len(empty), block):
        rows = empty[start : start + block]
        ids = torch.from_numpy(queries.tokens[rows]).to(device)
        vectors = F.normalize(model.query.ft_att(model.ngrams, ids, (ids != 0).long()), dim=-1)
        scores, nearest = (vectors @ items.T).topk(NEAREST)
        for row, vector, score, near in zip(rows, vectors, scores.cpu().numpy(), nearest.cpu().numpy(), strict=True):
            known = queries.known[row]
            best = float((items[known] @ vector).max())
            kept = [int(i) for i, s in zip(near, score, strict=True) if s < MARGIN * best and i not in known][:KEPT]
            hard[row], mined = kept, mined + bool(kept)
    console.print(f"  hard negatives mined for {mined:,} of {len(empty):,} queries that have no judged ones")
    return replace(queries, hard=Ragged.of(hard))
