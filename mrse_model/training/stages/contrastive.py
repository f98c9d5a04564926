"""What the experts' stages and the fusion have in common: queries against items, with the hybrid loss (paper §Losses).

b examples in a batch, e extra negatives, c = b + e (+ b) columns of the softmax, d = dims.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor

from mrse_model.cpu_threads import run_parallel
from mrse_model.data.example_files import PSEUDO
from mrse_model.losses import distillation, hnst, log_q, mnsce
from mrse_model.training.loop import Losses
from mrse_model.training.ragged import Ragged
from mrse_model.training.stages.base import Encode, Stage

MIN_TOKENS = 1000  # for a thread of its own: each thread has a gradient of every weight to add up


class ContrastiveStage(Stage):
    """A stage that trains query vectors against item vectors.

    hybrid: whether the loss is alpha · MNSCE + beta · HNST, over texts and images; else it is MNSCE over texts alone.
    """

    hybrid: bool

    def queries(self, batch: np.ndarray, rng: np.random.Generator) -> Encode:
        """The encoder of the batch's queries: indices in the batch → [·, d], unit norm. What is random is drawn now."""
        raise NotImplementedError

    def items(self, rows: np.ndarray, batch: np.ndarray, rng: np.random.Generator) -> Encode:
        """The encoder of these items, of which the first b are the batch's targets: indices in `rows` → [·, d]."""
        raise NotImplementedError

    def loss(self, batch: np.ndarray, rng: np.random.Generator) -> Losses:
        settings, corpus, size = self.config.loss, self.corpus, len(batch)
        encode_queries = self.queries(batch, rng)

        # ---- Columns: rows of the items that every query is compared with.
        # target [b]: the item of each example, on the diagonal the positive. extra [e]: drawn from the whole catalogue.
        # hard [b]: one judged low grade of each query, -1 where it has none (item 0 then stands there, masked).
        target = batch["target_item"].astype(np.int64)
        extra = rng.integers(len(corpus), size=self.settings.extra_negatives)
        hard = corpus.queries.hard.sample(batch["query"], rng) if self.hybrid and settings.beta else None
        parts = [target, extra] + ([np.maximum(hard, 0)] if hard is not None else [])
        columns = np.concatenate(parts)

        # A column that is a known positive of a query, or cannot be told from one, is no negative of it: bool [b, c].
        same = corpus.same_item if self.hybrid else corpus.same_text  # the stages of the hybrid loss read images, too
        false_negatives = false_negative_mask(batch["query"], columns, corpus.queries.known, same)

        # ---- One forward for all of them: query [b, d], items [c, d].
        query, items = self._encode(batch, encode_queries, columns, self.items(columns, batch, rng))
        target_vectors, extra_vectors, *hard_vectors = items.split([len(part) for part in parts])
        total, terms = torch.zeros((), device=query.device), Losses()

        # ---- MNSCE: softmax over the columns, [b] → scalar.
        if settings.alpha or not self.hybrid:
            # The hard negatives are encoded anyway, so all of the batch's stand in every query's softmax; not with
            # logQ, which needs to know how often an item is drawn.
            further = hard_vectors if settings.hard_in_softmax and not settings.log_q else []
            negatives = torch.cat([extra_vectors, *further])
            mask = false_negatives[:, : size + len(negatives)].copy()
            if hard is not None and further:
                mask[:, size + len(extra) :] |= hard < 0
            correction = None
            if settings.log_q:
                counts = torch.from_numpy(corpus.counts[columns[: mask.shape[1]]].astype(np.float32)).clamp_min(0.5)
                total_count = float(corpus.counts.sum())
                correction = log_q(counts, total_count, len(corpus), size, len(extra)).to(query.device)
            masked = self.vectors.put(mask)
            cross = mnsce(query, target_vectors, negatives, masked, settings.temperature, correction)  # [b]
            terms["mnsce"] = cross.mean()
            if corpus.taught is not None:
                # The teacher's cosines of the same pairs; by how much the two terms count for each example.
                contrast, distil = (
                    x.to(query.device) for x in corpus.taught.weights(batch["kind"] == PSEUDO, settings)
                )
                taught = corpus.taught.cosines(batch["query"], columns[: mask.shape[1]]).to(query.device)
                apart = distillation(query, items[: mask.shape[1]], taught, masked, settings.temperature)
                cross, terms["distil"] = contrast * cross, apart.mean()
                total = total + (distil * apart).mean()
            total = total + (settings.alpha if self.hybrid else 1) * cross.mean()

        # ---- HNST: each query's target against its own hard negative, the mean over the queries that have one.
        if hard is not None:
            # A hard negative that cannot be told from a positive is left out: no margin can be kept from it.
            usable = (hard >= 0) & ~false_negatives[:, -size:].diagonal()
            has = self.vectors.put(usable.astype(np.float32))
            triplets = hnst(query, target_vectors, hard_vectors[0], has, settings.margin)
            triplet = triplets.sum() / has.sum().clamp_min(1)
            total, terms["hnst"] = total + settings.beta * triplet, triplet
            terms["hnst_share"] = settings.beta * triplet.detach() / total.detach().clamp_min(1e-6)
        return {"loss": total, **terms}

    def _encode(self, batch: np.ndarray, queries: Encode, rows: np.ndarray, items: Encode) -> tuple[Tensor, Tensor]:
        """The vectors of the batch's queries [b, d] and of the items in `rows` [c, d]: by the processes, or by this
        one's threads.

        A thread takes the queries, or items of like length: of each about as many tokens as of another.
        """
        processes, corpus = self.run.processes, self.corpus
        lengths = corpus.item_lengths[rows]
        tokens = int((corpus.query_tokens[batch["query"]] != 0).sum() + lengths.sum())
        threads = min(torch.get_num_threads(), tokens // MIN_TOKENS)
        if threads < 2 or self.vectors.device.type != "cpu" or processes.world > 1:
            return processes.shared(len(batch), queries), processes.shared(len(rows), items)
        order = np.argsort(-lengths, kind="stable")  # the longest first
        thread = (lengths[order].cumsum() - 1) * threads // tokens
        parts = np.split(order, np.flatnonzero(np.diff(thread)) + 1)
        jobs = [partial(queries, slice(None)), *(partial(items, part) for part in parts)]
        query, *found = run_parallel(jobs, self.model.parameters())
        return query, torch.cat(found)[torch.from_numpy(order.argsort())]


def by_history(encode: Callable[[np.ndarray, np.ndarray], Tensor], batch: np.ndarray, weight: np.ndarray) -> Tensor:
    """encode(examples, their events' weights), those with histories of like length together: most have none."""
    return by_length((weight > 0).sum(1), lambda some: encode(batch[some], weight[some]))


def by_length(lengths: np.ndarray, encode: Callable[[np.ndarray], Tensor], parts: int = 4) -> Tensor:
    """encode(indices) of rows of like length together, back in their order: a batch is padded to its longest row, and
    titles' lengths differ so much that one batch of all would be half padding."""
    order = np.argsort(lengths, kind="stable")
    found = torch.cat([encode(some) for some in np.array_split(order, min(parts, len(order)))])
    return found[torch.from_numpy(np.argsort(order)).to(found.device)]


def false_negative_mask(queries: np.ndarray, items: np.ndarray, known: Ragged, same: np.ndarray) -> np.ndarray:
    """Which columns are no negatives of which query: the query's known positives and what is the same as one of them,
    wherever they stand. queries [b], items [c] → bool [b, c].

    same: for each item of the catalogue the first that cannot be told from it (corpus.duplicates). A batch's own target
    is known too, so the same item under the same query again is masked as well.
    """
    items = same[items]
    # Each positive finds its columns by binary search in the sorted items: `left` to `right` of each, in `order`.
    order = np.argsort(items, kind="stable")
    ordered = items[order]
    positives, row = known.rows(queries)
    left, right = (np.searchsorted(ordered, same[positives], side) for side in ("left", "right"))
    out = np.zeros((len(queries), len(items)), bool)
    for shift in range(int((right - left).max(initial=0))):  # the same item stands there a few times at most
        there = left + shift < right
        out[row[there], order[left[there] + shift]] = True
    return out
