"""From the parameters of a request to a plan: everything of a query that can be refused without running it."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

from .. import yql
from ..application import Application
from ..errors import BAD_REQUEST, ILLEGAL_QUERY, INVALID_PARAMETER, QueryError, unsupported
from ..grouping import DEFAULT_LIMITS, GroupingRequest, Limits, parse_grouping
from ..matching import SCHEMA_NAME
from ..package.rank_profiles import Input, Profile
from ..package.schema import INTEGERS, Field, Schema
from ..ranking.onnx_models import EmbedError
from ..tensors import DOUBLE, FORMATS, Tensor, TensorError, parse_query_tensor
from ..yql.languages import ENGLISH, language_of
from ..yql.tokens import split_words
from .parameters import GROUPING_LIMIT, MAX_TIMEOUT, Parameters
from .plan import Plan, Presentation, TypePlan
from .sorting import Criterion, criterion, parse_sorting

MAX_HITS, MAX_OFFSET, MAX_QUERY_ITEMS = 400, 1000, 10_000
TIMEOUT = 10.0  # seconds; Vespa's 0.5 is for a machine of its own
SOFT_SHARE = 0.7  # of a request's time in which it ranks; Vespa finds its own share, from 0.5


def make_plan(application: Application, parameters: Parameters) -> Plan:
    """What a request asks. Without a document type where `model.restrict` leaves none. Raises QueryError, YqlError and
    GroupingError."""
    try:
        grammar = yql.Grammar.named(parameters.text("model.type") or "weakAnd")
        grammar = grammar.changed(parameters.values, "model.type.")
    except yql.YqlError as e:
        raise QueryError(ILLEGAL_QUERY, f"Could not set 'model.type': {e}") from e
    query = _statement(parameters, application.cluster)
    offset, hits = _window(query, parameters)
    schemas = _sources(application, query, parameters)
    known = [application.schemas[s] for s in schemas]
    if _is_empty(query.where):
        raise QueryError(ILLEGAL_QUERY, "No query")
    for term in yql.leaves(query.where):
        _check_term(term, known)
    for request in query.grouping:
        _check_grouping(request, known, application.cluster)
    _check_text(query.where, parameters, application.cluster)
    language = _language(parameters)
    defaults = yql.UserTextDefaults(grammar, parameters.text("model.defaultIndex") or "default", language)
    where = yql.expand_user_input(query.where, partial(_queried, known=known), defaults)
    where = yql.loosened(where, partial(_queried, known=known), language)
    if _is_empty(where):
        raise QueryError(ILLEGAL_QUERY, "No query")
    _check_size(where, parameters, application.cluster)
    profile = parameters.text("ranking.profile") or "default"
    sorting = _sorting(application, query, parameters, known)
    inputs = _inputs(application, schemas, profile, parameters) if schemas else {}
    types, refusals = _types(application, schemas, profile, sorting, parameters)
    doubts = tuple(doubt for term in yql.leaves(where) for doubt in _doubts(term, known, application.cluster))
    return Plan(
        where, types, profile, parameters.text("queryProfile") or "default", offset, hits, refusals, inputs, sorting,
        query.grouping, _limits(parameters), _presentation(query, parameters), _timeout(query, parameters),
        _soft_share(parameters), language or ENGLISH, doubts,
    )  # fmt: skip


def _language(parameters: Parameters) -> str | None:
    """The language of a request; None if it names none. Raises QueryError."""
    given = parameters.text("model.language") or parameters.text("model.locale")
    try:
        return language_of(given.replace("_", "-")) if given else None
    except ValueError as e:
        raise QueryError(ILLEGAL_QUERY, f"Could not set 'model.language' to '{given}': {e}") from e


def _queried(name: str, known: list[Schema]) -> yql.QueriedField | None:
    """What a `name:` in typed text stands for; None where no type has a field or fieldset of that name."""
    if name == SCHEMA_NAME:
        return yql.QueriedField(text=False, whole=yql.Whole())
    found = [fields for s in known if (fields := s.searched(name)) is not None]
    if not found:
        return None
    members = [field for fields in found for field in fields]
    if not members or any(field.text for field in members):
        return yql.QueriedField()
    strings = [field for field in members if field.attribute and field.type.scalar == "string"]
    terminator = next((field.exact_terminator for field in strings if field.exact_terminator), None)
    return yql.QueriedField(text=False, whole=yql.Whole(terminator) if strings else None)


def _doubts(term: yql.Term, known: list[Schema], cluster: str) -> list[QueryError]:
    """What Vespa complains of though it answers: a prefix of a field whose words are indexed (QueryValidator.java)."""
    fields = [s.fields[term.field] for s in known if term.field in s.fields]
    if not (isinstance(term, yql.Word) and term.match == "prefix" and fields):
        return []
    problems = []
    if not fields[0].attribute:
        problems.append(f"'{term.field}' is not an attribute field: Prefix matching is not supported")
    if fields[0].index:
        problems.append(
            f"'{term.field}' is an index field: Prefix matching is not supported even when it is also an attribute"
        )
    return [QueryError(ILLEGAL_QUERY, problem, cluster) for problem in problems]


def _check_text(where: yql.Node, parameters: Parameters, cluster: str) -> None:
    """Raises QueryError for typed text whose tree `_check_size` would refuse: to parse it may take long. An item has at
    most three words, those of `field:word` and of a range."""
    most = parameters.integer("maxQueryItems", MAX_QUERY_ITEMS)
    for node in yql.nodes(where):
        if isinstance(node, yql.UserInput) and (words := len(split_words(node.text))) > 3 * most:
            raise _too_many(most, words + 1, cluster)


def _check_size(where: yql.Node, parameters: Parameters, cluster: str) -> None:
    """Raises QueryError for a tree of more items than the application allows (QueryCanonicalizer.java)."""
    most, items = parameters.integer("maxQueryItems", MAX_QUERY_ITEMS), _items(where)
    if items > most:
        raise _too_many(most, items, cluster)


def _too_many(most: int, items: int, cluster: str) -> QueryError:
    problem = f"Query tree exceeds allowed item count. Configured limit: {most} - Item count: {items}"
    return QueryError(ILLEGAL_QUERY, problem, cluster)


def _items(node: yql.Node) -> int:
    """Vespa's count of a tree: each operator and each word, but a `!` is none beside the operator it is in."""
    match node:
        case yql.Not():
            return _items(node.child)
        case yql.Phrase() | yql.Near():
            return 1 + sum(max(1, len(split_words(word))) for word in node.words)
        case yql.Equiv():
            return 1 + sum(map(_items, node.children))
        case yql.Word():
            words = len(split_words(node.text))
            return 1 + words if words > 1 else 1
    return 1 + sum(map(_items, yql.children(node)))


