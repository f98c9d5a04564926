"""Runs that share: what is equal is trained once, what differs is trained again."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

pytest.importorskip("torch")

import torch

from mrse_model.config import overlay
from mrse_model.model import META, MRSE
from mrse_model.sample.catalogue import write_sample
from mrse_model.training.pipeline import Inputs, train
from mrse_model.training.share import Share, fingerprint_of
from tests.helpers.small_runs import few_steps


@dataclass(frozen=True)
class Place:
    """A folder with data, where runs share `share`."""

    folder: Path
    inputs: Inputs

    def train(self, name: str, until: str | None = None, inputs: Inputs | None = None, **settings: Any) -> MRSE:
        config = overlay(few_steps(), settings)
        quiet = Console(quiet=True)
        return train(inputs or self.inputs, self.folder / name, config, quiet, share=self.folder / "share", until=until)

    def kept(self) -> Counter[str]:
        return Counter(path.name.split("-")[0] for path in (self.folder / "share").glob("*.pt"))

    def log(self, name: str, stage: str) -> list[dict[str, float]]:
        lines = (self.folder / name / "log.jsonl").read_text("utf-8").splitlines()
        return [row for row in map(json.loads, lines) if row["stage"] == stage]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    folder = tmp_path_factory.mktemp("share")
    sample = write_sample(folder / "sample", items=120, users=30, searches=200)
    found = Place(folder, Inputs(sample.items, sample.searches, sample.judgments, image_size=32))
    found.train("first")
    return found


def weights(model: MRSE, prefix: str) -> dict[str, torch.Tensor]:
    return {k: v for k, v in model.state_dict().items() if prefix in k}


def test_the_same_run_elsewhere_trains_nothing(place: Place) -> None:
    before, first = place.kept(), MRSE.from_pretrained(place.folder / "first")
    again = place.train("again")
    assert place.kept() == before
    assert before == dict.fromkeys(("adaptor", "ft_att", "light_bert", "vbert", "dssm"), 1)
    state = again.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in first.state_dict().items())
    assert place.log("again", "vbert") == place.log("first", "vbert")  # the convergence curve comes with the stage


def test_another_beta_trains_vbert_and_what_follows(place: Place) -> None:
    first = MRSE.from_pretrained(place.folder / "first")
    other = place.train("beta", loss={"beta": 3.0})
    kept = place.kept()
    assert (kept["adaptor"], kept["ft_att"], kept["light_bert"]) == (1, 1, 1)
    assert (kept["vbert"], kept["dssm"]) == (2, 2)
    for name, value in weights(first, "light_bert").items():
        assert torch.equal(value, other.state_dict()[name])
    assert not torch.equal(first.query.vbert.layers[0].weight, other.query.vbert.layers[0].weight)


def test_each_temperature_trains_its_own_stages(place: Place) -> None:
    before, first = place.kept(), MRSE.from_pretrained(place.folder / "first")
    place.train("sharp", until="vbert", loss={"temperature": 0.2})
    assert place.kept() - before == {"ft_att": 1, "vbert": 1}
    before = place.kept()
    soft = place.train("soft", loss={"adaptor_temperature": 0.2})
    assert place.kept() - before == {"adaptor": 1, "vbert": 1, "dssm": 1}
    assert first.adaptor and soft.adaptor
    assert not torch.equal(first.adaptor.layers[0].weight, soft.adaptor.layers[0].weight)


def test_an_expert_left_out_trains_the_fusion_alone(place: Place) -> None:
    before = place.kept()
    place.train("without", model={"experts": ["vbert", "ft_att", "history"]})
    assert place.kept() - before == {"dssm": 1}


def test_another_weight_of_events_leaves_the_text_experts(place: Place) -> None:
    before = place.kept()
    place.train("events", train={"event_weights": {"click": 1.0, "cart": 5.0, "order": 9.0}})
    assert place.kept() - before == {"vbert": 1, "dssm": 1}


def test_a_text_without_category_is_another_text_but_the_same_image(place: Place) -> None:
    before = place.kept()
    place.train("title", until="vbert", model={"use_category": False})
    assert place.kept() - before == {"ft_att": 1, "vbert": 1}  # Light-Bert is not on the way to VBert
    assert not (place.folder / "title" / META).exists()


def test_hard_negatives_are_mined_without_vbert_too(place: Place) -> None:
    searches_alone = Inputs(place.inputs.items, place.inputs.searches, image_size=32)
    place.train("mined", inputs=searches_alone, model={"experts": ["ft_att", "history"]})
    assert max(row.get("hnst", 0) for row in place.log("mined", "dssm")) > 0


def test_a_killed_block_keeps_nothing(tmp_path: Path) -> None:
    share, path = Share(tmp_path / "share"), tmp_path / "table.npy"
    with pytest.raises(KeyboardInterrupt), share.kept(path, "a"):
        path.write_text("half")
        raise KeyboardInterrupt
    assert not list((tmp_path / "share").iterdir())


def test_the_fingerprint_tells_content_apart() -> None:
    a = np.arange(6)
    assert fingerprint_of(a) == fingerprint_of(a.copy())
    assert len({fingerprint_of(x) for x in (a, a[:5], a.reshape(2, 3), a.astype(np.int32), a + 1, "a", None)}) == 7
    assert fingerprint_of("ab", "c") != fingerprint_of("a", "bc")
