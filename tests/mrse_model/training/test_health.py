"""The failure signatures: each shows when it is there, is said once, and goes when it is over."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console

from mrse_model.config import EXPERTS, TrainConfig
from mrse_model.data.example_files import ExampleSummary
from mrse_model.experts import VBertHead
from mrse_model.training import diagnostics as health
from mrse_model.training.diagnostics import check_fusion, check_histories, check_triplet
from mrse_model.training.run_folder import Run
from mrse_model.training.stages import FusionStage
from tests.helpers.small_stages import small_fusion


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path, TrainConfig(), Console(force_terminal=False, width=200))


@pytest.fixture
def stage(tmp_path: Path) -> FusionStage:
    return small_fusion(tmp_path)


@pytest.mark.parametrize(("share", "warns"), [(None, True), (0.4, False), (0.6, True)])
def test_a_history_that_is_empty_for_most(run: Run, share: float | None, warns: bool) -> None:
    summary = ExampleSummary(
        examples={"click": 10}, validation_searches=0, empty_history_share=share, empty_validation_share=None,
        split=None, dropped={}, spam_users=0, items_with_queries=0, hard_share=0, positive_grade=None,
        pseudo_queries=None,
    )  # fmt: skip
    check_histories(run, summary)
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


def test_an_expert_that_has_collapsed(stage: FusionStage) -> None:
    check_fusion(stage.run, stage.fusion)
    assert not any("collapsed" in message for message in stage.run.signatures.values())
    light = EXPERTS.index("light_bert")
    # The two BERTs and FtAtt stand there in the experts' order.
    for texts in (stage.fusion.query_texts, stage.fusion.item_texts):
        texts[:, light] = 0
    check_fusion(stage.run, stage.fusion)
    assert {"query light_bert", "item light_bert"} <= set(stage.run.signatures)
    assert "light_bert has 0.0% of the fused vector" in stage.run.signatures["item light_bert"]
    left_out = replace(stage.config.model, experts=("vbert", "ft_att", "history"))
    stage.fusion.config, stage.run.signatures = replace(stage.config, model=left_out), {}
    check_fusion(stage.run, stage.fusion)
    assert not any("light_bert" in name for name in stage.run.signatures)  # who leaves it out, knows


def no_images(stage: FusionStage) -> None:
    stage.vectors.images[:] = 0
    for head in (stage.model.item.vbert, stage.model.query.vbert):
        assert isinstance(head, VBertHead)
        torch.nn.init.zeros_(head.absent)
    assert stage.model.item.image_residual is not None
    for parameter in stage.model.item.image_residual.parameters():
        torch.nn.init.zeros_(parameter)


def no_queries(stage: FusionStage) -> None:
    stage.fusion.item_queries[:] = -1


def no_text(stage: FusionStage) -> None:
    stage.fusion.item_texts[:] = 0


@pytest.mark.parametrize(
    ("modality", "remove"),
    [("images", no_images), ("item queries", no_queries), ("the text", no_text)],
)
def test_a_modality_that_changes_nothing(
    stage: FusionStage, monkeypatch: pytest.MonkeyPatch, modality: str, remove: Callable[[FusionStage], None]
) -> None:
    with monkeypatch.context() as patch:  # five items are too few for a rank to change
        patch.setattr(health, "pool_ndcg", lambda dev, queries, pool: queries @ pool.T)
        full, without = health.modality_ablation(stage.fusion)[modality]
        assert abs(full - without) > 1e-3
    remove(stage)
    full, without = health.modality_ablation(stage.fusion)[modality]
    assert full == without
    check_fusion(stage.run, stage.fusion)
    assert "it changes nothing" in stage.run.signatures[f"without {modality}"]


def test_a_modality_that_does_harm(stage: FusionStage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "modality_ablation", lambda fusion: {"images": (0.5, 0.6)})
    check_fusion(stage.run, stage.fusion)
    assert stage.run.signatures["without images"].endswith("the score is 0.6000 instead of 0.5000: it does harm")


def test_a_modality_that_matters_does_not_warn(stage: FusionStage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "modality_ablation", lambda fusion: {"the text": (0.8, 0.3), "images": (0.8, 0.7999)})
    stage.watch()
    assert "without images" in stage.run.signatures and "without the text" not in stage.run.signatures


def test_only_what_an_expert_reads_is_knocked_out(stage: FusionStage) -> None:
    assert set(health.modality_ablation(stage.fusion)) == {
        "the text", "images", "item queries", "a user's history",
    }  # fmt: skip
    text_alone = replace(stage.config.model, experts=("light_bert", "ft_att"))
    stage.fusion.config = replace(stage.config, model=text_alone)
    assert set(health.modality_ablation(stage.fusion)) == {"the text"}


def test_a_fusion_that_is_left_as_it_starts_is_not_ill(stage: FusionStage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "modality_ablation", lambda fusion: {"images": (0.5, 0.5)})
    stage.fusion.item_texts[:, EXPERTS.index("light_bert")] = 0
    check_fusion(stage.run, stage.fusion)
    assert {"without images", "item light_bert"} <= set(stage.run.signatures)
    torch.nn.init.zeros_(stage.model.item.dssm.out.weight)  # FtAtt alone found more
    check_fusion(stage.run, stage.fusion)
    assert not stage.run.signatures
