"""Where the fusion starts from when a teacher has started FtAtt: at FtAtt itself, and at as much of the other experts
as helps the dev queries by more than its error.

An expert's space is turned onto FtAtt's (orthogonal Procrustes over item vectors), so that their vectors can be added.
"""

from __future__ import annotations

from itertools import product

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mrse_model.config import EXPERTS
from mrse_model.training.corpus import pool_ndcg
from mrse_model.training.frozen_vectors import FusionVectors
from mrse_model.training.loop import exceeds_one_standard_error
from mrse_model.training.teacher.table import rotation

WEIGHTS = (0.0, 0.3, 0.6, 1.0)  # of an expert beside FtAtt's 1
SAMPLE = 8192  # items by which spaces are compared
ANCHOR = EXPERTS.index("ft_att")
OTHERS = tuple(place for place, name in enumerate(EXPERTS) if name in ("vbert", "light_bert"))


@torch.no_grad()
def start_fusion(fusion: FusionVectors) -> dict[str, float]:
    """Sets both towers' skip connection; call it when the texts are frozen. Returns each text expert's weight beside
    FtAtt's 1: 0 for one that does not help.
    """
    model, dev, base = fusion.model, fusion.corpus.dev, fusion.base
    model.eval()
    fusion.refresh()
    rows = np.sort(np.random.default_rng(0).permutation(len(fusion.corpus))[:SAMPLE])
    some = _item_experts(fusion, rows)
    anchor = some[:, ANCHOR].cpu().numpy()
    turns = {place: torch.from_numpy(rotation(some[:, place].cpu().numpy(), anchor)) for place in OTHERS}
    turns = {place: turn.to(base.device) for place, turn in turns.items() if model.query.keep[place]}
    asked = model.query.all_experts(fusion.dev_texts, *base.no_history(len(dev.tokens)))
    pool = torch.cat([_item_experts(fusion, dev.pool[i : i + 4096]) for i in range(0, len(dev.pool), 4096)])
    turned = {p: (asked[:, p] @ turn, pool[:, p] @ turn) for p, turn in turns.items()}

    def score(weights: tuple[float, ...]) -> np.ndarray:
        query, item = asked[:, ANCHOR].clone(), pool[:, ANCHOR].clone()
        for (of_queries, of_items), weight in zip(turned.values(), weights, strict=True):
            query, item = query + weight * of_queries, item + weight * of_items
        return pool_ndcg(dev, F.normalize(query, dim=-1), F.normalize(item, dim=-1))

    grid = sorted(product(WEIGHTS, repeat=len(turned)), key=sum)
    kept, best = grid[0], score(grid[0])
    for weights in grid[1:]:
        found = score(weights)
        if found.mean() > best.mean() and exceeds_one_standard_error(found - best):
            kept, best = weights, found
    found_weights = dict(zip(turned, kept, strict=True))
    skip = _skip(fusion, {p: weight * turns[p] for p, weight in found_weights.items()})
    for tower in (model.query, model.item):
        tower.dssm.skip.weight.copy_(skip)
    return {EXPERTS[p]: weight for p, weight in found_weights.items()}


def _skip(fusion: FusionVectors, turns: dict[int, Tensor]) -> Tensor:
    """The skip connection's weight [d, 4 d]: of FtAtt the identity, of the others these, transposed."""
    dims = fusion.config.model.dims
    out = torch.zeros(dims, len(EXPERTS) * dims, device=fusion.base.device)
    blocks = turns | {ANCHOR: torch.eye(dims, device=fusion.base.device)}
    for place, turn in blocks.items():
        out[:, place * dims : (place + 1) * dims] = turn.T
    return out


def _item_experts(fusion: FusionVectors, rows: np.ndarray) -> Tensor:
    """[n, 4, d]; without the queries that led to the items."""
    texts, image, present, entries, weight = fusion.item_inputs(rows)
    return fusion.model.item.experts(
        texts, image, present, entries, torch.zeros_like(weight), fusion.base.image_residual(rows)
    )
