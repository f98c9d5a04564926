"""From the parameters of a request to a plan: everything of a query that can be refused without running it."""

from __future__ import annotations

from dataclasses import replace

from .. import yql
from ..application import Application
from ..errors import BAD_REQUEST, ILLEGAL_QUERY, INVALID_PARAMETER, QueryError, unsupported
from ..grouping import GroupingRequest, parse_grouping
from ..matching import SCHEMA_NAME, leaves
from ..package.schema import Field, Schema
from .executor import Plan
from .parameters import Parameters
from .sorting import Criterion, criterion, parse_sorting

MAX_HITS, MAX_OFFSET = 400, 1000


def make_plan(application: Application, parameters: Parameters) -> Plan:
    """What a request asks. Without a schema where `model.restrict` leaves none. Raises QueryError, YqlError and
    GroupingError."""
    grammar = parameters.text("model.type") or "weakAnd"
    try:
        yql.parse_user_text("", grammar)
    except yql.YqlError as e:
        raise QueryError(ILLEGAL_QUERY, f"Could not set 'model.type': {e}") from e
    query = _statement(parameters)
    hits = parameters.integer("hits", 10) if query.hits is None else query.hits
    offset = query.offset if query.offset is not None else parameters.integer("offset", 0)
    for name, value, most in (
        ("hits", hits, parameters.integer("maxHits", MAX_HITS)),
        ("offset", offset, parameters.integer("maxOffset", MAX_OFFSET)),
    ):  # fmt: skip
        if value < 0 and query.hits is not None:
            raise QueryError(
                BAD_REQUEST, f"Invalid request [/search/]: Illegal YQL query: '{name}' must be a positive number"
            )
        if value < 0:
            raise QueryError(ILLEGAL_QUERY, f"Could not set '{name}': '{name}' must be a positive number, not {value}")
        if value > most:
            raise QueryError(
                ILLEGAL_QUERY,
                f"{value} {name} requested, configured limit: {most}. See "
                "https://docs.vespa.ai/en/reference/api/query.html#native-execution-parameters",
            )
    schemas = _sources(application, query, parameters)
    known = [application.schemas[s] for s in schemas]
    if _is_empty(query.where):
        raise QueryError(ILLEGAL_QUERY, "No query")
    for term in leaves(query.where):
        _check_term(term, known)
    for request in query.grouping:
        _check_grouping(request, known, application.cluster)
    defaults = yql.UserTextDefaults(grammar, parameters.text("model.defaultIndex") or "default")
    where = yql.expand_user_input(query.where, lambda name: any(s.searched(name) is not None for s in known), defaults)
    profile = parameters.text("ranking.profile") or "default"
    sorting = _sorting(application, query, parameters, known)
    return Plan(replace(query, where=where), schemas, profile, offset, hits, sorting)


def _statement(parameters: Parameters) -> yql.Query:
    text, typed = parameters.text("yql"), parameters.text("model.queryString")
    select = parameters.values.get("select")
    if select and not isinstance(select, str):
        raise QueryError(ILLEGAL_QUERY, unsupported("the query parameter 'select' as JSON"))
    if text:
        query = yql.parse_yql(text, parameters.for_yql())
    elif typed is None or not typed.strip():
        raise QueryError(ILLEGAL_QUERY, "No query", parameters.text("cluster"))
    else:
        query = yql.Query((), (), yql.UserInput(typed))
    return replace(query, grouping=query.grouping + parse_grouping(select)) if select else query


def _sources(application: Application, query: yql.Query, parameters: Parameters) -> tuple[str, ...]:
    """The document types that a query searches. Raises QueryError."""
    everything = tuple(application.schemas)
    named = query.sources or tuple(s.strip() for s in (parameters.text("model.sources") or "").split(",") if s.strip())
    chosen: list[str] = []
    for name in named:
        if name in ("*", application.cluster):
            chosen += everything
        elif (kind := name.removeprefix(f"{application.cluster}.")) in everything:
            chosen.append(kind)
        else:
            valid = ", ".join(sorted([application.cluster, *(f"{application.cluster}.{s}" for s in everything)]))
            raise QueryError(
                INVALID_PARAMETER, f"Could not resolve source ref '{name}'. Valid source refs are {valid}."
            )
    found = tuple(dict.fromkeys(chosen)) or everything
    restrict = {r.strip() for r in (parameters.text("model.restrict") or "").split(",") if r.strip()}
    return tuple(s for s in found if s in restrict) if restrict else found


