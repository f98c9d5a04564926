"""How a variant is measured: exact search over the whole catalogue, for judged queries and for persons' next clicks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from mrse_model.data.contract import Catalogue, Judgments, read_catalogue, read_judgments
from mrse_model.data.example_files import ExampleSummary, item_queries
from mrse_model.data.search_log import query_key
from mrse_model.evaluate import histories_of
from mrse_model.evaluation.measures import per_query
from mrse_model.evaluation.personal import PersonalSearches, personal_searches
from mrse_model.evaluation.queries import QuerySet, judged_queries
from mrse_model.evaluation.rankers import Ranking, search_exact
from mrse_model.model import MRSE
from mrse_model.serving import ItemVectors, QueryHistory
from mrse_model.studies.measured import Floats, Values
from mrse_model.studies.pools import r_precision
from mrse_model.studies.queues import three_queues
from mrse_model.studies.study import Data, Variant
from mrse_model.towers import EXPERTS, Tower

CUTS, CLICK_CUTS, DEPTH = (100, 500), (20, 500), 500
MOST_ITEMS = 4000  # for the experts' cosines


class Exam:
    """What all variants of a study are measured on."""

    def __init__(self, data: Data) -> None:
        self.data = data
        self.catalogue: Catalogue = read_catalogue(data.items, title=data.title)
        judged = read_judgments(data.validation, self.catalogue, unknown="skip")
        self.queries: QuerySet = judged_queries(data.validation.stem, judged)
        self._judgments: list[Judgments] = [judged]

    @cached_property
    def grades(self) -> Mapping[str, dict[int, float]]:
        """Query key → item → grade from 0 to 1, by the validation judgments and those learnt from."""
        if self.data.judgments is not None:
            self._judgments.append(read_judgments(self.data.judgments, self.catalogue, unknown="skip"))
        top = max(int(j.grade.max(initial=1)) for j in self._judgments)
        found: dict[str, dict[int, float]] = {}
        for judgments in self._judgments:
            for query, rows, values in judgments.groups():
                found.setdefault(query_key(query), {}).update(zip(rows.tolist(), (values / top).tolist(), strict=True))
        return found


@dataclass
class Subject:
    """A trained variant: its model and the folder of its run."""

    model: MRSE
    run: Path
    exam: Exam

    @cached_property
    def features(self) -> Floats | None:
        """The run's image features."""
        has = self.model.config.model.image_dims
        return np.load(self.run / "cache" / "features.npy", mmap_mode="r") if has else None

    @cached_property
    def led_by(self) -> list[list[str]]:
        """The queries that led to each item before the split."""
        return item_queries(self.run / "cache" / "examples", len(self.exam.catalogue))

    def items(self) -> ItemVectors:
        """The vectors of the whole catalogue."""
        catalogue = self.exam.catalogue
        return self.model.item_vectors(catalogue.titles, catalogue.categories, self.features, self.led_by)

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

    def __call__(self, subject: Subject, variant: Variant) -> dict[str, Values]: ...


def judged(exam: Exam, queries: Floats, items: Floats) -> dict[str, Values]:
    """nDCG@10, Recall@K and Rele@K of the judged queries, which know no person. queries [n, d], items [m, d]."""
    found = per_query(exam.queries, search_exact(queries, items, max(CUTS)), CUTS)
    return {name: Values("queries", values) for name, values in found.items()}


def clicks(exam: Exam, searches: PersonalSearches, ranking: Ranking) -> dict[str, Values]:
    """Recall@K of what was clicked in each search; and Rele@K over the searches whose query is judged, so that a query
    counts as often as it is asked (the paper's weighted variant).
    """
    out = {}
    for cut in CLICK_CUTS:
        found = [np.isin(c, r[:cut]).mean() for c, r in zip(searches.clicked, ranking.rows, strict=True)]
        out[f"clicks Recall@{cut}"] = Values("searches", np.array(found), searches.users)
    known = [(i, exam.grades[k]) for i, q in enumerate(searches.queries) if (k := query_key(q)) in exam.grades]
    if known:
        users = [searches.users[i] for i, _ in known]
        for cut in CUTS:
            relevance = [sum(g.get(int(r), 0.0) for r in ranking.rows[i, :cut]) / cut for i, g in known]
            out[f"Rele@{cut}_w"] = Values("judged searches", np.array(relevance), users)
    return out


