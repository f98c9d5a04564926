"""What a stage of training is: batches, a loss and a dev score, which the loop asks for (mrse_model.training.loop)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from torch import Tensor, nn

from mrse_model.config import StageConfig
from mrse_model.training.frozen_vectors import FrozenVectors
from mrse_model.training.loop import Losses, StageResult, fit, keep_clearly_higher
from mrse_model.training.run_folder import Run

Encode = Callable[[Any], Tensor]  # indices in a batch (an int array or a slice) → the vectors of what stands there


class Stage:
    """One stage of training over a corpus.

    name: of its settings (config.train.NAME), of its state in the run's folder, and of its lines in the log.
    stops_after: the step to stop after, and to keep, where something other than the dev queries has decided it.
    """

    name: str
    stops_after: int | None = None

    def __init__(self, run: Run, vectors: FrozenVectors) -> None:
        self.run, self.vectors = run, vectors
        self.model, self.corpus, self.config = vectors.model, vectors.corpus, vectors.config
        self.settings: StageConfig = getattr(self.config.train, self.name)

    @property
    def modules(self) -> nn.Module:
        """What it trains. The names of its parts are those in the stage's state: keep them."""
        raise NotImplementedError

    @property
    def steps_per_epoch(self) -> int:
        return self.corpus.examples.steps(self.settings.batch)

    def batches(self, epoch: int, skip: int) -> Iterator[np.ndarray]:
        """The epoch's batches from number `skip` on, the same ones at every call."""
        return self.corpus.examples.batches(self.settings.batch, self.config.train.seed, epoch, skip)

    def loss(self, batch: np.ndarray, rng: np.random.Generator) -> Losses:
        """The loss of a batch, in training mode, and its terms for the log. rng: of this step alone."""
        raise NotImplementedError

    def score(self) -> float | np.ndarray:
        """The dev score, or each dev query's [Q], in evaluation mode."""
        raise NotImplementedError

    def keep(self, now: np.ndarray, kept: np.ndarray, step: int) -> bool:
        """Whether a dev score replaces the one that is kept, of an earlier step."""
        return keep_clearly_higher(now, kept, step)

    def gives_up(self, best_step: int) -> bool:
        """Asked after each later score: whether more steps are not worth their time. best_step: of what is kept."""
        return False

    def evaluated(self, step: int) -> None:
        """Called by the main process after each score."""

    def watch(self) -> None:
        """Called after each later score: warns of what looks wrong (mrse_model.training.diagnostics)."""

    def train(self) -> StageResult | None:
        """Trains it, or reads it back where it is trained. None where there is nothing to train."""
        return fit(self.run, self)