def _window(query: yql.Query, parameters: Parameters) -> tuple[int, int]:
    """Offset and hits. Raises QueryError."""
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
            what = f"{value} hits" if name == "hits" else f"Offset of {value}"
            raise QueryError(
                ILLEGAL_QUERY,
                f"{what} requested, configured limit: {most}. See "
                "https://docs.vespa.ai/en/reference/api/query.html#native-execution-parameters",
            )
    return offset, hits


def _types(
    application: Application, schemas: tuple[str, ...], name: str, sorting: tuple[Criterion, ...],
    parameters: Parameters,
) -> tuple[tuple[TypePlan, ...], tuple[QueryError, ...]]:  # fmt: skip
    """The document types with the rank profile that each has of a name, and what those say that cannot run it."""
    types, refusals, cluster = [], [], application.cluster
    for schema in schemas:
        profile = application.package.profiles[schema].get(name)
        if profile is None:
            problem = f"schema '{schema}' does not contain requested rank profile '{name}'"
            refusals.append(QueryError(INVALID_PARAMETER, problem, cluster))
        elif profile.globally is not None and any(c.field != "[relevance]" or c.ascending for c in sorting):
            refusals.append(QueryError(ILLEGAL_QUERY, "Sorting is not supported with global phase", cluster))
        else:
            types.append(TypePlan(schema, _overridden(profile, parameters)))
    return tuple(types), tuple(refusals)


def _overridden(profile: Profile, parameters: Parameters) -> Profile:
    """The profile with the counts and limits that the request gives."""
    settings: dict[str, dict[str, Any]] = {"first": {}, "second": {}, "globally": {}}
    for phase, name in (("second", "ranking.rerankCount"), ("globally", "ranking.globalPhase.rerankCount")):
        if (count := parameters.integer(name, -1)) >= 0:
            settings[phase]["count"] = count
    for phase, prefix in (("first", ""), ("second", "secondPhase."), ("globally", "globalPhase.")):
        if (limit := parameters.number(f"ranking.{prefix}rankScoreDropLimit")) is not None:
            settings[phase]["drop_limit"] = limit
    changed = {
        phase: replace(old, **own)
        for phase, own in settings.items()
        if own and (old := getattr(profile, phase)) is not None
    }
    return replace(profile, **changed) if changed else profile


