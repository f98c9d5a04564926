"""Tensor operations that look at blocks and single cells: merge, subspaces, order of cells, bits, computed slices."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..tensors import Tensor, TensorType
from . import types
from .ast import RankingError
from .operations import aligned, masked
from .value import Value

Body = Callable[..., Value]


def merged(left: Value, right: Value, body: Body) -> Value:
    """The cells of both values; `body` of the two where both have one."""
    kind = types.merged(left.type, right.type)
    labels = {d.name: tuple(dict.fromkeys(left.labels[d.name] + right.labels[d.name])) for d in kind.mapped}
    shape = tuple(len(labels[d.name]) if d.size is None else d.size for d in kind.dimensions)
    mapped_shape = tuple(len(labels[d.name]) for d in kind.mapped)
    sides, there = [], []
    for value in (left, right):
        cells, present = aligned(value, kind, labels)
        sides.append(Value(kind, np.broadcast_to(cells, (len(cells), *shape)).astype(kind.dtype), labels, None))
        there.append(present)
    if not kind.mapped:
        both = body(*sides)
        return Value(kind, _full(both, kind, shape), {})
    everywhere: np.ndarray = np.ones((1, *mapped_shape), bool)
    sides = [Value(kind, side.cells, labels, everywhere) for side in sides]
    both = body(*sides)
    in_left, in_right = (Value(kind, side.cells, labels, p) for side, p in zip(sides, there, strict=True))
    cells = np.where(
        in_left.mask() & in_right.mask(),
        _full(both, kind, shape),
        np.where(in_left.mask(), in_left.cells, in_right.cells),
    )
    assert in_left.present is not None and in_right.present is not None
    return masked(kind, cells.astype(kind.dtype), labels, in_left.present | in_right.present)


def _full(value: Value, kind: TensorType, shape: tuple[int, ...]) -> np.ndarray:
    cells = value.cells.reshape(-1, *([1] * len(shape))) if value.type.is_scalar else value.cells
    return np.broadcast_to(cells, (len(cells), *shape)).astype(kind.dtype)


def each_block(value: Value, body: Body, keep: bool) -> Value:
    """map_subspaces and filter_subspaces: `body` of every block as a dense tensor (a number without indexed ones)."""
    kind = value.type
    mapped_axes = [1 + kind.names.index(d.name) for d in kind.mapped]
    indexed_axes = [1 + kind.names.index(d.name) for d in kind.indexed]
    cells = value.cells.transpose([0, *mapped_axes, *indexed_axes])
    outer = cells.shape[: 1 + len(mapped_axes)]
    inner = types.block_type(kind)
    many = int(np.prod(outer))
    result = body(Value(inner, cells.reshape(many, *kind.shape).astype(inner.dtype), {}))
    blocks = np.broadcast_to(result.cells, (many, *result.cells.shape[1:]))
    if keep:
        kept = (blocks != 0).reshape(*outer, -1).any(-1)
        present = kept if value.present is None else value.present & kept
        return masked(kind, np.broadcast_to(value.cells, (len(present), *value.cells.shape[1:])), value.labels, present)
    made = types.mapped_subspaces(kind, result.type)
    order = [d.name for d in kind.mapped] + list(result.type.names)
    whole = blocks.reshape(*outer, *blocks.shape[1:]).transpose([0, *(1 + order.index(name) for name in made.names)])
    return masked(made, np.asarray(whole, made.dtype), value.labels, value.present)


def cell_order(value: Value, descending: bool) -> Value:
    """Each cell's rank among the candidate's cells; NaN comes last."""
    kind = types.decayed(value.type)
    flat = value.cells.reshape(value.n, -1).astype(np.float64)
    keys = np.where(np.isnan(flat), np.inf, -flat if descending else flat)
    groups = np.isnan(flat).astype(np.int64)
    present = value.present
    if present is not None:
        n = max(value.n, len(present))
        there = np.broadcast_to(value.mask(), (n, *value.cells.shape[1:])).reshape(n, -1)
        keys, groups = np.broadcast_to(keys, there.shape), np.where(there, groups, 2)
    order = np.lexsort((keys, groups), axis=-1)
    ranks = np.empty(order.shape)
    np.put_along_axis(ranks, order, np.broadcast_to(np.arange(order.shape[1], dtype=float), order.shape), 1)
    return masked(kind, ranks.reshape(-1, *value.cells.shape[1:]).astype(kind.dtype), value.labels, present)


def unpacked(value: Value, cell: str, big: bool) -> Value:
    """Eight cells for the bits of each int8 along the only indexed dimension."""
    kind = types.unpacked(value.type, cell)
    axis = 1 + value.type.names.index(value.type.indexed[0].name)
    bits = np.unpackbits(value.cells.astype(np.int8).view(np.uint8), axis, bitorder="big" if big else "little")
    return Value(kind, bits.astype(kind.dtype), value.labels, value.present)


def picked(value: Value, indices: dict[str, Value | str]) -> Value:
    """A slice where a label or an index of some dimensions is computed; one out of bounds gives 0."""
    computed = {name: index for name, index in indices.items() if isinstance(index, Value)}
    kind = types.picked(value.type, {name: index.type for name, index in computed.items()}, tuple(indices))
    around = [
        d for d in kind.dimensions if all(d.name != own.name or d.name in indices for own in value.type.dimensions)
    ]
    frame = TensorType.of("double", around)
    n = max([value.n, *(index.n for index in computed.values())])
    offsets: list[np.ndarray] = []
    at: np.ndarray
    valid: np.ndarray = np.ones((1, *frame.shape), bool)
    for name, index in indices.items():
        known = value.labels.get(name)
        size = value.cells.shape[1 + value.type.names.index(name)]
        if isinstance(index, str):
            found = (known.index(index) if index in known else -1) if known is not None else int(index)
            at = np.full((1, *[1] * len(around)), found)
        else:
            numbers = np.trunc(aligned(index, frame, {})[0]).astype(np.int64)
            at = numbers
            if known is not None:
                position = {label: i for i, label in enumerate(known)}
                at = np.vectorize(lambda v, p=position: p.get(str(v), -1), otypes=[np.int64])(numbers)
        valid = valid & (at >= 0) & (at < size)
        offsets.append(np.clip(at, 0, max(size - 1, 0)))
    names = list(value.type.names)
    rest = [d for d in value.type.dimensions if d.name not in indices]
    axes = [0, *(1 + names.index(name) for name in indices), *(1 + names.index(d.name) for d in rest)]
    cells = value.cells.transpose(axes)
    if 0 in cells.shape[1 : 1 + len(indices)]:
        cells, valid = np.zeros((len(cells), *[1] * len(indices), *cells.shape[1 + len(indices) :])), valid & False
        offsets = [np.zeros_like(at) for at in offsets]
    row = np.arange(n).reshape(-1, *([1] * len(around))) % len(cells)
    found_cells = cells[(row, *offsets)]
    found_cells = np.where(valid.reshape(*valid.shape, *([1] * len(rest))), found_cells, 0)
    present = None
    if value.present is not None:
        present = _picked_presence(value, kind, offsets[: len(indices)], list(indices), row, valid)
    order = [d.name for d in around] + [d.name for d in rest]
    whole = found_cells.transpose([0, *(1 + order.index(name) for name in kind.names)])
    labels = {d.name: value.labels[d.name] for d in kind.mapped}
    return masked(kind, np.asarray(whole, kind.dtype), labels, present if kind.mapped else None)


def _picked_presence(
    value: Value, kind: TensorType, offsets: list[np.ndarray], names: list[str], row: np.ndarray, valid: np.ndarray
) -> np.ndarray:
    """Which blocks a slice leaves."""
    assert value.present is not None
    mapped = [d.name for d in value.type.mapped]
    if row.ndim > 1 and kind.mapped:
        raise RankingError("a slice that leaves mapped dimensions takes one number as its label")
    taken = [(name, at) for name, at in zip(names, offsets, strict=True) if name in mapped]
    present = value.present.transpose([0, *(1 + mapped.index(n) for n, _ in taken),
                                       *(1 + i for i, n in enumerate(mapped) if n not in dict(taken))])  # fmt: skip
    found: np.ndarray = present[(row % len(present), *[at for _, at in taken])]
    return found & valid.reshape(*valid.shape, *([1] * (found.ndim - valid.ndim)))


def from_cells(kind: TensorType, addresses: tuple[tuple[str, ...], ...], bodies: list[Value]) -> Value:
    """A tensor of computed cells, all of them numbers."""
    n = max([1, *(body.n for body in bodies)])
    template = Tensor.empty(kind)
    if kind.mapped:
        mapped = [i for i, d in enumerate(kind.dimensions) if d.mapped]
        keys = dict.fromkeys(tuple(address[i] for i in mapped) for address in addresses)
        template = Tensor(kind, tuple(keys), np.zeros((len(keys), *kind.shape), kind.dtype))
    shared = Value.shared(template)
    cells = np.zeros((n, *shared.cells.shape[1:]), kind.dtype)
    for address, body in zip(addresses, bodies, strict=True):
        index: tuple[int, ...] = tuple(
            shared.labels[d.name].index(label) if d.mapped else int(label)
            for d, label in zip(kind.dimensions, address, strict=True)
        )
        np.moveaxis(cells, 0, -1)[index] = body.scores(n)
    return Value(kind, cells, shared.labels, shared.present)
