"""kill -9 in the middle of a stage, and the same command again: the run ends as if nothing had happened."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from mrse_cli.main import main
from mrse_model.config import StageConfig, TrainConfig, preset, read_config
from mrse_model.data.examples import ExampleSettings
from mrse_model.errors import InputError
from mrse_model.images.encoders import load_encoder
from mrse_model.images.extract import extract
from mrse_model.sample.catalogue import Sample, write_sample
from mrse_model.training.claim import Inputs
from mrse_model.training.loop import Keep, Losses, fit, keep_clearly_higher, keep_later, keep_proven, uses_bf16
from mrse_model.training.pipeline import train
from mrse_model.training.run_folder import Run
from tests.helpers.small_runs import curve, settings

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    return write_sample(tmp_path_factory.mktemp("sample"), items=240, users=30, searches=300)


def command(sample: Sample, out: Path, config: Path, *more: object) -> list[str]:
    arguments = ["train", sample.items, "--searches", sample.searches, "--judgments", sample.judgments, *more]
    return list(map(str, ["-m", "mrse_cli.main", *arguments, "--out", out, "--settings", config]))


def vectors(sample: Sample, folder: Path) -> Path:
    """Vectors of their images as a user may bring them, for all items but one."""
    ids = pq.read_table(sample.items, columns=["item_id"])["item_id"].to_pylist()[1:]
    values = np.random.default_rng(0).normal(size=(len(ids), 8)).astype(np.float32)
    pq.write_table(pa.table({"item_id": ids, "vector": list(values)}), folder / "vectors.parquet")
    return folder / "vectors.parquet"


@pytest.mark.parametrize("stage", ["light_bert", "dssm"])
def test_a_killed_training_goes_on_to_the_same_loss_curve(sample: Sample, tmp_path: Path, stage: str) -> None:
    """In the fusion with vectors of images that the user brings, and the running mean of the weights."""
    fusion = replace(preset("tiny").train.dssm, max_steps=40, batch=64, extra_negatives=16, average=0.9)
    config = settings(tmp_path / "settings.toml", stage == "dssm", **({"dssm": fusion} if stage == "dssm" else {}))
    more = ("--feature-column", "vector", "--features", vectors(sample, tmp_path)) if stage == "dssm" else ()
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    subprocess.run([sys.executable, *command(sample, whole, config, *more)], cwd=ROOT, check=True, capture_output=True)
    killed = subprocess.Popen(
        [sys.executable, *command(sample, cut, config, *more)],
        cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    state = cut / "state" / f"{stage}.pt"
    while not state.exists() and killed.poll() is None:
        time.sleep(0.002)
    killed.send_signal(signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
    spent = torch.load(state, weights_only=True)["cpu_seconds"]
    assert 1 < len(curve_of_complete_lines(cut)) < len(curve(whole))
    # What was logged after the checkpoint comes again, and a line may be cut short.
    with open(cut / "log.jsonl", "a", encoding="utf-8") as log:
        log.write(f'{{"stage": "{stage}", "step": 30, "score": 9.0}}\n{{"stage": "{stage[:5]}')
    repeated = [sys.executable, *command(sample, cut, config, *more)]
    again = subprocess.run(repeated, cwd=ROOT, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert "ft_att: already trained" in again.stdout and f"{stage}: resumes at step" in again.stdout
    assert [r.keys() for r in curve(cut)] == [r.keys() for r in curve(whole)]
    for ours, theirs in zip(curve(cut), curve(whole), strict=True):
        assert ours == pytest.approx(theirs, abs=1e-6)
    ours, theirs = load_file(cut / "model.safetensors"), load_file(whole / "model.safetensors")
    assert all(torch.allclose(ours[name], theirs[name], atol=1e-6) for name in theirs)
    meta = json.loads((cut / "meta.json").read_text("utf-8"))["training"]
    assert meta["cpu_seconds"][stage] > spent > 0, "what was spent before the kill counts"
    warnings = (cut / "report.md").read_text("utf-8").split("## Warnings\n\n")[1].strip().splitlines()
    assert warnings == [f"- {message}" for message in meta["warnings"] or ["none"]]


def test_a_finished_run_is_left_as_it_is(sample: Sample, tmp_path: Path) -> None:
    brief = StageConfig(max_steps=2, batch=32, extra_negatives=4)
    stages = {name: brief for name in ("ft_att", "light_bert", "vbert", "dssm")}
    config, out = read_config(settings(tmp_path / "settings.toml", **stages)), tmp_path / "run"
    inputs = Inputs(sample.items, sample.searches, sample.judgments)
    model = train(inputs, out, config, Console(quiet=True), tensorboard=True)
    written = {folder.name for folder in (out / "tensorboard").iterdir()}
    assert written >= {"ft_att", "light_bert", "vbert", "dssm"}, "asked for by a flag"
    model.meta["metrics"] = {"nDCG@10": 0.5}  # as mrse evaluate leaves them
    model.save_pretrained(out)
    before = {path: path.read_bytes() for path in (out / "meta.json", out / "log.jsonl", out / "report.md")}
    again = train(inputs, out, config, Console(quiet=True))
    assert again.meta["metrics"] == {"nDCG@10": 0.5}
    assert before == {path: path.read_bytes() for path in before}


def curve_of_complete_lines(folder: Path) -> list[str]:
    return [line for line in (folder / "log.jsonl").read_text("utf-8").splitlines() if line.endswith("}")]


class Stopped(Exception):
    pass


@dataclass
class OneStage:
    """A stage made of functions."""

    name: str
    settings: StageConfig
    modules: nn.Module
    steps_per_epoch: int
    batches: Callable[[int, int], Iterable[Any]]
    loss: Callable[[Any, np.random.Generator], Losses]
    score: Callable[[], float | np.ndarray]
    keep: Keep = keep_clearly_higher
    stops_after: int | None = None
    evaluated: Callable[[int], None] = lambda step: None

    def watch(self) -> None:
        pass

    def gives_up(self, best_step: int) -> bool:
        return False


def line_fit(
    folder: Path, train: TrainConfig, stage: StageConfig, stop_at: int = 0, rate: float = 1.0, run: Run | None = None,
    **others: Any,
) -> nn.Linear:  # fmt: skip
    """Fits y = 3 x with dropout; raises Stopped at step `stop_at`, as a kill would."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(1, 8), nn.Dropout(0.5), nn.Linear(8, 1))
    steps = [0]

    def batches(epoch: int, skip: int) -> list[np.ndarray]:
        return [np.random.default_rng([epoch, n]).random((4, 1)).astype(np.float32) for n in range(skip, 7)]

    def loss(batch: np.ndarray, rng: np.random.Generator) -> Losses:
        steps[0] += 1
        if steps[0] == stop_at:
            raise Stopped
        x = torch.from_numpy(batch)
        return {"loss": rate * (module(x) - 3 * x).square().mean() + 0 * float(rng.random())}

    def score() -> float:
        return 1 / (1 + float((module(torch.ones(1, 1)) - 3).abs()))

    fit(
        run or Run(folder, train, Console(quiet=True)),
        OneStage("line", stage, module, 7, batches, loss, score, **others),
    )
    return module[0]


