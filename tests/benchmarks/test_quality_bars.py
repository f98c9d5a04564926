"""The bars of the quality benchmark: what is measured is ok or short, and what is not measured is said and not ok."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

pytest.importorskip("torch")

import quality
import training_speed
from bars import Bar, verdict
from quality_bars import cpu_seconds, history_bars, report_bars, study_bars, training_bar
from quality_data import Data

from mrse_model.config import Config, ModelConfig, preset
from mrse_model.evaluation.bootstrap import Comparison, Estimate
from mrse_model.evaluation.checkpoint import MIX
from mrse_model.evaluation.personal import PersonalResult
from mrse_model.model import MRSE
from mrse_model.studies.measured import Measured, Values
from mrse_model.studies.registry import STUDIES
from mrse_model.studies.results import tabulate
from mrse_model.studies.runner import LEARNT_FROM
from mrse_model.studies.study import Data as StudyData
from mrse_model.training.claim import FORMAT, Inputs

if TYPE_CHECKING:
    from conftest import Trained

NOISE = np.random.default_rng(0).normal(0, 0.01, 50)
ADDED = [f"ablation:{name}_low" for name in ("n-grams", "image", "category", "history")]
LOSS = ["loss:hybrid_minus_mnsce_low", "loss:hybrid_minus_triplet_low"]
SAMPLE = {"sample, title"}
BETA = ["beta:best_minus_0_low", "beta:best_above_first", "beta:best_below_last"]


def test_a_bar_is_ok_short_or_not_measured(capsys: pytest.CaptureFixture[str]) -> None:
    bars = [Bar("a", 2, 2), Bar("b", 2, 2, ">"), Bar("c", 44, 45, "<="), Bar("d", None, 2, why="run it")]
    assert [bar.ok for bar in bars] == [True, False, True, False]
    assert verdict(bars) == 1 and verdict([bars[0], bars[2]]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "bar a 2.0000 2.0000 ok" and lines[1] == "bar b 2.0000 2.0000 short"
    assert lines[3] == "bar d – 2.0000 not measured (run it)"


def write(folder: Path, name: str, means: dict[str, float], data: str = "sample, title: 9 items") -> None:
    """The results of a study whose variants have these means, the same queries' noise around them."""
    measured = {
        v.name: Measured(
            {m: Values("queries", means[v.name] + NOISE * (n % 3)) for m in ("nDCG@10", "Recall@500")}, {}, {}
        )
        for n, v in enumerate(STUDIES[name].variants)
        if v.name in means
    }
    results = tabulate(STUDIES[name], measured, data)
    (folder / name).mkdir(parents=True)
    (folder / name / "results.json").write_text(results.json(), "utf-8")
    (folder / name / "study.toml").write_text(STUDIES[name].toml(StudyData(folder, folder), "", FORMAT), "utf-8")


def variants(name: str, *means: float) -> dict[str, float]:
    return dict(zip((v.name for v in STUDIES[name].variants), means, strict=False))


def test_the_studies_bars_are_read_from_their_results(tmp_path: Path) -> None:
    write(tmp_path, "ablation", variants("ablation", 0.5, 0.6, 0.7, 0.7, 0.8))
    write(tmp_path, "loss", variants("loss", 0.8, 0.7, 0.8))
    write(tmp_path, "beta", variants("beta", 0.5, 0.6, 0.7, 0.6, 0.5, 0.5, 0.5, 0.5))
    found = {bar.name: bar for bar in study_bars(tmp_path, SAMPLE)}
    assert list(found) == ADDED + LOSS + BETA
    assert [found[name].ok for name in ADDED] == [True, True, False, True]
    assert [found[name].ok for name in LOSS] == [True, False]
    assert found[ADDED[0]].value == pytest.approx(0.1, abs=0.01)
    assert found[LOSS[0]].value == pytest.approx(0.1, abs=0.01)
    assert all(found[name].ok for name in BETA) and found["beta:best_above_first"].value == 10


def test_a_best_weight_at_an_end_is_short(tmp_path: Path) -> None:
    write(tmp_path / "first", "beta", variants("beta", *np.linspace(0.8, 0.5, 8)))
    write(tmp_path / "last", "beta", variants("beta", *np.linspace(0.5, 0.8, 8)))
    first, last = (
        [bar.ok for bar in study_bars(tmp_path / end, SAMPLE) if bar.name in BETA] for end in ("first", "last")
    )
    assert first == [False, False, True] and last == [True, True, False]


def test_what_no_study_has_measured_is_not_ok(tmp_path: Path) -> None:
    write(tmp_path, "ablation", variants("ablation", 0.5, 0.6))
    write(tmp_path, "beta", variants("beta", 0.5, 0.6, 0.5))  # the rest of the grid is missing
    bars = study_bars(tmp_path, SAMPLE)
    assert [bar.name for bar in bars if bar.value is not None] == ADDED[:1]
    assert all(bar.value is None and "run: mrse study" in str(bar) for bar in study_bars(None, SAMPLE))
    assert "mrse study loss" in next(str(bar) for bar in bars if bar.name in LOSS)


