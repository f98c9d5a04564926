"""A training over a click log in which popularity decides: the mix has it, the export carries it, it is measured."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

pytest.importorskip("torch")

from rich.console import Console

from mrse_model.data.contract import read_catalogue
from mrse_model.data.examples import ExampleSettings
from mrse_model.errors import InputError
from mrse_model.evaluation.checkpoint import MIX, POPULAR, measure
from mrse_model.evaluation.queries import clicked_queries
from mrse_model.evaluation.tuning import Mix
from mrse_model.export import export
from mrse_model.model import MRSE
from mrse_model.serving.mix import read_mix
from mrse_model.training.claim import Inputs
from mrse_model.training.pipeline import train
from tests.helpers.popular_log import TITLES, write_log
from tests.helpers.small_runs import few_steps


def trained_on(folder: Path, favourite: bool, validation: float = 0.0) -> MRSE:
    write_log(folder, favourite)
    examples = ExampleSettings(validation_fraction=validation)
    inputs = Inputs(folder / "items.parquet", folder / "searches.parquet", examples=examples)
    config = few_steps()
    config = replace(config, model=replace(config.model, ngrams="off", use_images=False))
    return train(inputs, folder / "run", config, Console(quiet=True))


def test_the_mix_has_it_and_the_export_carries_it(tmp_path: Path) -> None:
    model = trained_on(tmp_path, favourite=True, validation=0.1)
    mix = Mix(**model.meta["mix"])
    assert mix.popularity > 0 and mix.source == "clicks" and mix.profile == "hybrid_linear"
    examples = tmp_path / "run" / "cache" / "examples"
    queries = clicked_queries("clicks", examples / "validation.parquet")
    found = measure(model, read_catalogue(tmp_path / "items.parquet"), None, examples, queries, cuts=(20,))
    plain, popular = (found.report[name].value("nDCG@10") for name in (MIX, POPULAR))
    assert found.recommended == POPULAR and popular > plain
    manifest = export(MRSE.from_pretrained(tmp_path / "run"), tmp_path / "export")
    assert manifest.popularity == "clicks"
    assert read_mix(tmp_path / "export") == (mix.weight, pytest.approx(mix.popularity))


def test_a_log_in_which_it_does_not_matter_leaves_the_mix(tmp_path: Path) -> None:
    mix = trained_on(tmp_path, favourite=False).meta["mix"]
    assert mix["popularity"] == 0 and mix["source"] is None and mix["queries"] >= 20


def test_a_bad_column_is_told_before_the_training(tmp_path: Path) -> None:
    write_log(tmp_path, True, {"popularity": pa.array(["much"] * len(TITLES))})
    with pytest.raises(InputError, match=r"field popularity: the column is string.*number that grows with sales"):
        train(Inputs(tmp_path / "items.parquet"), tmp_path / "run", few_steps(), Console(quiet=True))
