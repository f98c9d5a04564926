"""MNSCE, HNST and their hybrid as functions of embeddings (Jiang et al. 2024, §Losses), apart from any model.

b = batch, m = further negatives, d = dims. All vectors have unit norm, so a product is a cosine.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

MASKED_LOGIT = -1e4  # the score of a pair that is no negative


def cosine_logits(rows: Tensor, columns: Tensor) -> Tensor:
    """rows [..., n, d] · columns [..., m, d] → [..., n, m], in float32 or better whatever the towers ran in: at τ = 0.1
    an error in a score counts ten times.
    """
    with torch.autocast(rows.device.type, enabled=False):
        wide = torch.promote_types(rows.dtype, torch.float32)
        return rows.to(wide) @ columns.to(wide).transpose(-1, -2)


def mnsce(
    query: Tensor,
    item: Tensor,
    extra: Tensor | None = None,
    not_negative: Tensor | None = None,
    temperature: float = 0.1,
    log_q: Tensor | None = None,
) -> Tensor:
    """Mixed negative sampling cross-entropy: the clicked item against the batch's items and uniform ones (Yang et al.
    2020).

    Args:
        query, item: [b, d]; item i is the positive of query i.
        extra: [m, d], items drawn uniformly from the catalogue, or None.
        not_negative: bool [b, b + m], True where the item must not count against the query (the same item again, a
            known positive of the query); the diagonal is the positive whatever it says.
        temperature: τ, 0.1 in the paper.
        log_q: [b + m], log of the probability with which each column was drawn. It is *subtracted* from the scores: a
            popular item is met as a negative more often than a rare one, and must not be pushed away for that (Yi et
            al. 2019).

    Returns: [b], the loss of each query.

    >>> q = torch.eye(3)
    >>> mnsce(q, q, temperature=1.0)  # -log(e / (e + 2))
    tensor([0.5514, 0.5514, 0.5514])
    """
    columns = item if extra is None else torch.cat([item, extra])
    scores = cosine_logits(query, columns) / temperature
    if log_q is not None:
        scores = scores - log_q
    if not_negative is not None:
        diagonal = torch.eye(len(query), len(columns), dtype=torch.bool, device=query.device)
        scores = scores.masked_fill(not_negative & ~diagonal, MASKED_LOGIT)
    return F.cross_entropy(scores, torch.arange(len(query), device=query.device), reduction="none")


def distillation(
    query: Tensor,
    columns: Tensor,
    taught: Tensor,
    not_negative: Tensor | None = None,
    temperature: float = 0.05,
    teacher_temperature: float = 0.05,
) -> Tensor:
    """KL(teacher ‖ student) of each query's distribution over the columns, [b] (Hinton et al. 2015).

    query [b, d], columns [m, d]: the student's. taught [b, m]: the teacher's cosines of the same pairs. not_negative:
    bool [b, m], pairs that are left out of both; the first b columns' diagonal never is.

    >>> q = torch.eye(3)
    >>> distillation(q, q, q @ q.T)  # as the teacher has it
    tensor([0., 0., 0.])
    """
    scores, target = cosine_logits(query, columns) / temperature, taught / teacher_temperature
    if not_negative is not None:
        diagonal = torch.eye(len(query), columns.shape[0], dtype=torch.bool, device=query.device)
        left_out = not_negative & ~diagonal
        scores, target = (some.masked_fill(left_out, MASKED_LOGIT) for some in (scores, target))
    log_target = target.log_softmax(-1)
    return (log_target.exp() * (log_target - scores.log_softmax(-1))).sum(-1)


def hnst(query: Tensor, item: Tensor, hard: Tensor, has_hard: Tensor, margin: float = 0.15) -> Tensor:
    """Hard-negative triplet: max(0, margin + s(hard, q) - s(item, q)), [b]; 0 where has_hard [b] is 0.

    query, item, hard: [b, d]. The paper's margin is 0.15; a hard negative is an item of low judged relevance for the
        query.

    >>> q = torch.eye(2)
    >>> hnst(q, q, q.flip(0), torch.ones(2)), hnst(q, q, q, torch.ones(2))
    (tensor([0., 0.]), tensor([0.1500, 0.1500]))
    """
    both = cosine_logits(query.unsqueeze(1), torch.stack([hard, item], 1)).squeeze(1)
    gap = margin + both[:, 0] - both[:, 1]
    return gap.clamp_min(0) * has_hard


def log_q(counts: Tensor, total: float, catalogue: int, batch: int, extra: int) -> Tensor:
    """log of the chance that one of the batch + extra columns is this item, under mixed sampling (Yang et al. 2020,
    eq. 5).

    counts: [n], how often each column's item is a positive among `total` examples; the extras are uniform over
        `catalogue`.
    """
    share = batch / (batch + extra)
    return torch.log(share * counts / total + (1 - share) / catalogue)
