"""One loop for every stage of training: steps, evaluations on the dev queries, checkpoint, resume, early stop.

Each step seeds its own randomness from (seed, stage, step), so a run that was killed goes on to the same loss curve. It
works as one process or as several (mrse_model/training/distributed.py).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from mrse_model.atomic_file import atomic_file
from mrse_model.config import StageConfig
from mrse_model.errors import InputError
from mrse_model.layers import Dense
from mrse_model.training.run_folder import Run

EMBEDDING_RATE = 10.0
SPARSE_RATE = 20.0  # the same for a table that starts as a teacher's, of root mean square 1
Losses = dict[str, Tensor]  # "loss" and whatever else is worth a line in the log


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


def all_steps(settings: StageConfig, steps_per_epoch: int) -> int:
    """How many steps a stage has, where nothing stops it early."""
    total = max(1, settings.min_steps, round(settings.epochs * steps_per_epoch))
    return min(total, settings.max_steps) if settings.max_steps else total


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
    """Whether the mean of the gains over the evaluation that is kept, one a dev query, is above its standard error. If
    not they tie, and the earlier one stays: the one-standard-error rule (Hastie et al. 2009, 7.10). A single gain
    has no error.
    """
    return float(gain.mean()) > float(gain.std()) / math.sqrt(len(gain))


Keep = Callable[[np.ndarray, np.ndarray, int], bool]  # scores of now and of what is kept, and its step → keep now?


def keep_clearly_higher(now: np.ndarray, kept: np.ndarray, step: int) -> bool:
    """What scores higher by more than its error, or than the start does at all."""
    return now.mean() > kept.mean() and (step == 0 or exceeds_one_standard_error(now - kept))


def keep_proven(now: np.ndarray, kept: np.ndarray, step: int) -> bool:
    """What scores higher by more than its error: the start is as good as any."""
    return now.mean() > kept.mean() and exceeds_one_standard_error(now - kept)


def keep_later(now: np.ndarray, kept: np.ndarray, step: int) -> bool:
    """What does not score lower by more than its error: where a teacher says that training helps, and the dev queries
    may be too few to tell when it is done.
    """
    return now.mean() > kept.mean() or not exceeds_one_standard_error(kept - now)


class Trainable(Protocol):
    """What `fit` asks of a stage (mrse_model.training.stages.base.Stage)."""

    name: str
    settings: StageConfig
    stops_after: int | None  # the step to stop after, where something else has decided it; the learning rate goes on

    @property
    def modules(self) -> nn.Module:
        """What is trained; asked for once."""

    @property
    def steps_per_epoch(self) -> int: ...

    def batches(self, epoch: int, skip: int) -> Iterable[Any]:
        """That epoch's batches from number `skip` on, the same ones at every call."""

    def loss(self, batch: Any, rng: np.random.Generator) -> Losses:
        """{"loss": scalar, …} of a batch; called in training mode under the step's seed."""

    def score(self) -> float | np.ndarray:
        """The dev score, higher is better, or each dev query's [Q]. Called in evaluation mode before step 0 and every
        `evaluate_every` steps.
        """

    def keep(self, now: np.ndarray, kept: np.ndarray, step: int) -> bool:
        """Whether this score replaces the one that is kept, of an earlier step; a single score has no error."""

    def gives_up(self, best_step: int) -> bool:
        """Asked after each later score: whether more steps are not worth their time. best_step: of what is kept."""

    def evaluated(self, step: int) -> None:
        """Called by the main process after each score, that before step 0 included."""

    def watch(self) -> None:
        """Called by the main process after each later score, to warn of what looks wrong."""


