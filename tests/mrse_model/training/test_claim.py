"""What runs have in common: parts that the claims call equal are equal when both are trained, and are taken over."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

pytest.importorskip("torch")

import torch

from mrse_model.config import overlay
from mrse_model.errors import InputError
from mrse_model.model import META, MRSE
from mrse_model.sample.catalogue import write_sample
from mrse_model.training.claim import BUILDS_ON, CLAIM, FILES, READ_BY, Inputs, best_run, claim_of, equal_parts
from mrse_model.training.pipeline import train
from mrse_model.training.stages import STAGES
from tests.helpers.small_runs import curve, few_steps


@dataclass(frozen=True)
class Shop:
    """A folder with data and runs."""

    folder: Path
    inputs: Inputs

    def train(self, name: str, init_from: str = "", until: str | None = None, **settings: Any) -> MRSE:
        source = self.folder / init_from if init_from else None
        config = overlay(few_steps(), settings)
        return train(self.inputs, self.folder / name, config, Console(quiet=True), init_from=source, until=until)

    def claim(self, **settings: Any) -> dict[str, Any]:
        return claim_of(self.inputs, overlay(few_steps(), settings))

    def weights(self, name: str, stage: str) -> dict[str, torch.Tensor]:
        return torch.load(self.folder / name / "state" / f"{stage}.pt", weights_only=True)["best_weights"]

    def same_weights(self, one: str, other: str) -> list[str]:
        """The stages that both runs have, and that are equal to the last bit."""
        both = [stage for stage in STAGES if (self.folder / other / "state" / f"{stage}.pt").exists()]
        return [
            stage
            for stage in both
            if all(torch.equal(v, self.weights(other, stage)[k]) for k, v in self.weights(one, stage).items())
        ]

    def taken(self, source: str, name: str) -> list[str]:
        """The stages of a run that are the very files of another."""
        return [
            stage
            for stage in STAGES
            if (path := self.folder / name / "state" / f"{stage}.pt").exists()
            and path.samefile(self.folder / source / "state" / f"{stage}.pt")
        ]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    folder = tmp_path_factory.mktemp("shop")
    sample = write_sample(folder / "sample", items=120, users=30, searches=200)
    found = Shop(folder, Inputs(sample.items, sample.searches, sample.judgments, image_size=32))
    found.train("first")
    return found


def test_the_tables_name_what_there_is(shop: Shop) -> None:
    claim = shop.claim()
    for key in READ_BY:
        found: Any = claim
        for name in key.split("."):
            assert name in found or key in ("data.features", "data.text_init"), key
            found = found.get(name, {})
    assert set(FILES) == set(BUILDS_ON) == {part for parts in READ_BY.values() for part in parts}


CACHED = ["features", "examples", "tokenizer", "ngrams", "item_tokens"]


@pytest.mark.parametrize(
    ("settings", "equal"),
    [
        ({"train": {"threads": 7}}, [*CACHED, *STAGES]),
        ({"loss": {"beta": 3.0}}, [*CACHED, "adaptor", "ft_att", "light_bert"]),
        ({"loss": {"temperature": 0.2}}, [*CACHED, "adaptor"]),
        ({"loss": {"adaptor_temperature": 0.2}}, [*CACHED, "ft_att", "light_bert"]),
        ({"model": {"experts": ["vbert", "ft_att"]}}, [*CACHED, "adaptor", "ft_att", "light_bert", "vbert"]),
        ({"train": {"event_weights": {"order": 9.0}}}, [*CACHED, "adaptor", "ft_att", "light_bert"]),
        ({"model": {"use_category": False}}, ["features", "examples", "adaptor"]),
        ({"model": {"use_images": False}}, [*CACHED[1:], "ft_att", "light_bert"]),
        ({"model": {"ngrams": "off"}}, ["features", "examples", "tokenizer", "item_tokens", "adaptor", "light_bert"]),
        ({"train": {"seed": 9}}, ["features", "examples", "tokenizer", "item_tokens"]),
        ({"train": {"dssm": {"epochs": 9.0}}}, [*CACHED, "adaptor", "ft_att", "light_bert", "vbert"]),
        ({"model": {"dims": 64}}, CACHED),
    ],
    ids=str,
)
def test_what_a_setting_leaves_equal(shop: Shop, settings: dict[str, Any], equal: list[str]) -> None:
    assert equal_parts(shop.claim(), shop.claim(**settings)) == ["teacher", *equal]


def test_other_data_leave_what_does_not_read_them(shop: Shop) -> None:
    searches_alone = claim_of(replace(shop.inputs, judgments=None), few_steps())
    assert equal_parts(shop.claim(), searches_alone) == ["teacher", "features"]


def test_with_a_teacher_light_bert_is_held_against_ft_att(shop: Shop) -> None:
    taught = replace(shop.inputs, teacher="somewhere")
    slower = overlay(few_steps(), {"train": {"ft_att_taught": {"lr": 1e-4}}})
    parts = equal_parts(claim_of(taught, few_steps()), claim_of(taught, slower))
    assert "ngrams" in parts and not {"ft_att", "light_bert"} & set(parts)
    assert "light_bert" in equal_parts(shop.claim(), shop.claim(train={"ft_att_taught": {"lr": 1e-4}}))


def test_a_setting_that_no_table_names_is_read_by_all(shop: Shop) -> None:
    new = shop.claim()
    new["settings"]["model"]["brand_new"] = 1
    assert equal_parts(shop.claim(), new) == []


@pytest.mark.parametrize(
    "settings",
    [
        {"loss": {"beta": 3.0, "margin": 0.3, "hard_in_softmax": False}},
        {"train": {"history_dropout": 0.9, "modality_dropout": 0.5, "half_life_days": 3.0}},
        {"loss": {"adaptor_temperature": 0.3}, "train": {"light_bert": {"lr": 0.1}}},
    ],
    ids=["losses", "histories", "adaptor and Light-Bert"],
)  # fmt: skip
def test_what_is_called_equal_is_equal_when_both_are_trained(shop: Shop, settings: dict[str, Any]) -> None:
    name = str(len(list(shop.folder.iterdir())))
    shop.train(name, **settings)
    equal = [part for part in equal_parts(shop.claim(), shop.claim(**settings)) if part in STAGES]
    assert shop.same_weights("first", name) == equal


def test_the_same_run_elsewhere_trains_nothing(shop: Shop) -> None:
    first = MRSE.from_pretrained(shop.folder / "first")
    again = shop.train("again", init_from="first")
    assert shop.taken("first", "again") == list(STAGES)
    state = again.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in first.state_dict().items())
    assert curve(shop.folder / "again") == curve(shop.folder / "first")  # the convergence curve comes with the stage


def test_another_beta_trains_vbert_and_what_follows(shop: Shop) -> None:
    shop.train("beta", init_from="first", loss={"beta": 3.0})
    assert shop.taken("first", "beta") == shop.same_weights("first", "beta") == ["adaptor", "ft_att", "light_bert"]


def test_a_text_without_category_is_another_text_but_the_same_image(shop: Shop) -> None:
    shop.train("title", init_from="first", until="vbert", model={"use_category": False})
    assert shop.taken("first", "title") == ["adaptor"]
    assert not (shop.folder / "title" / "state" / "light_bert.pt").exists()  # it is not on the way to VBert
    assert not (shop.folder / "title" / META).exists()


def test_a_run_that_was_stopped_gives_what_it_has_finished(shop: Shop) -> None:
    shop.train("begun", until="ft_att", loss={"temperature": 0.3})
    state = shop.folder / "begun" / "state" / "ft_att.pt"
    claim = shop.claim(loss={"temperature": 0.3, "beta": 1.0})
    runs = [shop.folder / "first", shop.folder / "begun", shop.folder / "none"]
    assert best_run(runs, claim) == shop.folder / "begun"  # the adaptor and FtAtt; of the first the adaptor alone
    torch.save({**torch.load(state, weights_only=True), "done": False}, state)
    shop.train("of begun", init_from="begun", until="ft_att", loss={"temperature": 0.3, "beta": 1.0})
    assert shop.taken("begun", "of begun") == ["adaptor"]
    assert best_run([shop.folder / "none"], claim) is None


def test_hard_negatives_are_mined_without_vbert_too(shop: Shop) -> None:
    searches_alone = replace(shop.inputs, judgments=None)
    config = overlay(few_steps(), {"model": {"experts": ["ft_att", "history"]}})
    train(searches_alone, shop.folder / "mined", config, Console(quiet=True), init_from=shop.folder / "first")
    assert max(row.get("hnst", 0) for row in curve(shop.folder / "mined") if row["stage"] == "dssm") > 0


def test_a_run_of_another_version_gives_nothing(shop: Shop, tmp_path: Path) -> None:
    (tmp_path / CLAIM).write_text(json.dumps({**shop.claim(), "format": 5}), "utf-8")
    assert best_run([tmp_path], shop.claim()) is None
    with pytest.raises(InputError, match="no training run of this version"):
        train(shop.inputs, tmp_path / "new", few_steps(), Console(quiet=True), init_from=tmp_path)
