"""Where the fusion starts from when a teacher has started FtAtt: at FtAtt itself, and at as much of the other experts
as helps the dev queries (mrse_model.training.stages.beside_ft_att).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from mrse_model.config import EXPERTS
from mrse_model.training.frozen_vectors import FusionVectors
from mrse_model.training.stages.beside_ft_att import Vectors, weights_beside


@torch.no_grad()
def start_fusion(fusion: FusionVectors) -> dict[str, float]:
    """Sets both towers' skip connection; call it when the texts are frozen. Returns each text expert's weight beside
    FtAtt's 1: 0 for one that does not help.
    """
    model, dev, base = fusion.model, fusion.corpus.dev, fusion.base
    model.eval()
    fusion.refresh()
    asked = model.query.all_experts(fusion.dev_texts, *base.no_history(len(dev.tokens)))
    pool = torch.cat([_item_experts(fusion, dev.pool[i : i + 4096]) for i in range(0, len(dev.pool), 4096)])
    known = {name: Vectors(asked[:, index], pool[:, index]) for index, name in enumerate(EXPERTS)}
    others = {name: known[name] for name in ("vbert", "light_bert") if model.query.keep[EXPERTS.index(name)]}
    weights = weights_beside(dev, known["ft_att"], others)
    skip = _skip(fusion, {name: weight * turn for name, (weight, turn) in weights.items()})
    for tower in (model.query, model.item):
        tower.dssm.skip.weight.copy_(skip)
    return {name: weight for name, (weight, _) in weights.items()}


def _skip(fusion: FusionVectors, turns: Mapping[str, Tensor]) -> Tensor:
    """The skip connection's weight [d, 4 d]: of FtAtt the identity, of the others these, transposed."""
    dims = fusion.config.model.dims
    out = torch.zeros(dims, len(EXPERTS) * dims, device=fusion.base.device)
    blocks = {**turns, "ft_att": torch.eye(dims, device=fusion.base.device)}
    for name, turn in blocks.items():
        index = EXPERTS.index(name)
        out[:, index * dims : (index + 1) * dims] = turn.T
    return out


def _item_experts(fusion: FusionVectors, rows: np.ndarray) -> Tensor:
    """[n, 4, d]; without the item queries."""
    texts, image, present, entries, weight = fusion.item_inputs(rows)
    return fusion.model.item.experts(
        texts, image, present, entries, torch.zeros_like(weight), fusion.base.image_residual(rows)
    )
