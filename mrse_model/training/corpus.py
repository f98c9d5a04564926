"""The corpus: everything that the stages read, as arrays; and its dev queries, by which weights are chosen."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mrse_model.atomic_file import atomic_file
from mrse_model.errors import InputError
from mrse_model.serving.texts import CLS, SEP
from mrse_model.training.dataset import Examples, Queries
from mrse_model.training.ragged import Ragged

DEV_SHARE, MAX_DEV, DEV_POOL = 0.03, 300, 4000


@dataclass
class Corpus:
    """N items, Q distinct queries.

    item_tokens: int32 [N, t], padded with 0. features: float32 [N, F], a row of NaN for an item without an image; None
    for a model without images. item_queries: each item's queries, as rows of `queries`. dev: queries held out to choose
    weights by, and the pool of items in which they are searched. counts: how often each item is a positive, [N] (for
    the logQ correction).
    """

    item_tokens: np.ndarray
    features: np.ndarray | None
    item_queries: Ragged
    queries: Queries
    examples: Examples
    dev: Dev
    counts: np.ndarray

    def __len__(self) -> int:
        return len(self.item_tokens)

    @cached_property
    def item_lengths(self) -> np.ndarray:
        """Tokens of each item, int64 [N]."""
        return (self.item_tokens != 0).sum(1)

    @cached_property
    def has_image(self) -> np.ndarray:
        """bool [N]."""
        return np.zeros(len(self), bool) if self.features is None else ~np.isnan(self.features[:, 0])

    @cached_property
    def query_tokens(self) -> np.ndarray:
        """int64 [Q + 1, t]: the queries, and after them the blank one, of which only the user's history is known."""
        blank = np.zeros((1, self.queries.tokens.shape[1]), np.int64)
        blank[0, :2] = CLS, SEP
        return np.concatenate([self.queries.tokens, blank])

    # Duplicates: which of two items that cannot be told apart was clicked is no reason to push the other away.

    @cached_property
    def same_text(self) -> np.ndarray:
        """The first item with the same text as each, int64 [N]."""
        return duplicates(self.item_tokens)

    @cached_property
    def same_image(self) -> np.ndarray:
        """The first item with the same image as each, int64 [N]; all items without one are alike."""
        assert self.features is not None
        return duplicates(self.features)

    @cached_property
    def same_item(self) -> np.ndarray:
        """The first item with both the text and the image of each, int64 [N]."""
        return self.same_text if self.features is None else duplicates(self.same_text, self.same_image)


@dataclass
class Dev:
    """Held-out queries to choose weights by: their rows in Queries, tokens int64 [Q, 16], the relevant item rows of
    each, the item rows searched.
    """

    rows: np.ndarray
    tokens: np.ndarray
    relevant: list[np.ndarray]
    pool: np.ndarray

    def ndcg(self, top: np.ndarray) -> np.ndarray:
        """Each query's nDCG [Q], with gain 1 for a relevant item. top: places in `pool`, best first, int [Q, k]."""
        discount = 1 / np.log2(np.arange(2, top.shape[1] + 2))
        values = []
        for row, relevant in zip(self.pool[top], self.relevant, strict=True):
            ideal = discount[: min(len(relevant), len(discount))].sum()
            values.append((np.isin(row, relevant) * discount).sum() / ideal)
        return np.array(values)


def split_dev(examples: Examples, queries: Queries, items: int, seed: int, out: Path) -> tuple[Examples, Dev]:
    """Holds 3 % of the queries (300 at most) out of training. The rest of the examples go to `out`, unless it is there.

    The pool holds what is known of these queries, good and bad, and up to 4,000 items at random. Raises InputError
    where there is one query alone.
    """
    if len(queries.texts) < 2:
        fix = "Give searches or judgments of several queries"
        raise InputError("all examples are of one query, and one is held out of training", field="query", fix=fix)
    rng = np.random.default_rng([seed, 99])
    count = min(MAX_DEV, max(1, round(DEV_SHARE * len(queries.texts))))
    held = np.sort(rng.permutation(len(queries.texts))[:count])
    if not out.exists():
        with atomic_file(out) as part, open(part, "wb") as file:
            for start in range(0, examples.count, 65536):
                rows = examples.read(start, 65536)
                rows[~np.isin(rows["query"], held)].tofile(file)
    judged = [queries.known[row] for row in held] + [queries.hard[row] for row in held]
    pool = np.unique(np.concatenate([*judged, rng.permutation(items)[:DEV_POOL]]).astype(np.int64))
    return Examples(out, examples.type["history_items"].shape[0]), Dev(
        held, queries.tokens[held], [queries.known[row] for row in held], pool
    )


def pool_ndcg(dev: Dev, queries: Tensor, pool: Tensor, k: int = 10, without: Tensor | None = None) -> np.ndarray:
    """nDCG@k of each dev query [Q], of vectors [Q, d] over the pool [P, d].

    without: for each query a place in the pool, int64 [Q], that it must not find.
    """
    scores = queries @ pool.T
    if without is not None:
        scores.scatter_(1, without.unsqueeze(1), -torch.inf)
    return dev.ndcg(scores.topk(min(k, len(pool)), dim=1).indices.cpu().numpy())


def duplicates(*columns: np.ndarray) -> np.ndarray:
    """For each row the first one that is the same in all of the arrays [n, …]: int64 [n]. Rows of NaN are the same."""
    first: dict[bytes, int] = {}
    found = np.zeros(len(columns[0]), np.int64)
    for row in range(len(found)):
        content = b"".join([column[row].tobytes() for column in columns])
        if len(content) > 512:  # as much as a row of texts; features are not to be held here
            content = hashlib.blake2b(content, digest_size=16).digest()
        found[row] = first.setdefault(content, row)
    return found
