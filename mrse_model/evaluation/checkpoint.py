"""A checkpoint, measured: against BM25 on judged or clicked queries, mixed with it, and with and without the user's
history.

`measure` is what `mrse evaluate` and benchmarks/quality.py call; the statistics are mrse_model.evaluation's.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mrse_model.data.contract import Catalogue, descriptions
from mrse_model.data.example_files import (
    ExampleSummary,
    dev_queries,
    item_queries,
    queries_in_training,
)
from mrse_model.data.history import history_weight
from mrse_model.data.pseudo_queries import pseudo_queries
from mrse_model.data.scripts import is_unspaced
from mrse_model.data.search_log import query_key
from mrse_model.evaluation.bm25 import BM25
from mrse_model.evaluation.personal import PersonalResult, PersonalSearches, compare_personal, personal_searches
from mrse_model.evaluation.popularity import Popularity
from mrse_model.evaluation.queries import QuerySet
from mrse_model.evaluation.rankers import LinearFusion, Ranker, ReciprocalRankFusion, VectorRanker
from mrse_model.evaluation.report import Report, evaluate
from mrse_model.evaluation.tuning import MIDDLE, Mix
from mrse_model.model import MRSE
from mrse_model.serving.exported_model import ItemVectors, QueryHistory
from mrse_model.serving.texts import item_texts

VECTORS, NEW_ITEMS = "MRSE", "MRSE, items without their queries"
FUSED, MIX = "hybrid (MRSE + BM25, RRF)", "hybrid (MRSE + BM25, linear)"
POPULAR = "hybrid (MRSE + BM25, popularity)"  # the mix that is recommended, where popularity is a part of it
RANKERS = (BM25.name, VECTORS, FUSED, MIX)  # of every measurement; NEW_ITEMS where queries led to items
CUTS = (100, 500)  # K of Recall@K and Rele@K


@dataclass(frozen=True)
class Measured:
    """report: MRSE, BM25 and their hybrids on a query set. personal: None where no search has a history.

    mix: which hybrid training recommends. not_personal: why personal is None.
    """

    report: Report
    personal: PersonalResult | None
    mix: Mix
    not_personal: str | None = None

    @property
    def recommended(self) -> str:
        """The name of the hybrid in the report that is recommended."""
        if self.mix.popularity:
            return POPULAR
        return FUSED if self.mix.weight is None else MIX

    def metrics(self) -> dict[str, float]:
        """The figures that go into the checkpoint's meta and the manifest."""
        found = {name: estimate.mean for name, estimate in self.report[VECTORS].measures.items()}
        if self.personal is not None:
            found["personal Recall@20"] = self.personal.with_history.mean
            found["personal Recall@20 without history"] = self.personal.without.mean
        return {name: round(value, 4) for name, value in found.items()}


def catalogue_texts(catalogue: Catalogue) -> list[str]:
    """Title and category of each item, whichever of them the item tower reads."""
    return item_texts(("title", "category"), catalogue.titles, catalogue.categories)


def catalogue_words(catalogue: Catalogue) -> BM25:
    """What finds the items by their words as the deployed package does: also in descriptions."""
    return BM25(catalogue_texts(catalogue), descriptions(catalogue.path))


def pseudo_query_set(
    catalogue: Catalogue, most: int = 500, seed: int = 101, but: Collection[str] = frozenset()
) -> QuerySet:
    """Spans of titles as queries, for a catalogue without searches and judgments; another seed than training's.

    Relevant is every item with all of the query's words in its title and category: what the words alone can say.
    but: queries (`query_key`) that are left out.
    """
    rng = np.random.default_rng(seed)
    texts = [text.lower() for text in catalogue_texts(catalogue)]
    having: dict[str, list[int]] = {}
    for row, text in enumerate(texts):
        for word in set(text.split()):
            having.setdefault(word, []).append(row)

    def rows_with(word: str) -> np.ndarray:
        if is_unspaced(word) or word not in having:  # it stands inside what white space makes a word
            return np.array([row for row, text in enumerate(texts) if word in text])
        return np.array(having[word])

    relevant: dict[str, np.ndarray] = {}
    for row in rng.permutation(len(catalogue.ids))[:most]:
        query = pseudo_queries(catalogue.titles[row], catalogue.categories[row], 1, rng)[0]
        if query_key(query) in but:
            continue
        both = reduce(np.intersect1d, map(rows_with, query.split()))
        relevant[query] = both.astype(np.int32)
    rows = list(relevant.values())
    grades = [np.ones(len(some), np.int16) for some in rows]
    return QuerySet("pseudo-queries", list(relevant), rows, grades, 1, np.ones(len(rows)))


