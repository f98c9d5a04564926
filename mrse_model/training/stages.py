"""The stages of training (Jiang et al. 2024, §Methodology and §Losses): adaptor, the three experts, fusion.

Order: FtAtt first, because what histories read of texts in stage 1 comes from its projection; then the adaptor's images
and both BERTs; then all of that is frozen and computed once a text, and the fusion trains on cached vectors.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mrse_model.config import StageConfig
from mrse_model.cpu_threads import run_parallel, uniform
from mrse_model.losses import hnst, log_q, mnsce
from mrse_model.model import MRSE
from mrse_model.serving.texts import CLS, SEP
from mrse_model.towers import FT
from mrse_model.training.dataset import Dev, Examples, Queries, Ragged, duplicates
from mrse_model.training.loop import Losses, Run, StageResult, fit

MEASURED = 20_000  # images by which the features' mean and spread are measured
Encode = Callable[[Any], Tensor]  # places in a batch → their vectors
ALONE = 1000  # tokens at least for a thread: each has a gradient of every weight to add up
COLD_ITEM_RATE = 0.2  # of the items in training have no history, as the new ones of tomorrow
ITEM_QUERY_DROPOUT = 0.3  # of an item's queries are left out in training, or they are learnt by heart (dev/LOG.md)


@dataclass
class Corpus:
    """All that training reads. item_tokens int32 [N, t]; features float32 [N, F] with NaN rows, or None.

    item_queries: per item the rows in queries that led to it. dev: queries held out to choose weights by, and the pool
    of items in which they are searched. counts: how often each item is a positive (for the logQ correction).
    """

    item_tokens: np.ndarray
    features: np.ndarray | None
    item_queries: Ragged
    queries: Queries
    examples: Examples
    dev: Dev
    counts: np.ndarray


class Stages:
    """The stages over one corpus. Vectors that are frozen after a stage are cached here as tensors.

    The model moves to the processes' device. What is cached stays in main memory, and a step's rows of it move.

    images [N, d] with zero rows, has_image [N, 1]; text_features [N, d], what a history reads of an item: in stage 1
    its mean n-gram vector, then its vector without the queries that led to it; item_query_entries [Q + 1, d];
    item_texts [N, 3, d], query_texts [Q + 1, 3, d]. The last of the queries is the blank one.

    same_text, same_image, same_item [N]: the first item of the same text, of the same image, of both. Which of
    them was clicked is no reason to push the others away.

    watch: called with the name of a stage after each look at its dev score (mrse_model.training.diagnostics).
    """

    def __init__(self, run: Run, model: MRSE, corpus: Corpus) -> None:
        self.run, self.model, self.corpus = run, model.to(run.processes.device), corpus
        self.config, self.device, self.shared = model.config, run.processes.device, run.processes.shared
        self.items = len(corpus.item_tokens)
        self.has_image = torch.zeros(self.items, 1)
        if corpus.features is not None and model.adaptor is not None:
            self.has_image = torch.from_numpy((~np.isnan(corpus.features[:, :1])).astype(np.float32))
        self.images = torch.zeros(self.items, self.config.model.dims)
        self.text_features = torch.zeros(self.items, self.config.model.dims)
        self.item_texts = self.query_texts = self.dev_texts = torch.zeros(0)
        blank = np.zeros((1, self.config.model.query_tokens), np.int64)
        blank[0, :2] = CLS, SEP
        self.query_tokens = np.concatenate([corpus.queries.tokens, blank])
        self.item_query_entries = torch.zeros(len(self.query_tokens), self.config.model.dims)
        self.led = np.zeros((0, 0), np.int32)
        self.watch: Callable[[str], None] = lambda stage: None
        self.log_q_counts = torch.from_numpy(corpus.counts.astype(np.float32))

    @cached_property
    def item_lengths(self) -> np.ndarray:
        """Tokens of each item, int64 [N]."""
        return (self.corpus.item_tokens != 0).sum(1)

    @cached_property
    def same_text(self) -> np.ndarray:
        return duplicates(self.corpus.item_tokens)

    @cached_property
    def same_image(self) -> np.ndarray:
        assert self.corpus.features is not None
        return duplicates(self.corpus.features)

    @cached_property
    def same_item(self) -> np.ndarray:
        return self.same_text if self.corpus.features is None else duplicates(self.same_text, self.same_image)

    # ---- stage 1

    def adaptor(self) -> StageResult | None:
        """Image adaptor: in-batch softmax over pairs of items that share a query (paper §VBert), then frozen."""
        model, stage = self.model, self.config.train.adaptor
        features = self.corpus.features
        if model.adaptor is None or features is None or not bool(self.has_image.any()):
            return None
        some = np.random.default_rng(self.config.train.seed).permutation(np.flatnonzero(self.has_image[:, 0].numpy()))
        model.adaptor.start(features[np.sort(some[:MEASURED])])
        has = self.has_image.numpy()[:, 0] > 0
        known = self.corpus.queries.known.where(has)
        asking, pairs = self._image_pairs(known)
        enough = len(pairs) >= max(1, stage.batch // 4)
        if not enough:
            message = "too few items share a query to train the image adaptor: the images' projection is random"
            self.run.warn("adaptor", message)
        else:
            steps = max(1, 4 * len(pairs) // stage.batch)  # a query has several pairs; draw four of it an epoch

            def batches(epoch: int, skip: int) -> Iterator[np.ndarray]:
                for step in range(skip, steps):
                    rng = np.random.default_rng([self.config.train.seed, epoch, step])
                    yield pairs[rng.integers(len(pairs), size=stage.batch)]

            def losses(queries: np.ndarray, rng: np.random.Generator) -> Losses:
                first, second = known.sample(queries, rng), known.sample(queries, rng)
                if (keep := first != second).any():  # else an item is its own positive: a step that teaches nothing
                    queries, first, second = queries[keep], first[keep], second[keep]
                both = np.concatenate([first, second])
                one, other = self.shared(len(both), lambda at: self._adapt(both[at])).split(len(first))
                mask = self._put(false_negative_mask(queries, second, known, self.same_image))
                return {"loss": mnsce(one, other, None, mask, self.config.loss.adaptor_temperature).mean()}

            # One image of each dev query asks for the others, itself left out of what it finds.
            relevant = [known[row] for row in asking]
            asker = np.array([some[0] for some in relevant], np.int64)
            pool = np.union1d(self.corpus.dev.pool, np.concatenate(relevant))
            dev = Dev(asking, self.corpus.queries.tokens[asking], [some[1:] for some in relevant], pool)

            def score() -> float:
                found = self._adapt(pool) * self.has_image[pool].to(self.device)
                own = torch.from_numpy(np.searchsorted(pool, asker)).to(self.device)
                return pool_ndcg(dev, self._adapt(asker), found, without=own).mean()

            result = fit(self.run, "adaptor", stage, model.adaptor, batches, steps, losses, score)
        with torch.no_grad():
            for start in range(0, self.items, 4096):
                rows = np.arange(start, min(start + 4096, self.items))
                self.images[rows] = self._adapt(rows).cpu() * self.has_image[rows]
        model.adaptor.requires_grad_(False)
        return result if enough else None

    def _image_pairs(self, imaged: Ragged) -> tuple[np.ndarray, np.ndarray]:
        """Rows of the queries that lead to at least two items with images: those to choose weights by, which are dev
        queries, or every tenth where no dev query is one; and those to train on. imaged: the items of each query.
        """
        usable = np.flatnonzero(np.diff(imaged.start) > 1)
        is_dev = np.isin(usable, self.corpus.dev.rows)
        if not is_dev.any():
            is_dev[::10] = True
        return usable[is_dev], usable[~is_dev]

    @cached_property
    def components(self) -> np.ndarray | None:
        """What the adaptor and the item tower read of the images, float32 [N, image_components]; without one, any.

        Taken at its first use: by then a resumed run has read back the basis that its weights were trained with. In a
        nameless file: a catalogue's images may not fit into memory.
        """
        adaptor, features = self.model.adaptor, self.corpus.features
        if adaptor is None or features is None:
            return None
        with tempfile.TemporaryFile(dir=self.run.folder) as file:
            out = np.memmap(file, np.float32, "w+", shape=(self.items, self.config.model.image_width))
        with torch.no_grad():
            for start in range(0, self.items, 4096):
                rows = slice(start, start + 4096)
                out[rows] = adaptor.components(self._put(np.nan_to_num(features[rows]))).cpu().numpy()
        return out

    def _components(self, rows: np.ndarray) -> Tensor:
        assert self.components is not None
        return self._put(np.asarray(self.components[rows]))

    def _adapt(self, rows: np.ndarray) -> Tensor:
        assert self.model.adaptor is not None
        return self.model.adaptor(self._components(rows))

    def image_residual(self, rows: np.ndarray) -> Tensor | None:
        """The item tower's own view of these items' images [b, d]; None without images."""
        return None if self.components is None else self.model.image_detail(self._components(rows))

    def ft_att(self) -> StageResult:
        """FtAtt and the shared n-gram projection: MNSCE. What histories read of items is then computed from it."""
        model = self.model
        result = self._text_expert(
            "ft_att",
            self.config.train.ft_att,
            nn.ModuleDict({"ngrams": model.ngrams, "item": model.item.attention}),
            lambda ids, mask: model.query.ft_att(model.ngrams, ids, mask),
            lambda ids, mask, rows: model.item.ft_att(model.ngrams, ids, mask),
        )
        self.refresh_cached()
        return result

    def light_bert(self) -> StageResult:
        """Light-Bert: MNSCE."""
        query, item = self.model.query.light_bert, self.model.item.light_bert
        return self._text_expert(
            "light_bert",
            self.config.train.light_bert,
            nn.ModuleDict({"query": query, "item": item}),
            query,
            lambda ids, mask, rows: item(ids, mask),
        )

    def vbert(self) -> StageResult:
        """VBert: text and image, the hybrid loss. On the query side the image is the clicked items' images."""
        model, train = self.model, self.config.train
        query, item = model.query, model.item

        def query_vector(ids: Tensor, mask: Tensor, text: Tensor, image: Tensor, weight: Tensor) -> Tensor:
            asked = query.ft_att(model.ngrams, ids, mask).detach()
            seen, present = query.image_history(asked, image, text, weight)
            return query.vbert(query.vbert_text(ids, mask), seen, present)

        def item_vector(ids: Tensor, mask: Tensor, rows: np.ndarray) -> Tensor:
            present, image = self.has_image[rows].to(self.device), self.images[rows].to(self.device)
            if item.vbert.training:
                present = present * (uniform(present) > train.modality_dropout)
            return item.vbert(item.vbert_text(ids, mask), image, present, self.image_residual(rows))

        parts = {
            "query_text": query.vbert_text, "query_head": query.vbert, "query_images": query.image_history,
            "item_text": item.vbert_text, "item_head": item.vbert,
        }  # fmt: skip
        if item.image_residual is not None:
            parts["item_image_residual"] = item.image_residual

        def query_of(batch: np.ndarray, rng: np.random.Generator) -> Encode:
            weight = self.event_weights(batch, rng)

            def encode(rows: np.ndarray, weight: np.ndarray) -> Tensor:
                return query_vector(*self._query_tokens(rows["query"]), *self.histories(rows, weight))

            return lambda at: by_history(encode, batch[at], weight[at])

        def dev_query(ids: Tensor, mask: Tensor) -> Tensor:
            return query_vector(ids, mask, *self.no_history(len(ids)))

        return self._expert("vbert", train.vbert, nn.ModuleDict(parts), query_of, dev_query, item_vector, True)

    def _text_expert(
        self,
        name: str,
        stage: StageConfig,
        modules: nn.Module,
        query: Callable[[Tensor, Tensor], Tensor],
        item: Callable[[Tensor, Tensor, np.ndarray], Tensor],
    ) -> StageResult:
        def query_of(batch: np.ndarray, rng: np.random.Generator) -> Encode:
            return lambda at: query(*self._query_tokens(batch["query"][at]))

        return self._expert(name, stage, modules, query_of, query, item, False)

    def _expert(
        self,
        name: str,
        stage: StageConfig,
        modules: nn.Module,
        query_of: Callable[[np.ndarray, np.random.Generator], Encode],
        dev_query: Callable[[Tensor, Tensor], Tensor],
        item: Callable[[Tensor, Tensor, np.ndarray], Tensor],
        hybrid: bool,
    ) -> StageResult:
        """Trains one expert of stage 1 by itself: its query vector against its item vector."""

        def encode(rows: np.ndarray) -> Tensor:
            lengths, parts = self.item_lengths[rows], 4 if name == "ft_att" else 1
            return F.normalize(
                by_length(lengths, lambda some: item(*self._item_tokens(rows[some]), rows[some]), parts), dim=-1
            )  # the BERTs need no such parts: they do not pad (mrse_model.layers)

        def vectors(rows: np.ndarray) -> Encode:
            return lambda at: encode(rows[at])

        def losses(batch: np.ndarray, rng: np.random.Generator) -> Losses:
            raw = query_of(batch, rng)
            return self._losses(batch, rng, stage, lambda at: F.normalize(raw(at), dim=-1), vectors, hybrid)

        def score() -> float:
            dev = self.corpus.dev
            blocks = (dev.pool[i : i + 1024] for i in range(0, len(dev.pool), 1024))
            pool = torch.cat([self.shared(len(rows), vectors(rows)) for rows in blocks])
            return pool_ndcg(dev, F.normalize(dev_query(*self.tokens(dev.tokens)), dim=-1), pool).mean()

        examples, seed = self.corpus.examples, self.config.train.seed
        steps = examples.steps(stage.batch)
        return fit(
            self.run, name, stage, modules,
            lambda epoch, skip: examples.batches(stage.batch, seed, epoch, skip), steps, losses, score,
            lambda: self.watch(name),
        )  # fmt: skip

    def _losses(
        self,
        batch: np.ndarray,
        rng: np.random.Generator,
        stage: StageConfig,
        queries: Encode,
        vectors: Callable[[np.ndarray], Encode],
        hybrid: bool,
    ) -> Losses:
        """MNSCE, and with `hybrid` alpha · MNSCE + beta · HNST (paper §Losses). One forward for all items of the
        step. queries: encodes the batch's. vectors: rows of items → encodes those.
        """
        settings, known = self.config.loss, self.corpus.queries.known
        same = self.same_item if hybrid else self.same_text  # the stages of the hybrid loss read images, too
        extra = rng.integers(self.items, size=stage.extra_negatives)
        positive = batch["item"].astype(np.int64)
        hard = None
        if hybrid and settings.beta:
            hard = self.corpus.queries.hard.sample(batch["query"], rng)
        rows = [positive, extra] + ([np.maximum(hard, 0)] if hard is not None else [])
        every = np.concatenate(rows)
        masked = false_negative_mask(batch["query"], every, known, same)
        query, items = self._both_towers(batch, queries, every, vectors(every))
        found = items.split([len(r) for r in rows])
        total = torch.zeros((), device=self.device)
        out: Losses = {}
        if settings.alpha or not hybrid:
            # Hard negatives are encoded anyway, so all of the batch's stand in every query's softmax; not with logQ,
            # which needs to know how often an item is drawn.
            drawn = len(rows) if settings.hard_in_softmax and not settings.log_q else 2
            columns = np.concatenate(rows[:drawn])
            mask = masked[:, : len(columns)].copy()
            if hard is not None and drawn == len(rows):
                mask[:, len(positive) + len(extra) :] |= hard < 0  # none: the row stands for item 0
            correction = None
            if settings.log_q:
                correction = log_q(
                    self.log_q_counts[columns].clamp_min(0.5), float(self.log_q_counts.sum()),
                    self.items, len(positive), len(extra),
                ).to(self.device)  # fmt: skip
            cross = mnsce(query, found[0], torch.cat(found[1:drawn]), self._put(mask), settings.temperature, correction)
            total, out["mnsce"] = total + (settings.alpha if hybrid else 1) * cross.mean(), cross.mean()
        if hard is not None:
            # What is the same as a positive is left out: no margin can be kept from it.
            low = (hard >= 0) & ~masked[:, -len(hard) :].diagonal()
            has = self._put(low.astype(np.float32))
            triplet = hnst(query, found[0], found[2], has, settings.margin).sum() / has.sum().clamp_min(1)
            total, out["hnst"] = total + settings.beta * triplet, triplet
            out["hnst_share"] = settings.beta * triplet.detach() / total.detach().clamp_min(1e-6)
        return {"loss": total, **out}

    def _both_towers(
        self, batch: np.ndarray, queries: Encode, rows: np.ndarray, items: Encode
    ) -> tuple[Tensor, Tensor]:
        """The vectors of the batch's queries and of the items in `rows`: by the processes, or by this one's threads.

        A thread takes the queries, or items of like length: of each about as many tokens as of another.
        """
        lengths = self.item_lengths[rows]
        tokens = int((self.query_tokens[batch["query"]] != 0).sum() + lengths.sum())
        threads = min(torch.get_num_threads(), tokens // ALONE)
        if threads < 2 or self.device.type != "cpu" or self.run.processes.world > 1:
            return self.shared(len(batch), queries), self.shared(len(rows), items)
        order = np.argsort(-lengths, kind="stable")
        thread = (lengths[order].cumsum() - 1) * threads // tokens
        parts = np.split(order, np.flatnonzero(np.diff(thread)) + 1)
        jobs = [partial(queries, slice(None)), *(partial(items, part) for part in parts)]
        query, *found = run_parallel(jobs, self.model.parameters())
        return query, torch.cat(found)[torch.from_numpy(order.argsort())]

    # ---- stage 2

    @torch.no_grad()
    def freeze_texts(self) -> None:
        """Computes both BERTs' vectors of every item, query and dev query once, and lists what led to each item."""
        model, size = self.model, self.config.model
        model.eval()
        self.item_texts = torch.zeros(self.items, 3, size.dims)
        for rows, ids, mask in self.item_blocks(512):
            self.item_texts[rows, :FT] = model.item.berts(ids, mask).cpu()
        self.query_texts = torch.zeros(len(self.query_tokens), 3, size.dims)
        for rows in self._query_blocks():
            self.query_texts[rows, :FT] = model.query.berts(*self._query_tokens(rows)).cpu()
        self.dev_texts = model.query.texts(model.ngrams, *self.tokens(self.corpus.dev.tokens))
        led = np.full((self.items, size.item_history_queries), -1, np.int32)
        for row in range(len(self.corpus.item_queries)):
            some = self.corpus.item_queries[row][: size.item_history_queries]
            led[row, : len(some)] = some
        self.led = led

    @torch.no_grad()
    def refresh_cached(self) -> None:
        """Computes again what is cached and changes in stage 2: what histories read of the items and of the queries
        that led to them, and the FtAtt of the texts that the fusion reads.
        """
        model = self.model
        model.eval()
        for rows, ids, mask in self.item_blocks():
            if len(self.item_texts):
                self.item_texts[rows, FT] = model.item.ft_att(model.ngrams, ids, mask).cpu()
                texts, image, present, entries, weight = self.item_inputs(rows)
                alone = texts, image, present, entries, torch.zeros_like(weight)
                self.text_features[rows] = model.item.fuse(*alone, self.image_residual(rows)).cpu()
            else:
                self.text_features[rows] = model.mean_ngrams(ids, mask).cpu()
        for rows in self._query_blocks():
            found = model.query.ft_att(model.ngrams, *self._query_tokens(rows)).cpu()
            self.item_query_entries[rows] = F.normalize(found, dim=-1, eps=1e-6)
            if len(self.query_texts):
                self.query_texts[rows, FT] = found
        if len(self.dev_texts):
            self.dev_texts[:, FT] = model.query.ft_att(model.ngrams, *self.tokens(self.corpus.dev.tokens))

    def dssm(self) -> StageResult:
        """Fusion: history experts, VBert's heads, the n-grams and the DSSM, on the BERTs' frozen vectors; the hybrid
        loss. The n-grams go on learning because they cost little and then see the images beside them.
        """
        model, train = self.model, self.config.train
        stage, query, item = train.dssm, model.query, model.item
        parts = nn.ModuleDict({
            "query_history": query.history, "query_images": query.image_history, "query_head": query.vbert,
            "query_dssm": query.dssm, "item_history": item.history, "item_head": item.vbert, "item_dssm": item.dssm,
            "ngrams": model.ngrams, "item_attention": item.attention,
        })  # fmt: skip
        if item.image_residual is not None:
            parts["item_image_residual"] = item.image_residual

        def losses(batch: np.ndarray, rng: np.random.Generator) -> Losses:
            asked, weight = batch.copy(), self.event_weights(batch, rng)
            blank = rng.random(len(batch)) < 0.02  # a user without words: the history alone must do
            asked["query"][blank & (weight.sum(1) > 0)] = len(self.query_texts) - 1

            def encode(some: np.ndarray, weight: np.ndarray) -> Tensor:
                ngrams = query.ft_att(model.ngrams, *self._query_tokens(some["query"]))
                frozen = self.query_texts[some["query"].astype(np.int64), :FT].to(self.device)
                return query.fuse(torch.cat([frozen, ngrams.unsqueeze(1)], 1), *self.histories(some, weight))

            def vectors(some: np.ndarray) -> Encode:
                return self._fuse_items(some, batch["query"], rng)

            return self._losses(batch, rng, stage, lambda at: by_history(encode, asked[at], weight[at]), vectors, True)

        examples = self.corpus.examples
        result = fit(
            self.run, "dssm", stage, parts,
            lambda epoch, skip: examples.batches(stage.batch, train.seed + 1, epoch, skip),
            examples.steps(stage.batch), losses, self.dev_scores, lambda: self.watch("dssm"),
        )  # fmt: skip
        self.refresh_cached()
        return result

    def dev_scores(self) -> np.ndarray:
        """What the fusion finds for each dev query, nDCG@10 [Q]: the mean of searching the items as they are and as new
        ones, which no query has led to yet and which take longer to learn.

        Each query's, so that of ties the earliest is kept (loop.exceeds_one_standard_error): the fusion learns by heart
        which queries led to which items, and what nobody has judged pays for it before the dev queries show it.
        """
        self.refresh_cached()
        dev = self.corpus.dev
        asked = self.model.query.fuse(self.dev_texts, *self.no_history(len(dev.tokens)))
        blocks = (dev.pool[i : i + 4096] for i in range(0, len(dev.pool), 4096))
        pool = torch.cat([self.model.item.fuse(*self.item_inputs(rows), self.image_residual(rows)) for rows in blocks])
        known = pool_ndcg(dev, asked, pool)
        if "history" not in self.config.model.experts or not len(self.corpus.item_queries.values):
            return known
        return (known + pool_ndcg(dev, asked, self.text_features[dev.pool].to(self.device))) / 2

    @torch.no_grad()
    def item_vectors(self) -> Tensor:
        """The vectors of all items [N, d], on the CPU, after the fusion."""
        blocks = (np.arange(start, min(start + 4096, self.items)) for start in range(0, self.items, 4096))
        return torch.cat(
            [self.model.item.fuse(*self.item_inputs(rows), self.image_residual(rows)).cpu() for rows in blocks]
        )

    # ---- batches

    def item_inputs(
        self, rows: np.ndarray, own: np.ndarray | None = None, rng: np.random.Generator | None = None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """What ItemTower.fuse takes for these items, but for the image residual.

        With rng: in training, where images and histories go missing.

        own: the queries of the first len(own) items' own examples, which must not tell their history what to answer.
        """
        present, led = self.has_image[rows], self.led[rows]
        if rng is not None:
            missing = self.config.train.modality_dropout
            present = present * torch.from_numpy(rng.random((len(rows), 1)) > missing)
            led = np.where(rng.random((len(rows), 1)) < COLD_ITEM_RATE, -1, led)
            led = np.where(rng.random(led.shape) < ITEM_QUERY_DROPOUT, -1, led)
        if own is not None:
            led[: len(own)] = np.where(led[: len(own)] == own[:, None], -1, led[: len(own)])
        weight = torch.from_numpy((led >= 0).astype(np.float32))
        found = (
            self.item_texts[rows],
            self.images[rows] * present,
            present.float(),
            self.item_query_entries[led],
            weight,
        )
        texts, image, present, entries, weight = (x.to(self.device) for x in found)
        return texts, image, present, entries, weight

    def _fuse_items(self, rows: np.ndarray, own: np.ndarray, rng: np.random.Generator) -> Encode:
        """Encodes the items in training: the BERTs' vectors from the cache, the n-grams' fresh."""
        model, (texts, image, present, entries, weight) = self.model, self.item_inputs(rows, own, rng)
        lengths = self.item_lengths[rows]

        def encode(at: Any) -> Tensor:
            some = rows[at]
            ngrams = by_length(lengths[at], lambda few: model.item.ft_att(model.ngrams, *self._item_tokens(some[few])))
            fresh = torch.cat([texts[at, :FT], ngrams.unsqueeze(1)], 1)
            return model.item.fuse(fresh, image[at], present[at], entries[at], weight[at], self.image_residual(some))

        return encode

    def _put(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(self.device)

    def tokens(self, matrix: np.ndarray) -> tuple[Tensor, Tensor]:
        """Padded token ids [n, t] as ids and mask, int64 [n, longest]."""
        ids = self._put(matrix[:, : int((matrix != 0).sum(1).max())].astype(np.int64))
        return ids, (ids != 0).long()

    def _item_tokens(self, rows: np.ndarray) -> tuple[Tensor, Tensor]:
        return self.tokens(self.corpus.item_tokens[rows])

    def item_blocks(self, size: int = 2048) -> Iterator[tuple[np.ndarray, Tensor, Tensor]]:
        """All items, those of like length together: less padding."""
        order = np.argsort(self.item_lengths, kind="stable")
        for start in range(0, self.items, size):
            rows = order[start : start + size]
            yield rows, *self._item_tokens(rows)

    def _query_blocks(self) -> Iterator[np.ndarray]:
        for start in range(0, len(self.query_tokens), 1024):
            yield np.arange(start, min(start + 1024, len(self.query_tokens)))

    def _query_tokens(self, rows: np.ndarray) -> tuple[Tensor, Tensor]:
        return self.tokens(self.query_tokens[rows])

    def examples_with_history(self, most: int) -> np.ndarray:
        """Up to `most` examples whose user has a history, from all over the file."""
        examples = self.corpus.examples
        found: list[np.ndarray] = []
        for start in np.linspace(0, max(0, examples.count - 4096), 8).astype(int):
            rows = examples.read(int(start), 4096)
            found.append(rows[(rows["items"] >= 0).any(1)][: most // 8])
        return np.concatenate(found)

    def event_weights(self, batch: np.ndarray, rng: np.random.Generator | None = None) -> np.ndarray:
        """The weights of the batch's events [b, h]; with rng, in training, users are unknown and events go missing:
        else a history is learned by heart.
        """
        weight = np.where(batch["items"] >= 0, batch["weight"], 0)
        if rng is None:
            return weight
        missing = self.config.train.history_dropout
        return weight * (rng.random((len(batch), 1)) >= missing) * (rng.random(weight.shape) >= missing)

    def histories(self, batch: np.ndarray, weight: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
        """The batch's histories with these weights: texts, images [b, longest, d], weights [b, longest]."""
        longest = int(np.flatnonzero((weight > 0).any(0)).max(initial=0)) + 1
        rows = np.maximum(batch["items"][:, :longest], 0)
        kept = torch.from_numpy(weight[:, :longest].astype(np.float32))
        some = (kept > 0).float().unsqueeze(-1)
        text, image = self.text_features[rows] * some, self.images[rows] * some
        return text.to(self.device), image.to(self.device), kept.to(self.device)

    def no_history(self, n: int) -> tuple[Tensor, Tensor, Tensor]:
        dims = self.config.model.dims
        one = torch.zeros(n, 1, dims, device=self.device)
        return one, one, torch.zeros(n, 1, device=self.device)


def by_history(encode: Callable[[np.ndarray, np.ndarray], Tensor], batch: np.ndarray, weight: np.ndarray) -> Tensor:
    """encode(examples, their events' weights), those with histories of like length together: most have none."""
    return by_length((weight > 0).sum(1), lambda some: encode(batch[some], weight[some]))


def by_length(lengths: np.ndarray, encode: Callable[[np.ndarray], Tensor], parts: int = 4) -> Tensor:
    """encode(places) of rows of like length together, back in their order: a batch is padded to its longest row, and
    titles' lengths differ so much that one batch of all would be half padding."""
    order = np.argsort(lengths, kind="stable")
    found = torch.cat([encode(some) for some in np.array_split(order, min(parts, len(order)))])
    return found[torch.from_numpy(np.argsort(order)).to(found.device)]


def pool_ndcg(dev: Dev, queries: Tensor, pool: Tensor, k: int = 10, without: Tensor | None = None) -> np.ndarray:
    """nDCG@k of each dev query [Q], of vectors [Q, d] over the pool [P, d]. without: a place in the pool for each,
    int64 [Q], that it cannot find.
    """
    scores = queries @ pool.T
    if without is not None:
        scores.scatter_(1, without.unsqueeze(1), -torch.inf)
    return dev.ndcg(scores.topk(min(k, len(pool)), dim=1).indices.cpu().numpy())


def false_negative_mask(queries: np.ndarray, items: np.ndarray, known: Ragged, same: np.ndarray) -> np.ndarray:
    """Which columns are no negatives of which query: the query's known positives and what is the same as one of them,
    wherever they stand. bool [b, columns].

    same: for each item of the catalogue the first that cannot be told from it (dataset.duplicates). A batch's own
    positive is known too, so the same item under the same query again is masked as well.
    """
    items = same[items]
    order = np.argsort(items, kind="stable")
    ordered = items[order]
    positives, row = known.rows(queries)
    left, right = (np.searchsorted(ordered, same[positives], side) for side in ("left", "right"))
    out = np.zeros((len(queries), len(items)), bool)
    for shift in range(int((right - left).max(initial=0))):
        there = left + shift < right
        out[row[there], order[left[there] + shift]] = True
    return out
