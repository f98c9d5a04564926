"""Stage 2, the fusion: history experts, VBert's heads, the n-grams and the DSSM, on the BERTs' frozen vectors.

The n-grams go on learning because they cost little and then see the images beside them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mrse_model.towers import FT
from mrse_model.training.corpus import pool_ndcg
from mrse_model.training.diagnostics import check_fusion, check_triplet
from mrse_model.training.frozen_vectors import FrozenVectors, FusionVectors
from mrse_model.training.loop import StageResult, keep_clearly_higher, keep_proven
from mrse_model.training.run_folder import Run
from mrse_model.training.stages.base import Encode
from mrse_model.training.stages.contrastive import ContrastiveStage, by_history, by_length
from mrse_model.training.stages.fusion_start import start_fusion

BLANK_QUERY_RATE = 0.02  # of the queries in training are blank: the user's history alone must do


class FusionStage(ContrastiveStage):
    """fusion: the vectors of every text, computed when the stage is made: stage 1 must be trained by then."""

    name, hybrid = "dssm", True

    def __init__(self, run: Run, vectors: FrozenVectors) -> None:
        super().__init__(run, vectors)
        self.fusion = FusionVectors(vectors)

    @property
    def modules(self) -> nn.Module:
        model, query, item = self.model, self.model.query, self.model.item
        parts = nn.ModuleDict({
            "query_history": query.history, "query_images": query.image_history, "query_head": query.vbert,
            "query_dssm": query.dssm, "item_history": item.history, "item_head": item.vbert, "item_dssm": item.dssm,
            "ngrams": model.ngrams, "item_attention": item.attention,
        })  # fmt: skip
        if item.image_residual is not None:
            parts["item_image_residual"] = item.image_residual
        return parts

    def batches(self, epoch: int, skip: int) -> Iterator[np.ndarray]:
        """Another order than stage 1's."""
        return self.corpus.examples.batches(self.settings.batch, self.config.train.seed + 1, epoch, skip)

    def queries(self, batch: np.ndarray, rng: np.random.Generator) -> Encode:
        model, query, vectors = self.model, self.model.query, self.vectors
        asked, weight = batch.copy(), vectors.event_weights(batch, rng)
        asked["query"] = self.corpus.as_typed(batch["query"], rng)
        blank = rng.random(len(batch)) < BLANK_QUERY_RATE
        asked["query"][blank & (weight.sum(1) > 0)] = self.corpus.blank_query

        def encode(some: np.ndarray, weight: np.ndarray) -> Tensor:
            ngrams = query.ft_att(model.ngrams, *vectors.query_tokens(some["query"]))  # [b, d], with their gradient
            berts = self.fusion.query_texts[some["query"].astype(np.int64), :FT].to(vectors.device)  # [b, 2, d]
            texts = torch.cat([berts, ngrams.unsqueeze(1)], 1)
            return query.fuse(texts, *vectors.histories(some, weight))

        return lambda at: by_history(encode, asked[at], weight[at])

    def items(self, rows: np.ndarray, batch: np.ndarray, rng: np.random.Generator) -> Encode:
        model, item, vectors = self.model, self.model.item, self.vectors
        texts, image, present, entries, weight = self.fusion.item_inputs(rows, batch["query"], rng)
        lengths = self.corpus.item_lengths[rows]

        def encode(at: Any) -> Tensor:
            some = rows[at]
            ngrams = by_length(lengths[at], lambda few: item.ft_att(model.ngrams, *vectors.item_tokens(some[few])))
            fresh = torch.cat([texts[at, :FT], ngrams.unsqueeze(1)], 1)  # the BERTs' as kept, FtAtt's as it is now
            return item.fuse(fresh, image[at], present[at], entries[at], weight[at], vectors.image_residual(some))

        return encode

    def score(self) -> np.ndarray:
        """What the fusion finds for each dev query, nDCG@10 [Q]: the mean of searching the items as they are and as new
        ones, which have no queries yet and take longer to learn.

        Each query's, so that of ties the earliest is kept (loop.exceeds_one_standard_error): the fusion learns by heart
        which queries led to which items, and what is not judged pays for it before the dev queries show it.
        """
        self.fusion.refresh()
        dev, vectors = self.corpus.dev, self.vectors
        asked = self.model.query.fuse(self.fusion.dev_texts, *vectors.no_history(len(dev.tokens)))
        pool = torch.cat([self.fusion.items(dev.pool[i : i + 4096]) for i in range(0, len(dev.pool), 4096)])
        known = pool_ndcg(dev, asked, pool)
        if "history" not in self.config.model.experts or not len(self.corpus.item_queries.values):
            return known
        return (known + pool_ndcg(dev, asked, vectors.text_features[dev.pool].to(vectors.device))) / 2

    def keep(self, now: np.ndarray, kept: np.ndarray, step: int) -> bool:
        """With a teacher the start is FtAtt, which is worth something: it stays unless something is better, or folds
        have said how many steps are (stages.folds).
        """
        if self.stops_after is not None:
            return True
        return (keep_clearly_higher if self.corpus.taught is None else keep_proven)(now, kept, step)

    def gives_up(self, best_step: int) -> bool:
        """With a teacher: at the first score, where the start is still the best."""
        return self.stops_after is None and self.corpus.taught is not None and best_step == 0

    def watch(self) -> None:
        check_triplet(self.run, self.name)
        check_fusion(self.run, self.fusion)

    def train(self) -> StageResult | None:
        if self.corpus.taught is not None:
            weights = start_fusion(self.fusion)
            beside = ", ".join(f"{expert} {weight:g}" for expert, weight in weights.items()) or "nothing"
            self.run.console.print(f"  starts at ft_att, and beside its weight of 1: {beside}")
        result = super().train()
        self.fusion.refresh()  # of the weights that were kept
        return result