def _is_empty(where: yql.Node) -> bool:
    """Whether a tree says nothing: `rank()`, `phrase()`, `userQuery()` without a query."""
    match where:
        case yql.And() | yql.Or() | yql.WeakAnd():
            return not where.children
        case yql.Phrase() | yql.Near():
            return not where.words
    return False


def _check_term(term: yql.Term, known: list[Schema]) -> None:
    """Raises QueryError for a term that its field cannot be asked."""
    name = term.field
    if name == SCHEMA_NAME:
        return
    found = [fields for s in known if (fields := s.searched(name)) is not None]
    if not found and known:
        raise QueryError(INVALID_PARAMETER, f"Could not create query from YQL: Field '{name}' does not exist.")
    for field in (field for fields in found for field in fields):
        if field.type.tensor is not None and not isinstance(term, yql.NearestNeighbor):
            raise QueryError(
                BAD_REQUEST, f"Invalid request [/search/]: Cannot search for terms in '{name}': It is a tensor field"
            )
        if isinstance(term, yql.In):
            _check_values(term, field)


def _check_values(term: yql.In, field: Field) -> None:
    for value in term.values:
        given = isinstance(value, yql.Given)
        try:
            if field.type.is_number and isinstance(value, str):
                if not given:
                    raise ValueError("Cannot cast java.lang.String to java.lang.Number")
                int(value)
            elif not field.type.is_number and not isinstance(value, str):
                raise ValueError("Cannot cast java.lang.Integer to java.lang.String")
        except ValueError as e:
            raise QueryError(INVALID_PARAMETER, f"Could not create query from YQL: {e}") from e


def _check_grouping(request: GroupingRequest, known: list[Schema], cluster: str) -> None:
    """Raises QueryError for what is not an attribute of any type, or is a tensor."""
    for name in request.attributes():
        fields = [s.fields[name] for s in known if name in s.fields and s.fields[name].attribute]
        problem = None
        if not fields and known:
            problem = f"'{name}' which is not available in cluster '{cluster}'."
        elif any(f.type.tensor is not None for f in fields):
            problem = f"'{name}' with unsupported type '{fields[0].type}'"
        if problem:
            raise QueryError(
                BAD_REQUEST, f"Invalid request [/search/]: Grouping request references attribute {problem}"
            )


def _sorting(
    application: Application, query: yql.Query, parameters: Parameters, known: list[Schema]
) -> tuple[Criterion, ...]:
    if any("missing" in o.annotations for o in query.order_by):
        raise QueryError(INVALID_PARAMETER, unsupported("the annotation 'missing' of order by"))
    if query.order_by:
        sorting = tuple(criterion(o.field, o.ascending, o.function) for o in query.order_by)
    else:
        sorting = parse_sorting(parameters.text("ranking.sorting") or "")
    for c in sorting:
        if c.field.startswith("["):
            continue
        fields = [s.fields[c.field] for s in known if c.field in s.fields and s.fields[c.field].attribute]
        if not fields and known:
            problem = f"Cluster '{application.cluster}' has no sortable attribute named '{c.field}'"
            raise QueryError(INVALID_PARAMETER, problem, application.cluster)
        if any(f.type.tensor is not None for f in fields):
            problem = f"Cannot sort on field '{c.field}' because it is a tensor"
            raise QueryError(INVALID_PARAMETER, problem, application.cluster)
        if any(f.type.collection for f in fields):
            raise QueryError(
                INVALID_PARAMETER, unsupported(f"sorting by the multi-value attribute '{c.field}'"), application.cluster
            )
    return sorting
