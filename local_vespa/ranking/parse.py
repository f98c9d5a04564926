"""Ranking expression text to `ast`: a parser by precedence (rankingexpression's grammar, eval_spec.cpp's functions)."""

from __future__ import annotations

import re
from functools import lru_cache

from ..tensors import TensorError, TensorType
from .ast import (
    Among,
    Binary,
    Cast,
    Concat,
    Generate,
    If,
    Inverted,
    Lambda,
    Literal,
    Negative,
    Normalized,
    Number,
    RankingError,
    RankingNode,
    Reduce,
    Reference,
    Rename,
    Slice,
    Text,
    Tokens,
    Unary,
    Unsupported,
)
from .operators import BINARY_FUNCTIONS, UNARY_FUNCTIONS

AGGREGATORS = ("avg", "count", "max", "median", "min", "prod", "sum")
_PRECEDENCE = {
    "||": 1, "&&": 2, "==": 3, "!=": 3, "~=": 3, "<": 3, "<=": 3, ">": 3, ">=": 3, "in": 3, "+": 4, "-": 4, "*": 5,
    "/": 5, "%": 5, "^": 7,
}  # fmt: skip
_TOKEN = re.compile(
    r"""\s*(?:(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)|(?P<name>[A-Za-z_@$][\w@$]*)"""
    r"""|(?P<text>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')"""
    r"""|(?P<mark>\|\||&&|[=!~<>]=|[-+*/%^<>!(),.:{}\[\]]))"""
)
_UNSUPPORTED = (
    "random",
    "diag",
    "argmin",
    "unpack_bits",
    "merge",
    "map_subspaces",
    "filter_subspaces",
    "remap",
    "top",
    "foreach",
)
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


