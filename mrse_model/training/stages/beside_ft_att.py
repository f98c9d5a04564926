"""What another expert is worth beside FtAtt when a teacher has started FtAtt: as much weight as helps the dev
queries by more than its error, often none.

An expert's space is turned onto FtAtt's (orthogonal Procrustes over item vectors), so that their vectors can be added.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mrse_model.training.corpus import Dev, pool_ndcg
from mrse_model.training.loop import exceeds_one_standard_error
from mrse_model.training.teacher.table import rotation

WEIGHTS = (0.0, 0.3, 0.6, 1.0)  # of an expert beside FtAtt's 1


@dataclass(frozen=True)
class Vectors:
    """An expert's vectors of the dev queries [Q, d] and of the dev pool [P, d], unit norm."""

    queries: Tensor
    pool: Tensor


@torch.no_grad()
def weights_beside(dev: Dev, ft_att: Vectors, others: Mapping[str, Vectors]) -> dict[str, tuple[float, Tensor]]:
    """Each other expert's weight beside FtAtt's 1, 0 for one that does not help, and the rotation [d, d] of its space
    onto FtAtt's.
    """
    anchor = ft_att.pool.cpu().numpy()
    turns = {
        name: torch.from_numpy(rotation(other.pool.cpu().numpy(), anchor)).to(ft_att.pool.device)
        for name, other in others.items()
    }
    turned = [(others[name].queries @ turn, others[name].pool @ turn) for name, turn in turns.items()]

    def score(weights: tuple[float, ...]) -> np.ndarray:
        query, item = ft_att.queries, ft_att.pool
        for (of_queries, of_items), weight in zip(turned, weights, strict=True):
            query, item = query + weight * of_queries, item + weight * of_items
        return pool_ndcg(dev, F.normalize(query, dim=-1), F.normalize(item, dim=-1))

    grid = sorted(product(WEIGHTS, repeat=len(turned)), key=sum)
    kept, best = grid[0], score(grid[0])
    for weights in grid[1:]:
        found = score(weights)
        if found.mean() > best.mean() and exceeds_one_standard_error(found - best):
            kept, best = weights, found
    return {name: (weight, turns[name]) for name, weight in zip(turns, kept, strict=True)}
