"""Ranking expression text to `ast`: a parser by precedence (rankingexpression's grammar, eval_spec.cpp's functions)."""

from __future__ import annotations

import re
from functools import lru_cache

import numpy as np

from ..tensors import TensorError, TensorType, parse_query_tensor
from ..tensors.types import CELL_TYPES
from .ast import (
    Among,
    Binary,
    Cast,
    CellOrder,
    Cells,
    Concat,
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
    Unsupported,
    walk,
)
from .composites import bound_names, normalized, plain_index, similarity
from .operators import BINARY_FUNCTIONS, UNARY_FUNCTIONS
from .reader import Reader

AGGREGATORS = ("avg", "count", "max", "median", "min", "prod", "sum")
_PRECEDENCE = {
    "||": 1, "&&": 2, "==": 3, "!=": 3, "~=": 3, "<": 3, "<=": 3, ">": 3, ">=": 3, "in": 3, "+": 4, "-": 4, "*": 5,
    "/": 5, "%": 5, "^": 7,
}  # fmt: skip
_UNSUPPORTED = ("random", "foreach")
MAX_DEPTH, MAX_LENGTH = 200, 100_000


def parse_expression(text: str) -> RankingNode:
    """The expression. Raises RankingError with the position, Unsupported for what this engine does not do."""
    return _parsed(text)


@lru_cache(4096)
def _parsed(text: str) -> RankingNode:
    if len(text) > MAX_LENGTH:
        raise RankingError(f"The expression is longer than {MAX_LENGTH} characters")
    parser = _Parser(text)
    node = parser.expression(0)
    parser.end()
    return node


def parse_feature(text: str) -> Reference:
    """One feature, as listed in match-features: `closeness(field, embedding)`. Raises RankingError."""
    parser = _Parser(text)
    node = parser.reference(parser.name())
    parser.end()
    return node