def measure_model(subject: Subject, variant: Variant) -> dict[str, Values]:
    """The fused vectors, on judged queries and on persons' next clicks.

    The variant's option: `no history` (the person is not told) or `three queues` (with the I2I queues; judged queries
    know no person and have no value then).
    """
    model, exam, items = subject.model, subject.exam, subject.items()
    out = {}
    if variant.option != "three queues":
        out = judged(exam, model.query_vectors(exam.queries.texts), items.embedding)
    searches = subject.searches
    if searches is None:
        return out
    histories = None if variant.option == "no history" else histories_of(model, items, searches)
    vectors = model.query_vectors(searches.queries, histories)
    if variant.option == "three queues":
        assert histories is not None
        weights = [h.weight if h is not None else np.zeros(0, np.float32) for h in histories]
        ranking = three_queues(vectors, items, searches.history, weights, DEPTH)
    else:
        ranking = search_exact(vectors, items.embedding, DEPTH)
    return out | clicks(exam, searches, ranking)


@contextmanager
def _experts(tower: Tower, found: list[Tensor]) -> Iterator[None]:
    """Within the block the experts [b, 4, d] that enter the tower's DSSM are appended to `found`."""
    hook = tower.dssm.register_forward_pre_hook(lambda _, inputs: found.append(inputs[0].detach()))
    try:
        yield
    finally:
        hook.remove()


def expert_outputs(
    subject: Subject, texts: list[str], histories: list[QueryHistory | None] | None = None
) -> tuple[Floats, Floats]:
    """What the experts say, of unit norm or zero: of the texts [n, 4, d], of the catalogue [m, 4, d]."""
    queries: list[Tensor] = []
    items: list[Tensor] = []
    with _experts(subject.model.query, queries):
        subject.model.query_vectors(texts, histories)
    with _experts(subject.model.item, items):
        subject.items()
    return torch.cat(queries).numpy(), torch.cat(items).numpy()


def measure_vbert(subject: Subject, variant: Variant) -> dict[str, Values]:
    """VBert's own vectors: the judged queries over the catalogue, the hard pool and the easy pool."""
    place = EXPERTS.index("vbert")
    queries, items = (x[:, place] for x in expert_outputs(subject, subject.exam.queries.texts))
    out = judged(subject.exam, queries, items)
    for pool in ("hard", "easy"):
        out[f"{pool} pool"] = Values("queries", r_precision(subject.exam.queries, queries, items, pool))
    return out


def measure_expert(subject: Subject, variant: Variant) -> dict[str, Values]:
    """The cosine of one expert's output (the variant's option) with the final vector, its share, and what is lost
    without it; `all` gives the whole model.
    """
    model, exam = subject.model, subject.exam
    if variant.option == "all":
        vectors = model.query_vectors(exam.queries.texts)
        return {"nDCG@10 without it": judged(exam, vectors, subject.items().embedding)["nDCG@10"]}
    searches, texts, histories = subject.searches, exam.queries.texts, None
    if searches is not None:
        texts, histories = searches.queries, histories_of(model, subject.items(), searches)
    queries, items = expert_outputs(subject, texts, histories)
    led = [row for row, some in enumerate(subject.led_by) if some] or list(range(len(items)))
    chosen = np.sort(np.random.default_rng(0).permutation(led)[:MOST_ITEMS])
    place = EXPERTS.index(variant.option)
    out = {}
    for name, tower, outputs in (("query", model.query, queries), ("item", model.item, items[chosen])):
        cosine, share = _importance(tower, torch.from_numpy(outputs), place)
        out[f"{name} cosine"], out[f"{name} share"] = Values(f"{name} side", cosine), Values(f"{name} side", share)
    kept = model.query.keep.clone()
    model.query.keep[place] = model.item.keep[place] = 0
    vectors = model.query_vectors(exam.queries.texts)
    out["nDCG@10 without it"] = judged(exam, vectors, subject.items().embedding)["nDCG@10"]
    model.query.keep.copy_(kept)
    model.item.keep.copy_(kept)
    return out


@torch.no_grad()
def _importance(tower: Tower, experts: Tensor, place: int) -> tuple[Floats, Floats]:
    """experts [n, 4, d] → of the expert at `place`: cosine with the final vector [n]; share of the final vector [n]."""
    final = tower.dssm(experts)
    moves = []
    for other in range(len(EXPERTS)):
        zeroed = experts.clone()
        zeroed[:, other] = 0
        moves.append(1 - (tower.dssm(zeroed) * final).sum(-1))
    share = moves[place] / torch.stack(moves).sum(0).clamp_min(1e-9)
    return (experts[:, place] * final).sum(-1).numpy(), share.numpy()


MEASURES: dict[str, Measure] = {"model": measure_model, "vbert": measure_vbert, "expert": measure_expert}
