"""Fixtures that several folders use: a small trained model, once a session (240 items, a few steps of every stage)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from rich.console import Console

from mrse_model.config import Config, preset
from mrse_model.sample.catalogue import Sample, write_sample

if TYPE_CHECKING:
    from mrse_model.model import MRSE
    from mrse_model.training.claim import Inputs


def few_steps(steps: int = 12) -> Config:
    """The tiny preset, cut short."""
    tiny = preset("tiny")
    stages = {
        name: replace(getattr(tiny.train, name), max_steps=steps, batch=64, extra_negatives=16)
        for name in ("adaptor", "ft_att", "light_bert", "vbert", "dssm")
    }
    model = replace(tiny.model, vocab_size=600, bert_dims=32, ngram_dims=32, dssm_hidden=64)
    return replace(tiny, model=model, train=replace(tiny.train, evaluate_every=6, threads=1, **stages))


@dataclass(frozen=True)
class Trained:
    """sample: the data. inputs: what training read. run: its folder. model: the checkpoint."""

    sample: Sample
    inputs: Inputs
    run: Path
    model: MRSE


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    pytest.importorskip("torch")
    from mrse_model.training.claim import Inputs
    from mrse_model.training.pipeline import train

    folder = tmp_path_factory.mktemp("trained")
    sample = write_sample(folder / "sample", items=240, users=40, searches=400)
    inputs = Inputs(sample.items, sample.searches, sample.judgments, image_size=64)
    model = train(inputs, folder / "run", few_steps(), Console(quiet=True))
    return Trained(sample, inputs, folder / "run", model)
