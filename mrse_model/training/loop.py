"""One loop for every stage of training: steps, a look at the dev score once in a while, checkpoint, resume, early stop.

Each step seeds its own randomness from (seed, stage, step), so a run that was killed goes on to the same loss curve. It
works as one process or as several (mrse_model/training/distributed.py).
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch import Tensor, nn

from mrse_model.atomic_file import atomic_file
from mrse_model.config import StageConfig, TrainConfig
from mrse_model.errors import InputError
from mrse_model.layers import Dense
from mrse_model.training.distributed import Processes

EMBEDDING_RATE = 10.0
Losses = dict[str, Tensor]  # "loss" and whatever else is worth a line in the log


@dataclass
class Run:
    """A training run's folder: log.jsonl (one line a measurement), state/ (one file a stage), and what looks wrong.
    Only the main process writes.

    signatures: the failure signatures that show at the moment, by name, each with its warning
    (mrse_model.training.diagnostics).
    """

    folder: Path
    train: TrainConfig
    console: Console
    tensorboard: bool = False  # also writes tensorboard/STAGE
    signatures: dict[str, str] = field(default_factory=dict)
    processes: Processes = field(default_factory=Processes)
    _writers: dict[str, Any] = field(default_factory=dict)  # a SummaryWriter a stage

    def __post_init__(self) -> None:
        (self.folder / "state").mkdir(parents=True, exist_ok=True)
        if self.tensorboard:
            import_module("torch.utils.tensorboard")  # that it is missing is said now, not after the data is read

    def log(self, stage: str, step: int, **values: float) -> None:
        """Appends one line to log.jsonl."""
        if not self.processes.main:
            return
        with open(self.folder / "log.jsonl", "a", encoding="utf-8") as file:
            file.write(
                json.dumps({"stage": stage, "step": step, **{k: round(float(v), 6) for k, v in values.items()}}) + "\n"
            )
        if stage in self._writers:
            for name, value in values.items():
                self._writers[stage].add_scalar(name, value, step)
            self._writers[stage].flush()

    def truncate_log(self, stage: str, step: int) -> None:
        """Begins a stage: takes out of log.jsonl and hides in TensorBoard what a killed run wrote of it after its
        checkpoint at `step`, because it comes again. A line that the kill cut short goes, too.
        """
        if not self.processes.main:
            return
        if self.tensorboard:
            writer = import_module("torch.utils.tensorboard").SummaryWriter
            self._writers[stage] = writer(self.folder / "tensorboard" / stage, purge_step=step + 1)
        path = self.folder / "log.jsonl"
        if not path.exists():
            return
        kept = []
        for line in path.read_text("utf-8").splitlines(keepends=True):
            if line.endswith("}\n"):
                row = json.loads(line)
                if row["stage"] != stage or (row["step"] <= step and "best" not in row):
                    kept.append(line)
        with atomic_file(path) as part:
            part.write_text("".join(kept), "utf-8")

    def close(self) -> None:
        """Ends what is written for TensorBoard."""
        for writer in self._writers.values():
            writer.close()

    def rows(self, stage: str) -> list[dict[str, Any]]:
        """The lines of log.jsonl about this stage."""
        path = self.folder / "log.jsonl"
        lines = path.read_text("utf-8").splitlines() if path.exists() else []
        return [row for row in map(json.loads, lines) if row["stage"] == stage]

    def warn(self, signature: str, message: str | None) -> None:
        """Says what looks wrong with the training when it begins to; what still does is in the run's report. None: all
        is well.
        """
        before = self.signatures.pop(signature, None)
        if message is not None:
            self.signatures[signature] = message
        if message is not None and before is None:
            self.console.print(f"warning: {message}", style="yellow")
        elif message is None and before is not None:
            self.console.print(f"no longer: {before}")


@dataclass(frozen=True)
class StageResult:
    """What became of a stage: its best dev score, the steps it took, its examples a second since it last started, and
    the CPU seconds of all its steps, those before a kill included.
    """

    score: float
    steps: int
    examples_per_second: float
    cpu_seconds: float


def uses_bf16(setting: str, device: torch.device) -> bool:
    """Whether to train in bfloat16: `on`, `off`, or `auto`: where the device multiplies matrices in it.

    On a GPU by autocast; on a CPU in the BERTs' dense layers alone (packing.Dense), a quarter less time a step.
    """
    if device.type == "cuda":
        has = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        has = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return setting == "on" or (setting == "auto" and has)


def learning_rate(step: int, steps: int, top: float) -> float:
    """Linear warm-up over the first twentieth, then a cosine to a twentieth of the top."""
    warm = max(1, steps // 20)
    if step < warm:
        return top * (step + 1) / warm
    return top * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm))))


class Average:
    """The running mean of a module's weights over the last 1 / (1 - decay) steps: what the last batches happened to be
    does not show in it (Izmailov et al. 2018). decay 0: the weights themselves.
    """

    def __init__(self, modules: nn.Module, decay: float) -> None:
        self.decay = decay
        self._weights = [p for p in modules.parameters() if p.requires_grad] if decay else []
        self.values = [p.detach().clone() for p in self._weights]

    @torch.no_grad()
    def add(self, step: int) -> None:
        """Takes in the weights after this step; the first ones count more, or the start would stay in the mean."""
        if self._weights:
            decay = min(self.decay, (1 + step) / (10 + step))
            torch._foreach_lerp_(self.values, [p.detach() for p in self._weights], 1 - decay)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Within the block the modules' weights are the mean."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for weight, mean in zip(self._weights, self.values, strict=True):
            kept = weight.clone()
            weight.copy_(mean)
            mean.copy_(kept)


def exceeds_one_standard_error(gain: np.ndarray) -> bool:
    """Whether the mean of a look's gains over the look that is kept, one a dev query, is above its standard error. If
    not they are level, and the earlier one stays: the one-standard-error rule (Hastie et al. 2009, 7.10). A single gain
    has no error.
    """
    return float(gain.mean()) > float(gain.std()) / math.sqrt(len(gain))


def fit(
    run: Run,
    name: str,
    stage: StageConfig,
    modules: nn.Module,
    batches: Callable[[int, int], Iterable[Any]],
    steps_per_epoch: int,
    losses: Callable[[Any, np.random.Generator], Losses],
    score: Callable[[], float | np.ndarray],
    watch: Callable[[], None] = lambda: None,
) -> StageResult:
    """Trains `modules` and leaves the best weights in them; of their running mean, where the stage has one.

    Args:
        batches: (epoch, skip) → that epoch's batches from number `skip` on, the same ones at every call.
        losses: a batch and a generator → {"loss": scalar, …}; called in training mode under the step's seed.
        score: the dev score, higher is better, or each dev query's [Q]: then a later one replaces the kept one only if
            `exceeds_one_standard_error` says so, unless that is the start. Called in evaluation mode before step 0 and
            every `evaluate_every` steps.
        watch: called by the main process after each later score, to warn of what looks wrong.

    A finished stage is not trained again: its weights are read back from state/.
    """
    train, processes = run.train, run.processes
    total = max(1, stage.min_steps, round(stage.epochs * steps_per_epoch))
    if stage.max_steps:
        total = min(total, stage.max_steps)
    path = run.folder / "state" / f"{name}.pt"
    parameters = [p for p in modules.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(_groups(modules), lr=stage.lr, betas=(0.9, 0.98), weight_decay=0.01, fused=True)
    low_precision, on_cpu = uses_bf16(train.bf16, processes.device), processes.device.type == "cpu"
    for module in modules.modules():
        if isinstance(module, Dense):
            module.low_precision = low_precision and on_cpu
    average = Average(modules, stage.average)
    step, best, best_step, best_weights, stale = 0, np.array([-1.0]), 0, None, 0
    began, seen = time.perf_counter(), 0
    cpu_began = time.process_time()
    processes.wait()  # the main process may have just put the file there
    if path.is_file():
        state = torch.load(path, map_location=processes.device, weights_only=True)
        if state["done"]:
            modules.load_state_dict(state["best_weights"])
            run.console.print(f"  {name}: already trained, {state['best']:.4f}")
            return StageResult(state["best"], state["step"], state["examples_per_second"], state["cpu_seconds"])
        modules.load_state_dict(state["weights"])
        optimizer.load_state_dict(state["optimizer"])
        average.values = state["average"]
        step, best, best_step = state["step"], np.array(state["scores"]), state["best_step"]
        best_weights, stale = state["best_weights"], state["stale"]
        cpu_began -= state["cpu_seconds"]
        run.console.print(f"  {name}: goes on at step {step} of {total}")
    run.truncate_log(name, step if path.is_file() else -1)

    def look() -> np.ndarray:
        modules.eval()
        with torch.no_grad():
            return processes.agreed(np.atleast_1d(score()))

    def measure(values: dict[str, float]) -> None:
        nonlocal best, best_step, best_weights, stale
        with average.in_place():
            now = look()
            better = now.mean() > best.mean() and (best_step == 0 or exceeds_one_standard_error(now - best))
            if better:
                best_weights = {k: v.clone() for k, v in modules.state_dict().items()}
            run.log(name, step, score=now.mean(), **values)
            speed = f", {rate():.0f} examples/s" if seen else ""
            shown = " ".join(f"{k} {v:.4f}" for k, v in values.items())
            run.console.print(f"  {name} step {step}/{total} dev {now.mean():.4f} {shown}{speed}")
            if seen and processes.main:
                watch()
        best, best_step, stale = (now, step, 0) if better else (best, best_step, stale + 1)

    def cpu_seconds() -> float:
        return round(time.process_time() - cpu_began, 1)

    def rate() -> float:
        return seen / max(1e-9, time.perf_counter() - began)

    def save(done: bool) -> None:
        if not processes.main:
            return
        state = {"done": done, "step": step, "best": float(best.mean()), "best_weights": best_weights, "stale": stale}
        state |= {"scores": best.tolist(), "best_step": best_step, "cpu_seconds": cpu_seconds()}
        if done:
            state |= {"examples_per_second": rate()}
        else:
            state |= {"weights": modules.state_dict(), "optimizer": optimizer.state_dict(), "average": average.values}
        with atomic_file(path) as part:
            torch.save(state, part)

    if step == 0:
        measure({})
    else:  # what a look leaves behind: the vectors that stages cache
        with average.in_place():
            look()
    sums: dict[str, Tensor] = {}  # since the last look; a checkpoint is written at a look, so it need not hold them
    for batch in _from_step(batches, steps_per_epoch, step, total):
        seed = [train.seed, *name.encode(), step]
        rng = np.random.default_rng(seed)
        torch.manual_seed(int(rng.integers(2**62)) + processes.rank)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, total, stage.lr) * group["scale"]
        modules.train()
        with torch.autocast(processes.device.type, torch.bfloat16, enabled=low_precision and not on_cpu):
            values = losses(batch, rng)
        optimizer.zero_grad(set_to_none=True)
        values["loss"].backward()
        processes.sum_gradients(parameters)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        average.add(step)
        step, seen = step + 1, seen + len(batch)
        for key, value in values.items():
            sums[key] = sums.get(key, 0.0) + value.detach().double()
        if step % train.evaluate_every == 0 or step == total:
            count = (step - 1) % train.evaluate_every + 1
            means = {k: float(v) / count for k, v in sums.items()}
            if not math.isfinite(means["loss"]):
                raise InputError(
                    f"the loss is {means['loss']}", field=f"train.{name}.lr", fix="Lower it, and give another --out"
                )
            measure(means)
            sums = {}
            if stale >= train.patience:
                run.console.print(f"  {name}: no better for {stale} looks, stops early")
                break
            save(done=False)
    modules.load_state_dict(best_weights or modules.state_dict())
    modules.eval()
    run.log(name, step, best=best.mean(), examples_per_second=rate())
    save(done=True)
    return StageResult(float(best.mean()), step, rate(), cpu_seconds())


def _groups(modules: nn.Module) -> list[dict[str, Any]]:
    """Parameters for the optimiser: embedding tables learn EMBEDDING_RATE times as fast and do not decay.

    A word occurs in few batches, and Adam moves it by about the learning rate each time.
    """
    tables = {id(m.weight) for m in modules.modules() if isinstance(m, nn.Embedding)}
    known = [p for p in modules.parameters() if p.requires_grad]
    return [
        {"params": [p for p in known if id(p) not in tables], "scale": 1.0},
        {"params": [p for p in known if id(p) in tables], "scale": EMBEDDING_RATE, "weight_decay": 0.0},
    ]


def _from_step(
    batches: Callable[[int, int], Iterable[Any]], steps_per_epoch: int, step: int, total: int
) -> Iterator[Any]:
    while step < total:
        before = step
        for batch in batches(step // steps_per_epoch, step % steps_per_epoch):
            if step >= total or (step > before and step % steps_per_epoch == 0):
                break
            yield batch
            step += 1
        if step == before:
            return
