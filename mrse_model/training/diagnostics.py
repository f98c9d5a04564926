"""The failure signatures of MRSE, looked for while it trains and written into the run's report (paper §Experiments).

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
from mrse_model.training.loop import Run
from mrse_model.training.stages import Stages, pool_ndcg

SHARE_COLLAPSED, NOTHING_CHANGED, EMPTY, NEARLY_0, DOMINATES = 0.02, 0.002, 0.5, 0.001, 0.95
TRIPLET = ("vbert", "dssm")  # the stages of the hybrid loss
CUT = 10  # a clicked item is found among so many


def check_histories(run: Run, summary: ExampleSummary) -> None:
    """Whether most examples from clicks know nothing of their user, or there are none."""
    share, message = summary.empty_history_share, None
    if share is None:
        message = "no example is a click: histories cannot be learned"
    elif share > EMPTY:
        message = f"history is empty for {share:.0%} of the clicks: it can hardly be learned"
    run.warn("empty history", message)


def check_triplet(run: Run, stage: str) -> None:
    """Whether the stage's triplet term is nearly none or nearly all of the loss, as of the last look. At the first one
    it never is 0: the untrained model finds every negative hard.
    """
    rows, message = [row for row in run.rows(stage) if "hnst" in row], None
    share = rows[-1]["hnst_share"] if rows else None
    if share is not None and share < NEARLY_0:
        message = f"{stage}: the triplet term is {share:.2%} of the loss: the hard negatives are not hard, or there "
        message += "are none"
    elif share is not None and share > DOMINATES:
        message = f"{stage}: the triplet term is {share:.0%} of the loss: lower loss.beta"
    run.warn(f"{stage} triplet", message)


def check_fusion(run: Run, stages: Stages) -> None:
    """Whether an expert has collapsed, or a modality changes nothing, as the fusion is now."""
    for tower, share in expert_shares(stages).items():
        for expert, value in share.items():
            message = None
            if expert in stages.config.model.experts and value < SHARE_COLLAPSED:
                message = f"{tower} tower: {expert} has {value:.1%} of the fused vector: it has collapsed"
            run.warn(f"{tower} {expert}", message)
    for modality, (full, without) in modality_ablation(stages).items():
        message = None
        if full - without < NOTHING_CHANGED:
            harm = without - full > NOTHING_CHANGED
            message = f"without {modality} the score is {without:.4f} instead of {full:.4f}: "
            message += "it does harm" if harm else "it changes nothing"
        run.warn(f"without {modality}", message)


def check_stage(run: Run, stages: Stages, stage: str) -> None:
    """What can be seen of this stage while it trains."""
    if stage in TRIPLET:
        check_triplet(run, stage)
    if stage == "dssm":
        check_fusion(run, stages)


def check_training(run: Run, stages: Stages) -> None:
    """All stages, at the end of a training, part of which may have been another call's."""
    for stage in TRIPLET:
        check_stage(run, stages, stage)


@torch.no_grad()
def expert_shares(stages: Stages, most: int = 1000) -> dict[str, dict[str, float]]:
    """Per tower, each expert's share of the fused vector: how far the vector moves (1 - cosine) when the expert is
    zeroed, over the sum of all experts' moves.

    Measured on examples whose user has a history and on items that have one, where there are any; else `history` is
    left out of the shares.
    """
    model, rng = stages.model, np.random.default_rng(0)
    batch = stages.examples_with_history(most)
    if len(batch):
        texts = stages.query_texts[batch["query"].astype(np.int64)].to(stages.device)
        inputs = texts, *stages.histories(batch, stages.event_weights(batch))
    else:
        inputs = stages.dev_texts, *stages.no_history(len(stages.dev_texts))
    led = np.flatnonzero((stages.led >= 0).any(1))
    rows = rng.permutation(led if len(led) else stages.items)[:most]
    found = {}
    for name, tower, experts, has_history in (
        ("query", model.query, model.query.all_experts(*inputs), len(batch) > 0),
        ("item", model.item, model.item.experts(*stages.item_inputs(rows), stages.image_residual(rows)), len(led) > 0),
    ):
        full = tower.dssm(experts)
        moves = {}
        for place, expert in enumerate(EXPERTS):
            if expert != "history" or has_history:
                moves[expert] = max(0.0, float((1 - (tower.without(experts, place) * full).sum(-1)).mean()))
        total = max(sum(moves.values()), 1e-9)
        found[name] = {expert: move / total for expert, move in moves.items()}
    return found


@torch.no_grad()
def modality_ablation(stages: Stages, most: int = 1000) -> dict[str, tuple[float, float]]:
    """Modality → the score with everything and without it. Only modalities that the data has and an expert reads.

    The score is the dev nDCG@10; for a user's history the share of `most` training clicks whose item is among the
    first 10 of the dev pool.
    """
    dev, model, experts = stages.corpus.dev, stages.model, stages.config.model.experts
    queries = model.query.fuse(stages.dev_texts, *stages.no_history(len(dev.tokens)))

    def items(rows: np.ndarray, words: float = 1, visible: float = 1, led: float = 1) -> Tensor:
        texts, image, present, entries, weight = stages.item_inputs(rows)
        inputs = texts * words, image * visible, present * visible, entries, weight * led
        return model.item.fuse(*inputs, stages.image_residual(rows))

    def score(pool: Tensor) -> float:
        return float(pool_ndcg(dev, queries, pool).mean())

    full = score(items(dev.pool))
    found = {"words": (full, score(items(dev.pool, words=0)))}
    if bool(stages.has_image.any()) and "vbert" in experts:
        found["images"] = (full, score(items(dev.pool, visible=0)))
    if len(stages.corpus.item_queries.values) and "history" in experts:
        found["the queries that led to an item"] = (full, score(items(dev.pool, led=0)))
    batch = stages.examples_with_history(most)
    if len(batch) and "history" in experts:
        texts = stages.query_texts[batch["query"].astype(np.int64)].to(stages.device)
        # Without the queries that led to it: one of them is the example's own, and finds it whoever asks.
        pool, clicked = items(dev.pool, led=0), items(batch["item"].astype(np.int64), led=0)

        def among_first(weight: np.ndarray) -> float:
            asked = model.query.fuse(texts, *stages.histories(batch, weight))
            better = asked @ pool.T > (asked * clicked).sum(1, keepdim=True) + 1e-6
            return float((better.sum(1) < CUT).float().mean())

        weight = stages.event_weights(batch)
        found["a user's history"] = (among_first(weight), among_first(np.zeros_like(weight)))
    return found
