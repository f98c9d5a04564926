"""Settings: strict, and what is written reads back equal."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mrse_model.config import Config, overlay, preset, read_config, write_config
from mrse_model.errors import InputError
from mrse_model.training.claim import Inputs, claim_of, stake, title_of
from mrse_model.training.run_folder import locked


@pytest.mark.parametrize("name", ["tiny", "base"])
def test_written_settings_read_back_equal(name: str, tmp_path: Path) -> None:
    write_config(preset(name), tmp_path / "config.toml")
    assert read_config(tmp_path / "config.toml") == preset(name)


def test_base_has_the_paper_s_sizes() -> None:
    size, loss = Config().model, Config().loss
    assert (size.dims, size.vocab_size, size.query_tokens, size.item_tokens) == (128, 30_000, 16, 64)
    assert (size.bert_layers, size.bert_dims, size.ngram_dims, size.history_length) == (2, 128, 256, 20)
    assert (loss.temperature, loss.adaptor_temperature, loss.margin, loss.alpha, loss.beta) == (0.06, 0.1, 0.15, 1, 10)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[train.dssm]\nepoch = 3", r"field train\.dssm\.epoch: unknown setting\. Did you mean train\.dssm\.epochs"),
        ("[model]\nvocab_size = 'many'", r"field model\.vocab_size: must be of type int, got 'many'"),
        ("[model]\nuse_images = 1", r"field model\.use_images: must be of type bool, got 1"),
        ("[loss]\nbeta = true", r"field loss\.beta: must be of type float, got True"),
        ("train = 3", r"field train: must be a table, got 3"),
        ("[model", "not TOML"),
        ("preset = 'large'", "unknown preset 'large'"),
        (
            "[model]\nexperts = ['vbertt']",
            r"field model\.experts: must be some of vbert, .*, got \[\"vbertt\"\]",
        ),
        ("[model]\nexperts = ['history']", "not history alone"),
        ("[model]\nngrams = 'fastext'", r'field model\.ngrams: must be fasttext, teacher or off, got "fastext"'),
        ("[model]\nbert_heads = 3", r"field model\.bert_heads: must be a divisor of bert_dims, 128, got 3"),
        ("[model]\ndropout = 1.5", r"field model\.dropout: must be from 0 to 0\.9, got 1\.5"),
        ("[model]\nquery_tokens = 2", r"field model\.query_tokens: must be at least 3 .*, got 2"),
        ("[model]\nngram_min = 5", r"field model\.ngram_max: must be at least ngram_min, 5, got 4"),
        ("[train.dssm]\nepochs = inf", r"field train\.dssm\.epochs: must be a finite number, got Infinity"),
        ("[loss]\ntemperature = 0", r"field loss\.temperature: must be above 0, got 0\.0"),
        ("[loss]\nalpha = 0\nbeta = 0", r"field loss\.alpha"),
        ("[train]\nevaluate_every = 0", r"field train\.evaluate_every: must be at least 1, got 0"),
        ("[train]\nbf16 = 'maybe'", r'field train\.bf16: must be auto, on or off, got "maybe"'),
        ("[train.dssm]\nbatch = 0", r"mrse\.toml, field train\.dssm\.batch: must be at least 2 .*, got 0"),
        ("[train.vbert]\nlr = -1", r"field train\.vbert\.lr: must be at least 0, got -1\.0"),
        ("[train.event_weights]\nclik = 1", r"field train\.event_weights: must be weights of click, cart, order, got "),
        ("[train.event_weights]\ncart = 'x'", r"field train\.event_weights\.cart: must be of type float, got 'x'"),
        ("[train.event_weights]\ncart = -1", r"field train\.event_weights: must be weights of at least 0, got "),
    ],
)
def test_a_bad_setting_names_the_file_the_key_and_what_is_right(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "mrse.toml"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        read_config(path)


def test_a_whole_number_is_a_float_too() -> None:
    assert overlay(Config(), {"loss": {"beta": 15}}).loss.beta == 15.0


def test_an_event_that_is_not_given_keeps_its_weight() -> None:
    weights = overlay(Config(), {"train": {"event_weights": {"cart": 5}}}).train.event_weights
    assert weights == {"click": 1.0, "cart": 5.0, "order": 3.0}


def begin(folder: Path, inputs: Inputs, config: Config) -> None:
    stake(folder, claim_of(inputs, config), config)


def test_a_run_knows_what_it_reads_as_the_title(tmp_path: Path) -> None:
    items = tmp_path / "items.parquet"
    pq.write_table(pa.table({"item_id": ["a"], "name": ["Mug"]}), items)
    assert title_of(tmp_path) == "title"
    begin(tmp_path, Inputs(items, title="name"), Config())
    assert title_of(tmp_path) == "name"


def test_two_trainings_cannot_write_into_one_folder(tmp_path: Path) -> None:
    with locked(tmp_path), pytest.raises(InputError, match=r"another mrse train is running.*--out"), locked(tmp_path):
        pass
    with locked(tmp_path):
        pass


def test_a_run_says_what_is_other_than_when_it_began(tmp_path: Path) -> None:
    items = tmp_path / "items.parquet"
    pq.write_table(pa.table({"item_id": ["a"], "title": ["Mug"], "name": ["Mug"]}), items)
    begin(tmp_path, Inputs(items), overlay(Config(), {"train": {"seed": 9}}))
    begin(tmp_path, Inputs(items), Config())  # nothing was made yet
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "ft_att.pt").touch()
    with pytest.raises(InputError, match=r"train\.seed: 1 → 2"):  # its cache was deleted
        begin(tmp_path, Inputs(items), overlay(Config(), {"train": {"seed": 2}}))
    (tmp_path / "state" / "ft_att.pt").unlink()
    (tmp_path / "cache" / "examples").mkdir(parents=True)
    begin(tmp_path, Inputs(items), overlay(Config(), {"train": {"threads": 3}}))
    other = overlay(Config(), {"train": {"dssm": {"epochs": 3.0}}, "model": {"experts": ["vbert"]}})
    with pytest.raises(InputError, match=r"train\.dssm\.epochs: 10\.0 → 3\.0") as raised:
        begin(tmp_path, Inputs(items), other)
    many = overlay(Config(), {"loss": {"beta": 1.0, "alpha": 2.0, "margin": 0.3}, "train": {"seed": 2, "patience": 9}})
    many = overlay(many, {"train": {"evaluate_every": 7, "dssm": {"epochs": 3.0}}})
    with pytest.raises(InputError, match=r"; and 2 more\)"):
        begin(tmp_path, Inputs(items), many)
    assert "model.experts: ['vbert', 'light_bert', 'ft_att', 'history'] → ['vbert']" in str(raised.value)
    with pytest.raises(InputError, match=r"inputs\.title: title → name"):
        begin(tmp_path, Inputs(items, title="name"), Config())
    pq.write_table(pa.table({"item_id": ["b"], "title": ["Mug"], "name": ["Mug"]}), items)
    with pytest.raises(InputError, match=r"\(data\.items: [0-9a-f]{12} → [0-9a-f]{12}\)"):
        begin(tmp_path, Inputs(items), Config())
