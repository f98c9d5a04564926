"""Stage 1, the experts: FtAtt, Light-Bert and VBert, each trained by itself, its query vector against its item vector.

b texts, t tokens, d = dims.
"""

from __future__ import annotations

from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mrse_model.cpu_threads import uniform
from mrse_model.training.corpus import pool_ndcg
from mrse_model.training.diagnostics import check_triplet
from mrse_model.training.frozen_vectors import FrozenVectors
from mrse_model.training.loop import StageResult, keep_clearly_higher, keep_later
from mrse_model.training.run_folder import Run
from mrse_model.training.stages.base import Encode
from mrse_model.training.stages.beside_ft_att import Vectors, weights_beside
from mrse_model.training.stages.contrastive import ContrastiveStage, by_history, by_length
from mrse_model.training.teacher.table import BUCKETS


class ExpertStage(ContrastiveStage):
    """length_groups: in how many parts of like length the items of a step are encoded: less padding."""

    length_groups = 1

    def encode_queries(self, ids: Tensor, mask: Tensor) -> Tensor:
        """ids, mask [b, t] → the expert's query vectors [b, d], of unknown users."""
        raise NotImplementedError

    def encode_items(self, ids: Tensor, mask: Tensor, rows: np.ndarray) -> Tensor:
        """ids, mask [b, t] of the items `rows` [b] → the expert's item vectors [b, d]."""
        raise NotImplementedError

    def queries(self, batch: np.ndarray, rng: np.random.Generator) -> Encode:
        typed = self.corpus.as_typed(batch["query"], rng)
        return lambda at: F.normalize(self.encode_queries(*self.vectors.query_tokens(typed[at])), dim=-1)

    def items(self, rows: np.ndarray, batch: np.ndarray, rng: np.random.Generator) -> Encode:
        return partial(self._encode_rows, rows)

    def _encode_rows(self, rows: np.ndarray, at: Any) -> Tensor:
        """The items that stand at indices `at` of `rows`, [·, d], unit norm."""
        rows = rows[at]

        def encode(some: np.ndarray) -> Tensor:
            return self.encode_items(*self.vectors.item_tokens(rows[some]), rows[some])

        return F.normalize(by_length(self.corpus.item_lengths[rows], encode, self.length_groups), dim=-1)

    def score(self) -> float | np.ndarray:
        """nDCG@10 over the dev pool; the dev queries' users are unknown. With a teacher each query's."""
        dev, shared = self.corpus.dev, self.run.processes.shared
        blocks = [dev.pool[i : i + 1024] for i in range(0, len(dev.pool), 1024)]
        pool = torch.cat([shared(len(rows), partial(self._encode_rows, rows)) for rows in blocks])
        queries = F.normalize(self.encode_queries(*self.vectors.tokens(dev.tokens)), dim=-1)
        self.scored = Vectors(queries, pool)
        found = pool_ndcg(dev, queries, pool)
        return float(found.mean()) if self.corpus.taught is None else found

    def keep(self, now: np.ndarray, kept: np.ndarray, step: int) -> bool:
        return (keep_clearly_higher if self.corpus.taught is None else keep_later)(now, kept, step)


class FtAttStage(ExpertStage):
    """FtAtt and the shared n-gram projection: MNSCE. What histories read in stage 1 is then computed from it. A table
    that a teacher has started learns with the n-grams of its tokens, which are folded into it.
    """

    name, hybrid, length_groups = "ft_att", False, 4

    def __init__(self, run: Run, vectors: FrozenVectors) -> None:
        super().__init__(run, vectors)
        if self.corpus.taught is not None:
            self.settings = self.config.train.ft_att_taught

    @property
    def modules(self) -> nn.Module:
        return nn.ModuleDict({"ngrams": self.model.ngrams, "item": self.model.item.attention})

    def encode_queries(self, ids: Tensor, mask: Tensor) -> Tensor:
        return self.model.query.ft_att(self.model.ngrams, ids, mask)

    def encode_items(self, ids: Tensor, mask: Tensor, rows: np.ndarray) -> Tensor:
        return self.model.item.ft_att(self.model.ngrams, ids, mask)

    def train(self) -> StageResult | None:
        grams, alone = self.corpus.ngrams_of, self.run.processes.world == 1
        if grams is not None:
            self.model.ngrams.add_hashed(grams.start, grams.values, BUCKETS, sparse=alone)
        result = super().train()
        self.model.ngrams.fold_hashed()
        self.vectors.embed_ngrams()
        return result


