"""A training with a teacher, end to end: from texts to a checkpoint, with little log and with none."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from rich.console import Console

from mrse_model.config import Config, ModelConfig, StageConfig, TrainConfig
from mrse_model.errors import InputError
from mrse_model.evaluation.tuning import Mix
from mrse_model.export import export
from mrse_model.model import MRSE
from mrse_model.serving.exported_model import ExportedModel
from mrse_model.teacher.encoders import Teacher
from mrse_model.training.dataset import example_type
from mrse_model.training.pipeline import Inputs, train
from tests.helpers.random_teacher import random_teacher

TITLES = [" ".join(words) for words in product(("red", "steel", "lawn"), ("mug", "dress", "mower"), "abcde")]


def small() -> Config:
    stage = StageConfig(epochs=1, batch=32, extra_negatives=8, min_steps=6, max_steps=6)
    size = ModelConfig(dims=16, vocab_size=150, bert_layers=1, bert_heads=2, bert_dims=16, dssm_hidden=16)
    train = TrainConfig(evaluate_every=3, vbert=stage, light_bert=stage, ft_att_taught=stage, dssm=stage, threads=1)
    return Config(model=size, train=train)


def inputs_of(folder: Path, judged: int) -> Inputs:
    ids = [f"i{n}" for n in range(len(TITLES))]
    pq.write_table(pa.table({"item_id": ids, "title": TITLES}), folder / "items.parquet")
    path = None
    if judged:
        path = folder / "judgments.parquet"
        rows = {"query": [title[:-2] for title in TITLES[:judged]], "item_id": ids[:judged], "grade": [2] * judged}
        pq.write_table(pa.table(rows), path)
    if not (folder / "teacher").exists():
        random_teacher(folder / "teacher")
    return Inputs(items=folder / "items.parquet", judgments=path, teacher=str(folder / "teacher"))


@pytest.mark.parametrize("judged", [0, 30])
def test_it_learns_from_a_teacher_and_needs_it_no_more(tmp_path: Path, judged: int, monkeypatch) -> None:
    inputs, out = inputs_of(tmp_path, judged), io.StringIO()
    train(inputs, tmp_path / "run", small(), Console(file=out, width=200))
    model = MRSE.from_pretrained(tmp_path / "run")
    size = model.config.model
    assert size.ngrams == "teacher" and size.ngram_dims == 16 and model.ngrams.hashed is None
    assert "starts at ft_att" in out.getvalue() and Mix(**model.meta["mix"]) == Mix(0.4, 0, "hybrid_linear")
    assert model.meta["training"]["teacher"] == Teacher("", tmp_path / "teacher").fingerprint
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert all(line["distil"] >= 0 for line in lines if line["stage"] == "ft_att" and "loss" in line)
    vectors = model.query_vectors(["red mug", "lawn mower", "lawm mower"])
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    items = model.item_vectors(TITLES, [[]] * len(TITLES)).embedding
    assert TITLES[int(np.argmax(items @ vectors[0]))].startswith("red mug")

    def refuse(*_: object) -> None:
        raise AssertionError("the teacher is asked again")

    monkeypatch.setattr(Teacher, "__init__", refuse)
    again = train(inputs, tmp_path / "run", small(), Console(quiet=True))
    assert np.allclose(again.query_vectors(["red mug"]), vectors[:1], atol=1e-5)


def test_an_expert_that_does_not_help_costs_one_evaluation_and_is_left_out(tmp_path: Path, monkeypatch) -> None:
    from mrse_model.training.stages import experts

    def weights_beside(dev, ft_att, others):
        return {name: (0.6 if name == "light_bert" else 0.0, np.eye(16)) for name in others}

    monkeypatch.setattr(experts, "weights_beside", weights_beside)
    out = io.StringIO()
    train(inputs_of(tmp_path, 30), tmp_path / "run", small(), Console(file=out, width=200))
    steps = {line["stage"]: line["step"] for line in map(json.loads, (tmp_path / "run" / "log.jsonl").open())}
    assert steps["vbert"] == 3 and steps["light_bert"] == 6 and "vbert: does not help" in out.getvalue()
    model = MRSE.from_pretrained(tmp_path / "run")
    assert model.config.model.experts == ("light_bert", "ft_att", "history")
    assert "it did not help FtAtt: vbert" in (tmp_path / "run" / "report.md").read_text()
    ids = torch.tensor([[2, 5, 6, 3]])
    berts = model.query.berts(ids, torch.ones_like(ids))
    assert not berts[:, 0].any() and berts[:, 1].any()
    before = model.query_vectors(["red mug"])
    export(model, tmp_path / "models")
    exported = ExportedModel.load(tmp_path / "models")
    assert np.allclose(exported.query_vectors(["red mug"]), before, atol=1e-5)
    assert exported.manifest.profile == "hybrid_linear"  # six queries do not say that vectors alone are as good


def test_few_queries_choose_the_mix_by_cross_validation(tmp_path: Path) -> None:
    inputs = inputs_of(tmp_path, 30)
    asked = [f"{title} please" for title in TITLES[:30]]
    rows = {"query": asked, "item_id": [f"i{n}" for n in range(30)], "grade": [2] * 30}
    pq.write_table(pa.table(rows), tmp_path / "judgments.parquet")
    model = train(inputs, tmp_path / "run", small(), Console(quiet=True))
    assert model.meta["mix"]["queries"] == 30  # three held out of training, nine in each fold
    stages = {json.loads(line)["stage"] for line in (tmp_path / "run" / "log.jsonl").open()}
    assert {"ft_att_fold0", "ft_att_fold1", "ft_att_fold2"} <= stages
    whole, *folds = (
        np.fromfile(tmp_path / "run" / "cache" / f"{name}.bin", example_type(small().model.history_length))["query"]
        for name in ("train", "fold0", "fold1", "fold2")
    )
    left = [set(whole.tolist()) - set(fold.tolist()) for fold in folds]
    assert [len(some) for some in left] == [9, 9, 9] and len(set.union(*left)) == 27


def test_a_killed_run_goes_on_to_the_same_model(tmp_path: Path, monkeypatch) -> None:
    inputs = inputs_of(tmp_path, 30)
    whole = train(inputs, tmp_path / "whole", small(), Console(quiet=True))
    kill = 40  # forward passes of the query tower's table, in the middle of FtAtt's stage
    from mrse_model.experts import NGrams

    count, real = 0, NGrams.mean

    def killed(self, ids, mask):
        nonlocal count
        count += 1
        if count == kill:
            raise KeyboardInterrupt
        return real(self, ids, mask)

    monkeypatch.setattr(NGrams, "mean", killed)
    with pytest.raises(KeyboardInterrupt):
        train(inputs, tmp_path / "run", small(), Console(quiet=True))
    monkeypatch.setattr(NGrams, "mean", real)
    found = train(inputs, tmp_path / "run", small(), Console(quiet=True))
    assert np.allclose(found.query_vectors(TITLES), whole.query_vectors(TITLES), atol=1e-5)


def test_another_teacher_is_another_run(tmp_path: Path) -> None:
    inputs = inputs_of(tmp_path, 0)
    train(inputs, tmp_path / "run", small(), Console(quiet=True))
    with pytest.raises(InputError, match="other data or settings"):
        train(replace(inputs, teacher=None), tmp_path / "run", small(), Console(quiet=True))
