"""The corpus: everything that the stages read, as arrays; and its dev queries, by which weights are chosen."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mrse_model.atomic_file import atomic_file
from mrse_model.data.example_files import PSEUDO
from mrse_model.errors import InputError
from mrse_model.serving.texts import CLS, SEP
from mrse_model.training.dataset import Examples, MixedExamples, Queries
from mrse_model.training.ragged import Ragged
from mrse_model.training.teacher.taught import Taught

DEV_SHARE, MAX_DEV_SHARE, MIN_DEV, MAX_DEV, DEV_POOL = 0.03, 0.1, 200, 300, 4000
MISSPELT = 0.2  # of the queries in training, where misspellings are learnt


@dataclass
class Corpus:
    """N items, Q distinct queries.

    item_tokens: int32 [N, t], padded with 0. features: float32 [N, F], a row of NaN for an item without an image; None
    for a model without images. item_queries: each item's queries, as rows of `queries`. dev: queries held out to choose
    weights by, and the pool of items in which they are searched. counts: how often each item is a positive, [N] (for
    the logQ correction). taught: what a teacher says of queries and items. ngrams_of: the hashed n-grams of each token
    with which a table that a teacher started is trained.
    """

    item_tokens: np.ndarray
    features: np.ndarray | None
    item_queries: Ragged
    queries: Queries
    examples: Examples
    dev: Dev
    counts: np.ndarray
    taught: Taught | None = None
    ngrams_of: Ragged | None = None

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
        """int64 [Q + 1, t]: the queries, and after them the blank one, of which only the user's history is known. Then,
        where misspellings are learnt, the Q queries as they are misspelt.
        """
        blank = np.zeros((1, self.queries.tokens.shape[1]), np.int64)
        blank[0, :2] = CLS, SEP
        wrong = [] if self.queries.misspelt is None else [self.queries.misspelt]
        return np.concatenate([self.queries.tokens, blank, *wrong])

    @property
    def blank_query(self) -> int:
        """The row of the blank query in `query_tokens`."""
        return len(self.queries.tokens)

    def as_typed(self, queries: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Which rows of `query_tokens` are read for these queries in training: some as they are misspelt."""
        if self.queries.misspelt is None:
            return queries
        return np.where(rng.random(len(queries)) < MISSPELT, queries + self.blank_query + 1, queries)

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
        """Each query's nDCG [Q], with gain 1 for a relevant item. top: indices in `pool`, best first, int [Q, k]."""
        discount = 1 / np.log2(np.arange(2, top.shape[1] + 2))
        values = []
        for row, relevant in zip(self.pool[top], self.relevant, strict=True):
            ideal = discount[: min(len(relevant), len(discount))].sum()
            values.append((np.isin(row, relevant) * discount).sum() / ideal)
        return np.array(values)


def split_dev(
    examples: Examples,
    queries: Queries,
    items: int,
    seed: int,
    out: Path,
    pseudo_share: float = 0.0,
    fill: bool = False,
) -> tuple[Examples, Dev]:
    """Holds some of the queries out of training: 3 %, or up to 10 % where that is under MIN_DEV; MAX_DEV at most. The
    rest of the examples go to `out`, unless it is there.

    pseudo_share: above 0 and below 1, examples of pseudo-queries go to a file of their own, to be mixed into every
    batch, and the queries held out are real ones. fill: where these are fewer than MIN_DEV, pseudo-queries are held out
    beside them: a few queries find any step the best by chance.

    The pool holds what is known of these queries, good and bad, and up to 4,000 items at random. Raises InputError
    where there is one query alone.
    """
    if len(queries.texts) < 2:
        fix = "Give searches or judgments of several queries"
        raise InputError(
            "all examples have the same query, and training holds out at least one", field="query", fix=fix
        )
    rng = np.random.default_rng([seed, 99])
    candidates = np.arange(len(queries.texts))
    mixed = 0 < pseudo_share < 1 and queries.real is not None and int(queries.real.sum()) > 1
    if mixed and queries.real is not None:
        candidates = np.flatnonzero(queries.real)
    share = max(DEV_SHARE * len(candidates), min(MIN_DEV, MAX_DEV_SHARE * len(candidates)))
    count = min(MAX_DEV, max(1, round(share)))
    held = candidates[rng.permutation(len(candidates))[:count]]
    if mixed and fill and queries.real is not None:
        made_up = rng.permutation(np.flatnonzero(~queries.real))
        held = np.concatenate([held, made_up[: max(0, min(MIN_DEV - count, round(MAX_DEV_SHARE * len(made_up))))]])
    held = np.sort(held)
    made = out.with_name(f"{out.stem}-pseudo{out.suffix}")
    if not out.exists():
        # The second file first: that `out` is there says that both are.
        write_where(examples, made, lambda rows: (rows["kind"] == PSEUDO) & mixed & ~np.isin(rows["query"], held))
        write_where(
            examples, out, lambda rows: ((rows["kind"] != PSEUDO) | (not mixed)) & ~np.isin(rows["query"], held)
        )
    judged = [queries.known[row] for row in held] + [queries.hard[row] for row in held]
    pool = np.unique(np.concatenate([*judged, rng.permutation(items)[:DEV_POOL]]).astype(np.int64))
    dev = Dev(held, queries.tokens[held], [queries.known[row] for row in held], pool)
    history = examples.history
    return MixedExamples(out, history, made, pseudo_share) if mixed else Examples(out, history), dev


def write_where(examples: Examples, out: Path, keep: Callable[[np.ndarray], np.ndarray]) -> None:
    """Writes the examples for which `keep` says so, given their records [n] → bool [n]."""
    with atomic_file(out) as part, open(part, "wb") as file:
        for start in range(0, examples.count, 65536):
            rows = examples.read(start, 65536)
            rows[keep(rows)].tofile(file)


def pool_ndcg(dev: Dev, queries: Tensor, pool: Tensor, k: int = 10, without: Tensor | None = None) -> np.ndarray:
    """nDCG@k of each dev query [Q], of vectors [Q, d] over the pool [P, d].

    without: for each query an index into the pool, int64 [Q], that it must not find.
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