@pytest.mark.parametrize("steps, scored", [(0, [0]), (20, [0, 10, 20]), (99, [0, 10, 20, 30, 40, 45])])
def test_it_stops_where_it_is_told_on_the_way_of_the_whole(tmp_path: Path, steps: int, scored: list[int]) -> None:
    train, stage, seen = TrainConfig(evaluate_every=10), StageConfig(lr=0.02, max_steps=45, epochs=100), []
    line_fit(tmp_path / "whole", train, stage)
    line_fit(tmp_path / "part", train, stage, stops_after=steps, keep=lambda *_: True, evaluated=seen.append)
    part, whole = ([row for row in curve(tmp_path / name) if "best" not in row] for name in ("part", "whole"))
    assert seen == scored and part == whole[: len(scored)]
    assert torch.load(tmp_path / "part" / "state" / "line.pt", weights_only=True)["best_step"] == scored[-1]


@pytest.mark.parametrize("stop_at", [1, 2, 11, 30, 31])
def test_wherever_it_stops_it_goes_on_alike(tmp_path: Path, stop_at: int) -> None:
    train, stage = TrainConfig(evaluate_every=10), StageConfig(lr=0.02, max_steps=45, epochs=100)
    whole = line_fit(tmp_path / "whole", train, stage)
    with pytest.raises(Stopped):
        line_fit(tmp_path / "cut", train, stage, stop_at)
    part = line_fit(tmp_path / "cut", train, stage)
    assert curve(tmp_path / "cut") == curve(tmp_path / "whole")
    assert torch.equal(whole.weight, part.weight)
    line_fit(tmp_path / "cut", train, stage)
    assert curve(tmp_path / "cut") == curve(tmp_path / "whole"), "a finished stage is not logged again"