def other_data(folder: Path) -> None:
    shutil.rmtree(folder)
    write(folder.parent, "loss", variants("loss", 0.8, 0.7, 0.6), "other, title: 9 items")


def learnt_from(folder: Path) -> None:
    shutil.rmtree(folder)
    write(folder.parent, "loss", variants("loss", 0.8, 0.7, 0.6), f"sample, title: 9 items, 3 {LEARNT_FROM}")


def other_version(folder: Path) -> None:
    toml = (folder / "study.toml").read_text("utf-8")
    (folder / "study.toml").write_text(toml.replace(f"version = {FORMAT}", "version = 0"), "utf-8")


def another_setting(folder: Path) -> None:
    toml = (folder / "study.toml").read_text("utf-8")
    changed = toml.replace("settings.loss.beta = 0.0", "settings.loss.beta = 1.0")
    assert changed != toml
    (folder / "study.toml").write_text(changed, "utf-8")


def another_end(folder: Path) -> None:
    toml = (folder / "study.toml").read_text("utf-8")
    changed = re.sub(r"(?m)^until = .*$", 'until = "dssm"', toml)
    assert changed != toml
    (folder / "study.toml").write_text(changed, "utf-8")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (another_end, "another version, or other variants"),
        (other_data, "other data"),
        (learnt_from, "its queries were learnt from"),
        (other_version, "another version, or other variants"),
        (another_setting, "another version, or other variants"),
        (lambda folder: (folder / "study.toml").unlink(), "another version, or other variants"),
    ],
    ids=["until", "data", "learnt", "version", "variants", "no study.toml"],
)
def test_a_study_of_something_else_does_not_count(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: Callable[[Path], None], why: str
) -> None:
    write(tmp_path, "loss", variants("loss", 0.8, 0.7, 0.6))
    assert all(bar.ok for bar in study_bars(tmp_path, SAMPLE) if bar.name in LOSS)
    change(tmp_path / "loss")
    assert all(bar.value is None for bar in study_bars(tmp_path, SAMPLE))
    assert f"does not count: {why}" in capsys.readouterr().out


def spent(image_dims: int = 0, **seconds: float) -> Any:
    config = Config(model=ModelConfig(image_dims=image_dims))
    return SimpleNamespace(config=config, meta={"training": {"cpu_seconds": seconds}})


def test_training_counts_all_but_the_extraction_of_images() -> None:
    model = spent(1280, data=600, frozen=60, vbert=1800, preference=60)
    assert cpu_seconds(model) == 1920  # the plain two-tower's budget: reading is not training
    given, extracted = (training_bar(model, "title", True, features_given=given) for given in (True, False))
    assert (given.value, extracted.value) == (42, 32) and given.ok and given.name == "title:training_minutes"
    text = training_bar(spent(0, data=600, frozen=60, vbert=2100), "title", True, features_given=False)
    assert text.value == 46 and not text.ok
    assert training_bar(model, "title", False, features_given=True).value is None


def report(**values: dict[str, float]) -> Any:
    """A report whose rankers have these means; MRSE may be 0.02 worse than the baseline."""
    names = {"mrse": "MRSE", "mix": MIX, "bm25": "BM25"}
    return {
        names[key]: SimpleNamespace(value=means.__getitem__, against={"nDCG@10": SimpleNamespace(low=-0.02)})
        for key, means in values.items()
    }


def test_the_fashion_catalogue_has_absolute_bars() -> None:
    both = report(mrse={"nDCG@10": 0.95, "Recall@100": 0.96}, mix={"nDCG@10": 0.96})
    plain = report_bars(both, "title_without_colour", absolute=True, learnt_from_judgments=True)
    assert [(bar.name.split(":")[1], bar.target, bar.ok) for bar in plain] == [
        ("nDCG@10", 0.91, True), ("Recall@100", 0.965, False), ("over_two_tower_low", 0, False),
        ("hybrid_minus_vectors", 0, True),
    ]  # fmt: skip
    full = report_bars(both, "title", absolute=True, learnt_from_judgments=True)
    assert [(bar.name, bar.target, bar.ok) for bar in full[:1]] == [("title:nDCG@10", 0.955, False)]
    assert [bar.name for bar in report_bars(both, "title", False, True)] == [bar.name for bar in full[1:]]


@pytest.mark.parametrize(("mix", "ok"), [(0.7, True), (0.6, False)])
def test_what_learnt_from_pseudo_queries_is_held_against_bm25(mix: float, ok: bool) -> None:
    found = report(mrse={"nDCG@10": 0.5}, mix={"nDCG@10": mix}, bm25={"nDCG@10": 0.65})
    (bar,) = report_bars(found, "title", absolute=False, learnt_from_judgments=False)
    assert (bar.name, bar.ok) == ("title:hybrid_minus_bm25", ok) and bar.value == pytest.approx(mix - 0.65)


