"""Runs a query: which documents match, in which order, with which scores, in every document type that it asks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from .. import yql
from ..application import Application
from ..errors import ILLEGAL_QUERY, INVALID_PARAMETER, SEARCH_REPLY, QueryError
from ..expressions import RankingError, Reference
from ..index.table import Table
from ..matching import Matcher
from ..package.rank_profiles import Profile
from ..ranking.features import Features, RankContext
from ..ranking.onnx_models import EmbedError
from ..ranking.phases import Ranked, rank
from ..tensors import DOUBLE, Tensor, TensorError, parse_query_tensor
from .parameters import Parameters
from .sorting import Criterion, sort_keys


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
    hits: list[Hit] = field(default_factory=list)


@dataclass
class SearchResult:
    """The result over all document types."""

    hits: list[Hit]
    total: int
    parts: list[Part]
    errors: list[QueryError]


@dataclass(frozen=True)
class Plan:
    """A query, ready to run."""

    query: yql.Query
    schemas: tuple[str, ...]
    profile: str
    offset: int
    hits: int
    sorting: tuple[Criterion, ...]


def run(application: Application, tables: Mapping[str, Table], plan: Plan, parameters: Parameters) -> SearchResult:
    """Searches every document type of the plan; the engine's lock must be held. Raises QueryError where all refuse."""
    parts, errors = [], []
    inputs = query_inputs(application, plan, parameters)
    for schema in plan.schemas:
        try:
            parts.append(_search(application, tables[schema], plan, parameters, inputs))
        except QueryError as e:
            errors.append(e)
    if not parts and errors:
        raise errors[0]
    for part in parts:
        errors += _unsortable(part, plan, application.cluster)
    merged = sorted((hit for part in parts for hit in part.hits), key=lambda hit: hit.order)
    kept = merged[plan.offset : plan.offset + plan.hits]
    return SearchResult(kept, sum(p.total for p in parts), parts, errors)


def query_inputs(application: Application, plan: Plan, parameters: Parameters) -> dict[str, Tensor]:
    """The tensors of query(name), by the types that the rank profile declares. Raises QueryError."""
    declared: dict[str, Any] = {}
    for schema in reversed(plan.schemas):
        profile = application.package.profiles[schema].get(plan.profile)
        declared |= profile.inputs if profile else {}
    found: dict[str, Tensor] = {}
    given = {"query": ""} | parameters.for_yql()
    for name, value in parameters.features().items():
        kind = declared[name].type if name in declared else None
        try:
            if isinstance(value, str) and value.startswith("embed("):
                if kind is None:
                    continue
                found[name] = application.embedders.embed(value, kind, f"query({name})", given)
            elif kind is not None:
                found[name] = parse_query_tensor(kind, value)
            else:
                found[name] = parse_query_tensor(DOUBLE, value)
        except (TensorError, EmbedError) as e:
            if kind is None:
                continue  # a value that no rank profile declares is of no use, as in Vespa
            raise QueryError(ILLEGAL_QUERY, f"Could not set 'ranking.features.query({name})' to '{value}': {e}") from e
    for name, input in declared.items():
        if name not in found and input.default is not None:
            found[name] = input.default
    return found


def _search(
    application: Application, table: Table, plan: Plan, parameters: Parameters, inputs: Mapping[str, Tensor]
) -> Part:
    """Matches and ranks one document type."""
    schema, cluster = table.schema, application.cluster
    profile = application.package.profiles[schema.name].get(plan.profile)
    if profile is None:
        raise QueryError(
            INVALID_PARAMETER,
            f"schema '{schema.name}' does not contain requested rank profile '{plan.profile}'",
            cluster,
        )
    if profile.globally is not None and any(c.field != "[relevance]" or c.ascending for c in plan.sorting):
        raise QueryError(ILLEGAL_QUERY, "Sorting is not supported with global phase", cluster)
    matching = Matcher(table, inputs, cluster).run(plan.query.where)
    rows = np.flatnonzero(matching.mask)
    context = RankContext(
        table, profile, matching.terms, inputs, application.constants[schema.name, profile.name], application.onnx
    )
    total = len(rows)
    by_relevance = any(c.field == "[relevance]" for c in plan.sorting)
    try:
        if (plan.sorting and not by_relevance) or (plan.hits == 0 and not plan.query.grouping):
            ranked = Ranked(rows, np.zeros(total), total, (rows, np.zeros(total)))
        else:
            ranked = rank(context, rows, plan.offset + plan.hits, _overrides(profile, parameters))
        part = Part(schema.name, table, profile, context, *ranked.matched, ranked.total)
        part.hits = _ordered(part, plan, ranked)
        _match_features(part)
    except RankingError as e:
        raise QueryError(ILLEGAL_QUERY, f"rank profile '{profile.name}': {e}", cluster) from e
    return part


def _overrides(profile: Profile, parameters: Parameters) -> Profile:
    """The profile with the counts and limits that the request gives."""
    second, globally, first = profile.second, profile.globally, profile.first
    count = parameters.integer("ranking.rerankCount", -1)
    if second is not None and count >= 0:
        second = replace(second, count=count)
    count = parameters.integer("ranking.globalPhase.rerankCount", -1)
    if globally is not None and count >= 0:
        globally = replace(globally, count=count)
    if first is not None and (limit := parameters.number("ranking.rankScoreDropLimit")) is not None:
        first = replace(first, drop_limit=limit)
    if second is not None and (limit := parameters.number("ranking.secondPhase.rankScoreDropLimit")) is not None:
        second = replace(second, drop_limit=limit)
    if globally is not None and (limit := parameters.number("ranking.globalPhase.rankScoreDropLimit")) is not None:
        globally = replace(globally, drop_limit=limit)
    return replace(profile, first=first, second=second, globally=globally)


def _ordered(part: Part, plan: Plan, ranked: Ranked) -> list[Hit]:
    """The hits of a part that can be among those asked for, in order."""
    wanted = plan.offset + plan.hits
    if not plan.sorting:
        best = _top(ranked.relevance, wanted)
        return [
            Hit(
                part.schema,
                int(ranked.rows[i]),
                float(ranked.relevance[i]),
                (-float(ranked.relevance[i]), int(ranked.rows[i])),
            )
            for i in best
        ]
    keys = sort_keys(part.table, ranked.rows, ranked.relevance, plan.sorting)
    order = sorted(range(len(ranked.rows)), key=lambda i: (keys[i], int(ranked.rows[i])))[:wanted]
    return [
        Hit(part.schema, int(ranked.rows[i]), float(ranked.relevance[i]), (keys[i], int(ranked.rows[i]))) for i in order
    ]


def _top(scores: np.ndarray, count: int) -> np.ndarray:
    """Indices of the `count` greatest scores in descending order, equal ones by index."""
    count = min(count, len(scores))
    if count == 0:
        return np.empty(0, np.int64)
    if count < len(scores):
        limit = np.partition(scores, len(scores) - count)[len(scores) - count]
        above = np.flatnonzero(scores > limit)
        equal = np.flatnonzero(scores == limit)[: count - len(above)]
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
