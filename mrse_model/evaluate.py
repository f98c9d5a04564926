"""A checkpoint, measured: against BM25 on judged or clicked queries, and with and without the person's history.

`measure` is what `mrse evaluate` and benchmarks/quality.py call; the statistics are mrse_model.evaluation's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mrse_model.arrays import history_weight
from mrse_model.baselines.bm25 import BM25
from mrse_model.data.contract import Catalogue
from mrse_model.data.pseudo_queries import pseudo_queries
from mrse_model.evaluation.personal import PersonalResult, PersonalSearches, compare_personal, personal_searches
from mrse_model.evaluation.queries import QuerySet
from mrse_model.evaluation.rankers import Ranker, ReciprocalRankFusion, VectorRanker
from mrse_model.evaluation.report import Report, evaluate
from mrse_model.model import MRSE
from mrse_model.serving import ItemVectors, QueryHistory
from mrse_model.texts import item_text


@dataclass(frozen=True)
class Measured:
    """report: MRSE, BM25 and their hybrid on a query set. personal: None where no search has a history."""

    report: Report | None
    personal: PersonalResult | None

    def metrics(self) -> dict[str, float]:
        """The figures that go into the checkpoint's meta and the manifest."""
        found: dict[str, float] = {}
        if self.report is not None:
            found |= {name: estimate.mean for name, estimate in self.report["MRSE"].measures.items()}
        if self.personal is not None:
            found["personal Recall@20"] = self.personal.with_history.mean
            found["personal Recall@20 without history"] = self.personal.without.mean
        return {name: round(value, 4) for name, value in found.items()}


def catalogue_texts(catalogue: Catalogue) -> list[str]:
    """What BM25 sees of each item: the same text that the item tower reads."""
    return [item_text(t, c) for t, c in zip(catalogue.titles, catalogue.categories, strict=True)]


def pseudo_query_set(catalogue: Catalogue, most: int = 500, seed: int = 101) -> QuerySet:
    """Pieces of titles as queries, for a catalogue without searches and judgments; another seed than training's.

    Relevant are the item and those of the same title.
    """
    rng = np.random.default_rng(seed)
    twins: dict[str, list[int]] = {}
    for row, title in enumerate(catalogue.titles):
        twins.setdefault(title, []).append(row)
    relevant: dict[str, list[int]] = {}
    for row in rng.permutation(len(catalogue.ids))[:most]:
        title = catalogue.titles[row]
        relevant[pseudo_queries(title, catalogue.categories[row], 1, rng)[0]] = twins[title]
    rows = [np.array(some, np.int32) for some in relevant.values()]
    grades = [np.ones(len(some), np.int16) for some in rows]
    return QuerySet("pseudo-queries", list(relevant), rows, grades, 1, np.ones(len(rows)))


def measure(
    model: MRSE,
    catalogue: Catalogue,
    features: np.ndarray | None,
    led_by: Sequence[Sequence[str]] | None,
    queries: QuerySet | None,
    validation: Path | None,
    others: Sequence[Ranker] = (),
    cuts: Sequence[int] = (100, 500),
    folder: Path | None = None,
) -> Measured:
    """Ranks the whole catalogue by exact search.

    Args:
        features: float32 [N, F] with NaN rows, or None. led_by: the queries that led to each item before the split.
        queries: judged or clicked queries; MRSE, BM25, their RRF hybrid and `others` are compared on them, tested
            against BM25. validation: examples' validation.parquet, for the personal measure.
    """
    items = model.item_vectors(catalogue.titles, catalogue.categories, features, led_by)
    report = None
    if queries is not None:
        cuts = [k for k in cuts if k <= len(catalogue.ids)] or [len(catalogue.ids)]
        vectors = VectorRanker("MRSE", lambda texts: model.query_vectors(texts), items.embedding)
        bm25 = BM25(catalogue_texts(catalogue))
        hybrid = ReciprocalRankFusion("hybrid (MRSE + BM25, RRF)", (vectors, bm25))
        rankers: list[Ranker] = [bm25, vectors, hybrid, *others]
        report = evaluate(rankers, queries, catalogue.ids, baseline=bm25.name, cuts=cuts, folder=folder)
    personal = measure_personal(model, items, personal_searches(validation)) if validation is not None else None
    return Measured(report, personal)


def measure_personal(model: MRSE, items: ItemVectors, searches: PersonalSearches) -> PersonalResult:
    """Recall@20 of each search's clicks over the whole catalogue, with the person's history and without."""
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
