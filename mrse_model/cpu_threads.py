"""Jobs side by side, a thread each, forward and backward: for towers of many small steps on a CPU.

torch gives its threads one layer at a time, and the layers of a small BERT are too small to be shared: a second core
gains next to nothing (dev/LOG.md). Here every thread goes through all layers with texts of its own.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor

_own = threading.local()


def generator() -> torch.Generator | None:
    """What this thread draws random numbers from; None: torch's own generator, which `torch.manual_seed` seeds.

    Threads that drew from one generator would take turns by chance, and no run could be repeated.
    """
    return getattr(_own, "generator", None)


def uniform(like: Tensor) -> Tensor:
    """Random numbers from 0 to 1 in the shape and on the device of `like`."""
    return torch.rand(like.shape, generator=generator(), device=like.device)


def run_parallel(jobs: Sequence[Callable[[], Tensor]], parameters: Iterable[Tensor]) -> list[Tensor]:
    """What each job returns, with its gradient to those of `parameters` that are trained. Jobs begin in their order.

    Seeds for the jobs' random numbers come from torch's own generator and gradients are added up in the order of the
    jobs, so that a run depends on its seed and its jobs alone.
    """
    trained = [p for p in parameters if p.requires_grad]
    return list(_SideBySide.apply(jobs, *trained))


class _SideBySide(torch.autograd.Function):
    """Every job's graph is built by the forward pass and kept for the backward pass."""

    @staticmethod
    def forward(ctx: Any, jobs: Sequence[Callable[[], Tensor]], *trained: Tensor) -> tuple[Tensor, ...]:
        graph = any(ctx.needs_input_grad)
        seeds = torch.randint(2**62, (len(jobs),)).tolist()

        def run(job: Callable[[], Tensor], seed: int) -> Tensor:
            with torch.set_grad_enabled(graph), _drawing(seed):
                return job()

        found = list(_pool(torch.get_num_threads()).map(run, jobs, seeds))
        if graph:
            ctx.found, ctx.trained = found, trained
        return tuple(some.detach() for some in found)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        def run(found: Tensor, gradient: Tensor) -> tuple[Tensor | None, ...]:
            if not found.requires_grad:
                return (None,) * len(ctx.trained)
            return torch.autograd.grad(found, ctx.trained, gradient, allow_unused=True)

        by_job = list(_pool(torch.get_num_threads()).map(run, ctx.found, gradients))
        return None, *(_sum(of_one) for of_one in zip(*by_job, strict=True))


def _sum(gradients: Sequence[Tensor | None]) -> Tensor | None:
    there = [g for g in gradients if g is not None]
    return sum(there[1:], there[0]) if there else None  # never in place: one tensor may be two weights' gradient


@contextmanager
def _drawing(seed: int) -> Iterator[None]:
    _own.generator = torch.Generator().manual_seed(seed)
    try:
        yield
    finally:
        _own.generator = None


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    """Threads that work alone: torch's own must not multiply them."""
    pool, started = ThreadPoolExecutor(threads), threading.Barrier(threads)

    def start(_: int) -> None:
        torch.set_num_threads(1)
        torch.get_num_threads()  # a thread takes the number over at its first use: not later, when it is another
        started.wait()

    list(pool.map(start, range(threads)))
    torch.set_num_threads(threads)  # what the threads set was the default of those to come
    return pool
