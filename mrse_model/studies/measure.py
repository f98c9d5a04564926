"""How a variant is measured: exact search over the whole catalogue, for judged queries and for users' next clicks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from mrse_model.config import EXPERTS
from mrse_model.data.contract import Catalogue, Judgments, read_catalogue, read_judgments
from mrse_model.data.example_files import ExampleSummary, item_queries
from mrse_model.data.search_log import query_key
from mrse_model.evaluation.checkpoint import histories_of
from mrse_model.evaluation.measures import per_query
from mrse_model.evaluation.personal import PersonalSearches, personal_searches
from mrse_model.evaluation.queries import QuerySet, judged_queries
from mrse_model.evaluation.rankers import Ranking, search_exact
from mrse_model.model import MRSE
from mrse_model.serving.exported_model import ItemVectors, QueryHistory
from mrse_model.studies.measured import Floats, Values
from mrse_model.studies.pools import POOLS, r_precision
from mrse_model.studies.queues import three_queues
from mrse_model.studies.study import Data, Variant
from mrse_model.towers import Tower

CUTS, CLICK_CUTS, DEPTH = (100, 500), (20, 500), 500
MAX_ITEMS = 4000  # for the experts' cosines


class EvaluationSet:
    """What all variants of a study are measured on."""

    def __init__(self, data: Data) -> None:
        self.data = data
        self.catalogue: Catalogue = read_catalogue(data.items, title=data.title)
        self._judged = read_judgments(data.validation, self.catalogue, unknown="skip")
        self.queries: QuerySet = judged_queries(data.validation.stem, self._judged)

    @cached_property
    def _learnt_from(self) -> list[Judgments]:
        """The judgments that are learnt from, in a list, or none."""
        path = self.data.judgments
        return [read_judgments(path, self.catalogue, unknown="skip")] if path is not None else []

    @cached_property
    def learnt(self) -> int:
        """How many of the judged queries are among the judgments that are learnt from: none, as it should be."""
        learnt = {query_key(query) for judgments in self._learnt_from for query in judgments.queries}
        return len(learnt & set(map(query_key, self.queries.texts)))

    @cached_property
    def grades(self) -> Mapping[str, dict[int, float]]:
        """Query key → item → grade from 0 to 1, by the validation judgments and those learnt from."""
        every = [self._judged, *self._learnt_from]
        top = max(int(j.grade.max(initial=1)) for j in every)
        found: dict[str, dict[int, float]] = {}
        for judgments in every:
            for query, rows, values in judgments.groups():
                found.setdefault(query_key(query), {}).update(zip(rows.tolist(), (values / top).tolist(), strict=True))
        return found


@contextmanager
def _experts(tower: Tower, found: list[Tensor]) -> Iterator[None]:
    """Within the block the experts [b, 4, d] that enter the tower's DSSM are appended to `found`."""
    hook = tower.dssm.register_forward_pre_hook(lambda _, inputs: found.append(inputs[0].detach()))
    try:
        yield
    finally:
        hook.remove()


@dataclass
class TrainedVariant:
    """A trained variant: its model and the folder of its run."""

    model: MRSE
    run: Path
    evaluation: EvaluationSet

    @cached_property
    def features(self) -> Floats | None:
        """The run's image features."""
        has = self.model.config.model.image_dims
        return np.load(self.run / "cache" / "features.npy", mmap_mode="r") if has else None

    @cached_property
    def item_queries(self) -> list[list[str]]:
        """The item queries before the split."""
        return item_queries(self.run / "cache" / "examples", len(self.evaluation.catalogue))

    @cached_property
    def _items(self) -> tuple[ItemVectors, Tensor]:
        catalogue, found = self.evaluation.catalogue, list[Tensor]()
        with _experts(self.model.item, found):
            vectors = self.model.item_vectors(catalogue.titles, catalogue.categories, self.features, self.item_queries)
        experts = torch.cat(found[::2])  # an item is fused twice (MRSE.item_embeddings): with its queries, then without
        assert len(experts) == len(vectors.embedding)
        return vectors, experts

    @property
    def items(self) -> ItemVectors:
        """The vectors of the whole catalogue."""
        return self._items[0]

    @property
    def item_experts(self) -> Tensor:
        """The outputs of the item tower's experts for the catalogue [m, 4, d], each of unit norm or zero."""
        return self._items[1]

    def query_experts(self, texts: list[str], histories: list[QueryHistory | None] | None = None) -> Tensor:
        """The outputs of the query tower's experts for the texts [n, 4, d]."""
        found: list[Tensor] = []
        with _experts(self.model.query, found):
            self.model.query_vectors(texts, histories)
        return torch.cat(found)

    @cached_property
    def searches(self) -> PersonalSearches | None:
        """The validation searches with a click and a history, or None where there are none."""
        examples = self.run / "cache" / "examples"
        summary = ExampleSummary.load(examples)
        if not summary.validation_searches or summary.empty_validation_share == 1:
            return None
        return personal_searches(examples / "validation.parquet")


class Measure(Protocol):
    """A way to measure a variant."""

    def __call__(self, trained: TrainedVariant, variant: Variant) -> dict[str, Values]: ...


def judged(evaluation: EvaluationSet, queries: Floats, items: Floats) -> dict[str, Values]:
    """nDCG@10, Recall@K and Rele@K of the judged queries, which have no user. queries [n, d], items [m, d]."""
    found = per_query(evaluation.queries, search_exact(queries, items, max(CUTS)), CUTS)
    return {name: Values("queries", values) for name, values in found.items()}


