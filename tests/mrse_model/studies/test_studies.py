"""The studies: their definitions, one run from end to end, and the parts that compute."""

from __future__ import annotations

import json
import os
import shutil
import tomllib
from dataclasses import replace
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console
from typer.testing import CliRunner

pytest.importorskip("torch")

import torch

from mrse_cli.main import app
from mrse_model.config import Config, overlay, preset
from mrse_model.data.search_log import query_key
from mrse_model.errors import InputError
from mrse_model.evaluation.queries import QuerySet
from mrse_model.model import MRSE
from mrse_model.sample.catalogue import write_sample
from mrse_model.serving.exported_model import ItemVectors
from mrse_model.studies import runner
from mrse_model.studies.inputs import check, some_queries
from mrse_model.studies.measure import MEASURES, EvaluationSet, TrainedVariant
from mrse_model.studies.measured import Measured, Values, stage_figures
from mrse_model.studies.plots import PLOTS
from mrse_model.studies.pools import r_precision
from mrse_model.studies.queues import three_queues
from mrse_model.studies.registry import STUDIES, find_study
from mrse_model.studies.results import Row, cell, tabulate
from mrse_model.studies.study import CPU_SECONDS, Data, Study
from mrse_model.training.claim import Inputs
from retrieval.history.behaviour import ClickedItems, image_queue, item_queue
from tests.helpers.small_runs import few_steps

QUIET = Console(quiet=True)
ISSUE = {"ablation", "transformer", "history", "loss", "beta", "experts", "dims", "data", "events", "balance"}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    folder = tmp_path_factory.mktemp("data")
    sample = write_sample(folder, items=120, users=30, searches=200)
    table = pq.read_table(sample.items).drop_columns(["image"])  # images are not what is tested here
    pq.write_table(table, folder / "without_images.parquet")
    return Data(folder / "without_images.parquet", sample.judgments_val, sample.searches, sample.judgments)


def test_every_study_of_the_issue_is_there() -> None:
    assert set(STUDIES) == ISSUE
    with pytest.raises(InputError, match="One of: ablation"):
        find_study("bet")


@pytest.mark.parametrize("study", STUDIES.values(), ids=str)
def test_a_study_is_well_defined(study: Study) -> None:
    names = [v.name for v in study.variants]
    assert len(set(names)) == len(names) and study.reference == study.ordered()[0].name
    assert study.measure in MEASURES and study.plot in PLOTS
    configs = {v.name: overlay(preset("base"), dict(v.settings)) for v in study.variants}  # known keys, right types
    runs: dict[str, object] = {}
    for variant in study.variants:
        assert study.versus(variant) in {"", *names}
        made = (configs[variant.name], variant.queries)
        assert runs.setdefault(variant.folder, made) == made, "rows of one training have one training's settings"
    written = tomllib.loads(study.toml(Data(Path("items"), Path("judged")), "abc", 1))
    assert [v["name"] for v in written["variant"]] == names
    for variant, table in zip(study.variants, written["variant"], strict=True):
        assert overlay(preset("base"), table.get("settings", {})) == configs[variant.name]