class _Parser:
    def __init__(self, text: str) -> None:
        self.text, self.at, self.depth = text, 0, 0

    def error(self, problem: str) -> RankingError:
        return RankingError(f"Could not parse '{self.text}': {problem} at position {self.at}")

    def _match(self) -> re.Match[str] | None:
        return _TOKEN.match(self.text, self.at)

    def peek(self, mark: str) -> bool:
        found = self._match()
        return found is not None and (found["mark"] == mark or found["name"] == mark)

    def take(self, mark: str) -> bool:
        if self.peek(mark):
            self.at = self._match().end()  # type: ignore[union-attr]
            return True
        return False

    def need(self, mark: str) -> None:
        if not self.take(mark):
            raise self.error(f"expected '{mark}'")

    def name(self) -> str:
        found = self._match()
        if found is None or found["name"] is None:
            raise self.error("expected a name")
        self.at = found.end()
        return found["name"]

    def end(self) -> None:
        if self.text[self.at :].strip():
            raise self.error("unexpected text")

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
            child = self.expression(6)
            return Number(-child.value) if isinstance(child, Number) else Negative(child)
        if self.take("!"):
            return Inverted(self.expression(6))
        node = self.primary()
        while True:
            if self.take("{"):
                node = Slice(node, tuple(self.places("}", "")))
            elif self.take("["):
                node = Slice(node, tuple(self.places("]", None)))
            else:
                return node

    def places(self, close: str, unnamed: str | None) -> list[tuple[str | None, str]]:
        found: list[tuple[str | None, str]] = []
        while not self.take(close):
            if found:
                self.need(",")
            first = self.label()
            found.append((first, self.label()) if self.take(":") else (unnamed, first))
        return found

    def label(self) -> str:
        match = self._match()
        if match is not None and match["mark"] == "(":
            raise Unsupported(f"local_vespa does not support computed labels in '{self.text}'")
        if match is None or match["mark"] is not None:
            raise self.error("expected a label")
        self.at = match.end()
        return match["text"][1:-1] if match["text"] else match["number"] or match["name"]

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
            return Literal(kind, self.text[start : self.at].strip())
        self.need("(")
        body = self.expression(0)
        self.need(")")
        if kind.mapped:
            raise Unsupported(f"local_vespa does not support generated tensors with mapped dimensions: '{self.text}'")
        return Generate(kind, body)

    def skip_literal(self) -> None:
        depth = 0
        while self.at < len(self.text):
            c = self.text[self.at]
            depth += (c in "{[") - (c in "}]")
            self.at += 1
            if depth == 0 and c in "}]":
                return
        raise self.error("a tensor literal is never closed")

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

    def arguments(self) -> tuple[str, ...]:
        """The arguments of a feature as text without blanks, from behind the opening parenthesis on."""
        found, depth, start = [], 0, self.at
        quote = ""
        while self.at < len(self.text):
            c = self.text[self.at]
            self.at += 1
            if quote:
                quote = "" if c == quote else quote
            elif c in "\"'":
                quote = c
            elif c in "([{":
                depth += 1
            elif c in ")]}" and depth:
                depth -= 1
            elif c in ",)":
                found.append(self.text[start : self.at - 1].strip())
                start = self.at
                if c == ")":
                    return tuple(self.plain(a) for a in found if a)
        raise self.error("expected ')'")

    @staticmethod
    def plain(argument: str) -> str:
        """An argument in its canonical form: quotes around a plain word do not count."""
        if argument[0] == argument[-1] and argument[0] in "\"'" and re.fullmatch(r"[\w@.-]+", argument[1:-1]):
            return argument[1:-1]
        return argument if argument[0] in "\"'" else re.sub(r"\s+", "", argument)

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
                if not parts:
                    raise self.error(f"{name} takes one argument or more")
                if len(parts) == 1:
                    return Reduce(parts[0], name)
                if len(parts) == 2:
                    return Binary(name, *parts)
                return Reduce(parts[0], name, tuple(self.dimension(p) for p in parts[1:]))
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
                if cell not in ("double", "float", "bfloat16", "int8"):
                    raise self.error(f"unknown cell type '{cell}'")
                return Cast(child, cell)
            case "expand":
                child = self.expression(0)
                (dimension,) = self.names() or ("",)
                return Binary("*", child, Generate(TensorType.parse(f"tensor<int8>({dimension}[1])"), Number(1.0)))
            case "l1_normalize" | "l2_normalize" | "softmax" | "argmax":
                child = self.expression(0)
                return _normalized(name, child, self.names())
            case "cosine_similarity" | "euclidean_distance" | "matmul":
                left = self.expression(0)
                self.need(",")
                right = self.expression(0)
                return _similarity(name, left, right, self.names())
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

    def names(self) -> tuple[str, ...]:
        """`, a, b)`: names up to the closing parenthesis."""
        found = []
        while not self.take(")"):
            self.need(",")
            found.append(self.name())
        return tuple(found)

    def group(self) -> tuple[str, ...]:
        """A name, or several in parentheses."""
        if not self.take("("):
            return (self.name(),)
        return (self.name(), *self.names())

    def dimension(self, node: RankingNode) -> str:
        if isinstance(node, Reference) and not node.arguments and not node.output:
            return node.name
        raise self.error("expected a dimension")

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
        return parameters, body


def _normalized(name: str, child: RankingNode, dimensions: tuple[str, ...]) -> RankingNode:
    if name == "argmax":
        return Binary("==", child, Reduce(child, "max", dimensions))
    if name == "softmax":
        exponential = Unary("exp", child)
        return Binary("/", exponential, Reduce(exponential, "sum", dimensions))
    if name == "l1_normalize":
        return Binary("/", child, Reduce(child, "sum", dimensions))
    return Binary("/", child, Unary("sqrt", Reduce(Binary("*", child, child), "sum", dimensions)))


def _similarity(name: str, left: RankingNode, right: RankingNode, dimensions: tuple[str, ...]) -> RankingNode:
    if name == "euclidean_distance":
        return Unary("sqrt", Reduce(Unary("square", Binary("-", left, right)), "sum", dimensions))
    product = Reduce(Binary("*", left, right), "sum", dimensions)
    if name == "matmul":
        return product
    squares = [Reduce(Binary("*", side, side), "sum", dimensions) for side in (left, right)]
    return Binary("/", product, Unary("sqrt", Binary("*", *squares)))