def _inputs(
    application: Application, schemas: tuple[str, ...], profile: str, parameters: Parameters
) -> dict[str, Tensor]:
    """The tensors of query(name), by the types that the rank profile declares. Raises QueryError."""
    declared: dict[str, Input] = {}
    for schema in reversed(schemas):
        found = application.package.profiles[schema].get(profile)
        declared |= found.inputs if found else {}
    inputs: dict[str, Tensor] = {}
    for name, value in parameters.features().items():
        kind = declared[name].type if name in declared else None
        try:
            if isinstance(value, str) and value.startswith("embed("):
                if kind is None:
                    continue
                given = {"query": ""} | parameters.for_yql()
                inputs[name] = application.embedders.embed(value, kind, f"query({name})", given)
            else:
                inputs[name] = parse_query_tensor(kind or DOUBLE, value)
        except (TensorError, EmbedError) as e:
            if kind is None:
                continue  # a value that no rank profile declares is of no use, as in Vespa
            raise QueryError(ILLEGAL_QUERY, f"Could not set 'ranking.features.query({name})' to '{value}': {e}") from e
    for name, input in declared.items():
        if name not in inputs and input.default is not None:
            inputs[name] = input.default
    return inputs


def _timeout(query: yql.Query, parameters: Parameters) -> float:
    """Seconds. Raises QueryError."""
    if query.timeout is None:
        given = parameters.timeout()
        return TIMEOUT if given is None else given
    if not 0 <= query.timeout * 1000 <= MAX_TIMEOUT:
        problem = f"'timeout' must be positive and smaller than {MAX_TIMEOUT} ms but was {query.timeout * 1000:.0f}"
        raise QueryError(BAD_REQUEST, f"Invalid request [/search/]: Illegal YQL query: {problem}")
    return query.timeout


def _soft_share(parameters: Parameters) -> float | None:
    """The share of the time after which what was ranked by then is the answer. Raises QueryError."""
    share = parameters.number("ranking.softtimeout.factor")
    if share is not None and not 0 <= share <= 1:
        problem = f"factor must be in the range [0.0, 1.0], got {share}"
        raise QueryError(ILLEGAL_QUERY, f"Could not set 'ranking.softtimeout.factor': {problem}")
    enabled = (parameters.text("ranking.softtimeout.enable") or "true") in ("true", "1")
    return (SOFT_SHARE if share is None else share) if enabled else None


def _limits(parameters: Parameters) -> Limits:
    """How many groups and hits a grouping has where it does not say. Raises QueryError."""
    return Limits(
        parameters.integer("grouping.defaultMaxGroups", DEFAULT_LIMITS.groups),
        parameters.integer("grouping.defaultMaxHits", DEFAULT_LIMITS.hits),
        parameters.integer(GROUPING_LIMIT, DEFAULT_LIMITS.total),
    )


def _presentation(query: yql.Query, parameters: Parameters) -> Presentation:
    """How to show the result. Raises QueryError."""
    tensors = (
        parameters.text("presentation.format.tensors") or parameters.text("presentation.format.tensors.") or "short"
    )
    if tensors not in FORMATS:
        raise QueryError(
            ILLEGAL_QUERY, f"Could not set 'presentation.format.tensors': Value '{tensors}' is not a tensor format"
        )
    summary = parameters.text("presentation.summary") or "default"
    if summary == "attributeprefetch":
        raise QueryError(ILLEGAL_QUERY, unsupported("the summary class 'attributeprefetch'"))
    return Presentation(
        frozenset(query.fields), summary, tensors, parameters.flag("presentation.timing"),
        parameters.integer("trace.level", 0) > 0,
    )  # fmt: skip


def _statement(parameters: Parameters, cluster: str) -> yql.Query:
    text, typed = parameters.text("yql"), parameters.text("model.queryString")
    select = parameters.values.get("select")
    if select and not isinstance(select, str):
        raise QueryError(ILLEGAL_QUERY, unsupported("the query parameter 'select' as JSON"))
    if text:
        most = parameters.integer("maxQueryItems", MAX_QUERY_ITEMS)
        if len(text) > most and (items := yql.least_items(text)) > most:
            raise _too_many(most, items, cluster)
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
    if field.type.is_number and field.type.scalar not in INTEGERS:
        raise QueryError(
            INVALID_PARAMETER,
            "Could not create query from YQL: The in operator is only supported for integer and string fields. "
            f"The field {term.field} is not of these types",
        )
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