class _Parser(Reader):
    def expression(self, least: int) -> RankingNode:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise self.error("nested too deeply")
        left = self.unary()
        while (found := self._match()) is not None:
            operator = found["mark"] or found["name"] or ""
            level = _PRECEDENCE.get(operator)
            if level is None or level < least:
                break
            self.at = found.end()
            if operator == "in":
                self.need("[")
                left = Among(left, tuple(self.listed("]")))
            else:
                left = Binary(operator, left, self.expression(level if operator == "^" else level + 1))
        self.depth -= 1
        return left

    def listed(self, close: str) -> list[RankingNode]:
        """Expressions up to a closing mark."""
        found: list[RankingNode] = []
        while not self.take(close):
            if found:
                self.need(",")
            found.append(self.expression(0))
        return found

    def unary(self) -> RankingNode:
        if self.take("-"):
            child = self.signed()
            return Number(-child.value) if isinstance(child, Number) else Negative(child)
        if self.take("!"):
            return Inverted(self.signed())
        node = self.primary()
        while True:
            if self.take("{"):
                node = Slice(node, tuple(self.slice_labels("}", "")))
            elif self.take("["):
                node = Slice(node, tuple(self.slice_labels("]", None)))
            else:
                return node

    def signed(self) -> RankingNode:
        """What a sign stands before: another sign or a value, closer than any operator."""
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise self.error("nested too deeply")
        node = self.unary()
        self.depth -= 1
        return node

    def slice_labels(self, close: str, unnamed: str | None) -> list[tuple[str | None, str | RankingNode]]:
        """The labels of a slice: alone, with their dimension, or (in brackets and parentheses) expressions."""
        if close == "]":
            return [(None, plain_index(node)) for node in self.listed(close)]
        found: list[tuple[str | None, str | RankingNode]] = []
        while not self.take(close):
            if found:
                self.need(",")
            if self.take("("):
                found.append((unnamed, self.closed(self.expression(0))))
                continue
            first = self.label()
            if not self.take(":"):
                found.append((unnamed, first))
            elif self.take("("):
                found.append((first, self.closed(self.expression(0))))
            else:
                found.append((first, self.label()))
        return found

    def primary(self) -> RankingNode:
        found = self._match()
        if found is None:
            raise self.error("unexpected text" if self.text[self.at :].strip() else "unexpected end")
        if found["mark"] == "(":
            self.at = found.end()
            node = self.expression(0)
            self.need(")")
            return node
        if found["mark"]:
            raise self.error(f"unexpected '{found['mark']}'")
        self.at = found.end()
        if found["number"]:
            return Number(float(found["number"]))
        if found["text"]:
            return Text(re.sub(r"\\(.)", r"\1", found["text"][1:-1]))
        name = found["name"]
        if name == "true":
            return Number(1.0)
        if name == "false":
            return Number(0.0)
        if name == "tensor" and (self.peek("(") or self.peek("<")):
            return self.tensor()
        called = self.function(name) if self.peek("(") else None
        return called or self.reference(name)

    def tensor(self) -> RankingNode:
        """A tensor's type, then `(body)` or `:literal`."""
        start = self.at - len("tensor")
        match = re.compile(r"\s*(?:<\s*\w+\s*>)?\s*\([^()]*\)").match(self.text, self.at)
        if match is None:
            raise self.error("expected a tensor type")
        self.at = match.end()
        try:
            kind = TensorType.parse(self.text[start : self.at])
        except TensorError as e:
            raise self.error(str(e)) from e
        if self.take(":"):
            start = self.at
            self.skip_literal()
            literal = self.text[start : self.at].strip()
            try:
                parse_query_tensor(kind, literal)
                return Literal(kind, literal)
            except TensorError:
                self.at = start
                return self.computed(kind)
        self.need("(")
        body = self.expression(0)
        self.need(")")
        if kind.mapped:
            raise Unsupported(f"local_vespa does not support generated tensors with mapped dimensions: '{self.text}'")
        return Generate(kind, body)

    def computed(self, kind: TensorType) -> Cells:
        """`{a: body, {x:b}: body}` or `[body, body]`, also nested: cells that are expressions."""
        addresses: list[tuple[str, ...]] = []
        bodies: list[RankingNode] = []

        def block(labels: dict[str, str]) -> None:
            if not kind.indexed:
                cell(labels, self.expression(0))
                return
            flat = self.nested()
            if len(flat) != kind.block_size:
                raise self.error(f"expected {kind.block_size} cells of {kind}")
            for index, body in zip(np.ndindex(*kind.shape), flat, strict=True):
                indices = dict(zip((d.name for d in kind.indexed), map(str, index), strict=True))
                cell({**labels, **indices}, body)

        def cell(labels: dict[str, str], body: RankingNode) -> None:
            if labels.keys() != set(kind.names):
                raise self.error(f"the cells of {kind} need a label for each dimension")
            addresses.append(tuple(labels[name] for name in kind.names))
            bodies.append(body)

        if not kind.mapped:
            block({})
            return Cells(kind, tuple(addresses), tuple(bodies))
        self.need("{")
        while not self.take("}"):
            if addresses:
                self.need(",")
            if self.take("{"):
                given: dict[str, str] = {}
                for name, label in self.slice_labels("}", ""):
                    if not name or not isinstance(label, str):
                        raise self.error("expected dimensions and labels")
                    given[name] = label
                self.need(":")
                cell(given, self.expression(0)) if len(given) == len(kind.names) else block(given)
            else:
                label = self.label()
                self.need(":")
                if len(kind.mapped) != 1:
                    raise self.error(f"the labels of {kind} need their dimensions")
                block({kind.mapped[0].name: label})
        return Cells(kind, tuple(addresses), tuple(bodies))

    def nested(self) -> list[RankingNode]:
        """The expressions of nested brackets, in order."""
        self.need("[")
        found: list[RankingNode] = []
        while not self.take("]"):
            if found:
                self.need(",")
            found += self.nested() if self.peek("[") else [self.expression(0)]
        return found

    def reference(self, name: str) -> Reference:
        arguments: tuple[str, ...] = ()
        if self.take("("):
            arguments = self.arguments()
        output = None
        if self.take("."):
            output = self.name()
            while self.take("."):
                output += "." + self.name()
        return Reference(name, arguments, output)

    def function(self, name: str) -> RankingNode | None:
        """A built-in function's call, its opening parenthesis next; None for a feature."""
        if name in _UNSUPPORTED:
            raise Unsupported(f"local_vespa does not support the function {name} in ranking expressions")
        start = self.at
        self.need("(")
        match name:
            case "if":
                parts = self.listed(")")
                if len(parts) not in (3, 4):
                    raise self.error("if takes a condition and two expressions")
                return If(*parts[:3])
            case "reduce":
                child = self.expression(0)
                self.need(",")
                aggregator = self.name()
                if aggregator not in AGGREGATORS:
                    raise self.error(f"unknown aggregator '{aggregator}'")
                return Reduce(child, aggregator, self.names())
            case "max" | "min":
                parts = self.listed(")")
                if len(parts) != 2:
                    raise self.error(
                        f"{name} takes two arguments; over the cells of one tensor it is reduce(t, {name})"
                    )
                return Binary(name, *parts)
            case _ if name in AGGREGATORS:
                return Reduce(self.expression(0), name, self.names())
            case "map":
                child = self.expression(0)
                self.need(",")
                return self.closed(Lambda((child,), *self.lambda_(1)))
            case "join":
                left = self.expression(0)
                self.need(",")
                right = self.expression(0)
                self.need(",")
                return self.closed(Lambda((left, right), *self.lambda_(2)))
            case "merge":
                left, right = self.some(2)
                self.need(",")
                return self.closed(Merge(left, right, *self.lambda_(2)))
            case "map_subspaces" | "filter_subspaces":
                child = self.expression(0)
                self.need(",")
                (parameter,), body = self.lambda_(1)
                return self.closed(Subspaces(child, parameter, body, name == "filter_subspaces"))
            case "cell_order":
                child = self.expression(0)
                order = self.names()
                if order not in (("max",), ("min",)):
                    raise self.error("cell_order takes a tensor, then max or min")
                return CellOrder(child, order == ("max",))
            case "top":
                count, child = self.some(2)
                best = Binary("<", CellOrder(child, True), count)
                return self.closed(Binary("*", child, Subspaces(best, "s", Reference("s"), True)))
            case "unpack_bits":
                child = self.expression(0)
                options = self.names()
                cell = next((o for o in options if o in CELL_TYPES), "float")
                if any(o not in (*CELL_TYPES, "big", "little") for o in options) or len(options) > 2:
                    raise self.error("unpack_bits takes a tensor, then a cell type, then big or little")
                return Unpack(child, cell, "little" not in options)
            case "range" | "diag":
                end = self.text.find(")", self.at)
                try:
                    kind = TensorType.parse(f"tensor({self.text[self.at : end]})")
                except TensorError as e:
                    raise self.error(str(e)) from e
                self.at = end + 1
                indices = [Reference(d.name) for d in kind.indexed]
                if kind.mapped or len(indices) != (1 if name == "range" else 2):
                    raise self.error(f"{name} takes {'one indexed dimension' if name == 'range' else 'two'}")
                return Generate(kind, indices[0] if name == "range" else Binary("==", *indices))
            case "rename":
                child = self.expression(0)
                self.need(",")
                before = self.group()
                self.need(",")
                after = self.group()
                return self.closed(Rename(child, before, after))
            case "concat":
                left = self.expression(0)
                self.need(",")
                right = self.expression(0)
                (dimension,) = self.names() or ("",)
                return Concat(left, right, dimension)
            case "cell_cast":
                child = self.expression(0)
                (cell,) = self.names() or ("",)
                if cell not in CELL_TYPES:
                    raise self.error(f"unknown cell type '{cell}'")
                return Cast(child, cell)
            case "expand":
                child = self.expression(0)
                (dimension,) = self.names() or ("",)
                return Binary("*", child, Generate(TensorType.parse(f"tensor<int8>({dimension}[1])"), Number(1.0)))
            case "l1_normalize" | "l2_normalize" | "softmax" | "argmax" | "argmin":
                child = self.expression(0)
                return normalized(name, child, self.names())
            case "cosine_similarity" | "euclidean_distance" | "matmul":
                left = self.expression(0)
                self.need(",")
                right = self.expression(0)
                return similarity(name, left, right, self.names())
            case "xw_plus_b":
                parts = self.some(3)
                product = Reduce(Binary("*", parts[0], parts[1]), "sum", self.names())
                return Binary("+", product, parts[2])
            case "normalize_linear":
                (child,) = self.listed(")")
                return Normalized(child, "linear")
            case "reciprocal_rank":
                parts = self.listed(")")
                return Normalized(parts[0], "reciprocal", self.constant(parts[1]) if len(parts) > 1 else 60.0)
            case "reciprocal_rank_fusion":
                parts = self.listed(")")
                if len(parts) < 2:
                    raise self.error("reciprocal_rank_fusion takes at least two arguments")
                node: RankingNode = Normalized(parts[0], "reciprocal")
                for part in parts[1:]:
                    node = Binary("+", node, Normalized(part, "reciprocal"))
                return node
            case "tokenInputIds" | "customTokenInputIds" | "tokenTypeIds" | "tokenAttentionMask":
                return self.tokens(name, self.listed(")"))
            case _ if name in UNARY_FUNCTIONS:
                parts = self.listed(")")
                if len(parts) != 1:
                    raise self.error(f"{name} takes one argument")
                return Unary(name, parts[0])
            case _ if name in BINARY_FUNCTIONS:
                parts = self.listed(")")
                if len(parts) != 2:
                    raise self.error(f"{name} takes two arguments")
                return Binary(name, *parts)
        self.at = start
        return None

    def tokens(self, name: str, parts: list[RankingNode]) -> Tokens:
        ends = (101.0, 102.0)
        if name == "customTokenInputIds" and len(parts) > 3:
            ends, parts = (self.constant(parts[0]), self.constant(parts[1])), parts[2:]
        kind = {"tokenTypeIds": "types", "tokenAttentionMask": "mask"}.get(name, "ids")
        if len(parts) < 2:
            raise self.error(f"{name} takes a length and at least one tensor")
        return Tokens(kind, int(self.constant(parts[0])), ends, tuple(parts[1:]))

    def constant(self, node: RankingNode) -> float:
        if not isinstance(node, Number):
            raise self.error("expected a number")
        return node.value

    def closed(self, node: RankingNode) -> RankingNode:
        self.need(")")
        return node

    def some(self, count: int) -> list[RankingNode]:
        found = [self.expression(0)]
        while len(found) < count:
            self.need(",")
            found.append(self.expression(0))
        return found

    def lambda_(self, count: int) -> tuple[tuple[str, ...], RankingNode]:
        """`f(x, y)(body)`"""
        if self.name() != "f":
            raise self.error("expected f(…)(…)")
        parameters = self.group()
        if len(parameters) != count:
            raise self.error(f"expected a function of {count} parameters")
        self.need("(")
        body = self.expression(0)
        self.need(")")
        known = {*parameters, *bound_names(body)}
        for node in walk(body):
            if isinstance(node, Reference) and (node.arguments or node.name not in known):
                raise self.error(f"the function of a lambda accesses '{node}' outside its scope")
        return parameters, body
