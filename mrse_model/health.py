"""The failure signatures of MRSE, looked for after training and written into the run's report (paper §Experiments).

An expert whose share of the fused vector collapses, a history that is empty for most queries, a triplet term that is
always 0 or dominates, a modality whose knock-out changes nothing.
"""

from __future__ import annotations

import json

import numpy as np
import torch

from mrse_model.data.example_files import ExampleSummary
from mrse_model.fit import Run
from mrse_model.stages import Stages, pool_ndcg
from mrse_model.towers import EXPERTS

SHARE_COLLAPSED, NOTHING_CHANGED, EMPTY, DOMINATES = 0.02, 0.002, 0.7, 0.95


def check_training(run: Run, stages: Stages, summary: ExampleSummary) -> None:
    """Warns of each signature through `run.warn`."""
    if summary.empty_history_share is not None and summary.empty_history_share > EMPTY:
        run.warn(f"history is empty for {summary.empty_history_share:.0%} of the clicks: it can hardly be learned")
    for stage, term in (("vbert", "hnst"), ("dssm", "hnst")):
        rows = [row for row in _log(run) if row["stage"] == stage and term in row]
        if rows and rows[-1][term] == 0:
            run.warn(f"{stage}: the triplet term is always 0: the hard negatives are not hard, or there are none")
        if rows and rows[-1]["hnst_share"] > DOMINATES:
            run.warn(f"{stage}: the triplet term is {rows[-1]['hnst_share']:.0%} of the loss: lower loss.beta")
    for tower, share in expert_shares(stages).items():
        for expert, value in share.items():
            if expert in stages.config.model.experts and value < SHARE_COLLAPSED:
                run.warn(f"{tower} tower: {expert} has {value:.1%} of the fused vector: it has collapsed")
    for modality, (full, without) in knock_outs(stages).items():
        if full - without < NOTHING_CHANGED:
            run.warn(f"without {modality} the dev nDCG@10 is {without:.4f} instead of {full:.4f}: it changes nothing")


def _log(run: Run) -> list[dict]:
    path = run.folder / "log.jsonl"
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.exists() else []


@torch.no_grad()
def expert_shares(stages: Stages, most: int = 1000) -> dict[str, dict[str, float]]:
    """Per tower, each expert's share of the fused vector: how far the vector moves (1 - cosine) when the expert is
    zeroed, over the sum of all experts' moves.

    Measured on examples whose person has a history and on items that have one, where there are any; else `history` is
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
        ("item", model.item, model.item.experts(*stages.item_inputs(rows), stages.detail(rows)), len(led) > 0),
    ):
        full = tower.dssm(experts)
        moves = {}
        for place, expert in enumerate(EXPERTS):
            if expert != "history" or has_history:
                moves[expert] = float((1 - (tower.without(experts, place) * full).sum(-1)).mean())
        total = max(sum(moves.values()), 1e-9)
        found[name] = {expert: move / total for expert, move in moves.items()}
    return found


@torch.no_grad()
def knock_outs(stages: Stages) -> dict[str, tuple[float, float]]:
    """Modality → dev nDCG@10 with everything and without it. Only modalities that the data has."""
    dev, model = stages.corpus.dev, stages.model
    queries = model.query.fuse(stages.dev_texts, *stages.no_history(len(dev.tokens)))

    def score(picture: bool, led: bool) -> float:
        texts, image, present, entries, weight = stages.item_inputs(dev.pool)
        inputs = texts, image * picture, present * picture, entries, weight * led
        pool = model.item.fuse(*inputs, stages.detail(dev.pool))
        return pool_ndcg(dev, queries, pool)

    full = score(True, True)
    found = {}
    if bool(stages.has_image.any()):
        found["pictures"] = (full, score(False, True))
    if len(stages.corpus.led_by.values):
        found["the queries that led to an item"] = (full, score(True, False))
    return found
