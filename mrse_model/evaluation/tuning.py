"""How words and vectors are mixed: by reciprocal rank fusion, which needs no tuning, or with a teacher by a weighted
sum, unless queries that were not learnt from say clearly that a weight ranks better. They also say whether popular
items should rank higher than that.

A query that was trained on cannot say it: its own vector finds what it was taught to find. Nor can a span of a title:
the words find that by themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mrse_model.data.example_files import Pairs, has_real_queries, training_pairs
from mrse_model.data.search_log import query_key
from mrse_model.evaluation.measures import condensed, per_query
from mrse_model.evaluation.popularity import Popularity, Source, prior
from mrse_model.evaluation.queries import QuerySet
from mrse_model.evaluation.rankers import (
    FUSED,
    Candidates,
    LinearFusion,
    Ranker,
    Ranking,
    ReciprocalRankFusion,
    Scores,
    VectorRanker,
    WithPopularity,
    add_prior,
)

WEIGHTS = (0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1)  # of the words
SHARES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 1)  # what popularity adds to the most popular item's score of 0 to 1
MIDDLE_SHARE = 0.2  # where several are level (dev/LOG.md)
MIDDLE = 0.4  # the weight where a weighted sum is asked for and nothing says which (dev/LOG.md)
FEWEST, TUNED_ON = 20, 400  # queries
DOUBT = 0.05  # a standard deviation that is always added to the differences': a few queries may agree by chance
LEVEL = 2.0  # standard errors, within which weights are level: folds' vectors are weaker, and ask for more words
DEPTH = 100
HYBRID, VECTORS = "hybrid_linear", "ann"  # rank profiles


@dataclass(frozen=True)
class Mix:
    """What is recommended for a model. weight: of the words in the weighted sum; None: reciprocal rank fusion. queries:
    how many it was chosen on. profile: the rank profile to search by: the hybrid's, or the vectors' where they alone
    are as good. popularity: the weight of log(1 + popularity), 0 where it does not matter; source: where popularity
    comes from, None where it does not matter.
    """

    weight: float | None = None
    queries: int = 0
    profile: str = HYBRID
    popularity: float = 0.0
    source: Source | None = None

    def line(self) -> str:
        """For reports."""
        if not self.popularity:
            return self._mixed()
        of = "the items' own column" if self.source == "column" else "their clicks, carts and orders"
        return f"{self._mixed()}; plus {self.popularity:.3g} · log(1 + popularity), {of}"

    def ranker(
        self, name: str, vectors: VectorRanker, words: Ranker, popularity: NDArray[np.float64] | None, depth: int = 1000
    ) -> Ranker:
        """What ranks as hybrid_linear does with this mix. popularity: of each item [N], where the mix has it."""
        if self.weight is None:
            mixed: Ranker = ReciprocalRankFusion(name, (vectors, words), depth=depth)
        else:
            mixed = LinearFusion(name, vectors, words, self.weight, depth)
        return mixed if popularity is None else WithPopularity(name, mixed, self.added(popularity), depth)

    def added(self, popularity: NDArray[np.float64]) -> Scores:
        """What popularity [N] adds to the mix's scores, float32 [N]."""
        return np.float32(self.popularity * (FUSED if self.weight is None else 1)) * prior(popularity)

    def _mixed(self) -> str:
        on = f"chosen on {self.queries} queries that were held out of training"
        if not self.queries:
            how = "reciprocal rank fusion" if self.weight is None else f"a weighted sum, {self.weight:g} for the words"
            return f"hybrid: {how}, because fewer than {FEWEST} queries were held out of training"
        if self.weight is None:
            return f"hybrid: reciprocal rank fusion; no weighted sum is clearly better ({on})"
        return f"hybrid: a weighted sum, query(alpha), the lexical weight, {self.weight:g} ({on})"

    def noted(self) -> dict[str, Any]:
        """As JSON, for a checkpoint's meta and the manifest."""
        return asdict(self)


def known_queries(examples: Path, texts: Sequence[str]) -> QuerySet | None:
    """Of these queries those of a run's examples (RUN/cache/examples), as `known_of` has them. None where none of them
    is a real one.
    """
    return known_of(training_pairs(examples), texts) if has_real_queries(examples) else None


def known_of(pairs: Pairs, texts: Sequence[str]) -> QuerySet | None:
    """Of these queries those of the pairs, TUNED_ON at most: with what is known of them, and their judged near misses
    at grade 0. None where there is none of them.
    """
    keys = set(map(query_key, texts))
    rows = [row for row, text in enumerate(pairs.queries) if query_key(text) in keys]
    if not rows:
        return None
    rows = np.random.default_rng(0).permutation(rows)[:TUNED_ON].tolist()
    both = [(pairs.positives[row], pairs.negatives[row]) for row in rows]
    return QuerySet(
        "held out",
        [pairs.queries[row] for row in rows],
        [np.concatenate(known).astype(np.int32) for known in both],
        [np.repeat(np.array([1, 0], np.int16), [len(good), len(near)]) for good, near in both],
        1,
        np.ones(len(rows)),
    )