@pytest.fixture(scope="module")
def finished(data: Data, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("studies") / "loss"
    runner.run_study(STUDIES["loss"], data, out, few_steps(), command="mrse study loss", console=QUIET)
    return out


def test_the_table_says_what_the_json_says(finished: Path) -> None:
    found = json.loads((finished / "results.json").read_text("utf-8"))
    page = (finished / "results.md").read_text("utf-8")
    assert [row["name"] for row in found["rows"]] == ["hybrid", "MNSCE alone", "triplet alone"] and not found["missing"]
    for row in found["rows"]:
        line = next(line for line in page.splitlines() if line.startswith(f"| {row['name']} | "))
        e = row["measures"]["nDCG@10"]
        assert 0 <= e["low"] <= e["mean"] <= e["high"] <= 1
        assert f" {e['mean']:.3f} [{e['low']:.3f}, {e['high']:.3f}] " in line
        assert [step for step, _ in row["curves"]["vbert"]] == [0.0, 1.0, 2.0]
        values = Measured.load(finished / "measured" / f"{row['name'].lower().replace(' ', '-')}.json").values
        assert values["nDCG@10"].values.mean() == pytest.approx(e["mean"])
    entry = (finished / "log-entry.md").read_text("utf-8")
    assert "`mrse study loss`" in entry and cell(_row(found["rows"][0]), "nDCG@10") in entry
    assert (finished / "plot.png").read_bytes().startswith(b"\x89PNG")
    assert tomllib.loads((finished / "study.toml").read_text("utf-8"))["reference"] == "hybrid"


def _row(raw: dict) -> Row:
    from mrse_model.evaluation.bootstrap import Estimate

    return Row(raw["name"], None, {name: Estimate(**e) for name, e in raw["measures"].items()})


def test_variants_share_what_is_equal(finished: Path) -> None:
    def files(stage: str) -> set[int]:
        states = list((finished / "runs").glob(f"*/state/{stage}.pt"))
        assert len(states) == 3
        return {path.stat().st_ino for path in states}

    assert (len(files("ft_att")), len(files("vbert"))) == (1, 3)
    seconds = [Measured.load(path).numbers[CPU_SECONDS] for path in (finished / "measured").glob("*.json")]
    assert all(s > 0 for s in seconds)  # FtAtt counts for whoever takes it over


def test_studies_beside_each_other_are_a_stage_cache(finished: Path, data: Data) -> None:
    alone = replace(STUDIES["loss"], variants=STUDIES["loss"].variants[:1])
    runner.run_study(alone, data, finished.parent / "alone", few_steps(), console=QUIET)
    for state in ("state/ft_att.pt", "state/vbert.pt"):
        theirs = finished / "runs" / "hybrid" / state
        assert (finished.parent / "alone" / "runs" / "hybrid" / state).samefile(theirs)


def test_a_finished_study_trains_nothing(finished: Path, data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("it trains again")

    before = (finished / "results.json").read_text("utf-8")
    monkeypatch.setattr(runner, "train", never)
    shown = replace(STUDIES["loss"], columns=("easy pool",), note="")  # other columns of the same trainings
    assert runner.run_study(shown, data, finished, few_steps(), console=QUIET).columns == ("easy pool",)
    runner.run_study(STUDIES["loss"], data, finished, few_steps(), console=QUIET)
    assert (finished / "results.json").read_text("utf-8") == before
    threads = overlay(few_steps(), {"train": {"threads": 7}})
    runner.run_study(STUDIES["loss"], data, finished, threads, console=QUIET)
    with pytest.raises(InputError, match=r"other data, settings or version \(train\.seed: 1 → 2\)"):
        other = overlay(few_steps(), {"train": {"seed": 2}})
        runner.run_study(STUDIES["loss"], data, finished, other, console=QUIET)
    monkeypatch.setattr(runner, "FORMAT", 10**6)
    with pytest.raises(InputError, match=r"other data, settings or version \(version: "):
        runner.run_study(STUDIES["loss"], data, finished, few_steps(), console=QUIET)


def test_a_row_of_several_seeds_is_their_mean(finished: Path, data: Data, tmp_path: Path) -> None:
    out = tmp_path / "loss"
    results = runner.run_study(
        STUDIES["loss"], data, out, few_steps(), stage_cache=finished.parent, seeds=2, console=QUIET
    )
    assert sorted(path.name for path in (out / "runs").glob("hybrid*")) == ["hybrid", "hybrid-seed-2"]
    one, other = (Measured.load(out / "measured" / f"hybrid{seed}.json") for seed in ("", "-seed-2"))
    first = Measured.load(finished / "measured" / "hybrid.json")
    assert np.array_equal(one.values["nDCG@10"].values, first.values["nDCG@10"].values)
    assert not np.array_equal(one.values["nDCG@10"].values, other.values["nDCG@10"].values)
    both = (one.values["nDCG@10"].values + other.values["nDCG@10"].values) / 2
    assert results.rows[0].measures["nDCG@10"].mean == pytest.approx(both.mean())
    assert "mean over 2 trainings a row" in (out / "results.md").read_text("utf-8")
    with pytest.raises(InputError, match=r"other data, settings or version \(seeds: 2 → 3\)"):
        runner.run_study(STUDIES["loss"], data, out, few_steps(), stage_cache=finished.parent, seeds=3, console=QUIET)


def test_an_interrupted_study_goes_on(
    finished: Path, data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[str] = []

    def train(inputs: Inputs, run: Path, *arguments: Any, **options: Any) -> MRSE:
        trained.append(run.name)
        if trained == ["hybrid", "mnsce-alone"]:
            raise KeyboardInterrupt
        return real(inputs, run, *arguments, **options)

    real = runner.train
    monkeypatch.setattr(runner, "train", train)
    begun = partial(runner.run_study, STUDIES["loss"], data, tmp_path / "loss", few_steps(), console=QUIET)
    with pytest.raises(KeyboardInterrupt):
        begun(stage_cache=finished.parent)
    assert [row["name"] for row in json.loads((tmp_path / "loss" / "results.json").read_text())["rows"]] == ["hybrid"]
    begun(stage_cache=finished.parent)
    assert trained == ["hybrid", "mnsce-alone", "mnsce-alone", "triplet-alone"]
    rows, before = (
        json.loads((folder / "results.json").read_text())["rows"] for folder in (tmp_path / "loss", finished)
    )
    assert [row["measures"]["nDCG@10"] for row in rows] == [row["measures"]["nDCG@10"] for row in before]


@pytest.fixture(scope="module")
def experts(data: Data, finished: Path) -> Path:
    out = finished.parent / "experts"
    runner.run_study(STUDIES["experts"], data, out, few_steps(), console=QUIET)
    return out


def test_rows_of_one_training_and_a_user(data: Data, experts: Path) -> None:
    """The expert study trains once for its five rows; its cosines are of users' searches."""
    results = runner.run_study(STUDIES["experts"], data, experts, few_steps(), console=QUIET)
    assert [path.name for path in (experts / "runs").iterdir()] == ["mrse"]
    rows = {row.name: row for row in results.rows}
    shares = [rows[e].measures["query share"].mean for e in ("vbert", "light_bert", "ft_att", "history")]
    assert sum(shares) == pytest.approx(1, abs=1e-4)
    assert all(-1 <= row.measures["item cosine"].mean <= 1 for name, row in rows.items() if name != "all")
    assert rows["vbert"].versus == "all" and "nDCG@10 without it" in rows["vbert"].against


def test_the_items_experts_are_those_of_their_vectors(
    data: Data, experts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In several batches, in which an item is fused with its queries and without."""
    run = experts / "runs" / "mrse"
    model = MRSE.from_pretrained(run)
    monkeypatch.setattr(model, "item_vectors", partial(model.item_vectors, batch=50))
    one = TrainedVariant(model, run, EvaluationSet(data))
    assert any(one.item_queries)
    with torch.no_grad():
        fused = model.item.dssm(one.item_experts).numpy()
    assert np.allclose(fused, one.items.embedding, atol=1e-5)


def test_relevance_of_judged_searches_is_of_items_without_their_queries(data: Data, experts: Path) -> None:
    """Those queries are the judged ones: an item would be found by its label."""
    run, variant = experts / "runs" / "mrse", STUDIES["history"].variants[1]
    known, new = (TrainedVariant(MRSE.from_pretrained(run), run, EvaluationSet(data)) for _ in range(2))
    new.__dict__["item_queries"] = [[] for _ in range(120)]
    with_user, without_user = (MEASURES["model"](one, variant) for one in (known, new))
    assert np.array_equal(with_user["Rele@100_w"].values, without_user["Rele@100_w"].values)
    assert not np.array_equal(with_user["clicks Recall@20"].values, without_user["clicks Recall@20"].values)


def test_the_experts_shares_of_users_searches_are_resampled_by_user(data: Data, experts: Path) -> None:
    run = experts / "runs" / "mrse"
    one = TrainedVariant(MRSE.from_pretrained(run), run, EvaluationSet(data))
    found = MEASURES["expert"](one, STUDIES["experts"].variants[1])
    assert one.searches is not None and found["query share"].clusters == one.searches.users
    assert found["item share"].clusters is None


@pytest.mark.parametrize("name", sorted(ISSUE - {"loss", "experts"}))
def test_every_study_writes_its_table_plot_and_entry(
    name: str, data: Data, experts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All but the trainings are real: every variant gets the same finished run."""
    trained, study = experts / "runs" / "mrse", STUDIES[name]
    model = MRSE.from_pretrained(trained)

    def taken(inputs: Inputs, folder: Path, *_: Config, **__: object) -> MRSE:
        assert (inputs.feature_column, inputs.encoder) == ("vector", "clip")
        shutil.copytree(trained, folder, copy_function=os.link)
        return model

    monkeypatch.setattr(runner, "train", taken)
    out, data_of_vectors = tmp_path / name, replace(data, feature_column="vector", encoder="clip")
    runner.run_study(study, data_of_vectors, out, few_steps(), command=f"mrse study {name}", console=QUIET)
    found = json.loads((out / "results.json").read_text("utf-8"))
    page, entry = ((out / file).read_text("utf-8") for file in ("results.md", "log-entry.md"))
    names = [variant.name for variant in study.variants]
    if study.tabulate == "categories":
        assert found["columns"] == [*names, f"best {study.axis}"] and found["rows"]
    else:
        assert found["columns"] == list(study.columns) and [row["name"] for row in found["rows"]] == names
    assert not found["missing"]
    for row in found["rows"]:
        assert f"\n| {row['name']} | " in page and f"\n| {row['name']} | " in entry
    assert study.question in page and f"`mrse study {name}`" in entry
    assert (out / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_training_figures_are_of_whole_stages(tmp_path: Path) -> None:
    lines = [
        {"stage": "vbert", "step": 0, "score": 0.1},
        {"stage": "vbert", "step": 10, "score": 0.598},
        {"stage": "vbert", "step": 20, "score": 0.6},
        {"stage": "vbert", "step": 20, "best": 0.6, "examples_per_second": 50.0},
    ]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "state").mkdir()
    torch.save({"cpu_seconds": 1.5}, tmp_path / "state" / "ft_att.pt")
    torch.save({"cpu_seconds": 40.2}, tmp_path / "state" / "vbert.pt")
    numbers, curves = stage_figures(tmp_path, ("adaptor", "ft_att", "vbert"))
    assert numbers[CPU_SECONDS] == 41.7 and numbers["steps to 99 %"] == 10.0
    assert curves == {"vbert": [[0.0, 0.1], [10.0, 0.598], [20.0, 0.6]]}


def test_rows_are_tested_against_the_row_that_they_name() -> None:
    study = STUDIES["ablation"]
    measured = {
        v.name: Measured({"nDCG@10": Values("queries", np.full(5, n / 20))}) for n, v in enumerate(study.variants)
    }
    rows = {row.name: row for row in tabulate(study, measured, "data").rows}
    assert rows["+ image"].versus == "+ n-grams" and not rows["tokens alone"].against
    assert rows["+ image"].against["nDCG@10"].difference == pytest.approx(0.05)
    assert rows["without ft_att"].against["nDCG@10"].difference == pytest.approx(4 / 20)  # against + history


def test_the_entry_holds_the_best_weight_against_none() -> None:
    measured = {
        v.name: Measured({"Recall@500": Values("queries", np.full(5, 0.9 + (v.x == 10) / 20))})
        for v in STUDIES["beta"].variants
    }
    results = tabulate(STUDIES["beta"], measured, "data")
    assert "β 10 − β 0 +0.0500 [+0.0500, +0.0500]" in results.log_entry("mrse study beta", date(2026, 1, 1))
    assert "β 5 − β 0 +0.0000 [+0.0000, +0.0000]" in results.log_entry("mrse study beta", date(2026, 1, 1))


def test_a_table_without_columns_is_refused() -> None:
    study = STUDIES["events"]
    with pytest.raises(InputError, match="none of the measures of the study 'events'"):
        tabulate(study, {study.reference: Measured({"nDCG@10": Values("queries", np.ones(3))})}, "data")


def test_r_precision_by_hand() -> None:
    # Two positives (0, 1), three judged low (2, 3, 4), two not judged (5, 6); scores are the items' first coordinate.
    items = np.array([[0.9], [0.3], [0.5], [0.1], [0.0], [0.95], [-1.0]], np.float32)
    queries = QuerySet("q", ["a"], [np.arange(5, dtype=np.int32)], [np.array([2, 2, 1, 0, 0], np.int16)], 2, np.ones(1))
    query = np.ones((1, 1), np.float32)
    assert r_precision(queries, query, items, "hard")[0] == 0.5  # 0 is first, 1 is third
    assert r_precision(queries, query, items, "easy")[0] == 0.5  # 5 is first, then 0, then 1


def test_the_three_queues_are_those_of_retrieval() -> None:
    rng = np.random.default_rng(3)

    def unit(*shape: int) -> np.ndarray:
        x = rng.normal(size=shape).astype(np.float32)
        return x / np.linalg.norm(x, axis=-1, keepdims=True)

    items = ItemVectors(unit(60, 8), unit(60, 8), unit(60, 8))
    items.image_embedding[5] = np.nan
    queries, clicked = unit(3, 8), [[4, 5, 9], [5], []]
    weights = [np.array([1.0, 0.5, 2.0], np.float32), np.ones(1, np.float32), np.zeros(0, np.float32)]
    found = three_queues(queries, items, clicked, weights, 20)
    for i, query in enumerate(queries):
        rows = clicked[i]
        parts = (items.embedding[rows], items.image_embedding[rows], items.text_feature[rows])
        known = ClickedItems([str(r) for r in rows], *parts, weights[i], np.zeros(len(rows), bool))
        own = np.argsort(-(items.embedding @ query)).tolist()
        candidates = own[:10]
        for vector, matrix in (
            (item_queue(query, known), items.embedding),
            (image_queue(query, known), np.nan_to_num(items.image_embedding)),
        ):
            if vector is not None:
                candidates += np.argsort(-(matrix @ vector))[:5].tolist()
        union = list(dict.fromkeys([*candidates, *own]))[:20]
        best = sorted(union, key=lambda row: -float(items.embedding[row] @ query))
        assert found.rows[i].tolist() == best
        assert found.scores[i] == pytest.approx((items.embedding[best] @ query).tolist(), abs=1e-5)
        assert best[:10] == own[:10], "no neighbour of a clicked item stands above what is nearer to the query"
    assert set(found.rows[0]) != set(np.argsort(-(items.embedding @ queries[0]))[:20]), "the queues bring something"


def test_less_data_is_whole_queries_and_nested(data: Data, tmp_path: Path) -> None:
    few, more = (some_queries(data, share, tmp_path / str(share)) for share in (0.2, 0.5))
    read = {name: set(_queries(d)) for name, d in (("few", few), ("more", more), ("all", data))}
    assert read["few"] < read["more"] < read["all"]
    assert some_queries(data, 1.0, tmp_path) is data
    whole = pq.read_table(data.judgments).to_pylist()
    assert pq.read_table(few.judgments).num_rows == sum(query_key(row["query"]) in read["few"] for row in whole)


def test_less_of_a_folder_of_parts_is_less_of_its_file(data: Data, tmp_path: Path) -> None:
    log, folder = pq.read_table(data.searches), tmp_path / "log"
    folder.mkdir()
    pq.write_table(log.slice(0, 90), folder / "a.parquet")
    query = log.schema.get_field_index("query")
    other = log.set_column(query, "query", log["query"].dictionary_encode())
    pq.write_table(other.slice(90), folder / "b.parquet")
    few = some_queries(data, 0.3, tmp_path / "of a file").searches
    same = some_queries(replace(data, searches=folder), 0.3, tmp_path / "of a folder").searches
    assert pq.read_table(few).to_pylist() == pq.read_table(same).to_pylist() != []


def _queries(data: Data) -> list[str]:
    paths = [path for path in (data.judgments, data.searches) if path]
    return [query_key(q) for path in paths for q in pq.read_table(path, columns=["query"])["query"].to_pylist()]


def test_what_a_study_lacks_is_named(data: Data, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="needs a search log"):
        check(STUDIES["history"], replace(data, searches=None), tmp_path, QUIET)
    with pytest.raises(InputError, match="nothing to learn from"):
        check(STUDIES["loss"], replace(data, searches=None, judgments=None), tmp_path, QUIET)
    searches, once = pq.read_table(data.searches), tmp_path / "once.parquet"
    users = pa.array([f"user {row}" for row in range(searches.num_rows)])
    pq.write_table(searches.set_column(searches.schema.get_field_index("user_id"), "user_id", users), once)
    for name in ("events", "history"):
        assert check(STUDIES[name], data, tmp_path, QUIET) == data
        with pytest.raises(InputError, match="this log has none"):
            check(STUDIES[name], replace(data, searches=once), tmp_path, QUIET)
    clicks = tmp_path / "clicks.parquet"
    pq.write_table(pq.read_table(data.searches).drop_columns(["carted", "ordered"]), clicks)
    (tmp_path / "judgments_val.parquet").touch()  # the sample is there already
    assert check(STUDIES["events"], replace(data, searches=clicks), tmp_path, QUIET).items == tmp_path / "items.parquet"


def test_the_command_lists_and_refuses() -> None:
    cli = CliRunner()
    listed = cli.invoke(app, ["study", "list"])
    assert listed.exit_code == 0 and all(name in listed.output for name in ISSUE)
    for arguments, problem in (
        (["nonsense"], "unknown study"),
        (["beta", "--items", "x"], "no queries to measure on"),
        (["beta", "--features", "x"], "--features needs a catalogue of your own"),
    ):
        failed = cli.invoke(app, ["study", *arguments])
        assert isinstance(failed.exception, InputError) and problem in str(failed.exception)


def test_the_command_passes_on_column_and_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Data] = []

    def stop(_: Study, data: Data, *__: object, **___: object) -> None:
        seen.append(data)
        raise InputError("enough")

    monkeypatch.setattr(runner, "run_study", stop)
    files = ["--items", "i", "--validation-judgments", "v", "--features", "f"]
    CliRunner().invoke(app, ["study", "beta", *files, "--feature-column", "vector", "--encoder", "clip"])
    assert seen == [Data(Path("i"), Path("v"), features=Path("f"), feature_column="vector", encoder="clip")]
