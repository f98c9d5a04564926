"""Runs a query: which documents match, in which order, with which scores, in every document type that it asks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .. import yql
from ..application import Application
from ..deadline import NEVER, Deadline
from ..errors import ILLEGAL_QUERY, SEARCH_REPLY, QueryError
from ..expressions import RankingError, Reference
from ..index.table import Table
from ..matching import Matcher
from ..package.rank_profiles import Profile
from ..ranking.features import Features, RankContext
from ..ranking.phases import Ranked, rank
from .plan import Plan
from .sorting import relevance_key, sort_keys


@dataclass
class Hit:
    """One hit: where it is and how it is ordered. `features` are its match-features."""

    schema: str
    row: int
    relevance: float
    order: tuple[Any, ...] = ()
    features: dict[str, Any] | None = None


@dataclass
class Part:
    """What one document type contributes to a query. `rows` and their relevance are what groups are made of."""

    schema: str
    table: Table
    profile: Profile
    context: RankContext
    rows: np.ndarray
    relevance: np.ndarray
    total: int
    covered: int  # documents that were examined
    hits: list[Hit] = field(default_factory=list)


@dataclass
class SearchResult:
    """The result over all document types."""

    hits: list[Hit]
    total: int
    parts: list[Part]
    errors: list[QueryError]


def run(application: Application, tables: Mapping[str, Table], plan: Plan, deadline: Deadline = NEVER) -> SearchResult:
    """Searches every document type of the plan; the engine's lock must be held. Raises QueryError where all refuse, and
    OutOfTime where nothing was found in time."""
    parts, errors = [], list(plan.refusals)
    for asked in plan.types:
        try:
            parts.append(_search(application, tables[asked.schema], plan, asked.profile, deadline))
        except QueryError as e:
            errors.append(e)
    if not parts and errors:
        raise errors[0]
    for part in parts:
        errors += _unsortable(part, plan, application.cluster)
    errors += plan.doubts
    merged = sorted((hit for part in parts for hit in part.hits), key=lambda hit: hit.order)
    return SearchResult(merged[plan.offset : plan.wanted], sum(p.total for p in parts), parts, errors)


def _search(application: Application, table: Table, plan: Plan, profile: Profile, deadline: Deadline) -> Part:
    """Matches and ranks one document type."""
    schema, cluster = table.schema, application.cluster
    matching = Matcher(table, plan.inputs, cluster, plan.language, deadline).run(plan.where)
    rows = np.flatnonzero(matching.mask)
    constants = application.constants[schema.name, profile.name]
    soft = deadline if plan.soft is None else deadline.sooner(plan.soft)
    context = RankContext(table, profile, matching.terms, plan.inputs, constants, application.onnx, deadline, soft)
    total = len(rows)
    try:
        if _needs_ranking(plan, profile):
            ranked = rank(context, rows, plan.wanted)
        else:
            ranked = Ranked(rows, np.zeros(total), total, (rows, np.zeros(total)))
        covered = table.count if ranked.seen is None else int(np.count_nonzero(table.live[: ranked.seen]))
        part = Part(schema.name, table, profile, context, *ranked.matched, ranked.total, covered)
        part.hits = _ordered(part, plan, ranked)
        _match_features(part)
    except RankingError as e:
        raise QueryError(ILLEGAL_QUERY, f"rank profile '{profile.name}': {e}", cluster) from e
    return part


def _needs_ranking(plan: Plan, profile: Profile) -> bool:
    """Whether a content node computes relevance (willNeedRanking in matcher.cpp): not for hits that are sorted by
    other than it, but always for operators that look for the best hits and for a limit under which hits go."""
    if any(isinstance(node, yql.WeakAnd | yql.Wand | yql.NearestNeighbor) for node in yql.nodes(plan.where)):
        return True
    if plan.hits == 0 and not plan.grouping:
        return False
    limited = profile.first is not None and profile.first.drop_limit is not None
    return limited or not plan.sorting or any(c.field == "[relevance]" for c in plan.sorting)


def _ordered(part: Part, plan: Plan, ranked: Ranked) -> list[Hit]:
    """The hits of a part that can be among those asked for, in order."""
    wanted = plan.wanted
    if not plan.sorting:
        best = _top(ranked.relevance, wanted).tolist()
        found = [(int(ranked.rows[i]), float(ranked.relevance[i])) for i in best]
        return [Hit(part.schema, row, score, (*relevance_key(score), row)) for row, score in found]
    keys = sort_keys(part.table, ranked.rows, ranked.relevance, plan.sorting)
    order = sorted(range(len(ranked.rows)), key=lambda i: (keys[i], int(ranked.rows[i])))[:wanted]
    return [
        Hit(part.schema, int(ranked.rows[i]), float(ranked.relevance[i]), (keys[i], int(ranked.rows[i]))) for i in order
    ]


def _top(scores: np.ndarray, count: int) -> np.ndarray:
    """Indices of the `count` greatest scores in descending order, equal ones by index; NaN is below all numbers."""
    count = min(count, len(scores))
    if count == 0:
        return np.empty(0, np.int64)
    if count < len(scores):
        numbers = np.where(np.isnan(scores), -np.inf, scores)
        limit = np.partition(numbers, len(scores) - count)[len(scores) - count]
        above = np.flatnonzero(numbers > limit)
        equal = np.flatnonzero(numbers == limit)[: count - len(above)]
        chosen = np.sort(np.concatenate([above, equal]))
    else:
        chosen = np.arange(len(scores))
    return chosen[np.argsort(-scores[chosen], kind="stable")]


def _match_features(part: Part) -> None:
    if part.hits and part.profile.match_features:
        rows = np.array([hit.row for hit in part.hits])
        for hit, found in zip(part.hits, feature_values(part.context, rows, part.profile.match_features), strict=True):
            hit.features = found


def feature_values(context: RankContext, rows: np.ndarray, features: tuple[Reference, ...]) -> list[dict[str, Any]]:
    """Features of some rows, each a number or a Tensor, by their names as Vespa shows them."""
    evaluator = Features(context, rows).evaluator
    columns = {str(feature): evaluator.feature(feature) for feature in features}
    return [
        {n: float(v.tensor(i).array) if v.type.is_scalar else v.tensor(i) for n, v in columns.items()}
        for i in range(len(rows))
    ]


def _unsortable(part: Part, plan: Plan, cluster: str) -> list[QueryError]:
    """Vespa's complaint of a type that lacks a field by which is sorted; its hits then come unsorted by it."""
    return [
        QueryError(SEARCH_REPLY, f"sort spec: Attribute vector '{c.field}' is not valid. Skipped in sorting", cluster)
        for c in plan.sorting
        if not c.field.startswith("[") and c.field not in part.table.columns
    ]