def test_tensorboard_shows_a_step_once_where_a_run_was_cut_off(tmp_path: Path) -> None:
    train, stage = TrainConfig(evaluate_every=10), StageConfig(lr=0.02, max_steps=45, epochs=100)
    for stop_at in (33, 0):  # killed after the checkpoint at 30
        run = Run(tmp_path, train, Console(quiet=True), tensorboard=True)
        with pytest.raises(Stopped) if stop_at else nullcontext():
            line_fit(tmp_path, train, stage, stop_at, run=run)
        if stop_at:
            run.log("line", 40, score=0.5)  # an evaluation that no checkpoint followed
        run.close()
    shown = EventAccumulator(str(tmp_path / "tensorboard" / "line")).Reload().Scalars("score")
    logged = [(row["step"], row["score"]) for row in curve(tmp_path) if "score" in row]
    assert [e.step for e in shown] == [step for step, _ in logged]
    assert [e.value for e in shown] == pytest.approx([score for _, score in logged], abs=1e-5)


def test_patience_counts_over_a_stop(tmp_path: Path) -> None:
    """With a learning rate of 0 no evaluation is better than the first: it stops after `patience` of them in all."""
    train, stage = TrainConfig(evaluate_every=2, patience=3), StageConfig(lr=0.0, max_steps=50, epochs=100)
    with pytest.raises(Stopped):
        line_fit(tmp_path, train, stage, stop_at=4)
    line_fit(tmp_path, train, stage)
    assert max(row["step"] for row in curve(tmp_path)) == 6


def step_kept(folder: Path, scores: list[np.ndarray], stop_at: int = 0) -> int:
    """The evaluation whose weights a stage ends with, one a step from the start on, with these scores."""
    module, taken = nn.Linear(1, 1, bias=False), [0]

    def loss(batch: list[int], rng: np.random.Generator) -> Losses:
        if stop_at and batch[0] + 1 == stop_at:
            raise Stopped
        with torch.no_grad():
            taken[0] = batch[0] + 1
            module.weight.fill_(float(taken[0]))
        return {"loss": module.weight.sum() * 0}

    def score() -> np.ndarray:
        return scores[round(module.weight.item())]

    with torch.no_grad():
        module.weight.zero_()
    steps = len(scores) - 1
    train, stage = TrainConfig(evaluate_every=1, patience=9), StageConfig(max_steps=steps, epochs=1, lr=0.0)
    numbers = OneStage("numbers", stage, module, steps, lambda _, skip: [[n] for n in range(skip, steps)], loss, score)
    fit(Run(folder, train, Console(quiet=True)), numbers)
    return round(module.weight.item())


@pytest.mark.parametrize(
    ("keep", "now", "kept", "replaced"),
    [
        (keep_proven, [0.6, 0.3], [0.4, 0.4], False),  # 0.05 with an error of 0.11: the start stays
        (keep_proven, [0.5, 0.6], [0.4, 0.4], True),
        (keep_proven, [0.3, 0.3], [0.4, 0.4], False),
        (keep_later, [0.6, 0.1], [0.4, 0.4], True),  # 0.05 worse with an error of 0.18: the later one
        (keep_later, [0.3, 0.3], [0.4, 0.4], False),
        (keep_later, [0.5, 0.4], [0.4, 0.4], True),
    ],
)
def test_what_replaces_the_weights_that_are_kept(
    keep: Keep, now: list[float], kept: list[float], replaced: bool
) -> None:
    assert keep(np.array(now), np.array(kept), 0) == replaced


@pytest.mark.parametrize("stop_at", [0, 3, 4])
@pytest.mark.parametrize(
    ("scores", "kept"),
    [
        ([[0, 0], [0.5, 0.5], [0.9, 0.2], [0.5, 0.5]], 1),  # 0.05 better, with an error of 0.25: level
        ([[0, 0], [0.5, 0.5], [0.6, 0.5], [0.9, 0.9]], 3),  # 0.05 with an error of 0.035, then more
        ([[0, 0], [0.5, 0.5], [0.51, 0.51], [0.52, 0.51]], 3),  # little, and the same for all
        ([[0, 0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]], 1),  # no better at all
        ([[0.4, 0.4], [1.0, 0.0], [0.4, 0.4], [0.4, 0.4]], 1),  # the start is not kept for being level
        ([[0.4], [0.5], [0.51], [0.50]], 2),  # one number has no error
    ],
)
def test_of_ties_the_earliest_is_kept(tmp_path: Path, scores: list[list[float]], kept: int, stop_at: int) -> None:
    evaluations = [np.array(row) for row in scores]
    if stop_at and stop_at < len(evaluations):
        with pytest.raises(Stopped):
            step_kept(tmp_path, evaluations, stop_at)
    assert step_kept(tmp_path, evaluations) == kept


