"""Runs a grouping over columns of attributes and makes Vespa's JSON tree of groups."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .ast import AGGREGATORS, Attribute, Bucket, Call, Constant, Expression, GroupingError, GroupingRequest, Operation

DEFAULT_MAX = 10  # groups of a list and hits of a group, where max does not say
UNSTABLE = 1


@dataclass(frozen=True)
class Column:
    """An attribute's values of the matched documents, in their order.

    `kind`: int (byte, int, long), float (float, double), string, bool. One value a document (what was never set is what
    Vespa has for it: the smallest integer, NaN, ''), or, where `multi`, a list of them (elements, keys of a weighted set)."""

    kind: str
    values: Sequence[Any]
    multi: bool = False


@dataclass(frozen=True)
class GroupingSource:
    """What a grouping runs on: `size` matched documents, `column(name)` their attribute (KeyError: no such attribute),
    `relevance` float64 [size], `hit(row, summary_class)` the JSON of a hit for output(summary())."""

    size: int
    column: Callable[[str], Column]
    relevance: np.ndarray
    hit: Callable[[int, str | None], dict[str, Any]]


@dataclass(frozen=True)
class _Interval:
    """The key of a bucket; `empty` is the one of values that are in none."""

    low: Any = None
    high: Any = None

    @property
    def empty(self) -> bool:
        return self.low is None


def execute(request: GroupingRequest, source: GroupingSource, *, number: int = 0) -> dict[str, Any]:
    """The JSON of `group:root:<number>`, as Vespa renders it. Raises GroupingError."""
    run = _Run(source)
    run.number_tags(request.root)
    group: dict[str, Any] = {"id": f"group:root:{number}", "relevance": 1.0, "continuation": {"this": ""}}
    run.fill(group, request.root, list(range(source.size)), (number, 0), entering=True)
    return group


@dataclass
class _Run:
    source: GroupingSource
    _columns: dict[str, Column] = field(default_factory=dict)
    _tags: dict[int, int] = field(default_factory=dict)  # by id() of an operation or output

    def number_tags(self, root: Operation) -> None:
        """Tags of lists and outputs, in the order in which Vespa gives them (RequestBuilder.java)."""
        tag = 1

        def visit(operation: Operation, grouped: bool) -> None:
            nonlocal tag
            if operation.each and grouped:
                tag += 1
                self._tags[id(operation)] = tag
            for output in operation.outputs:
                tag += 1
                self._tags[id(output)] = tag
            for child in operation.children:
                visit(child, operation.group is not None)

        visit(root, False)

    # What a group shows

    def fill(
        self,
        shown: dict[str, Any],
        operation: Operation,
        rows: list[int],
        place: tuple[int, ...],
        entering: bool = False,
    ) -> None:
        """Adds to a group's JSON what an operation over its rows gives: values, lists of groups, lists of hits."""
        fields, lists = shown.get("fields", {}), shown.get("children", [])
        level = 2 if operation.group is not None else 1
        for output in operation.outputs:
            if level == 2:
                fields[output.label or str(output.expression)] = len(self.groups(operation.group, rows))
            else:
                value = self.aggregate(output.expression, rows)
                fields[output.label or str(output.expression)] = value
        for child in operation.children:
            where = (*place, len(lists))
            if operation.group is not None and child.each:
                if listed := self.group_list(operation, child, rows, where):
                    lists.append(listed)
            elif operation.group is None and child.each:
                lists.append(self.hit_list(operation, child, rows, where))
            elif operation.group is None:
                if operation.max is not None:
                    raise GroupingError(
                        "local_vespa does not support max without group before all(…); see local_vespa/LIMITS.md"
                    )
                inner: dict[str, Any] = {"fields": fields, "children": lists}
                self.fill(inner, child, rows, place)
            else:
                raise GroupingError("Can not operate on list of groups with all(…)")
        if fields:
            shown["fields"] = fields
        if lists:
            shown["children"] = lists

    def group_list(
        self, operation: Operation, each: Operation, rows: list[int], place: tuple[int, ...]
    ) -> dict[str, Any] | None:
        assert operation.group is not None
        groups = self.groups(operation.group, rows)
        if not groups or not _shows(each):
            return None
        relevance = {key: float(np.max(self.source.relevance[members])) for key, members in groups.items()}
        keys = sorted(groups, key=lambda key: (-relevance[key], _sortable(key)))
        for expression in reversed(operation.order):
            descending = isinstance(expression, Call) and expression.name == "neg"
            measured = expression.arguments[0] if descending else expression
            values = {key: self.aggregate(measured, groups[key]) for key in keys}
            keys.sort(key=lambda key: _sortable(values[key]), reverse=descending)
        limit = DEFAULT_MAX if operation.max is None else operation.max
        kept = keys[:limit] if limit else keys
        label = each.label or str(operation.group)
        listed: dict[str, Any] = {"id": f"grouplist:{label}", "relevance": 1.0, "label": label}
        if len(kept) < len(keys):
            listed["continuation"] = {"next": continuation(place, self._tags[id(each)], len(kept))}
        children = []
        for i, key in enumerate(kept):
            score = (len(kept) - i) / len(kept) if operation.order else relevance[key]
            group = {**_identity(key), "relevance": score}
            self.fill(group, each, groups[key], (*place, i))
            children.append(group)
        return {**listed, "children": children}

    def hit_list(
        self, operation: Operation, each: Operation, rows: list[int], place: tuple[int, ...]
    ) -> dict[str, Any]:
        limit = DEFAULT_MAX if operation.max is None else operation.max
        best = sorted(rows, key=lambda row: (-self.source.relevance[row], row))
        kept = best[:limit] if limit else best
        label = each.label or "hits"
        listed: dict[str, Any] = {"id": f"hitlist:{label}", "relevance": 1.0, "label": label}
        (output,) = each.outputs or (None,)
        if output is None or not isinstance(output.expression, Call) or output.expression.name != "summary":
            raise GroupingError(
                "local_vespa supports only output(summary()) for each hit of a group; see local_vespa/LIMITS.md"
            )
        if len(kept) < len(best):
            listed["continuation"] = {"next": continuation(place, self._tags[id(output)], len(kept))}
        named = output.expression.arguments
        summary = str(getattr(named[0], "name", getattr(named[0], "value", ""))) if named else None
        return {**listed, "children": [self.source.hit(row, summary) for row in kept]}

    # Expressions

    def column(self, name: str) -> Column:
        if name not in self._columns:
            try:
                self._columns[name] = self.source.column(name)
            except KeyError:
                raise GroupingError(f"Attribute '{name}' does not exist") from None
        return self._columns[name]

    def groups(self, expression: Expression | None, rows: list[int]) -> dict[Any, list[int]]:
        """The rows under each key; a row with several values is under each of them."""
        assert expression is not None
        found: dict[Any, list[int]] = {}
        for row in rows:
            for key in dict.fromkeys(self.keys(expression, row)):
                found.setdefault(key, []).append(row)
        return found

    def keys(self, expression: Expression, row: int) -> list[Any]:
        """The values of an expression of one document: one, or as many as a multi-value attribute has."""
        match expression:
            case Constant():
                return [expression.value]
            case Attribute():
                column = self.column(expression.name)
                values = column.values[row] if column.multi else [column.values[row]]
                return ["NaN" if v != v else v for v in values] if column.kind == "float" else list(values)
            case Call(name="fixedwidth"):
                width = expression.arguments[1]
                if not isinstance(width, Constant) or isinstance(width.value, (str, bool)):
                    raise GroupingError("fixedwidth takes a number as its width")
                return [_fixed(v, width.value) for v in self.keys(expression.arguments[0], row)]
            case Call(name="predefined"):
                buckets = [b for b in expression.arguments[1:] if isinstance(b, Bucket)]
                return [_bucket(v, buckets) for v in self.keys(expression.arguments[0], row)]
            case Call() if expression.name in (*_ARITHMETIC, "neg"):
                parts = [self.keys(a, row) for a in expression.arguments]
                if any(len(p) != 1 for p in parts):
                    raise GroupingError(f"local_vespa does not support {expression} over several values")
                return [_computed(expression.name, [p[0] for p in parts])]
        raise GroupingError(f"local_vespa does not support {expression} in grouping; see local_vespa/LIMITS.md")

    def aggregate(self, expression: Expression, rows: list[int]) -> Any:
        """The value of an expression of a group's rows."""
        if isinstance(expression, Constant):
            return expression.value
        if isinstance(expression, Call) and expression.name == "count":
            return len(rows)
        if isinstance(expression, Call) and expression.name in AGGREGATORS:
            values = [v for row in rows for v in self.keys(expression.arguments[0], row)]
            return _aggregated(expression.name, [math.nan if v == "NaN" else v for v in values])
        if isinstance(expression, Call):
            return _computed(expression.name, [self.aggregate(a, rows) for a in expression.arguments])
        raise GroupingError(f"Expression '{expression}' not applicable for single group.")


