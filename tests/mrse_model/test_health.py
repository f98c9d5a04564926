"""The failure signatures: each shows when it is there, is said once, and goes when it is over."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from rich.console import Console

from mrse_model.config import EXPERTS, TrainConfig
from mrse_model.experts import VBertHead
from mrse_model.training import diagnostics as health
from mrse_model.training.diagnostics import check_fusion, check_histories, check_stage, check_triplet
from mrse_model.training.loop import Run
from mrse_model.training.stages import Stages
from tests.helpers.small_stages import small_stages


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path, TrainConfig(), Console(force_terminal=False, width=200))


@pytest.fixture
def stages(tmp_path: Path) -> Stages:
    return small_stages(tmp_path)


@pytest.mark.parametrize(("share", "warns"), [(None, True), (0.4, False), (0.6, True)])
def test_a_history_that_is_empty_for_most(run: Run, share: float | None, warns: bool) -> None:
    check_histories(run, cast(Any, SimpleNamespace(empty_history_share=share)))
    assert list(run.signatures) == (["empty history"] if warns else [])


def test_a_triplet_term_that_is_always_0(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    run.log("vbert", 200, hnst=0.05, hnst_share=0.1)  # of the first steps, before anything was learnt
    check_triplet(run, "vbert")
    assert not run.signatures
    for step in (400, 600):
        run.log("vbert", step, hnst=0.00001, hnst_share=0.0002)
        check_triplet(run, "vbert")
    assert "is 0.02% of the loss: the hard negatives are not hard" in run.signatures["vbert triplet"]
    run.log("vbert", 800, hnst=0.01, hnst_share=0.2)
    check_triplet(run, "vbert")
    assert not run.signatures
    said = capsys.readouterr().out
    assert said.count("warning: vbert: the triplet term is 0.02%") == 1 and "no longer: vbert" in said


def test_a_triplet_term_that_dominates(run: Run) -> None:
    run.log("dssm", 200, hnst=0.2, hnst_share=0.97)
    run.log("vbert", 200, hnst=0.2, hnst_share=0.5)
    for stage in ("vbert", "dssm"):
        check_triplet(run, stage)
    assert run.signatures == {"dssm triplet": "dssm: the triplet term is 97% of the loss: lower loss.beta"}


def test_an_expert_that_has_collapsed(stages: Stages) -> None:
    check_fusion(stages.run, stages)
    assert not any("collapsed" in message for message in stages.run.signatures.values())
    light = EXPERTS.index("light_bert")
    for texts in (stages.query_texts, stages.item_texts):  # the two BERTs and FtAtt stand there in the experts' order
        texts[:, light] = 0
    check_fusion(stages.run, stages)
    assert {"query light_bert", "item light_bert"} <= set(stages.run.signatures)
    assert "light_bert has 0.0% of the fused vector" in stages.run.signatures["item light_bert"]
    left_out = replace(stages.config.model, experts=("vbert", "ft_att", "history"))
    stages.config, stages.run.signatures = replace(stages.config, model=left_out), {}
    check_fusion(stages.run, stages)
    assert not any("light_bert" in name for name in stages.run.signatures)  # who leaves it out, knows


def no_images(stages: Stages) -> None:
    stages.images[:] = 0
    for head in (stages.model.item.vbert, stages.model.query.vbert):
        assert isinstance(head, VBertHead)
        torch.nn.init.zeros_(head.absent)
    assert stages.model.item.image_residual is not None
    for parameter in stages.model.item.image_residual.parameters():
        torch.nn.init.zeros_(parameter)


def no_queries(stages: Stages) -> None:
    stages.led[:] = -1


def no_words(stages: Stages) -> None:
    stages.item_texts[:] = 0


@pytest.mark.parametrize(
    ("modality", "remove"),
    [("images", no_images), ("the queries that led to an item", no_queries), ("words", no_words)],
)
def test_a_modality_that_changes_nothing(
    stages: Stages, monkeypatch: pytest.MonkeyPatch, modality: str, remove: Callable[[Stages], None]
) -> None:
    with monkeypatch.context() as patch:  # five items are too few for a rank to change
        patch.setattr(health, "pool_ndcg", lambda dev, queries, pool: queries @ pool.T)
        full, without = health.modality_ablation(stages)[modality]
        assert abs(full - without) > 1e-3
    remove(stages)
    full, without = health.modality_ablation(stages)[modality]
    assert full == without
    check_fusion(stages.run, stages)
    assert "it changes nothing" in stages.run.signatures[f"without {modality}"]


def test_a_modality_that_does_harm(stages: Stages, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "modality_ablation", lambda stages: {"images": (0.5, 0.6)})
    check_fusion(stages.run, stages)
    assert stages.run.signatures["without images"].endswith("the score is 0.6000 instead of 0.5000: it does harm")


def test_a_modality_that_matters_does_not_warn(stages: Stages, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "modality_ablation", lambda stages: {"words": (0.8, 0.3), "images": (0.8, 0.7999)})
    check_stage(stages.run, stages, "dssm")
    assert "without images" in stages.run.signatures and "without words" not in stages.run.signatures


def test_only_what_an_expert_reads_is_knocked_out(stages: Stages) -> None:
    assert set(health.modality_ablation(stages)) == {
        "words", "images", "the queries that led to an item", "a user's history",
    }  # fmt: skip
    text_alone = replace(stages.config.model, experts=("light_bert", "ft_att"))
    stages.config = stages.model.config = replace(stages.config, model=text_alone)
    assert set(health.modality_ablation(stages)) == {"words"}
