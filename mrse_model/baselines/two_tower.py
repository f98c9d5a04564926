"""The plain two-tower: mean of hashed character trigrams, frozen image features, in-batch softmax, a hard negative.

What an afternoon's work would give, and so the number that MRSE has to beat. Query: trigrams → 128. Item: trigrams and
image → 128. Trained on judged positives with a judged near miss each (Nigam et al. 2019, arXiv 1907.00937, is the
n-gram two-tower in production).
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

BUCKETS, WIDTH, DIMS = 1 << 15, 128, 128
TEMPERATURE = 0.07


def trigrams(text: str) -> list[int]:
    """Hashed character trigrams of the text, blanks included."""
    padded = f" {' '.join(text.lower().split())} "
    return [zlib.crc32(padded[i : i + 3].encode()) % BUCKETS for i in range(len(padded) - 2)]


@dataclass(frozen=True)
class Bag:
    """Some texts as bags of trigrams: trigrams int64 [u] that occur in them, share float32 [b, u] of each in each text.

    A dense product with the few trigrams of a batch trains ten times faster on a CPU than an EmbeddingBag.
    """

    trigrams: Tensor
    share: Tensor


class Bags:
    """Texts, hashed once; `take` makes a batch of them."""

    def __init__(self, texts: Sequence[str]) -> None:
        bags = [trigrams(text) for text in texts]
        self.start = np.cumsum([0, *map(len, bags)])
        self.values = np.fromiter((v for bag in bags for v in bag), np.int32, int(self.start[-1]))

    def __len__(self) -> int:
        return len(self.start) - 1

    def take(self, rows: NDArray[np.int64]) -> Bag:
        """The texts of these rows [b]."""
        lengths = self.start[rows + 1] - self.start[rows]
        text = np.repeat(np.arange(len(rows)), lengths)
        within = np.arange(len(text)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        distinct, column = np.unique(self.values[self.start[rows][text] + within], return_inverse=True)
        counts = np.bincount(text * len(distinct) + column, minlength=len(rows) * len(distinct))
        share = (counts.reshape(len(rows), -1) / lengths[:, None]).astype(np.float32)
        return Bag(torch.from_numpy(distinct.astype(np.int64)), torch.from_numpy(share))


def progress(step: int, steps: int | None, began: float, cpu_seconds: float) -> float:
    """How much of a training is done, 0 to 1: by steps if they are given, else by CPU time since `began`."""
    return step / steps if steps else (time.process_time() - began) / cpu_seconds


class TwoTower(nn.Module):
    """image_dims 0 makes it blind."""

    def __init__(self, image_dims: int) -> None:
        super().__init__()
        self.trigrams = nn.Parameter(torch.randn(BUCKETS, WIDTH))  # a mean of forty is small enough
        self.image_dims = image_dims
        self.image = nn.Linear(image_dims, WIDTH) if image_dims else None
        self.query_head = nn.Sequential(nn.Linear(WIDTH, 256), nn.ReLU(), nn.Linear(256, DIMS))
        self.item_head = nn.Sequential(
            nn.Linear(WIDTH * (2 if image_dims else 1), 256), nn.ReLU(), nn.Linear(256, DIMS)
        )

    def text(self, bag: Bag) -> Tensor:
        """The mean vector of a text's trigrams, [b, 128]."""
        return bag.share @ F.embedding(bag.trigrams, self.trigrams)

    def queries(self, bag: Bag) -> Tensor:
        """→ [b, 128], unit norm."""
        text = self.text(bag)
        return F.normalize(text + self.query_head(text), dim=1)

    def items(self, bag: Bag, features: Tensor | None) -> Tensor:
        """features [b, F], zeros for no image → [b, 128], unit norm."""
        text = self.text(bag)
        parts = [text]
        if self.image is not None and features is not None:
            parts.append(self.image(features))
        return F.normalize(text + self.item_head(torch.cat(parts, 1)), dim=1)


class TrainedTwoTower:
    """`fit` it, then `query_vectors` and `items` (float32 [m, 128]) make a VectorRanker."""

    def __init__(self, texts: Sequence[str], features: NDArray[np.float32] | None, seed: int = 0) -> None:
        torch.manual_seed(seed)
        self._rng = np.random.default_rng(seed)
        self.bags, self.features = Bags(texts), None
        if features is not None:
            centred = (features - np.nanmean(features, 0)) / (np.nanstd(features, 0) + 1e-3)
            self.features = torch.from_numpy(np.nan_to_num(centred).astype(np.float32))
        self.model = TwoTower(0 if features is None else features.shape[1])

    def fit(
        self,
        queries: Sequence[str],
        positives: Sequence[NDArray[np.int32]],
        negatives: Sequence[NDArray[np.int32]],
        *,
        cpu_seconds: float = 240.0,
        steps: int | None = None,
        batch: int = 512,
        lr: float = 2e-3,
    ) -> int:
        """Trains for that long on a query, one of its positives, one of its near misses. Returns the pairs seen.

        A query's other positives in the batch are masked; a query without near misses gets a random item. Time is CPU
        time of the process (240 s are two minutes of two cores), so that other work on the machine does not shorten it.
        With `steps` it is that many steps instead.
        """
        bags = Bags(queries)
        optimizer = torch.optim.Adam(self.model.parameters(), lr=lr, fused=True)
        pairs = np.array([(q, item) for q, items in enumerate(positives) for item in items], np.int64)
        known = np.unique(pairs[:, 0] * len(self.bags) + pairs[:, 1])
        began, seen = time.process_time(), 0
        self.model.train()
        while (share := progress(seen // batch, steps, began, cpu_seconds)) < 1:
            some = pairs[self._rng.integers(len(pairs), size=batch)]
            hard = np.array([self._hard(negatives[q]) for q in some[:, 0]])
            for group in optimizer.param_groups:
                group["lr"] = lr * max(0.02, 1 - share)
            loss = self._loss(bags, some[:, 0], some[:, 1], hard, known)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            seen += batch
        self.model.eval()
        return seen

    def _hard(self, negatives: NDArray[np.int32]) -> int:
        if len(negatives):
            return int(negatives[self._rng.integers(len(negatives))])
        return int(self._rng.integers(len(self.bags)))

    def _loss(
        self,
        bags: Bags,
        query: NDArray[np.int64],
        positive: NDArray[np.int64],
        hard: NDArray[np.int64],
        known: NDArray[np.int64],
    ) -> Tensor:
        rows = np.concatenate([positive, hard])
        scores = self.model.queries(bags.take(query)) @ self._items(rows).T / TEMPERATURE  # [b, 2b]
        codes = query[:, None] * len(self.bags) + rows
        masked = known[np.minimum(np.searchsorted(known, codes), len(known) - 1)] == codes
        masked[np.arange(len(query)), np.arange(len(query))] = False
        return F.cross_entropy(scores.masked_fill(torch.from_numpy(masked), -1e4), torch.arange(len(query)))

    def _items(self, rows: NDArray[np.int64]) -> Tensor:
        return self.model.items(self.bags.take(rows), None if self.features is None else self.features[rows])

    @torch.inference_mode()
    def query_vectors(self, queries: Sequence[str]) -> NDArray[np.float32]:
        """float32 [n, 128], unit norm."""
        return self.model.queries(Bags(queries).take(np.arange(len(queries)))).numpy()

    @torch.inference_mode()
    def items(self, batch: int = 4096) -> NDArray[np.float32]:
        """All items: float32 [m, 128], unit norm."""
        n = len(self.bags)
        return np.concatenate([self._items(np.arange(i, min(i + batch, n))).numpy() for i in range(0, n, batch)])
