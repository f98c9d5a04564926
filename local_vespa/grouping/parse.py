"""Grouping text to `ast.GroupingRequest`."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

from lark import Lark, Token, Tree
from lark.exceptions import UnexpectedInput

from ..patterns import QUOTED
from .ast import (
    MAX_LONG,
    MIN_LONG,
    Attribute,
    Bucket,
    Call,
    Constant,
    Expression,
    GroupingError,
    GroupingRequest,
    Operation,
    Output,
)

MAX_NESTING = 50
_PRECEDENCE = {"+": 0, "-": 1, "/": 2, "%": 3, "*": 4}  # MathResolver.java, also in that * binds closer than /
_OPERATORS = {"+": "add", "-": "sub", "/": "div", "%": "mod", "*": "mul"}
_BRACKETS = re.compile(rf"{QUOTED}|([({{\[<])|([)}}\]>])|(\|)", re.DOTALL)


def parse_grouping(text: str) -> tuple[GroupingRequest, ...]:
    """The requests of a grouping text; several are separated by `;` or `|`. Raises GroupingError with the position."""
    requests: list[GroupingRequest] = []
    for part in _split(text):
        if part.lstrip().startswith("{"):
            raise GroupingError("continuations of grouping results are not supported by this engine")
        try:
            tree = _parser().parse(part)
        except UnexpectedInput as error:
            if "quantiles" in part:
                raise GroupingError("quantiles are not supported by this engine") from None
            at = error.pos_in_stream if isinstance(error.pos_in_stream, int) else len(part)
            raise GroupingError(f"Could not parse the grouping at position {at}: '{part[at : at + 20]}'") from None
        for root in tree.children:
            assert isinstance(root, Tree)
            requests.append(GroupingRequest(_root(root), part.strip()))
    return tuple(requests)


def _split(text: str) -> list[str]:
    parts, start, depth = [], 0, 0
    for found in _BRACKETS.finditer(text):
        depth += bool(found[1]) - bool(found[2])
        if depth > MAX_NESTING:
            raise GroupingError(f"The grouping nests deeper than {MAX_NESTING} brackets")
        if found[3]:
            parts.append(text[start : found.start()])
            start = found.end()
    return [*parts, text[start:]]


@cache
def _parser() -> Lark:
    grammar = (Path(__file__).parent / "grouping.lark").read_text(encoding="utf-8")
    return Lark(grammar, parser="lalr", lexer="contextual", maybe_placeholders=False)


def _root(tree: Tree[Token]) -> Operation:
    operation = _operation(_tree(tree.children[0]), {})
    if len(tree.children) > 1:
        return Operation(each=False, children=(operation,), where=_where(_tree(tree.children[1])))
    return operation


def _operation(tree: Tree[Token], aliases: Mapping[str, Expression]) -> Operation:
    parts: dict[str, Any] = {"order": (), "outputs": (), "children": ()}
    aliases = dict(aliases)
    for i, item in enumerate(_tree(tree.children[0]).children):
        item = _tree(item)
        if item.data == "group" and i:
            raise GroupingError("'group' comes before all else inside an operation")
        if parts["children"] and item.data != "child":
            raise GroupingError(f"'{item.data}' comes before the operations inside")
        match item.data:
            case "group":
                parts["group"] = _Expressions(aliases).read(item.children[0])
            case "limit":
                parts["limit"] = int(_number(str(item.children[0]))) if item.children else math.inf
            case "order":
                parts["order"] += tuple(_Expressions(aliases).read(child) for child in item.children)
            case "outputs":
                parts["outputs"] += tuple(_output(_tree(child), aliases) for child in item.children)
            case "alias":
                aliases[str(item.children[0])] = _Expressions(aliases).read(item.children[1])
            case "where_item":
                parts["where"] = _where(_tree(item.children[0]))
            case "child":
                parts["children"] += (_operation(_tree(item.children[0]), aliases),)
    label = _word(tree.children[1]) if len(tree.children) > 1 else None
    return Operation(each=tree.data == "each_operation", label=label, **parts)


def _where(tree: Tree[Token]) -> str:
    return "".join(str(child) for child in tree.children)


def _output(tree: Tree[Token], aliases: dict[str, Expression]) -> Output:
    expression = _tree(tree.children[0])
    last = expression.children[-1]
    label = (
        _word(last) if isinstance(last, Tree) and last.data in ("word", "string") and _labelled(expression) else None
    )
    return Output(_Expressions(aliases).read(expression), label)


def _labelled(expression: Tree[Token]) -> bool:
    values = [child for child in expression.children if isinstance(child, Tree)]
    return len(values) > 1


class _Expressions:
    """Reads expressions; `$name = …` inside one defines an alias for what follows."""

    def __init__(self, aliases: dict[str, Expression]) -> None:
        self.aliases = aliases

    def read(self, node: Tree[Token] | Token) -> Expression:
        tree = _tree(node)
        match tree.data:
            case "expression":
                negative = isinstance(tree.children[0], Token) and tree.children[0] == "-"
                found = self.read(next(child for child in tree.children if isinstance(child, Tree)))
                return _negated(found) if negative else found
            case "sum":
                return self.sum(tree)
            case "nested":
                return self.read(tree.children[0])
            case "predefined":
                buckets = tuple(_bucket(_tree(child)) for child in tree.children[1:])
                kinds = {type(end) for b in buckets for end in (b.low, b.high) if end not in (MIN_LONG, MAX_LONG)}
                if len(kinds) > 1:
                    raise GroupingError("Bucket type mismatch: all limits of the buckets are of one type")
                if any(later.low < earlier.high for earlier, later in pairwise(buckets)):  # type: ignore[operator]
                    raise GroupingError("Buckets must be monotonically increasing")
                return Call("predefined", (self.read(tree.children[0]), *buckets))
            case "variable":
                name = str(tree.children[0])
                if len(tree.children) > 1:
                    self.aliases[name] = self.read(tree.children[1])
                if name not in self.aliases:
                    raise GroupingError(f"There is no alias '{name}'")
                return self.aliases[name]
            case "call":
                return _call(str(tree.children[0]), tuple(self.read(child) for child in tree.children[1:]))
            case "attribute":
                return Attribute(str(tree.children[0]))
            case "number":
                return Constant(_number(str(tree.children[0])))
            case "string":
                return Constant(_word(tree))
        raise GroupingError(f"'{tree.data}' is not an expression")

    def sum(self, tree: Tree[Token]) -> Expression:
        stack: list[tuple[str, Expression]] = [("+", self.read(tree.children[0]))]

        def pop() -> None:
            sign, right = stack.pop()
            stack[-1] = (stack[-1][0], Call(_OPERATORS[sign], (stack[-1][1], right)))

        for sign, value in zip(tree.children[1::2], tree.children[2::2], strict=True):
            while len(stack) > 1 and _PRECEDENCE[stack[-1][0]] >= _PRECEDENCE[str(sign)]:
                pop()
            stack.append((str(sign), self.read(value)))
        while len(stack) > 1:
            pop()
        return stack[0][1]


def _call(name: str, arguments: tuple[Expression, ...]) -> Expression:
    if name == "attribute" and len(arguments) == 1 and isinstance(arguments[0], Attribute):
        return arguments[0]
    if name == "neg" and len(arguments) == 1:
        return _negated(arguments[0])
    if name == "summary":
        return Call(name, tuple(Constant(str(a)) if isinstance(a, Attribute) else a for a in arguments))
    return Call(name, arguments)


def _negated(expression: Expression) -> Expression:
    if isinstance(expression, Constant) and not isinstance(expression.value, str):
        return Constant(-expression.value)
    return Call("neg", (expression,))


def _bucket(tree: Tree[Token]) -> Bucket:
    opening, *limits, closing = tree.children
    low = _limit(limits[0])
    high = _limit(limits[-1])
    if isinstance(low, float) or isinstance(high, float):
        low, high = (-math.inf if low == MIN_LONG else low), (math.inf if high == MAX_LONG else high)
    if str(opening) == "<":
        low = _next(low)
    if len(limits) == 1 or str(closing) == "]":
        high = _next(high)
    return Bucket(low, high)


def _limit(node: Tree[Token] | Token) -> int | float | str:
    tree = _tree(node)
    match tree.data:
        case "signed":
            return _number(str(tree.children[-1])) * (-1 if tree.children[0] == "-" else 1)
        case "lowest":
            return MIN_LONG
        case "highest":
            return MAX_LONG
    return _word(tree)


def _next(value: int | float | str) -> int | float | str:
    """The least value above: what makes an inclusive limit exclusive."""
    if isinstance(value, str):
        return value + " "
    return math.nextafter(value, math.inf) if isinstance(value, float) else value + 1


def _number(text: str) -> int | float:
    if text.lower().startswith("0x"):
        return int(text.rstrip("lL"), 16)
    plain = text.rstrip("lLfFdD")
    if re.fullmatch(r"\d+", plain) and text[-1] not in "fFdD":
        return int(plain, 8) if plain.startswith("0") and re.fullmatch("[0-7]+", plain) else int(plain)
    return float(plain)


def _word(node: Tree[Token] | Token) -> str:
    token = str(_tree(node).children[0])
    if token[:1] in "\"'":
        return re.sub(r"\\(.)", r"\1", token[1:-1])
    return token


def _tree(node: Tree[Token] | Token) -> Tree[Token]:
    assert isinstance(node, Tree), node
    return node