_ARITHMETIC: dict[str, Callable[[Any, Any], Any]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div": lambda a, b: (a / b if isinstance(a, float) or isinstance(b, float) else int(a / b)) if b else 0,
    "mod": lambda a, b: (
        math.fmod(a, b) if isinstance(a, float) or isinstance(b, float) else int(math.fmod(a, b)) if b else 0
    ),
}


def _computed(name: str, values: list[Any]) -> Any:
    if any(isinstance(v, str) for v in values):
        raise GroupingError(f"local_vespa does not support {name} of strings in grouping")
    if name == "neg":
        return -values[0]
    result = values[0]
    for value in values[1:]:
        result = _ARITHMETIC[name](result, value)
    return result


def _aggregated(name: str, values: list[Any]) -> Any:
    if name in ("min", "max"):
        usable = [v for v in values if v == v]
        if not usable:
            return math.nan if values else 0
        return min(usable) if name == "min" else max(usable)
    if any(isinstance(v, str) for v in values):
        raise GroupingError(f"local_vespa does not support {name} of strings in grouping")
    total = sum(values)
    if name == "sum":
        return total
    if not values:
        return 0.0
    if name == "avg":
        return total / len(values)
    return float(np.std(np.array(values, np.float64)))


def _fixed(value: Any, width: int | float) -> _Interval:
    if value == "NaN" or isinstance(value, str):
        return _Interval()
    if isinstance(value, float) or isinstance(width, float):
        low = math.floor(value / width) * float(width)
        return _Interval(low, low + width)
    low = value // width * width
    return _Interval(low, low + width)


