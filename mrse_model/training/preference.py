"""The query tower's user preference vector (mrse_model.experts.UserPreference), found when the fusion is done: what a
user's clicks say whatever is asked. Not in the paper.

The history expert reads a history in the light of the query; it has many weights for few clicks a user and learns a
good part of its users by heart. What it leaves is found here by a ridge regression in closed form: from the mean
text feature and the mean image of a history to the clicked item's vector less the mean vector of what was shown
beside it and skipped. In that difference the query hardly shows, only the choice. Two sums over the examples are all
it keeps.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mrse_model.experts import UserPreference
from mrse_model.training.frozen_vectors import FusionVectors
from mrse_model.training.run_folder import Run

BLOCK = 1024  # examples read together
LATE, MAX_LATE = 0.1, 5000  # the last clicks, by which the strength is chosen: this share of them, at most so many
MIN_LATE = 100  # late clicks; with fewer there is nothing to choose by, and no preference
RIDGES, SCALES = (10.0, 30.0, 100.0), (1.0, 2.0, 3.0, 4.0, 6.0)
K, POOL = 20, 50_000  # the clicked item has to be among the first K of at most POOL others


class _Regression:
    """Ridge regression from x [n, p] to y [n, d], in double precision; x and y come in blocks and are not kept."""

    def __init__(self, inputs: int, outputs: int) -> None:
        self.xx = torch.zeros(inputs + 1, inputs + 1, dtype=torch.float64)
        self.xy = torch.zeros(inputs + 1, outputs, dtype=torch.float64)

    def add(self, x: Tensor, y: Tensor) -> None:
        """A block of examples."""
        x = torch.cat([x, torch.ones(len(x), 1)], 1).double()
        self.xx += x.T @ x
        self.xy += x.T @ y.double()

    def solve(self, ridge: float) -> tuple[Tensor, Tensor]:
        """The map [d, p] and its bias [d], which the ridge does not hold down."""
        penalty = torch.full((len(self.xx),), ridge, dtype=torch.float64)
        penalty[-1] = 1e-3
        found = torch.linalg.solve(self.xx + torch.diag(penalty), self.xy).float()
        return found[:-1].T.contiguous(), found[-1]


@torch.no_grad()
def fit_preference(run: Run, fusion: FusionVectors) -> None:
    """Finds the preference and puts it into the query tower, once the fusion is trained. No preference
    where too few clicks have a history, or where none helps.

    Ridge and strength are chosen by the recall of the last clicks with what the earlier ones taught. They are asked for
    without the history experts, which know these clicks from training.
    """
    query = fusion.model.query
    total = sum(len(rows) for rows in _clicks(fusion))
    late = min(int(total * LATE), MAX_LATE)
    if late < MIN_LATE or "history" not in fusion.config.model.experts:
        run.console.print(f"  {total:,} clicks with a history to compare by: no preference")
        return
    vectors = fusion.all_items()
    regression = _Regression(2 * vectors.shape[1], vectors.shape[1])
    held: list[tuple[np.ndarray, Tensor, Tensor]] = []
    left = total - late  # to learn from before the late ones
    for rows in _clicks(fusion):
        x, y, early = _means(fusion, rows), _choice(rows, vectors), min(left, len(rows))
        regression.add(x[:early], y[:early])
        left -= early
        if early < len(rows):
            held.append((rows[early:], x[early:], y[early:]))
    rows = np.concatenate([some for some, _, _ in held])
    x, y = (torch.cat(parts) for parts in ([x for _, x, _ in held], [y for _, _, y in held]))

    pool = np.random.default_rng(fusion.config.train.seed).permutation(len(vectors))[:POOL]
    asked, wanted, others = _asked(fusion, rows), vectors[rows["target_item"].astype(np.int64)], vectors[pool]

    without = _recall(asked, wanted, others)
    found = {(RIDGES[0], 0.0): without}
    for ridge in RIDGES:
        shift = F.linear(x, *regression.solve(ridge))
        for scale in SCALES:
            found[ridge, scale] = _recall(F.normalize(asked + scale * shift, dim=-1), wanted, others)
    ridge, scale = max(found, key=lambda key: found[key])  # of equals the first: none at all before any
    regression.add(x, y)
    weight, bias = regression.solve(ridge)
    query.preference.weight.copy_(scale * weight)
    query.preference.bias.copy_(scale * bias)
    best = found[ridge, scale]
    run.log("preference", total, ridge=ridge, scale=scale, without=without, recall=best)
    run.console.print(
        f"  {total:,} clicks with a history; Recall@{K} of the last {late:,}: {without:.4f} without a preference, "
        f"{best:.4f} with it (ridge {ridge:g}, scale {scale:g})"
    )


def _clicks(fusion: FusionVectors) -> Iterator[np.ndarray]:
    """Blocks of the examples whose user has a history and skipped something, in time order; none is empty."""
    examples = fusion.corpus.examples
    for start in range(0, examples.count, BLOCK):
        rows = examples.read(start, BLOCK)
        rows = rows[(rows["history_items"] >= 0).any(1) & (rows["skipped"] >= 0).any(1)]
        if len(rows):
            yield rows


def _means(fusion: FusionVectors, rows: np.ndarray) -> Tensor:
    """What the preference reads of these examples' histories [n, 2 d]."""
    return UserPreference.means(*fusion.base.histories(rows, fusion.base.event_weights(rows))).cpu()


def _choice(rows: np.ndarray, vectors: Tensor) -> Tensor:
    """The clicked item's vector less the mean of what was skipped [n, d]."""
    skipped = torch.from_numpy(rows["skipped"].astype(np.int64))
    there = (skipped >= 0).float()
    mean = torch.einsum("ns,nsd->nd", there, vectors[skipped.clamp_min(0)]) / there.sum(1, keepdim=True)
    return vectors[rows["target_item"].astype(np.int64)] - mean


def _asked(fusion: FusionVectors, rows: np.ndarray) -> Tensor:
    """The examples' queries without their users [n, d]."""
    texts = fusion.query_texts[rows["query"].astype(np.int64)].to(fusion.base.device)
    return fusion.model.query.fuse(texts, *fusion.base.no_history(len(rows))).cpu()


def _recall(queries: Tensor, wanted: Tensor, others: Tensor) -> float:
    """Share of the queries [n, d] that fewer than K of others [m, d] are nearer to than the wanted item [n, d]."""
    hits = [
        ((some @ others.T) > (some * item).sum(1, keepdim=True) + 1e-6).sum(1) < K
        for some, item in zip(queries.split(512), wanted.split(512), strict=True)
    ]
    return float(torch.cat(hits).float().mean())