def clicks(searches: PersonalSearches, ranking: Ranking) -> dict[str, Values]:
    """Recall@K of what was clicked in each search."""
    out = {}
    for cut in CLICK_CUTS:
        found = [np.isin(c, r[:cut]).mean() for c, r in zip(searches.clicked, ranking.rows, strict=True)]
        out[f"clicks Recall@{cut}"] = Values("searches", np.array(found), searches.users)
    return out


def relevance(evaluation: EvaluationSet, searches: PersonalSearches, ranking: Ranking) -> dict[str, Values]:
    """Rele@K over the searches whose query is judged: a query counts as often as it is asked (the paper's weighted
    variant). ranking: of items without their item queries, which are the judged ones.
    """
    out: dict[str, Values] = {}
    known = [
        (i, evaluation.grades[k]) for i, q in enumerate(searches.queries) if (k := query_key(q)) in evaluation.grades
    ]
    if known:
        users = [searches.users[i] for i, _ in known]
        for cut in CUTS:
            found = [sum(g.get(int(r), 0.0) for r in ranking.rows[i, :cut]) / cut for i, g in known]
            out[f"Rele@{cut}_w"] = Values("judged searches", np.array(found), users)
    return out


def measure_model(trained: TrainedVariant, variant: Variant) -> dict[str, Values]:
    """The fused vectors, on judged queries and on users' next clicks.

    The variant's option: `no user` (judged queries alone), `no history` (the user is unknown), `three queues`
    (with the I2I queues; judged queries know no user and have no value then).
    """
    model, evaluation, items = trained.model, trained.evaluation, trained.items
    out = {}
    if variant.option != "three queues":
        out = judged(evaluation, model.query_vectors(evaluation.queries.texts), items.embedding)
    searches = trained.searches
    if searches is None or variant.option == "no user":
        return out
    histories = None if variant.option == "no history" else histories_of(model, items, searches)
    vectors = model.query_vectors(searches.queries, histories)

    def ranked(found: ItemVectors) -> Ranking:
        if variant.option != "three queues":
            return search_exact(vectors, found.embedding, DEPTH)
        assert histories is not None
        weights = [h.weight if h is not None else np.zeros(0, np.float32) for h in histories]
        return three_queues(vectors, found, searches.history, weights, DEPTH)

    new = replace(items, embedding=items.text_feature)  # the text feature is the vector without the item's queries
    return out | clicks(searches, ranked(items)) | relevance(evaluation, searches, ranked(new))


def measure_vbert(trained: TrainedVariant, variant: Variant) -> dict[str, Values]:
    """VBert's own vectors: the judged queries over the catalogue, the hard pool and the easy pool."""
    index, evaluation = EXPERTS.index("vbert"), trained.evaluation
    queries = trained.query_experts(evaluation.queries.texts)[:, index].numpy()
    items = trained.item_experts[:, index].numpy()
    out = judged(evaluation, queries, items)
    for pool in POOLS:
        out[f"{pool} pool"] = Values("queries", r_precision(evaluation.queries, queries, items, pool))
    return out


def measure_expert(trained: TrainedVariant, variant: Variant) -> dict[str, Values]:
    """Of one expert (the variant's option): its cosine with the final vector, its share of it, nDCG@10 without it.

    `all` has only that last figure, of the whole model. The cosines are of the validation searches with their histories
    (or the judged queries, where there are none) and of items with item queries (or any items).
    """
    model, evaluation = trained.model, trained.evaluation
    index = None if variant.option == "all" else EXPERTS.index(variant.option)
    asked = trained.query_experts(evaluation.queries.texts)
    vectors, items = _fused(model.query, asked, index), _fused(model.item, trained.item_experts, index)
    out = {"nDCG@10 without it": judged(evaluation, vectors.numpy(), items.numpy())["nDCG@10"]}
    if index is None:
        return out
    users = None
    if (searches := trained.searches) is not None:
        users = searches.users
        asked = trained.query_experts(searches.queries, histories_of(model, trained.items, searches))
    with_queries = [row for row, some in enumerate(trained.item_queries) if some] or list(range(len(items)))
    chosen = np.sort(np.random.default_rng(0).permutation(with_queries)[:MAX_ITEMS])
    sides = (("query", model.query, asked, users), ("item", model.item, trained.item_experts[chosen], None))
    for name, tower, experts, clusters in sides:
        final = _fused(tower, experts, None)
        moves = torch.stack([1 - (_fused(tower, experts, p) * final).sum(-1) for p in range(len(EXPERTS))])
        share = moves[index] / moves.sum(0).clamp_min(1e-9)
        cosine = (experts[:, index] * final).sum(-1).numpy()
        out[f"{name} cosine"] = Values(f"{name} side", cosine, clusters)
        out[f"{name} share"] = Values(f"{name} side", share.numpy(), clusters)
    return out


@torch.no_grad()
def _fused(tower: Tower, experts: Tensor, without: int | None) -> Tensor:
    """experts [n, 4, d] → the fused vectors [n, d], without the expert at that index."""
    blocks = experts.split(4096)
    return torch.cat([tower.dssm(some) if without is None else tower.without(some, without) for some in blocks])


MEASURES: dict[str, Measure] = {"model": measure_model, "vbert": measure_vbert, "expert": measure_expert}