class BertStage(ExpertStage):
    """A BERT, which begins with nothing or from another's weights (teacher.text_start). Beside an FtAtt that a teacher
    has started it must help: it is given up at the first score where it does not.
    """

    def gives_up(self, best_step: int) -> bool:
        return self.corpus.taught is not None and not self._helps()

    def train(self) -> StageResult | None:
        """Leaves the expert out of the model where it does not help."""
        result = super().train()
        if self.corpus.taught is not None:
            with torch.no_grad():
                self.score()
            if not self._helps():
                self.model.leave_out(self.name)
        return result

    def _helps(self) -> bool:
        weights = weights_beside(self.corpus.dev, self._ft_att, {self.name: self.scored})
        return weights[self.name][0] > 0

    @cached_property
    @torch.no_grad()
    def _ft_att(self) -> Vectors:
        model, dev = self.model, self.corpus.dev
        blocks = [self.vectors.item_tokens(dev.pool[i : i + 1024]) for i in range(0, len(dev.pool), 1024)]
        pool = torch.cat([model.item.ft_att(model.ngrams, *block) for block in blocks])
        queries = model.query.ft_att(model.ngrams, *self.vectors.tokens(dev.tokens))
        return Vectors(F.normalize(queries, dim=-1), F.normalize(pool, dim=-1))


class LightBertStage(BertStage):
    """Light-Bert: MNSCE. It does not pad (mrse_model.layers), so it needs no groups of like length."""

    name, hybrid = "light_bert", False

    @property
    def modules(self) -> nn.Module:
        return nn.ModuleDict({"query": self.model.query.light_bert, "item": self.model.item.light_bert})

    def encode_queries(self, ids: Tensor, mask: Tensor) -> Tensor:
        return self.model.query.light_bert(ids, mask)

    def encode_items(self, ids: Tensor, mask: Tensor, rows: np.ndarray) -> Tensor:
        return self.model.item.light_bert(ids, mask)


class VBertStage(BertStage):
    """VBert: text and image, the hybrid loss. The query side's image is made of the clicked items' images."""

    name, hybrid = "vbert", True

    @property
    def modules(self) -> nn.Module:
        query, item = self.model.query, self.model.item
        parts = {
            "query_text": query.vbert_text, "query_head": query.vbert, "query_images": query.image_history,
            "item_text": item.vbert_text, "item_head": item.vbert,
        }  # fmt: skip
        if item.image_residual is not None:
            parts["item_image_residual"] = item.image_residual
        return nn.ModuleDict(parts)

    def queries(self, batch: np.ndarray, rng: np.random.Generator) -> Encode:
        weight, batch = self.vectors.event_weights(batch, rng), batch.copy()
        batch["query"] = self.corpus.as_typed(batch["query"], rng)

        def encode(some: np.ndarray, weight: np.ndarray) -> Tensor:
            tokens, history = self.vectors.query_tokens(some["query"]), self.vectors.histories(some, weight)
            return F.normalize(self._encode_queries(*tokens, *history), dim=-1)

        return lambda at: by_history(encode, batch[at], weight[at])

    def encode_queries(self, ids: Tensor, mask: Tensor) -> Tensor:
        return self._encode_queries(ids, mask, *self.vectors.no_history(len(ids)))

    def _encode_queries(self, ids: Tensor, mask: Tensor, text: Tensor, image: Tensor, weight: Tensor) -> Tensor:
        """ids, mask [b, t], a history's text and image [b, h, d] and weight [b, h] → [b, d]."""
        query = self.model.query
        asked = query.ft_att(self.model.ngrams, ids, mask).detach()  # FtAtt is trained: here it only asks for images
        seen, present = query.image_history(asked, image, text, weight)
        return query.vbert(query.vbert_text(ids, mask), seen, present)

    def encode_items(self, ids: Tensor, mask: Tensor, rows: np.ndarray) -> Tensor:
        item, device = self.model.item, self.vectors.device
        present, image = self.vectors.has_image[rows].to(device), self.vectors.images[rows].to(device)
        if item.vbert.training:  # some images go missing, or it would not learn to do without
            present = present * (uniform(present) > self.config.train.modality_dropout)
        return item.vbert(item.vbert_text(ids, mask), image, present, self.vectors.image_residual(rows))

    def watch(self) -> None:
        check_triplet(self.run, self.name)
