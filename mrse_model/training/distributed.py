"""One training, one or several processes (a GPU each): who computes what, through accelerate.

    accelerate launch --num_processes 4 -m mrse_cli.main train items.parquet …

Every process reads the same global batch and draws the same negatives, but encodes only its share of the texts. The
vectors are then gathered *with their gradient*, so the loss has all of the batch's negatives, and losses and steps are
those of one process with the same batch (dropout's masks apart). The main process alone writes files; the others read
them, so the run's folder is on a disk that all of them see. One process alone pays for none of this.
"""

from __future__ import annotations

import atexit
from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import broadcast, gather, reduce
from torch import Tensor, nn


class Processes:
    """The processes that train together, as `accelerate launch` (or torchrun) started them; else this one alone.

    device: where this process computes. main: whether it is the one that writes.
    """

    def __init__(self) -> None:
        # The others wait while the main one reads and prepares the data, which may take hours.
        state = PartialState(cpu=not torch.cuda.is_available(), timeout=timedelta(days=1))
        self.device: torch.device = state.device
        self.rank, self.world, self.main = state.process_index, state.num_processes, state.is_main_process
        self._state = state
        if self.world > 1:
            atexit.register(state.destroy_process_group)

    @property
    def unused(self) -> int:
        """GPUs of this machine that one process alone leaves idle."""
        return max(0, torch.cuda.device_count() - 1) if self.world == 1 else 0

    def wait(self) -> None:
        """Returns when all processes are here."""
        self._state.wait_for_everyone()

    def wait_for_main(self) -> None:
        """In the main process nothing; the others wait until it says `main_is_ready`, and find its files."""
        if not self.main:
            self.wait()

    def main_is_ready(self) -> None:
        """Ends the others' `wait_for_main`."""
        if self.main:
            self.wait()

    def shared(self, count: int, encode: Callable[[Any], Tensor]) -> Tensor:
        """encode(indices) → [len(indices), …] for all of `count` indices, each process a share of them.

        Alone, `indices` is slice(None); else an int array. All processes must call with the same count. The gradient
        of a process's own share flows through it, that of the others' in theirs: see `sum_gradients`.
        """
        if self.world == 1:
            return encode(slice(None))
        each = -(-count // self.world)
        mine = slice(self.rank * each, (self.rank + 1) * each)
        own = encode(np.resize(np.arange(count), each * self.world)[mine])  # what is missing at the end is filled up
        found = gather(own.detach()).split(each)
        return torch.cat([*found[: self.rank], own, *found[self.rank + 1 :]])[:count]

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Adds up every parameter's gradient over the processes. One that has none anywhere keeps none."""
        if self.world == 1:
            return
        known = [p for p in parameters if p.requires_grad]
        has = torch.tensor([float(p.grad is not None) for p in known], device=self.device)
        flat = [(p.grad if p.grad is not None else torch.zeros_like(p)).flatten().float() for p in known]
        *sums, used = reduce(torch.cat([*flat, has]), "sum").split([*(p.numel() for p in known), len(known)])
        for parameter, total, some in zip(known, sums, used.tolist(), strict=True):
            if some:
                parameter.grad = total.view_as(parameter).to(parameter.dtype)

    def agreed(self, values: np.ndarray) -> np.ndarray:
        """The main process's values, in all of them: what decides how the training goes on must not differ by a bit."""
        if self.world == 1:
            return values
        return np.asarray(broadcast(torch.tensor(values, dtype=torch.float64, device=self.device)).cpu())