def test_the_lift_of_a_history_is_relative() -> None:
    with_history, without = Estimate(3.6, 3.5, 3.7, 9), Estimate(3.3, 3.2, 3.4, 9)
    lift = Comparison(0.3, 0.2, 0.4, p=0.01, relative=0.09, relative_low=0.02, relative_high=0.1, n=9)
    found = PersonalResult(9, 9, with_history, without, lift)
    bars = history_bars(found, "title")
    assert [(bar.value, bar.target, bar.ok) for bar in bars] == [(0.09, 0.1, False), (0.02, 0, True)]
    found = replace(found, lift=replace(lift, relative=0.1, relative_low=-0.01))
    assert [bar.ok for bar in history_bars(found, "title")] == [True, False]


def test_a_history_that_cannot_be_measured_is_said() -> None:
    assert [str(bar).split(" (")[0] for bar in history_bars(None, "title")] == [
        "bar title:history_lift_recall@20 – 0.1000 not measured", "bar title:history_lift_low – 0.0000 not measured"
    ]  # fmt: skip


def test_the_command_prints_every_bar(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(trained.run, tmp_path / "runs" / "title")
    monkeypatch.setattr(quality, "train", lambda inputs, run, config, console: MRSE.from_pretrained(run))
    monkeypatch.setattr(quality, "cpu_seconds", lambda _: 0.1)  # of the plain two-tower
    monkeypatch.setattr("mrse_model.baselines.compared.minilm_folder", lambda: None)
    monkeypatch.setattr(training_speed, "installed", lambda: False)
    where = ["--data", str(trained.sample.items.parent), "--runs", str(tmp_path / "runs"), "--preset", "tiny"]
    assert quality.main([*where, "--seconds", "0.1", "--speed", "--bars"]) == 1
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("bar ")]
    assert [line.split()[1] for line in lines] == [
        *(f"title:{bar}" for bar in ("over_two_tower_low", "hybrid_minus_vectors")),
        *(f"title:{bar}" for bar in ("history_lift_recall@20", "history_lift_low")),
        *ADDED, *LOSS, *BETA, "training_pairs_per_second_ratio",
    ]  # fmt: skip
    assert lines[-1].endswith('not measured (needs: pip install "sentence-transformers[train]")')


@pytest.mark.parametrize("judgments_to_learn_from", [True, False])
def test_mrse_is_held_against_the_two_tower_of_the_same_time(
    trained: Trained,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    judgments_to_learn_from: bool,
) -> None:
    """Where it has learnt from judgments; else against BM25. Queries that it was trained on are told."""
    asked: dict[str, Any] = {}

    class Enough(Exception):
        pass

    def baselines(
        run: Path, catalogue: object, features: object, seconds: float, two_tower_seconds: float
    ) -> list[Any]:
        asked.update(seconds=seconds, two_tower_seconds=two_tower_seconds)
        return []

    def measure(*arguments: Any, folder: Path) -> None:
        asked["baseline"] = arguments[6]
        raise Enough

    monkeypatch.setattr(quality, "train", lambda inputs, run, config, console: MRSE.from_pretrained(run))
    monkeypatch.setattr(quality, "baselines", baselines)
    monkeypatch.setattr(quality, "measure", measure)
    sample = trained.sample
    judged, learn = (sample.judgments_val, sample.judgments) if judgments_to_learn_from else (sample.judgments, None)
    data = Data(sample.items, None, learn, judged, None)
    with pytest.raises(Enough):
        quality.measure_title(data, Inputs(items=sample.items), trained.run, preset("tiny"), seconds=7)
    model = MRSE.from_pretrained(trained.run)
    assert asked["seconds"] == 7 and asked["two_tower_seconds"] == cpu_seconds(model) != 7
    assert asked["baseline"] == ("plain two-tower" if judgments_to_learn_from else "BM25")
    assert ("queries were trained on with their judgments" in capsys.readouterr().out) != judgments_to_learn_from


def test_a_run_of_other_settings_is_not_measured(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(trained.run, tmp_path / "title")
    assert quality.main(["--data", str(trained.sample.items.parent), "--runs", str(tmp_path), "--preset", "base"]) == 2
    assert "begun with other data or settings" in capsys.readouterr().err


def test_pseudo_queries_have_no_studies(tmp_path: Path, trained: Trained, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copy(trained.sample.items, tmp_path / "items.parquet")
    shutil.copy(trained.sample.judgments_val, tmp_path / "judgments.parquet")
    assert quality.main(["--data", str(tmp_path), "--studies", str(tmp_path)]) == 2
    assert "Leave --studies and --speed out" in capsys.readouterr().err