def quality(queries: QuerySet, ranking: Ranking) -> NDArray[np.float64]:
    """The mean of nDCG@10 and Recall@100 of each query [n]. Of queries with judged near misses nDCG is taken over
    judged items alone (condensed): their judgments are samples.
    """
    plain = per_query(queries, ranking, (DEPTH,))
    has_near = np.array([bool((grades == 0).any()) for grades in queries.grades])
    alone = per_query(queries, condensed(queries, ranking), (DEPTH,))["nDCG@10"] if has_near.any() else plain["nDCG@10"]
    return (np.where(has_near, alone, plain["nDCG@10"]) + plain[f"Recall@{DEPTH}"]) / 2


def choose(start: NDArray[np.float64], sums: NDArray[np.float64], weights: Sequence[float] = WEIGHTS) -> float | None:
    """The weight to mix by, or None where none is clearly better than the start.

    start [n]: the quality of what is recommended otherwise for each query. sums [w, n]: of the weighted sum with each
    weight. A weight is better where its mean gain is above the standard error of the gains, DOUBT added; of weights
    that are level with the best of them, within LEVEL such errors, the one nearest the middle.
    """
    best = int(np.argmax(sums.mean(1)))
    if not _is_better(sums[best], start):
        return None
    behind = [sums[best] - row for row in sums]
    level = [weight for weight, gap in zip(weights, behind, strict=True) if gap.mean() <= LEVEL * _error(gap)]
    return float(min(level, key=lambda weight: (abs(weight - MIDDLE), weight)))


def _error(gain: NDArray[np.float64]) -> float:
    return float(np.sqrt((gain.var() + DOUBT**2) / len(gain)))


@dataclass(frozen=True)
class HeldOut:
    """Queries that were not learnt from, n, and what vectors and words find for them. prior: log(1 + popularity) of
    each item [N] as if they had not been asked; 0 where nothing is known of it.
    """

    queries: QuerySet
    found: Candidates
    fused: Ranking
    depth: int
    prior: Scores

    @classmethod
    def of(
        cls, vectors: VectorRanker, words: Ranker, queries: QuerySet, popularity: Popularity | None = None
    ) -> HeldOut:
        summed, fused = LinearFusion("", vectors, words, MIDDLE), ReciprocalRankFusion("", (vectors, words))
        found, others = summed.candidates(queries.texts), fused.search(queries.texts, fused.depth)
        known = np.zeros(len(vectors.items)) if popularity is None else popularity.without(queries.texts)
        return cls(queries, found, others, summed.depth, prior(known))

    def qualities(self) -> NDArray[np.float64]:
        """The quality of the fusion, and of the weighted sum with each of WEIGHTS, for each query: [1 + w, n]."""
        return np.array([quality(self.queries, self._ranked(weight)) for weight in (None, *WEIGHTS)])

    def vectors_alone(self) -> NDArray[np.float64]:
        """The quality of the vectors alone for each query [n]."""
        return quality(self.queries, self._ranked(0))

    def with_popularity(self, weight: float | None, priors: Sequence[float]) -> NDArray[np.float64]:
        """The quality of the mix of this weight with popularity of each weight, for each query: [p, n]."""
        ranked, unit = self._ranked(weight), FUSED if weight is None else 1
        return np.array([quality(self.queries, add_prior(ranked, np.float32(p * unit) * self.prior)) for p in priors])

    def _ranked(self, weight: float | None) -> Ranking:
        return self.fused if weight is None else self.found.mix(weight, self.depth)


def tune(found: Sequence[NDArray[np.float64]], otherwise: float | None = None) -> Mix:
    """What to recommend, by `qualities` for queries that were not learnt from; where these are few, or no weight is
    clearly better, the weight `otherwise`, one of WEIGHTS, or for None the fusion.
    """
    count = sum(part.shape[1] for part in found)
    if count < FEWEST:
        return Mix(otherwise)
    fused, *sums = np.concatenate(found, 1)
    weight = choose(fused if otherwise is None else sums[WEIGHTS.index(otherwise)], np.array(sums))
    weight = otherwise if weight is None else weight
    mixed, vectors = fused if weight is None else sums[WEIGHTS.index(weight)], sums[WEIGHTS.index(0)]
    return Mix(weight, count, HYBRID if _is_better(mixed, vectors) else VECTORS)


def weigh_popularity(mix: Mix, held_out: Sequence[HeldOut], popularity: Popularity | None) -> Mix:
    """The mix with popularity, where the same queries say clearly that popular items should rank higher: of the weights
    that are clearly better than none and level with the best of them, the one nearest the middle.
    """
    if popularity is None or mix.queries < FEWEST:
        return mix
    unit = 1 / float(prior(popularity.values).max())
    weights = [share * unit for share in SHARES]
    plain, *popular = np.concatenate([some.with_popularity(mix.weight, [0, *weights]) for some in held_out], 1)
    best = max(popular, key=lambda row: float(row.mean()))
    both = zip(weights, popular, strict=True)
    level = [(weight, row) for weight, row in both if _is_better(row, plain) and not _is_better(best, row)]
    if not level:
        return mix
    weight, row = min(level, key=lambda found: abs(np.log(found[0] / (MIDDLE_SHARE * unit))))
    vectors = np.concatenate([some.with_popularity(0, [0])[0] for some in held_out])
    profile = HYBRID if _is_better(row, vectors) else mix.profile
    return replace(mix, popularity=weight, source=popularity.source, profile=profile)


def _is_better(one: NDArray[np.float64], other: NDArray[np.float64]) -> bool:
    gain = one - other
    return bool(gain.mean() > _error(gain))
