"""Evaluates ranking expressions over all candidates at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from ..tensors import TensorType, parse_query_tensor, round_cells
from ..tensors.types import Dimension
from . import operations, subspaces
from .ast import (
    Among,
    Binary,
    Cast,
    CellOrder,
    Cells,
    Concat,
    Function,
    Generate,
    If,
    Inverted,
    Lambda,
    Literal,
    Merge,
    Negative,
    Normalized,
    Number,
    RankingError,
    RankingNode,
    Reduce,
    Reference,
    Rename,
    Slice,
    Subspaces,
    Text,
    Tokens,
    Unary,
    Unpack,
)
from .operators import ALL_BINARY, UNARY_FUNCTIONS
from .parse import parse_expression
from .types import labels_by_dimension
from .value import Value, string_number

Bound = Mapping[str, Value]


class Evaluator:
    """Evaluates the expressions of one rank profile for n candidates of one query.

    `functions`: the profile's, by name. `resolve`: gives a feature that is not one of them (attribute, query, constant,
    closeness, bm25, onnx, firstPhase, …); it is asked once a feature. Functions without parameters are computed
    once."""

    def __init__(self, functions: Mapping[str, Function], resolve: Callable[[Reference], Value], n: int) -> None:
        self._functions, self._resolve, self._n = functions, resolve, n
        self._known: dict[Reference, Value] = {}

    def evaluate(self, node: RankingNode) -> Value:
        """The value of an expression. Division by zero, log of a negative and so on give inf and NaN, without warnings.
        Raises RankingError."""
        with np.errstate(all="ignore"):
            return self._value(node, {})

    def feature(self, reference: Reference) -> Value:
        """The value of a feature or function, as match-features and summary-features ask it."""
        return self.evaluate(reference)

    def _value(self, node: RankingNode, bound: Bound) -> Value:
        match node:
            case Number():
                return Value.scalar(node.value)
            case Text():
                return Value.scalar(string_number(node.value))
            case Reference():
                return self._reference(node, bound)
            case Binary():
                return self._binary(node, bound)
            case Unary():
                return operations.mapped(self._value(node.child, bound), UNARY_FUNCTIONS[node.function])
            case Negative():
                return operations.mapped(self._value(node.child, bound), np.negative)
            case Inverted():
                return operations.mapped(self._value(node.child, bound), lambda a: a == 0)
            case If():
                condition = self._value(node.condition, bound)
                return operations.chosen(condition, self._value(node.then, bound), self._value(node.otherwise, bound))
            case Among():
                return self._among(node, bound)
            case Reduce():
                return self._reduce(node, bound)
            case Rename():
                return operations.renamed(self._value(node.child, bound), node.before, node.after)
            case Concat():
                left, right = self._value(node.left, bound), self._value(node.right, bound)
                return operations.concatenated(left, right, node.dimension)
            case Cast():
                value = self._value(node.child, bound)
                kind = TensorType.of(node.cell, value.type.dimensions)
                return Value(kind, round_cells(kind.cell, value.cells, nearest=True), value.labels, value.present)
            case Lambda():
                return self._lambda(node, bound)
            case Generate():
                return self._generate(node, bound)
            case Literal():
                return Value.shared(parse_query_tensor(node.type, node.text))
            case Slice():
                return self._slice(node, bound)
            case Cells():
                bodies = [self._value(body, bound) for body in node.bodies]
                return subspaces.from_cells(node.type, node.addresses, bodies)
            case Merge():
                left, right = self._value(node.left, bound), self._value(node.right, bound)
                names = node.parameters
                return subspaces.merged(
                    left, right, lambda *both: self._value(node.body, {**bound, **dict(zip(names, both, strict=True))})
                )
            case Subspaces():
                return subspaces.each_block(
                    self._value(node.child, bound),
                    lambda block: self._value(node.body, {**bound, node.parameter: block}),
                    node.keep,
                )
            case CellOrder():
                return subspaces.cell_order(self._value(node.child, bound), node.descending)
            case Unpack():
                return subspaces.unpacked(self._value(node.child, bound), node.cell, node.big)
            case Tokens():
                return self._tokens(node, bound)
            case Normalized():
                return self._normalized(node, bound)
        raise RankingError(f"cannot evaluate {node}")

    def _reference(self, node: Reference, bound: Bound) -> Value:
        if node.name in bound and not node.arguments:
            return bound[node.name]
        function = self._functions.get(node.name)
        if function is not None and node.output is None:
            if node.arguments:
                arguments = [self._value(parse_expression(a), bound) for a in node.arguments]
                return self._value(function.body, dict(zip(function.parameters, arguments, strict=True)))
            if node not in self._known:
                self._known[node] = self._value(function.body, {})
            return self._known[node]
        if node not in self._known:
            self._known[node] = self._resolve(node)
        return self._known[node]

    def _binary(self, node: Binary, bound: Bound) -> Value:
        left = self._value(node.left, bound)
        return operations.joined(left, self._value(node.right, bound), ALL_BINARY[node.operator])

    def _reduce(self, node: Reduce, bound: Bound) -> Value:
        child = node.child
        if node.aggregator == "sum" and isinstance(child, Binary) and child.operator == "*":
            left, right = self._value(child.left, bound), self._value(child.right, bound)
            if (dot := operations.dot(left, right, node.dimensions)) is not None:
                return dot
            return operations.reduced(operations.joined(left, right, np.multiply), "sum", node.dimensions)
        return operations.reduced(self._value(child, bound), node.aggregator, node.dimensions)

    def _among(self, node: Among, bound: Bound) -> Value:
        child = self._value(node.child, bound)
        found: Value = Value.scalar(0.0)
        for value in node.values:
            equal = operations.joined(child, self._value(value, bound), np.equal)
            found = operations.joined(found, equal, ALL_BINARY["||"])
        return found

    def _slice(self, node: Slice, bound: Bound) -> Value:
        child = self._value(node.child, bound)
        taken = labels_by_dimension(child.type, node.labels)
        if any(isinstance(label, RankingNode) for label in taken.values()):
            return subspaces.picked(
                child, {k: self._value(v, bound) if isinstance(v, RankingNode) else v for k, v in taken.items()}
            )
        return operations.sliced(child, tuple((name, str(label)) for name, label in taken.items()))

    def _lambda(self, node: Lambda, bound: Bound) -> Value:
        arguments = [self._value(a, bound) for a in node.arguments]
        if len(arguments) == 1:
            shape = arguments[0]
        else:
            shape = operations.joined(arguments[0], arguments[1], lambda a, b: a + 0 * b)
            arguments = [operations.expanded(a, shape) for a in arguments]
        body = self._value(node.body, {**bound, **dict(zip(node.parameters, arguments, strict=True))})
        return operations.expanded(body, operations.mapped(shape, lambda a: a))

    def _generate(self, node: Generate, bound: Bound) -> Value:
        shape = node.type.shape
        inner: dict[str, Value] = {**bound}
        for axis, d in enumerate(node.type.indexed):
            indices = np.arange(d.size or 1, dtype=np.float64).reshape(
                [-1 if a == axis else 1 for a in range(len(shape))]
            )
            full = TensorType.of("double", node.type.dimensions)
            inner[d.name] = Value(full, np.broadcast_to(indices, shape)[None], {})
        body = self._value(node.body, inner)
        cells = body.cells if not body.type.is_scalar else body.cells.reshape(-1, *([1] * len(shape)))
        cells = np.broadcast_to(cells, (len(cells), *shape))
        return Value(node.type, round_cells(node.type.cell, cells, nearest=True), {})

    def _tokens(self, node: Tokens, bound: Bound) -> Value:
        """The sequence first, tokens, separator, tokens, separator…, cut and padded with 0; or where it has what."""
        parts = [self._value(part, bound).cells.astype(np.float64) for part in node.parts]
        n = max(len(p) for p in parts)
        out = np.zeros((n, 1, node.size), np.float32)
        for i in range(n):
            rows = [p[i if len(p) > 1 else 0] for p in parts]
            lengths = [int(np.count_nonzero(r > 0)) for r in rows]
            if node.kind == "ids":
                sequence = [node.ends[0]]
                for row, length in zip(rows, lengths, strict=True):
                    sequence += [*row[:length].tolist(), node.ends[1]]
            else:
                end = 1 + sum(lengths) + len(rows)
                first = 2 + lengths[0]
                sequence = [float(node.kind == "mask" or k >= first) for k in range(end)]
            kept = sequence[: node.size]
            out[i, 0, : len(kept)] = kept
        return Value(TensorType.of("float", [Dimension("d0", 1), Dimension("d1", node.size)]), out, {})

    def _normalized(self, node: Normalized, bound: Bound) -> Value:
        """LinearNormalizer.java and ReciprocalRankNormalizer.java; the candidates are in the order of their
        relevance."""
        scores = self._value(node.child, bound).scores(self._n).copy()
        if node.kind == "linear":
            limit = float(np.finfo(np.float32).max)
            usable = scores[(scores < limit) & (scores > -limit)]
            low, high = (usable.min(), usable.max()) if len(usable) else (0.0, 0.0)
            scale, middle = (1 / (high - low), (low + high) / 2) if high > low else (0.0, 0.0)
            return Value.scalar(0.5 + scale * (scores - middle))
        order = np.argsort(-np.where(np.isnan(scores), -np.inf, scores), kind="stable")
        ranks = np.empty(len(scores))
        ranks[order] = 1 / (node.k + 1 + np.arange(len(scores)))
        return Value.scalar(ranks)