def test_a_loss_that_is_no_number_ends_the_run(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"the loss is nan.*Lower the learning rate"):
        line_fit(tmp_path, TrainConfig(evaluate_every=2), StageConfig(max_steps=9), rate=float("nan"))


def test_the_running_mean_of_the_weights_is_kept(tmp_path: Path) -> None:
    """One weight that jumps between 0 and 2 ends as their mean, about 1, and what is evaluated is that mean."""
    module, seen = nn.Linear(1, 1, bias=False), list[float]()

    def loss(batch: list[int], rng: np.random.Generator) -> Losses:
        with torch.no_grad():
            module.weight.fill_(2.0 * (batch[0] % 2))
        return {"loss": module.weight.sum() * 0}

    def score() -> float:
        seen.append(module.weight.item())
        return float(len(seen))

    run = Run(tmp_path, TrainConfig(evaluate_every=100, bf16="off"), Console(quiet=True))
    stage = StageConfig(batch=2, max_steps=400, min_steps=400, average=0.99)
    fit(run, OneStage("jumps", stage, module, 400, lambda _, skip: ([n] for n in range(skip, 400)), loss, score))
    assert module.weight.item() == seen[-1] == pytest.approx(1.0, abs=0.02)


def test_bf16_where_the_processor_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    assert [uses_bf16(setting, cpu) for setting in ("auto", "on", "off")] == [False, True, False]
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    assert [uses_bf16(setting, cpu) for setting in ("auto", "on", "off")] == [True, True, False]


def test_bf16_on_a_gpu_that_has_it_and_not_on_one_that_emulates_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation)
    assert [uses_bf16(setting, torch.device("cuda")) for setting in ("auto", "on")] == [False, True]


def test_input_that_was_mended_is_taken_in_the_same_folder(sample: Sample, tmp_path: Path) -> None:
    """Nothing was made of what was wrong; what was made of right input is no other's."""
    config, out = (
        read_config(settings(tmp_path / "settings.toml", True, ft_att=StageConfig(max_steps=1))),
        tmp_path / "run",
    )
    (out / "cache" / ".examples-left").mkdir(parents=True)  # by a kill
    wrong = pq.read_table(sample.judgments).to_pylist()
    wrong[5]["item_id"] = None
    pq.write_table(pa.Table.from_pylist(wrong), tmp_path / "judgments.parquet")
    inputs = Inputs(sample.items, None, tmp_path / "judgments.parquet", features=vectors(sample, tmp_path))
    for problem, some in (
        ("row 5, field item_id", replace(inputs, feature_column="vector")),
        ("the column is missing", replace(inputs, judgments=sample.judgments)),
        ("is not a date", replace(inputs, examples=ExampleSettings(validation_from="soon"))),
    ):
        with pytest.raises(InputError, match=problem):
            train(some, out, config, Console(quiet=True), until="ft_att")
    right = replace(inputs, judgments=sample.judgments, feature_column="vector")
    train(right, out, config, Console(quiet=True), until="ft_att")
    assert not (out / "cache" / ".examples-left").exists()
    with pytest.raises(InputError, match=r"other data or settings \(data.judgments"):
        train(replace(right, judgments=sample.judgments_val), out, config, Console(quiet=True), until="ft_att")


@pytest.mark.parametrize("option", ["--searches", "--judgments", "--features"])
def test_a_file_that_is_not_there_is_named(
    sample: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    arguments = ["train", sample.items, "--out", tmp_path / "run", option, tmp_path / "typo.parquet"]
    monkeypatch.setattr(sys, "argv", ["mrse", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2 and "typo.parquet" in (error := capsys.readouterr().err) and "Traceback" not in error


def test_the_images_of_items_with_another_title_column(sample: Sample, tmp_path: Path) -> None:
    table = pq.read_table(sample.items).slice(0, 3)
    named = table.rename_columns(["name" if name == "title" else name for name in table.schema.names])
    pq.write_table(named, tmp_path / "items.parquet")
    done = extract(tmp_path / "items.parquet", tmp_path / "features.parquet", load_encoder("efficientnet-lite0", 32))
    assert done.items == 3 and done.encoded > 0
