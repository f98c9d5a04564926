"""Stage 1, the image adaptor: in-batch softmax over pairs of items that share a query (paper §VBert), then frozen."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import nn

from mrse_model.losses import mnsce
from mrse_model.training.corpus import Dev, pool_ndcg
from mrse_model.training.frozen_vectors import FrozenVectors
from mrse_model.training.loop import Losses, StageResult
from mrse_model.training.run_folder import Run
from mrse_model.training.stages.base import Stage
from mrse_model.training.stages.contrastive import false_negative_mask

MEASURED = 20_000  # images by which the features' mean and spread are measured


class AdaptorStage(Stage):
    """Its batches are queries; a query's example is two of its items that have an image.

    On the dev queries one image of each asks for the others: dev.relevant, and asker, the item that asks.
    """

    name = "adaptor"

    def __init__(self, run: Run, vectors: FrozenVectors) -> None:
        super().__init__(run, vectors)
        self.known = self.corpus.queries.known.where(self.corpus.has_image)
        self.asking, self.training_queries = self._split()
        relevant = [self.known[row] for row in self.asking]
        self.asker = np.array([items[0] for items in relevant], np.int64)
        pool = np.unique(np.concatenate([self.corpus.dev.pool, *relevant]))
        self.dev = Dev(self.asking, self.corpus.queries.tokens[self.asking], [some[1:] for some in relevant], pool)

    def _split(self) -> tuple[np.ndarray, np.ndarray]:
        """Rows of the queries that lead to at least two items with images: those to choose weights by, which are dev
        queries, or every tenth where no dev query is one; and those to train on.
        """
        usable = np.flatnonzero(np.diff(self.known.start) > 1)
        is_dev = np.isin(usable, self.corpus.dev.rows)
        if not is_dev.any():
            is_dev[::10] = True
        return usable[is_dev], usable[~is_dev]

    @property
    def modules(self) -> nn.Module:
        assert self.model.adaptor is not None
        return self.model.adaptor

    @property
    def steps_per_epoch(self) -> int:
        # A query has several pairs: four of it an epoch.
        return max(1, 4 * len(self.training_queries) // self.settings.batch)

    def batches(self, epoch: int, skip: int) -> Iterator[np.ndarray]:
        for step in range(skip, self.steps_per_epoch):
            rng = np.random.default_rng([self.config.train.seed, epoch, step])
            yield self.training_queries[rng.integers(len(self.training_queries), size=self.settings.batch)]

    def loss(self, batch: np.ndarray, rng: np.random.Generator) -> Losses:
        first, second = self.known.sample(batch, rng), self.known.sample(batch, rng)  # rows of items [b] each
        if (keep := first != second).any():  # else an item is its own positive: a step that teaches nothing
            batch, first, second = batch[keep], first[keep], second[keep]
        both = np.concatenate([first, second])
        vectors = self.run.processes.shared(len(both), lambda at: self.vectors.adapt(both[at]))
        one, other = vectors.split(len(first))
        mask = self.vectors.put(false_negative_mask(batch, second, self.known, self.corpus.same_image))
        return {"loss": mnsce(one, other, None, mask, self.config.loss.adaptor_temperature).mean()}

    def score(self) -> float:
        dev, vectors = self.dev, self.vectors
        pool = vectors.adapt(dev.pool) * vectors.has_image[dev.pool].to(vectors.device)
        own = torch.from_numpy(np.searchsorted(dev.pool, self.asker)).to(vectors.device)
        return float(pool_ndcg(dev, vectors.adapt(self.asker), pool, without=own).mean())

    def train(self) -> StageResult | None:
        """Measures the features, trains the adaptor, and computes every item's image with it."""
        adaptor, features = self.model.adaptor, self.corpus.features
        if adaptor is None or features is None or not self.corpus.has_image.any():
            return None
        rng = np.random.default_rng(self.config.train.seed)
        some = rng.permutation(np.flatnonzero(self.corpus.has_image))[:MEASURED]
        adaptor.start(features[np.sort(some)])
        result = None
        if len(self.training_queries) >= max(1, self.settings.batch // 4):
            result = super().train()
        else:
            message = "too few items share a query to train the image adaptor: the images' projection is random"
            self.run.warn("adaptor", message)
        self.vectors.embed_images()
        adaptor.requires_grad_(False)
        return result
