"""Runs a grouping over columns of attributes and makes Vespa's JSON tree of groups."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from .ast import Call, Constant, Expression, GroupingError, GroupingRequest, java_text
from .plan import DEFAULT_LIMITS, Content, Groups, Hits, Limits, plan
from .vectors import Column, Vector, Vectors, as_integers, combine

_UNSTABLE = 1  # OffsetContinuation.FLAG_UNSTABLE
_DIGITS = "ABCDEFGHIJKLMNOP"


@dataclass(frozen=True)
class GroupingSource:
    """What a grouping runs on: `size` matched documents, `column(name)` their attribute (KeyError: no such attribute),
    `relevance` float64 [size], `hit(row, summary_class)` the JSON of a hit for output(summary())."""

    size: int
    column: Callable[[str], Column]
    relevance: np.ndarray
    hit: Callable[[int, str | None], dict[str, Any]]


def execute(
    request: GroupingRequest, source: GroupingSource, *, number: int = 0, limits: Limits = DEFAULT_LIMITS
) -> dict[str, Any]:
    """The JSON of `group:root:<number>`, as Vespa renders it. Raises GroupingError."""
    todo = plan(request, limits)
    rows = np.arange(source.size)
    if todo.top is not None:
        rows = np.sort(np.argsort(-source.relevance, kind="stable")[: todo.top])
    root: dict[str, Any] = {"id": f"group:root:{number}", "relevance": 1.0, "continuation": {"this": ""}}
    return root | _Run(source).fill(todo.content, rows, (number, 0))


class _Run:
    def __init__(self, source: GroupingSource) -> None:
        self.source = source
        self.relevance = np.where(np.isnan(source.relevance), -np.inf, source.relevance)  # as Group::setRank
        self.vectors = Vectors(source.size, source.column, source.relevance)

    def fill(self, content: Content, rows: np.ndarray, path: tuple[int, ...]) -> dict[str, Any]:
        """Fields and children of a group; `path` is its path of indices, for continuations."""
        fields = {label: self.aggregate(expression, rows) for label, expression in content.outputs}
        for label, by in content.counts:
            fields[label] = len(_members(self.vectors.of(by), rows))
        children: list[dict[str, Any]] = []
        for hits in content.hits:
            children.append(self.hit_list(hits, rows, (*path, len(children))))
        lists = 0
        for groups in content.lists:
            found = self.group_list(groups, rows, (*path, lists))
            if found:
                children.append(found)
                lists += 1
        made: dict[str, Any] = {}
        if fields:
            made["fields"] = {label: _finite(value) for label, value in fields.items()}
        if children:
            made["children"] = children
        return made

    def hit_list(self, hits: Hits, rows: np.ndarray, path: tuple[int, ...]) -> dict[str, Any]:
        best = rows[np.argsort(-self.source.relevance[rows], kind="stable")]
        shown = best if hits.limit is None else best[: hits.limit]
        made: dict[str, Any] = {"id": f"hitlist:{hits.label}", "relevance": 1.0, "label": hits.label}
        if len(shown) < len(best):
            made["continuation"] = {"next": _continuation(path, hits.tag, len(shown))}
        return made | {"children": [self.source.hit(int(row), hits.summary) for row in shown]}

    def group_list(self, groups: Groups, rows: np.ndarray, path: tuple[int, ...]) -> dict[str, Any] | None:
        vector = self.vectors.of(groups.by)
        members = _members(vector, rows)
        if not members:
            return None
        ranked = not groups.order
        # What the order does not decide their best hits do, and then their values (group.cpp).
        ordered = sorted(members, key=lambda item: _id_key(item[0]))
        ordered.sort(key=lambda item: -float(np.max(self.relevance[item[1]])))
        for expression in reversed(groups.order):
            descending = isinstance(expression, Call) and expression.name == "neg"
            inner = expression.arguments[0] if descending else expression  # type: ignore[attr-defined]
            keys = {id(item): _id_key(self.aggregate(inner, item[1])) for item in ordered}
            ordered.sort(key=lambda item, keys=keys: keys[id(item)], reverse=descending)  # type: ignore[misc]
        shown = ordered if groups.limit is None else ordered[: groups.limit]
        children = []
        for n, (value, inside) in enumerate(shown):
            relevance = float(np.max(self.relevance[inside])) if ranked else (len(shown) - n) / len(shown)
            head = _group_head(vector.kind, value) | {"relevance": relevance}
            children.append(_in_order(head) | self.fill(groups.content, inside, (*path, n)))
        made: dict[str, Any] = {"id": f"grouplist:{groups.label}", "relevance": 1.0, "label": groups.label}
        if len(shown) < len(ordered):
            made["continuation"] = {"next": _continuation(path, groups.tag, len(shown))}
        return made | {"children": children}

    def aggregate(self, expression: Expression, rows: np.ndarray) -> Any:
        """The value of an expression over a group of documents."""
        if isinstance(expression, Constant):
            return expression.value
        if not isinstance(expression, Call):
            raise GroupingError(f"Expression '{expression}' not applicable for single group.")
        name, arguments = expression.name, expression.arguments
        if not expression.aggregates:
            values = [self.aggregate(argument, rows) for argument in arguments]
            if name == "neg":
                return -values[0]
            if name in ("add", "sub", "mul", "div", "mod", "min", "max", "avg") and not any(
                isinstance(value, str) for value in values
            ):
                return combine(name, [np.asarray(value) for value in values]).item()
            raise GroupingError(f"the expression '{expression}' over a group is not supported by this engine")
        if name == "count":
            return len(rows)
        vector = self.vectors.of(arguments[0])
        found = vector.select(rows)
        if vector.kind in ("string", "bucket"):
            if name not in ("min", "max") or vector.kind == "bucket":
                raise GroupingError(f"Can not aggregate '{expression}' over a {vector.kind}")
            return (min if name == "min" else max)(found.tolist(), default="")
        return _number(name, found.astype(np.int64) if vector.kind == "bool" else found)


def _number(name: str, values: np.ndarray) -> int | float:
    """An aggregate of numbers. NaN is part of a sum, but no minimum or maximum: those start at the greatest and the
    least number, and stay there where nothing is beyond it (aggregation.cpp)."""
    whole = values.dtype.kind == "i"
    if name == "sum":
        return values.sum().item() if len(values) else 0
    if name == "avg":
        return float(values.mean()) if len(values) else 0.0
    if name == "stddev":
        return float(values.std()) if len(values) else 0.0
    if name == "xor":
        return int(np.bitwise_xor.reduce(as_integers(values))) if len(values) else 0
    if not len(values):
        return 0 if whole else 0.0
    if whole:
        return (values.min() if name == "min" else values.max()).item()
    most = float(np.finfo(np.float64).max)
    return float(np.fmin.reduce(values, initial=most) if name == "min" else np.fmax.reduce(values, initial=-most))


def _members(vector: Vector, rows: np.ndarray) -> list[tuple[Any, np.ndarray]]:
    """Each value with the documents that have it (once for each time that they have it)."""
    if vector.one_each(rows):
        owners, values = rows, vector.values[rows]
    else:
        counts = np.searchsorted(vector.rows, rows, "right") - np.searchsorted(vector.rows, rows)
        owners, values = np.repeat(rows, counts), vector.select(rows)
    if values.dtype == object:
        known: dict[Any, int] = {}
        codes = np.array([known.setdefault(value, len(known)) for value in values.tolist()], np.int64)
        names: list[Any] = list(known)
    else:
        unique, codes = np.unique(values, return_inverse=True)
        names = unique.tolist()
    order = np.argsort(codes, kind="stable")
    ends = np.cumsum(np.bincount(codes, minlength=len(names)))[:-1]
    return list(zip(names, np.split(owners[order], ends), strict=True)) if len(owners) else []


def _id_key(value: Any) -> tuple[Any, ...]:
    """The order of values: none and NaN first."""
    if value is None or value != value:
        return (0,)
    if isinstance(value, str):
        return (1, value.encode())
    if isinstance(value, tuple):
        return (1, *(_id_key(end) for end in value))
    return (1, value)


def _group_head(kind: str, value: Any) -> dict[str, Any]:
    if kind == "bucket":
        if value is None:
            return {"id": "group:null"}
        low, high = (java_text(end) for end in value)
        name = "string" if isinstance(value[0], str) else "double" if isinstance(value[0], float) else "long"
        return {"id": f"group:{name}_bucket:{low}:{high}", "limits": {"from": low, "to": high}}
    name = {"int": "long", "float": "double"}.get(kind, kind)
    text = java_text(value)
    return {"id": f"group:{name}:{text}", "value": text}


def _in_order(head: dict[str, Any]) -> dict[str, Any]:
    return {key: head[key] for key in ("id", "relevance", "value", "limits") if key in head}


def _finite(value: Any) -> Any:
    """Numbers that JSON does not have are strings, as Vespa's renderer writes them."""
    return java_text(value) if isinstance(value, float) and not np.isfinite(value) else value


def _continuation(path: tuple[int, ...], tag: int, offset: int) -> str:
    """OffsetContinuation.toString: how to go on with a list after `offset` entries."""
    return "".join(_encode(n) for n in (len(path), *path, tag, offset, _UNSTABLE))


def _encode(number: int) -> str:
    """IntegerEncoder: the number of hexadecimal digits, then the digits, of the number in zigzag."""
    digits = format(number << 1, "x") if number else ""
    return _DIGITS[len(digits)] + "".join(_DIGITS[int(digit, 16)] for digit in digits)
