"""What a grouping does, in order: lists of groups, lists of hits and outputs, each with Vespa's tag
(RequestBuilder.java)."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

from .ast import Attribute, Bucket, Call, Constant, Expression, GroupingError, GroupingRequest, Operation, Output

_LEVELS = ("single hit", "single group", "list of groups", "list of list of groups")


@dataclass(frozen=True)
class Limits:
    """grouping.defaultMaxGroups, grouping.defaultMaxHits and grouping.globalMaxGroups; a negative one is none."""

    groups: int = 10
    hits: int = 10
    total: int = 10_000


DEFAULT_LIMITS = Limits()


@dataclass
class Hits:
    """output(summary()): a list of hits; `limit` None is all of them."""

    tag: int
    label: str
    limit: int | None
    summary: str | None


@dataclass
class Groups:
    """A list of groups under an each(…)."""

    tag: int
    label: str
    by: Expression
    limit: int | None
    order: tuple[Expression, ...]
    content: Content


@dataclass
class Content:
    """What is made of one group: outputs by label, the number of distinct groups by label, hits, lists of groups."""

    outputs: list[tuple[str, Expression]] = field(default_factory=list)
    counts: list[tuple[str, Expression]] = field(default_factory=list)
    hits: list[Hits] = field(default_factory=list)
    lists: list[Groups] = field(default_factory=list)

    @property
    def empty(self) -> bool:
        return not (self.outputs or self.counts or self.hits or self.lists)


@dataclass(frozen=True)
class Plan:
    """The content of the root group; `top` limits it to the best hits (max() on the root)."""

    content: Content
    top: int | None = None


@dataclass(frozen=True)
class _State:
    """What an operation leaves to the each() inside it."""

    by: Expression | None = None
    label: str | None = None
    limit: float | None = math.inf  # None: the default of groups or hits
    order: tuple[Expression, ...] = ()


def plan(request: GroupingRequest, limits: Limits = DEFAULT_LIMITS) -> Plan:
    """The plan of a request. Raises GroupingError where an operation is not possible at its level."""
    _check(request.root, 1)
    planner = _Planner(limits)
    content = Content()
    planner.operation(request.root, _State(), content, level=1)
    _prune(content)
    if limits.total >= 0:
        _check_total(content, limits.total)
    if request.root.where not in (None, "$query"):
        raise GroupingError("grouping over documents that the query does not match (where(true)) is not supported")
    return Plan(content, planner.top)


class _Planner:
    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.tag = 1
        self.top: int | None = None

    def next_tag(self) -> int:
        self.tag += 1
        return self.tag

    def operation(self, operation: Operation, state: _State, content: Content, level: int) -> None:
        level -= operation.each
        level += operation.group is not None
        if level > 2:
            raise GroupingError(f"Can not operate on {_LEVELS[3]}.")
        if operation.each:
            if state.by is not None:
                groups = Groups(
                    self.next_tag(), "", state.by, _limit(state.limit, self.limits.groups), state.order, Content()
                )
                groups.label = operation.label or state.label or ""
                content.lists.append(groups)
                content = groups.content
                state = _State(label=groups.label)
            elif operation.label:
                state = replace(state, label=operation.label)
        state = self.outputs(operation, state, content, level)
        if operation.group is not None:
            if state.by is not None:
                raise GroupingError("Can not group list of groups.")
            state = replace(state, by=operation.group, label=str(operation.group))
        elif level == 1:
            state = replace(state, label="hits")
        elif level == 2:
            raise GroupingError(f"Can not create anonymous {_LEVELS[2]}.")
        if not operation.each and state.by is None:
            if operation.limit is not None and operation.limit != math.inf:
                self.top = min(self.top or int(operation.limit), int(operation.limit))
        else:
            state = replace(state, limit=operation.limit)
        if operation.order:
            if level != 2:
                raise GroupingError(f"Can not order {_LEVELS[level]} content.")
            state = replace(state, order=state.order + operation.order)
        for child in operation.children:
            self.operation(child, state, content, level)

    def outputs(self, operation: Operation, state: _State, content: Content, level: int) -> _State:
        for output in operation.outputs:
            expression = output.expression
            tag = self.next_tag()
            if isinstance(expression, Call) and expression.name == "summary":
                if output.label is not None:
                    raise GroupingError(f"Can not label expression '{expression}'.")
                name = str(expression.arguments[0].value) if expression.arguments else None  # type: ignore[attr-defined]
                limit = _limit(state.limit, self.limits.hits)
                content.hits.append(Hits(tag, state.label or "hits", limit, name))
                state = replace(state, limit=math.inf)
            elif level == 2:
                content.counts.append(_counted(operation, output))
            else:
                content.outputs.append((output.label or str(expression), expression))
        return state


def _limit(said: float | None, default: int) -> int | None:
    """What max(…) said, or the default; None where there is no limit."""
    limit = default if said is None else said
    return None if limit < 0 or limit == math.inf else int(limit)


def _counted(operation: Operation, output: Output) -> tuple[str, Expression]:
    """output(count()) of a list of groups is the number of groups."""
    if output.expression != Call("count") or operation.group is None:
        raise GroupingError(f"the output {output.expression} of a {_LEVELS[2]} is not supported by this engine")
    return output.label or str(output.expression), operation.group


def _prune(content: Content) -> None:
    """Drops lists without any output, as Vespa does."""
    for groups in content.lists:
        _prune(groups.content)
    content.lists = [groups for groups in content.lists if not groups.content.empty]


def _check_total(content: Content, most: int, factor: int = 1) -> int:
    total = 0
    for groups in content.lists:
        limit = groups.limit or 0
        if isinstance(groups.by, Call) and groups.by.name == "predefined":
            buckets = len(groups.by.arguments)
            limit = buckets if limit <= 0 else min(limit, buckets)
        if limit <= 0:
            raise GroupingError("Cannot return unbounded number of groups when 'grouping.globalMaxGroups' is enabled.")
        total += factor * limit + _check_total(groups.content, most, factor * limit)
        for hits in groups.content.hits:
            if not hits.limit:
                raise GroupingError(
                    "Cannot return unbounded number of summaries when 'grouping.globalMaxGroups' is enabled."
                )
            total += factor * limit * hits.limit
    if total > most:
        raise GroupingError(
            "The theoretical total number of groups and summaries in grouping query exceeds "
            f"'grouping.globalMaxGroups' ( {total} > {most} ). Restrict them with max()."
        )
    return total


def _check(operation: Operation, level: int) -> None:
    """GroupingOperation.resolveLevel: 0 is a hit, 1 a group, 2 a list of groups."""
    name = "each" if operation.each else "all"
    if operation.each:
        if level == 0:
            raise GroupingError(f"Operation '{name}' cannot operate on {_LEVELS[0]}.")
        level -= 1
    if operation.group is not None:
        if level == 0:
            raise GroupingError(f"Operation '{name}' cannot group {_LEVELS[0]}.")
        _check_expression(operation.group, level - 1)
        level += 1
    if level == 0 and operation.limit is not None:
        raise GroupingError(f"Operation '{name}' cannot apply max to {_LEVELS[0]}.")
    for output in operation.outputs:
        if not (isinstance(output.expression, Call) and output.expression.name == "summary"):
            _check_expression(output.expression, level)
            if not _aggregates(output.expression):
                raise GroupingError(f"Can not convert '{output.expression}' to an aggregator.")
        elif level != 0:
            raise GroupingError(f"Expression '{output.expression}' not applicable for {_LEVELS[min(level, 3)]}.")
    if operation.order and level == 0:
        raise GroupingError(f"Operation '{name}' cannot order {_LEVELS[0]}.")
    for expression in operation.order:
        _check_expression(expression, level - 1)
    for child in operation.children:
        _check(child, level)


def _aggregates(expression: Expression) -> bool:
    return isinstance(expression, Call) and expression.aggregates


def _check_expression(expression: Expression, level: int) -> None:
    at = _LEVELS[min(level, 3)]
    if isinstance(expression, Attribute) and level != 0:
        raise GroupingError(f"Expression '{expression}' not applicable for {at}.")
    if isinstance(expression, Call):
        if expression.name in ("relevance", "summary") and level != 0:
            raise GroupingError(f"Expression '{expression}' not applicable for {at}.")
        if expression.aggregates:
            if level < 1:
                raise GroupingError(f"Expression '{expression}' not applicable for {at}.")
            level -= 1
        for argument in expression.arguments:
            if not isinstance(argument, (Constant, Bucket)):
                _check_expression(argument, level)
