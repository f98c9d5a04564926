"""The tensor operations over values: map, join, reduce, rename, concat, slice, choice."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from ..tensors import TensorType
from . import types
from .value import Value

_FILL = {"max": -np.inf, "min": np.inf, "prod": 1.0}


def mapped(value: Value, function: Callable[[Any], Any]) -> Value:
    """A function of every cell."""
    kind = types.decayed(value.type)
    return masked(
        kind, np.asarray(function(value.cells.astype(kind.dtype, copy=False)), kind.dtype), value.labels, value.present
    )


def joined(left: Value, right: Value, function: Callable[[Any, Any], Any]) -> Value:
    """A function of every pair of cells whose common dimensions agree."""
    kind = types.joined(left.type, right.type)
    labels = {d.name: _common(left, right, d.name) for d in kind.mapped}
    (a, a_there), (b, b_there) = (aligned(value, kind, labels) for value in (left, right))
    present = None
    if kind.mapped:
        shape = tuple(len(labels[d.name]) for d in kind.mapped)
        sides = [there for there in (a_there, b_there) if there is not None]
        both: np.ndarray = sides[0] if len(sides) == 1 else np.logical_and(sides[0], sides[1])
        present = np.broadcast_to(both, (len(both), *shape))
    if not kind.is_scalar and kind.cell == "float":  # a number joins in the precision of the tensor
        a, b = a.astype(np.float32, copy=False), b.astype(np.float32, copy=False)
    cells = np.asarray(function(a, b), kind.dtype)
    shape = tuple(len(labels[d.name]) if d.size is None else d.size for d in kind.dimensions)
    return masked(kind, np.broadcast_to(cells, (len(cells), *shape)), labels, present)


def dot(left: Value, right: Value, dimensions: tuple[str, ...]) -> Value | None:
    """sum(left * right) of two dense tensors of the same one dimension as a matrix product; None for all else."""
    kind = left.type
    if kind.dimensions != right.type.dimensions or kind.mapped or len(kind.dimensions) != 1:
        return None
    if dimensions not in ((), kind.names) or min(left.n, right.n) != 1:
        return None
    wide = np.float64 if "double" in (left.type.cell, right.type.cell) else np.float32
    many, one = (left, right) if left.n >= right.n else (right, left)
    return Value.scalar(
        (many.cells.astype(wide, copy=False) @ one.cells[0].astype(wide, copy=False)).astype(np.float64)
    )


def reduced(value: Value, aggregator: str, dimensions: tuple[str, ...]) -> Value:
    """Dimensions (all, where none is named) taken together. Nothing to take together gives 0."""
    kind = types.reduced(value.type, dimensions)
    if value.type.is_scalar:
        return Value.scalar(np.ones_like(value.cells)) if aggregator == "count" else value
    axes = tuple(i for i, d in enumerate(value.type.dimensions, 1) if kind.dimension(d.name) is None)
    cells = value.cells.astype(np.float64) if kind.is_scalar and kind.cell == "double" else value.cells
    if value.present is None:
        counted = np.full(1, np.prod([cells.shape[a] for a in axes]))
        return Value(kind, np.asarray(_aggregate(cells, None, aggregator, axes, counted), kind.dtype), {})
    there = np.broadcast_to(value.mask(), cells.shape)
    count = there.sum(axes)
    result = np.asarray(np.where(count > 0, _aggregate(cells, there, aggregator, axes, count), 0), kind.dtype)
    labels = {d.name: value.labels[d.name] for d in kind.mapped}
    if not kind.mapped:
        return Value(kind, result, {})
    gone = tuple(i for i, d in enumerate(value.type.mapped, 1) if kind.dimension(d.name) is None)
    present: np.ndarray = np.any(value.present, gone) if gone else value.present
    return masked(kind, result, labels, present)


def _aggregate(cells: np.ndarray, there: np.ndarray | None, aggregator: str, axes: tuple[int, ...], count: Any) -> Any:
    if aggregator == "count":
        shape = [s for i, s in enumerate(cells.shape) if i not in axes]
        return np.broadcast_to(count, shape).astype(np.float64)
    if aggregator == "median":
        hidden = cells.astype(np.float64) if there is None else np.where(there, cells, np.nan)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # a candidate without any cell
            return np.nanmedian(hidden, axes)
    if there is not None and aggregator in _FILL:
        cells = np.where(there, cells, _FILL[aggregator])
    if aggregator == "avg":
        return cells.sum(axes) / count
    if aggregator in ("sum", "prod"):
        return cells.sum(axes) if aggregator == "sum" else cells.prod(axes)
    if aggregator == "max":
        return cells.max(axes, initial=-np.inf) if cells.dtype.kind == "f" else cells.max(axes)
    return cells.min(axes, initial=np.inf) if cells.dtype.kind == "f" else cells.min(axes)


def renamed(value: Value, before: tuple[str, ...], after: tuple[str, ...]) -> Value:
    """Dimensions under other names, in the order of those."""
    kind = types.renamed(value.type, before, after)
    names = dict(zip(before, after, strict=True))
    now = [names.get(d.name, d.name) for d in value.type.dimensions]
    cells = value.cells.transpose([0, *(1 + now.index(d.name) for d in kind.dimensions)])
    labels = {names.get(k, k): v for k, v in value.labels.items()}
    present = value.present
    if present is not None:
        mapped_now = [names.get(d.name, d.name) for d in value.type.mapped]
        present = present.transpose([0, *(1 + mapped_now.index(d.name) for d in kind.mapped)])
    return Value(kind, cells, labels, present)


def concatenated(left: Value, right: Value, dimension: str) -> Value:
    """Two values one after the other along an indexed dimension."""
    kind = types.concatenated(left.type, right.type, dimension)
    labels = {d.name: _common(left, right, d.name) for d in kind.mapped}
    axis = 1 + kind.names.index(dimension)
    sides, there = [], []
    for value in (left, right):
        cells, present = aligned(value, kind, labels)
        size = cells.shape[axis]
        shape = [len(labels[d.name]) if d.size is None else d.size for d in kind.dimensions]
        shape[axis - 1] = size
        sides.append(np.broadcast_to(cells, (len(cells), *shape)))
        if present is not None:
            there.append(present)
    n = max(len(s) for s in sides)
    whole = np.concatenate([np.broadcast_to(s, (n, *s.shape[1:])) for s in sides], axis)
    present = None
    if kind.mapped:
        present = there[0] if len(there) == 1 else there[0] & there[1]
        present = np.broadcast_to(present, (len(present), *(len(labels[d.name]) for d in kind.mapped)))
    return masked(kind, np.asarray(whole, kind.dtype), labels, present)


def sliced(value: Value, wanted: tuple[tuple[str | None, str], ...]) -> Value:
    """The part at some labels and indices; a label that is not there gives 0 or nothing."""
    kind, taken = types.sliced(value.type, wanted)
    cells, present = value.cells, value.present
    for d in reversed(value.type.dimensions):
        if d.name not in taken:
            continue
        axis = 1 + value.type.names.index(d.name)
        if d.size is not None:
            cells = cells.take(int(taken[d.name]), axis)
            continue
        assert present is not None
        mapped_axis = 1 + [m.name for m in value.type.mapped].index(d.name)
        known = value.labels[d.name]
        if taken[d.name] in known:
            at = known.index(taken[d.name])
            cells, present = cells.take(at, axis), present.take(at, mapped_axis)
        else:
            cells = np.zeros(cells.shape[:axis] + cells.shape[axis + 1 :], cells.dtype)
            present = np.zeros(present.shape[:mapped_axis] + present.shape[mapped_axis + 1 :], bool)
    labels = {m.name: value.labels[m.name] for m in kind.mapped}
    if kind.is_scalar:
        return Value.scalar(cells.astype(np.float64))
    return Value(kind, cells, labels, present if kind.mapped else None)


def chosen(condition: Value, then: Value, otherwise: Value) -> Value:
    """`if`: for each candidate (in a lambda: for each cell) one of two values of the same dimensions."""
    if then.type.is_scalar and otherwise.type.is_scalar and condition.type.is_scalar:
        return Value.scalar(np.where(condition.cells != 0, then.cells, otherwise.cells))
    kind = types.joined(types.joined(then.type, otherwise.type), condition.type)
    labels: dict[str, tuple[str, ...]] = {}
    for d in kind.mapped:
        known = [v.labels[d.name] for v in (then, otherwise, condition) if d.name in v.labels]
        labels[d.name] = tuple(dict.fromkeys(label for part in known for label in part))
    (a, a_there), (b, b_there), (c, _) = (aligned(v, kind, labels) for v in (then, otherwise, condition))
    cells = np.where(c != 0, a, b)
    present: np.ndarray | None = None
    if kind.mapped:
        simple = condition.cells.reshape(-1, *([1] * len(kind.mapped))) != 0 if condition.type.is_scalar else True
        assert a_there is not None and b_there is not None
        present = np.asarray(np.where(simple, a_there, b_there))
    shape = tuple(len(labels[d.name]) if d.size is None else d.size for d in kind.dimensions)
    return masked(kind, np.broadcast_to(np.asarray(cells, kind.dtype), (len(cells), *shape)), labels, present)


def expanded(value: Value, shape: Value) -> Value:
    """A value repeated over the dimensions of another one that it lacks."""
    cells, _ = aligned(value, shape.type, shape.labels)
    n = max(len(cells), shape.n)
    whole = np.broadcast_to(cells, (n, *shape.cells.shape[1:]))
    return masked(shape.type, np.asarray(whole, shape.type.dtype), shape.labels, shape.present)


def _common(left: Value, right: Value, name: str) -> tuple[str, ...]:
    """The labels of a mapped dimension that both have, or the one that has the dimension."""
    sides = [value.labels[name] for value in (left, right) if name in value.labels]
    return sides[0] if len(sides) == 1 or sides[0] == sides[1] else tuple(x for x in sides[0] if x in set(sides[1]))


def aligned(value: Value, kind: TensorType, labels: dict[str, tuple[str, ...]]) -> tuple[np.ndarray, np.ndarray | None]:
    """A value's cells with an axis for each dimension of a type (1 where it lacks it) and its mapped axes over the
    given labels; and its presence, with an axis for each mapped dimension."""
    cells, present = value.cells, value.present
    for position, d in enumerate(value.type.mapped):
        known, wanted = value.labels[d.name], labels.get(d.name, value.labels[d.name])
        if known == wanted:
            continue
        index = {label: i for i, label in enumerate(known)}
        axis = 1 + value.type.names.index(d.name)
        at = np.array([index.get(label, len(known)) for label in wanted], np.int64)
        cells = np.concatenate([cells, np.zeros((*cells.shape[:axis], 1, *cells.shape[axis + 1 :]), cells.dtype)], axis)
        cells = cells.take(at, axis)
        assert present is not None
        empty = np.zeros((*present.shape[: position + 1], 1, *present.shape[position + 2 :]), bool)
        present = np.concatenate([present, empty], position + 1).take(at, position + 1)
    own = value.type.names
    sizes = dict(zip(own, cells.shape[1:], strict=True))
    cells = cells.reshape(len(cells), *(sizes.get(d.name, 1) for d in kind.dimensions))
    if present is not None:
        mapped_sizes = dict(zip([d.name for d in value.type.mapped], present.shape[1:], strict=True))
        present = present.reshape(len(present), *(mapped_sizes.get(d.name, 1) for d in kind.mapped))
    return cells, present


def masked(
    kind: TensorType, cells: np.ndarray, labels: dict[str, tuple[str, ...]], present: np.ndarray | None
) -> Value:
    """A value whose absent blocks hold 0."""
    value = Value(kind, cells, labels, present)
    if present is None or present.all():
        return value
    return Value(kind, np.where(value.mask(), cells, 0).astype(kind.dtype, copy=False), labels, present)
