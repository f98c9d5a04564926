"""Vectors that later stages read and do not train: computed once and kept as tensors in main memory.

`FrozenVectors` is what stage 1 works with: the images as the adaptor has them, and what histories read. `FusionVectors`
adds the BERTs' vectors of every text, on which the fusion trains. A step's rows of them move to the device.

N items, Q queries and a blank one after them, d = dims.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mrse_model.config import Config
from mrse_model.model import MRSE
from mrse_model.towers import FT
from mrse_model.training.corpus import Corpus

COLD_ITEM_RATE = 0.2  # of the items in training have no queries, as the new ones of tomorrow
ITEM_QUERY_DROPOUT = 0.3  # of an item's queries are left out in training, or they are learnt by heart (dev/LOG.md)


def row_blocks(count: int, size: int = 4096) -> Iterator[np.ndarray]:
    """The rows 0 … count - 1 in blocks."""
    for start in range(0, count, size):
        yield np.arange(start, min(start + size, count))


class FrozenVectors:
    """images: float32 [N, d], unit norm, zeros without an image and until `embed_images`; has_image: [N, 1] of 0 or 1.

    What histories read: text_features [N, d] of an item, query_entries [Q + 1, d] of a query; zeros until
    `embed_ngrams`, and in the fusion replaced by FusionVectors.refresh.
    """

    def __init__(self, model: MRSE, corpus: Corpus, device: torch.device, folder: Path) -> None:
        self.model, self.corpus, self.device = model.to(device), corpus, device
        dims = model.config.model.dims
        self.has_image = torch.from_numpy(corpus.has_image.astype(np.float32)).unsqueeze(1)
        self.images = torch.zeros(len(corpus), dims)
        self.text_features = torch.zeros(len(corpus), dims)
        self.query_entries = torch.zeros(len(corpus.query_tokens), dims)
        self._folder = folder

    @property
    def config(self) -> Config:
        """The model's, which changes when an expert is left out."""
        return self.model.config

    # ---- images

    @cached_property
    def components(self) -> np.ndarray | None:
        """What the adaptor and the item tower read of the images, float32 [N, image_components]; any for an item
        without one. None for a model without images.

        Computed at its first use: by then a resumed run has read back the basis that its weights were trained with. In
        a nameless file: a catalogue's images may not fit into memory.
        """
        adaptor, features = self.model.adaptor, self.corpus.features
        if adaptor is None or features is None:
            return None
        with tempfile.TemporaryFile(dir=self._folder) as file:
            out = np.memmap(file, np.float32, "w+", shape=(len(features), self.config.model.image_width))
        with torch.no_grad():
            for rows in row_blocks(len(features)):
                out[rows] = adaptor.components(self.put(np.nan_to_num(features[rows]))).cpu().numpy()
        return out

    def adapt(self, rows: np.ndarray) -> Tensor:
        """The adaptor's vectors of these items' images, [b, d]."""
        assert self.model.adaptor is not None and self.components is not None
        return self.model.adaptor(self.put(np.asarray(self.components[rows])))

    def image_residual(self, rows: np.ndarray) -> Tensor | None:
        """The item tower's own view of these items' images, [b, d]; None without images."""
        if self.components is None:
            return None
        return self.model.image_residual(self.put(np.asarray(self.components[rows])))

    @torch.no_grad()
    def embed_images(self) -> None:
        """Computes `images`, once the adaptor is trained."""
        for rows in row_blocks(len(self.images)):
            self.images[rows] = self.adapt(rows).cpu() * self.has_image[rows]

    def take_images(self, other: FrozenVectors) -> None:
        """What another model over the same corpus and adaptor has made of the images."""
        self.images = other.images
        self.__dict__["components"] = other.components

    # ---- texts

    def put(self, array: np.ndarray) -> Tensor:
        """An array on the device."""
        return torch.from_numpy(array).to(self.device)

    def tokens(self, matrix: np.ndarray) -> tuple[Tensor, Tensor]:
        """Padded token ids [n, t] as ids and mask, int64 [n, longest]."""
        ids = self.put(matrix[:, : int((matrix != 0).sum(1).max())].astype(np.int64))
        return ids, (ids != 0).long()

    def item_tokens(self, rows: np.ndarray) -> tuple[Tensor, Tensor]:
        """Ids and mask of these items."""
        return self.tokens(self.corpus.item_tokens[rows])

    def query_tokens(self, rows: np.ndarray) -> tuple[Tensor, Tensor]:
        """Ids and mask of these queries; row Q is the blank one."""
        return self.tokens(self.corpus.query_tokens[rows])

    def item_blocks(self, size: int = 2048) -> Iterator[tuple[np.ndarray, Tensor, Tensor]]:
        """Rows, ids and mask of all items, those of like length together: less padding."""
        order = np.argsort(self.corpus.item_lengths, kind="stable")
        for start in range(0, len(order), size):
            rows = order[start : start + size]
            yield rows, *self.item_tokens(rows)

    def query_blocks(self) -> Iterator[tuple[np.ndarray, Tensor, Tensor]]:
        """Rows, ids and mask of all queries, the blank one at the end."""
        for rows in row_blocks(len(self.query_entries), 1024):
            yield rows, *self.query_tokens(rows)

    @torch.no_grad()
    def embed_ngrams(self) -> None:
        """Computes what histories read in stage 1, once FtAtt is trained: mean n-gram vectors, of unit norm."""
        model = self.model
        model.eval()
        for rows, ids, mask in self.item_blocks():
            self.text_features[rows] = model.mean_ngrams(ids, mask).cpu()
        for rows, ids, mask in self.query_blocks():
            self.query_entries[rows] = model.mean_ngrams(ids, mask).cpu()

    # ---- histories

    def event_weights(self, batch: np.ndarray, rng: np.random.Generator | None = None) -> np.ndarray:
        """The weights of the batch's events, [b, h]. With rng, in training, users are unknown and events go missing:
        else a history is learnt by heart.
        """
        weight = np.where(batch["history_items"] >= 0, batch["history_weight"], 0)
        if rng is None:
            return weight
        missing = self.config.train.history_dropout
        return weight * (rng.random((len(batch), 1)) >= missing) * (rng.random(weight.shape) >= missing)

    def histories(self, batch: np.ndarray, weight: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
        """The batch's histories with these weights [b, h]: text_features and images of the items [b, longest, d], and
        the weights [b, longest]. What counts nothing is zeros.
        """
        longest = int(np.flatnonzero((weight > 0).any(0)).max(initial=0)) + 1
        rows = np.maximum(batch["history_items"][:, :longest], 0)
        kept = torch.from_numpy(weight[:, :longest].astype(np.float32))
        counts = (kept > 0).float().unsqueeze(-1)
        text, image = self.text_features[rows] * counts, self.images[rows] * counts
        return text.to(self.device), image.to(self.device), kept.to(self.device)

    def no_history(self, n: int) -> tuple[Tensor, Tensor, Tensor]:
        """The histories of n unknown users, as `histories` has them."""
        one = torch.zeros(n, 1, self.config.model.dims, device=self.device)
        return one, one, torch.zeros(n, 1, device=self.device)


class FusionVectors:
    """What the fusion reads, once stage 1 is trained: all of FrozenVectors (as `base`), and

    item_texts [N, 3, d], query_texts [Q + 1, 3, d], dev_texts [dev queries, 3, d]: VBert's text half, Light-Bert, FtAtt
    in the order of towers. The BERTs stay as they are; FtAtt goes on learning, so `refresh` computes its part again.
    item_queries: int32 [N, item_history_queries], rows of queries, -1 for none.
    """

    def __init__(self, base: FrozenVectors) -> None:
        self.base, self.model, self.corpus, self.config = base, base.model, base.corpus, base.config
        size = self.config.model
        self.item_texts = torch.zeros(len(self.corpus), 3, size.dims)
        self.query_texts = torch.zeros(len(self.corpus.query_tokens), 3, size.dims)
        self.dev_texts = torch.zeros(len(self.corpus.dev.tokens), 3, size.dims, device=base.device)
        self.item_queries = np.full((len(self.corpus), size.item_history_queries), -1, np.int32)
        for row in range(len(self.item_queries)):
            some = self.corpus.item_queries[row][: size.item_history_queries]
            self.item_queries[row, : len(some)] = some
        self._embed_berts()
        self.refresh()

    @torch.no_grad()
    def _embed_berts(self) -> None:
        model, base = self.model, self.base
        model.eval()
        for rows, ids, mask in base.item_blocks(512):
            self.item_texts[rows, :FT] = model.item.berts(ids, mask).cpu()
        for rows, ids, mask in base.query_blocks():
            self.query_texts[rows, :FT] = model.query.berts(ids, mask).cpu()
        self.dev_texts[:, :FT] = model.query.berts(*base.tokens(self.corpus.dev.tokens))

    @torch.no_grad()
    def refresh(self) -> None:
        """Computes again what changes while the fusion trains: FtAtt of every text, and what histories read. Of an item
        that is now the item tower's vector without the item's queries.
        """
        model, base = self.model, self.base
        model.eval()
        for rows, ids, mask in base.item_blocks():
            self.item_texts[rows, FT] = model.item.ft_att(model.ngrams, ids, mask).cpu()
            texts, image, present, entries, weight = self.item_inputs(rows)
            without_queries = texts, image, present, entries, torch.zeros_like(weight)
            base.text_features[rows] = model.item.fuse(*without_queries, base.image_residual(rows)).cpu()
        for rows, ids, mask in base.query_blocks():
            found = model.query.ft_att(model.ngrams, ids, mask).cpu()
            base.query_entries[rows] = F.normalize(found, dim=-1, eps=1e-6)
            self.query_texts[rows, FT] = found
        self.dev_texts[:, FT] = model.query.ft_att(model.ngrams, *base.tokens(self.corpus.dev.tokens))

    def item_inputs(
        self, rows: np.ndarray, own: np.ndarray | None = None, rng: np.random.Generator | None = None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """What ItemTower.fuse takes for these items, but for the image residual: texts [b, 3, d], image [b, d], present
        [b, 1], entries [b, q, d], weight [b, q].

        own: of the first len(own) items the queries of their own examples, which must not tell them what to answer.
        rng: in training, where images and item queries go missing.
        """
        present, queries = self.base.has_image[rows], self.item_queries[rows]
        if rng is not None:
            missing = self.config.train.modality_dropout
            present = present * torch.from_numpy(rng.random((len(rows), 1)) > missing)
            queries = np.where(rng.random((len(rows), 1)) < COLD_ITEM_RATE, -1, queries)
            queries = np.where(rng.random(queries.shape) < ITEM_QUERY_DROPOUT, -1, queries)
        if own is not None:
            queries[: len(own)] = np.where(queries[: len(own)] == own[:, None], -1, queries[: len(own)])
        weight = torch.from_numpy((queries >= 0).astype(np.float32))
        inputs = (  # the entry of "none", -1, is that of the blank query; its weight is 0
            self.item_texts[rows], self.base.images[rows] * present, present.float(), self.base.query_entries[queries],
            weight,
        )  # fmt: skip
        texts, image, present, entries, weight = (x.to(self.base.device) for x in inputs)
        return texts, image, present, entries, weight

    @torch.no_grad()
    def items(self, rows: np.ndarray) -> Tensor:
        """The item tower's vectors of these items as they are, [b, d]."""
        return self.model.item.fuse(*self.item_inputs(rows), self.base.image_residual(rows))

    def all_items(self) -> Tensor:
        """The item tower's vectors of the catalogue, [N, d], on the CPU."""
        return torch.cat([self.items(rows).cpu() for rows in row_blocks(len(self.corpus))])
