"""Settings: strict, and what is written reads back equal."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mrse_model.config import Config, overlay, preset, read_config, write_config
from mrse_model.errors import InputError
from mrse_model.train import Inputs, _claim, title_of


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
        ("[model]\nvocab_size = 'many'", r"field model\.vocab_size: 'many' instead of int"),
        ("[model]\nuse_images = 1", r"field model\.use_images: 1 instead of bool"),
        ("[loss]\nbeta = true", r"field loss\.beta: True instead of float"),
        ("train = 3", r"field train: 3 instead of a table"),
        ("[model", "not TOML"),
        ("preset = 'large'", "no preset 'large'"),
    ],
)
def test_a_bad_setting_names_the_file_the_key_and_what_is_right(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "mrse.toml"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        read_config(path)


def test_a_whole_number_is_a_float_too() -> None:
    assert overlay(Config(), {"loss": {"beta": 15}}).loss.beta == 15.0


def test_a_run_knows_what_it_reads_as_the_title(tmp_path: Path) -> None:
    items = tmp_path / "items.parquet"
    pq.write_table(pa.table({"item_id": ["a"], "name": ["Mug"]}), items)
    assert title_of(tmp_path) == "title"
    _claim(tmp_path, Inputs(items, title="name"), Config())
    assert title_of(tmp_path) == "name"