def fit(run: Run, stage: Trainable) -> StageResult:
    """Trains the stage's modules and leaves the best weights in them; of their running mean, where it has one.

    A finished stage is not trained again: its weights are read back from state/.
    """
    name, settings, modules, steps_per_epoch = stage.name, stage.settings, stage.modules, stage.steps_per_epoch
    train, processes = run.train, run.processes
    total = all_steps(settings, steps_per_epoch)
    last = total if stage.stops_after is None else min(total, stage.stops_after)
    path = run.folder / "state" / f"{name}.pt"
    parameters = [p for p in modules.parameters() if p.requires_grad]
    optimizers = _optimizers(modules, settings.lr)
    clipped = [p for group in optimizers[0].param_groups for p in group["params"]]
    low_precision, on_cpu = uses_bf16(train.bf16, processes.device), processes.device.type == "cpu"
    for module in modules.modules():
        if isinstance(module, Dense):
            module.low_precision = low_precision and on_cpu
    average = Average(modules, settings.average)
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
        for optimizer, stored in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(stored)
        average.values = state["average"]
        step, best, best_step = state["step"], np.array(state["scores"]), state["best_step"]
        best_weights, stale = state["best_weights"], state["stale"]
        cpu_began -= state["cpu_seconds"]
        run.console.print(f"  {name}: resumes at step {step} of {total}")
    run.truncate_log(name, step if path.is_file() else -1)

    def evaluate_dev() -> np.ndarray:
        modules.eval()
        with torch.no_grad():
            return processes.agreed(np.atleast_1d(stage.score()))

    def measure(values: dict[str, float]) -> None:
        nonlocal best, best_step, best_weights, stale
        with average.in_place():
            now = evaluate_dev()
            better = best_weights is None or stage.keep(now, best, best_step)
            if better:
                best_weights = {k: v.clone() for k, v in modules.state_dict().items()}
            run.log(name, step, score=now.mean(), **values)
            speed = f", {rate():.0f} examples/s" if seen else ""
            shown = " ".join(f"{k} {v:.4f}" for k, v in values.items())
            run.console.print(f"  {name} step {step}/{total} dev {now.mean():.4f} {shown}{speed}")
            if processes.main:
                stage.evaluated(step)
            if seen and processes.main:
                stage.watch()
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
            state |= {"weights": modules.state_dict(), "average": average.values}
            state |= {"optimizers": [optimizer.state_dict() for optimizer in optimizers]}
        with atomic_file(path) as part:
            torch.save(state, part)

    if step == 0:
        measure({})
    else:  # what an evaluation leaves behind: the vectors that the fusion keeps
        with average.in_place():
            evaluate_dev()
    sums: dict[str, Tensor] = {}  # since the last evaluation, where a checkpoint is written: it need not hold them
    for batch in _from_step(stage.batches, steps_per_epoch, step, last):
        seed = [train.seed, *name.encode(), step]
        rng = np.random.default_rng(seed)
        torch.manual_seed(int(rng.integers(2**62)) + processes.rank)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(step, total, settings.lr) * group["scale"]
        modules.train()
        with torch.autocast(processes.device.type, torch.bfloat16, enabled=low_precision and not on_cpu):
            values = stage.loss(batch, rng)
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=True)
        values["loss"].backward()
        processes.sum_gradients(parameters)
        torch.nn.utils.clip_grad_norm_(clipped, 1.0)
        for optimizer in optimizers:
            optimizer.step()
        average.add(step)
        step, seen = step + 1, seen + len(batch)
        for key, value in values.items():
            sums[key] = sums.get(key, 0.0) + value.detach().double()
        if step % train.evaluate_every == 0 or step == last:
            count = (step - 1) % train.evaluate_every + 1
            means = {k: float(v) / count for k, v in sums.items()}
            if not math.isfinite(means["loss"]):
                raise InputError(
                    f"the loss is {means['loss']}",
                    field=f"train.{name}.lr",
                    fix="Lower the learning rate, and train into another --out",
                )
            measure(means)
            sums = {}
            if stale >= train.patience:
                run.console.print(f"  {name}: no improvement in {stale} evaluations, stops early")
                break
            if stage.gives_up(best_step):
                run.console.print(f"  {name}: does not help what is trained already, stops")
                break
            save(done=False)
    modules.load_state_dict(best_weights or modules.state_dict())
    modules.eval()
    run.log(name, step, best=best.mean(), examples_per_second=rate())
    save(done=True)
    return StageResult(float(best.mean()), step, rate(), cpu_seconds())


def _optimizers(modules: nn.Module, lr: float) -> list[torch.optim.Optimizer]:
    """AdamW, and SparseAdam for tables of sparse gradients, where there are any: of a large table a step meets few
    rows, and those alone are touched.
    """
    sparse = {id(m.weight): m.weight for m in modules.modules() if isinstance(m, nn.Embedding) and m.sparse}
    dense = torch.optim.AdamW(_groups(modules, sparse), lr=lr, betas=(0.9, 0.98), weight_decay=0.01, fused=True)
    if not sparse:
        return [dense]
    group = {"params": list(sparse.values()), "scale": SPARSE_RATE}
    return [dense, torch.optim.SparseAdam([group], lr=lr)]


def _groups(modules: nn.Module, but: Collection[int] = frozenset()) -> list[dict[str, Any]]:
    """Parameters for the optimiser: embedding tables learn EMBEDDING_RATE times as fast and do not decay. but: by id.

    A word occurs in few batches, and Adam moves it by about the learning rate each time.
    """
    tables = {id(m.weight) for m in modules.modules() if isinstance(m, nn.Embedding)}
    known = [p for p in modules.parameters() if p.requires_grad and id(p) not in but]
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