def trained_on(examples: Path, queries: QuerySet) -> dict[str, int]:
    """How many of the queries a run (RUN/cache/examples) was trained on, by what it learnt of them: "judgments" or
    "clicks". Figures on those do not hold for new queries.
    """
    asked, learnt = set(map(query_key, queries.texts)), queries_in_training(examples)
    known = {by: len(learnt[by] & asked) for by in ("judgments", "clicks")}
    return {by: count for by, count in known.items() if count}


def measure(
    model: MRSE,
    catalogue: Catalogue,
    features: np.ndarray | None,
    examples: Path,
    queries: QuerySet,
    others: Sequence[Ranker] = (),
    baseline: str = BM25.name,
    cuts: Sequence[int] = CUTS,
    folder: Path | None = None,
) -> Measured:
    """Ranks the whole catalogue by exact search; where there are item queries, once more without them,
    which shows how well new items are found.

    Args:
        features: float32 [N, F] with NaN rows, or None. examples: the run's (RUN/cache/examples): the item queries
            before the split, the searches after it for the personal measure.
        queries: judged or clicked queries; MRSE, BM25, their hybrids and `others` are compared on them, tested against
            `baseline`. folder: for the report, the TREC run and qrels files.
    """
    of_items = item_queries(examples, len(catalogue.ids))
    items = model.item_vectors(catalogue.titles, catalogue.categories, features, of_items)
    cuts = sorted({k for k in cuts if k <= len(catalogue.ids)}) or [len(catalogue.ids)]
    vectors = VectorRanker(VECTORS, lambda texts: model.query_vectors(texts), items.embedding)
    bm25 = catalogue_words(catalogue)
    new = vectors
    if any(of_items):
        without = model.item_vectors(catalogue.titles, catalogue.categories, features)
        new = VectorRanker(NEW_ITEMS, lambda texts: model.query_vectors(texts), without.embedding)
    mix = Mix(**model.meta.get("mix", {}))
    fused = ReciprocalRankFusion(FUSED, (vectors, bm25))
    summed = LinearFusion(MIX, vectors, bm25, MIDDLE if mix.weight is None else mix.weight)
    rankers = [bm25, *others, *([new] if new is not vectors else []), vectors, fused, summed]
    if (popularity := popularity_of_mix(mix, catalogue, examples, model)) is not None:
        rankers.append(mix.ranker(POPULAR, vectors, bm25, popularity))
    report = evaluate(rankers, queries, catalogue.ids, baseline=baseline, cuts=cuts, folder=folder)
    summary = ExampleSummary.load(examples)
    if not summary.validation_searches:
        return Measured(report, None, mix, "the run has no searches after its split")
    if summary.empty_validation_share == 1:
        reason = "in no search after the split has the user clicked before"
        return Measured(report, None, mix, reason)
    personal = measure_personal(model, items, personal_searches(examples / "validation.parquet"))
    return Measured(report, personal, mix)


def popularity_of_mix(mix: Mix, catalogue: Catalogue, examples: Path, model: MRSE) -> NDArray[np.float64] | None:
    """Of each item [N], without the events of the queries that the run (RUN/cache/examples) held out: they may be among
    those measured on. None where popularity is no part of the mix.
    """
    if not mix.popularity:
        return None
    weights = model.config.train.event_weights
    found = Popularity.read(catalogue.path, len(catalogue), examples, weights)
    return None if found is None else found.without(dev_queries(examples))


def measure_personal(model: MRSE, items: ItemVectors, searches: PersonalSearches) -> PersonalResult:
    """Recall@20 of each search's clicks over the whole catalogue, with the user's history and without."""
    histories = histories_of(model, items, searches)
    with_history = model.query_vectors(searches.queries, histories)
    return compare_personal(searches, items.embedding, with_history, model.query_vectors(searches.queries))


def histories_of(model: MRSE, items: ItemVectors, searches: PersonalSearches) -> list[QueryHistory | None]:
    """Each search's history as the query tower takes it."""
    out: list[QueryHistory | None] = []
    for rows, kinds, ages in zip(searches.history, searches.kind, searches.age, strict=True):
        weight = history_weight(np.array(kinds), np.array(ages), model.config.train)
        out.append(QueryHistory(items.text_feature[rows], items.image_embedding[rows], weight.astype(np.float32)))
    return out
