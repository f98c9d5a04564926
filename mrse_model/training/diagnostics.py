"""The failure signatures of MRSE, checked while it trains and written into the run's report (paper §Experiments).

A history that is empty for most queries, a triplet term that is as good as 0 or dominates, an expert whose share of the
fused vector collapses, a modality whose knock-out changes nothing. Each is said when it first shows; the report has
those that show in the end.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from mrse_model.config import EXPERTS
from mrse_model.data.example_files import ExampleSummary
from mrse_model.training.corpus import pool_ndcg
from mrse_model.training.frozen_vectors import FusionVectors
from mrse_model.training.run_folder import Run

SHARE_COLLAPSED, NOTHING_CHANGED, EMPTY, NEARLY_0, DOMINATES = 0.02, 0.002, 0.5, 0.001, 0.95
K = 10  # a clicked item counts as found among the first K


def check_histories(run: Run, summary: ExampleSummary) -> None:
    """Whether most examples from clicks know nothing of their user, or there are none."""
    share, message = summary.empty_history_share, None
    if share is None:
        message = "no example is a click: histories cannot be learned"
    elif share > EMPTY:
        message = f"history is empty for {share:.0%} of the clicks: it can hardly be learned"
    run.warn("empty history", message)


def check_triplet(run: Run, stage: str) -> None:
    """Whether the stage's triplet term is nearly none or nearly all of the loss, as of the last evaluation. At the
    first one it never is 0: the untrained model finds every negative hard.
    """
    rows, message = [row for row in run.rows(stage) if "hnst" in row], None
    share = rows[-1]["hnst_share"] if rows else None
    if share is not None and share < NEARLY_0:
        message = f"{stage}: the triplet term is {share:.2%} of the loss: the hard negatives are not hard, or there "
        message += "are none"
    elif share is not None and share > DOMINATES:
        message = f"{stage}: the triplet term is {share:.0%} of the loss: lower loss.beta"
    run.warn(f"{stage} triplet", message)


def check_fusion(run: Run, fusion: FusionVectors) -> None:
    """Whether an expert has collapsed, or a modality changes nothing, as the fusion is now. Nothing is wrong with one
    that is left as it starts, because FtAtt alone finds more.
    """
    trained = bool(fusion.model.item.dssm.out.weight.any())  # zeros at the start
    for tower, share in expert_shares(fusion).items():
        for expert, value in share.items():
            message = None
            if trained and expert in fusion.config.model.experts and value < SHARE_COLLAPSED:
                message = f"{tower} tower: {expert} has {value:.1%} of the fused vector: it has collapsed"
            run.warn(f"{tower} {expert}", message)
    for modality, (full, without) in modality_ablation(fusion).items():
        message = None
        if trained and full - without < NOTHING_CHANGED:
            harm = without - full > NOTHING_CHANGED
            message = f"without {modality} the score is {without:.4f} instead of {full:.4f}: "
            message += "it does harm" if harm else "it changes nothing"
        run.warn(f"without {modality}", message)


@torch.no_grad()
def expert_shares(fusion: FusionVectors, most: int = 1000) -> dict[str, dict[str, float]]:
    """Per tower, each expert's share of the fused vector: how far the vector moves (1 - cosine) when the expert is
    zeroed, over the sum of all experts' moves.

    Measured on examples whose user has a history and on items that have one, where there are any; else `history` is
    left out of the shares.
    """
    model, base, rng = fusion.model, fusion.base, np.random.default_rng(0)
    batch = fusion.corpus.examples.with_history(most)
    if len(batch):
        texts = fusion.query_texts[batch["query"].astype(np.int64)].to(base.device)
        inputs = texts, *base.histories(batch, base.event_weights(batch))
    else:
        inputs = fusion.dev_texts, *base.no_history(len(fusion.dev_texts))
    asked = np.flatnonzero((fusion.item_queries >= 0).any(1))  # items that have queries
    rows = rng.permutation(asked if len(asked) else len(fusion.corpus))[:most]
    found = {}
    for name, tower, experts, has_history in (
        ("query", model.query, model.query.all_experts(*inputs), len(batch) > 0),
        ("item", model.item, model.item.experts(*fusion.item_inputs(rows), base.image_residual(rows)), len(asked) > 0),
    ):
        full = tower.dssm(experts)
        moves = {}
        for index, expert in enumerate(EXPERTS):
            if expert != "history" or has_history:
                moves[expert] = max(0.0, float((1 - (tower.without(experts, index) * full).sum(-1)).mean()))
        total = max(sum(moves.values()), 1e-9)
        found[name] = {expert: move / total for expert, move in moves.items()}
    return found


@torch.no_grad()
def modality_ablation(fusion: FusionVectors, most: int = 1000) -> dict[str, tuple[float, float]]:
    """Modality → the score with everything and without it. Only modalities that the data has and an expert reads.

    The score is the dev nDCG@10; for a user's history the share of `most` training clicks whose item is among the
    first 10 of the dev pool.
    """
    model, base, corpus, experts = fusion.model, fusion.base, fusion.corpus, fusion.config.model.experts
    dev = corpus.dev
    queries = model.query.fuse(fusion.dev_texts, *base.no_history(len(dev.tokens)))

    def items(rows: np.ndarray, text: float = 1, visible: float = 1, queries: float = 1) -> Tensor:
        texts, image, present, entries, weight = fusion.item_inputs(rows)
        inputs = texts * text, image * visible, present * visible, entries, weight * queries
        return model.item.fuse(*inputs, base.image_residual(rows))

    def score(pool: Tensor) -> float:
        return float(pool_ndcg(dev, queries, pool).mean())

    full = score(items(dev.pool))
    found = {"the text": (full, score(items(dev.pool, text=0)))}
    if corpus.has_image.any() and "vbert" in experts:
        found["images"] = (full, score(items(dev.pool, visible=0)))
    if len(corpus.item_queries.values) and "history" in experts:
        found["item queries"] = (full, score(items(dev.pool, queries=0)))
    batch = corpus.examples.with_history(most)
    if len(batch) and "history" in experts:
        texts = fusion.query_texts[batch["query"].astype(np.int64)].to(base.device)
        # Without item queries: one of them is the example's own, and finds it whoever asks.
        pool, clicked = items(dev.pool, queries=0), items(batch["target_item"].astype(np.int64), queries=0)

        def among_first(weight: np.ndarray) -> float:
            asked = model.query.fuse(texts, *base.histories(batch, weight))
            better = asked @ pool.T > (asked * clicked).sum(1, keepdim=True) + 1e-6
            return float((better.sum(1) < K).float().mean())

        weight = base.event_weights(batch)
        found["a user's history"] = (among_first(weight), among_first(np.zeros_like(weight)))
    return found