def _bucket(value: Any, buckets: list[Bucket]) -> _Interval:
    """The first bucket that holds a value; a float among whole limits is rounded, as in FloatResultNode."""
    for b in buckets:
        whole = isinstance(b.low, int) or isinstance(b.high, int)
        v = round(value) if whole and isinstance(value, float) and not isinstance(b.low, str) else value
        if isinstance(v, str) != isinstance(b.low, str):
            continue
        if (v >= b.low if b.low_inclusive else v > b.low) and (v <= b.high if b.high_inclusive else v < b.high):
            return _Interval(b.low, b.high)
    return _Interval()


def _identity(key: Any) -> dict[str, Any]:
    """A group's id and value, or limits."""
    if isinstance(key, _Interval):
        if key.empty:
            return {"id": "group:null"}
        kind = "string" if isinstance(key.low, str) else "double" if isinstance(key.low + key.high, float) else "long"
        low, high = (float(v) if kind == "double" else v for v in (key.low, key.high))
        return {"id": f"group:{kind}_bucket:{low}:{high}", "limits": {"from": str(low), "to": str(high)}}
    if isinstance(key, bool):
        return {"id": f"group:bool:{str(key).lower()}", "value": str(key).lower()}
    kind = "string" if isinstance(key, str) and key != "NaN" else "long" if isinstance(key, int) else "double"
    return {"id": f"group:{kind}:{key}", "value": str(key)}


def _sortable(key: Any) -> tuple[Any, ...]:
    if isinstance(key, _Interval):
        return (0,) if key.empty else (1, key.low, key.high)
    return (0, 0) if key == "NaN" or key != key else (1, key)


def _shows(operation: Operation) -> bool:
    """Whether an operation has anything to show; lists of groups without are left out."""
    return bool(operation.outputs) or any(map(_shows, operation.children))


def continuation(place: tuple[int, ...], tag: int, offset: int) -> str:
    """The cursor of a list's next page (OffsetContinuation.java, IntegerEncoder.java)."""
    return "".join(_encoded(v) for v in (len(place), *place, tag, offset, UNSTABLE))


def _encoded(value: int) -> str:
    digits = f"{value << 1:x}" if value else ""
    return "".join("ABCDEFGHIJKLMNOP"[int(d, 16)] for d in f"{len(digits):x}{digits}")
