"""The YQL grammar run by lark: text to raw operators, before they mean anything."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from lark import Lark, Token, Transformer
from lark.exceptions import UnexpectedInput, VisitError

from ..patterns import QUOTED
from .errors import YqlError

MAX_NESTING = 100
# Parsed statements that are kept: so many characters each, of which one takes 130 bytes, and so many of them.
MAX_REMEMBERED, STATEMENTS = 2_000, 256
_PASSED = QUOTED + r"|(?://|\#)[^\n]*|/\*.*?(?:\*/|\Z)"
_BRACKETS = re.compile(rf"{_PASSED}|([(\[{{])|([)\]}}])|(\|)", re.DOTALL)
_LEAVES = re.compile(
    rf"{_PASSED}|(\b(?:contains|matches|in|userInput|userQuery|nearestNeighbor)\b|[<>]=?|=)", re.DOTALL | re.IGNORECASE
)
_ESCAPES = {"b": "\b", "t": "\t", "n": "\n", "f": "\f", "r": "\r"} | {c: c for c in "\"'\\/"}


@dataclass(frozen=True)
class Raw:
    """One operator of an expression (and, or, not, call, reference, literal, map, array, parameter, in, =, <, …)."""

    operator: str
    arguments: tuple[Any, ...] = ()
    annotations: dict[str, Any] = field(default_factory=dict)
    position: int = 0

    @property
    def name(self) -> str:
        """The function's or field's name of a call or reference."""
        return str(self.arguments[0])


@dataclass(frozen=True)
class RawStatement:
    fields: tuple[str, ...]
    sources: tuple[str, ...]
    where: Raw | None
    order: tuple[tuple[str, bool, dict[str, Any]], ...]
    limit: Any
    offset: Any
    timeout: Any


def split_pipe(text: str) -> tuple[str, str | None]:
    """The statement and the grouping after its first `|`. Raises YqlError where brackets nest deeper than Python's
    stack could take."""
    depth = 0
    for found in _BRACKETS.finditer(text):
        if found[3]:
            return text[: found.start()], text[found.end() :]
        depth += bool(found[1]) - bool(found[2])
        if depth > MAX_NESTING:
            raise YqlError(f"query:{_place(text, found.start())} nested deeper than {MAX_NESTING} brackets")
    return text, None


def least_items(text: str) -> int:
    """How many items the tree of a statement has at least: its leaves, and an operator over them. It is not parsed for
    that, which for 40,000 terms takes seconds."""
    leaves = sum(found[1] is not None for found in _LEAVES.finditer(split_pipe(text)[0]))
    return leaves + (leaves > 1)


def parse_raw(text: str) -> RawStatement:
    """The raw statement of a text without grouping. Raises YqlError with the position."""
    return _remembered(text) if len(text) <= MAX_REMEMBERED else _parse(text)


@lru_cache(STATEMENTS)
def _remembered(text: str) -> RawStatement:
    return _parse(text)


def _parse(text: str) -> RawStatement:
    try:
        return _parser().parse(text)  # type: ignore[return-value]
    except UnexpectedInput as error:
        at = error.pos_in_stream if isinstance(error.pos_in_stream, int) else len(text)
        word = re.match(r"\w+|.", text[at:], re.DOTALL)
        expected = getattr(error, "expected", None) or getattr(error, "allowed", None) or ()
        wanted = f" expecting {{{', '.join(sorted(expected))}}}" if expected else ""
        found = f"'{word[0]}'" if word else "'<EOF>'"
        raise YqlError(f"query:{_place(text, at)} mismatched input {found}{wanted}") from None
    except VisitError as error:
        raise YqlError(str(error.orig_exc)) from None


def _place(text: str, at: int) -> str:
    line = text.count("\n", 0, at)
    return f"L{line + 1}:{at - text.rfind(chr(10), 0, at) - 1}"


def unquote(text: str) -> str:
    """A string literal without its quotes and escapes."""

    def unescape(match: re.Match[str]) -> str:
        code = match[1]
        if code[0] == "u" and len(code) == 5:
            return chr(int(code[1:], 16))
        if code not in _ESCAPES:
            raise YqlError(f"Unknown escape sequence in token: {text}")
        return _ESCAPES[code]

    return re.sub(r"\\(u[0-9a-fA-F]{4}|.)", unescape, text[1:-1])


class _Build(Transformer[Any, Any]):
    """Builds raw operators while the parser reduces, so that no depth of input recurses here."""

    def start(self, parts: list[Any]) -> RawStatement:
        given = dict(parts)
        return RawStatement(*(given.get(k, d) for k, d in _CLAUSES.items()))

    def all_fields(self, _: list[Any]) -> tuple[str, Any]:
        return "fields", ()

    def fields(self, names: list[Any]) -> tuple[str, Any]:
        return "fields", tuple(names)

    def field(self, parts: list[Any]) -> str:
        return str(parts[0])

    def all_sources(self, _: list[Any]) -> tuple[str, Any]:
        return "sources", ("*",)

    def source(self, names: list[Any]) -> tuple[str, Any]:
        return "sources", tuple(names)

    def where(self, parts: list[Any]) -> tuple[str, Any]:
        return "where", parts[0]

    def orderby(self, parts: list[Any]) -> tuple[str, Any]:
        return "order", tuple(parts[1:])

    def order(self, parts: list[Any]) -> tuple[str, bool, dict[str, Any]]:
        annotations = parts.pop(0) if isinstance(parts[0], dict) else {}
        name = unquote(parts[0]) if isinstance(parts[0], Token) else parts[0]
        return name, parts[-1].lower() != "desc" or len(parts) == 1, annotations

    def limit(self, parts: list[Any]) -> tuple[str, Any]:
        return "limit", parts[0]

    def offset(self, parts: list[Any]) -> tuple[str, Any]:
        return "offset", parts[0]

    def timeout(self, parts: list[Any]) -> tuple[str, Any]:
        return "timeout", parts[0]

    def annotated(self, parts: list[Any]) -> Raw:
        annotations, node = parts
        if not isinstance(node, Raw):
            node = Raw("literal", (node,))
        return Raw(node.operator, node.arguments, {**node.annotations, **annotations}, node.position)

    def annotation(self, parts: list[Any]) -> dict[str, Any]:
        return dict(zip(*parts[0].arguments, strict=True))

    def or_expression(self, parts: list[Any]) -> Raw:
        return Raw("or", tuple(parts))

    def and_expression(self, parts: list[Any]) -> Raw:
        return Raw("and", tuple(parts))

    def binary(self, parts: list[Any]) -> Raw:
        return Raw(" ".join(parts[1].lower().split()), (parts[0], parts[2]), position=parts[1].start_pos)

    def in_list(self, parts: list[Any]) -> Raw:
        return Raw(" ".join(parts[1].lower().split()), (parts[0], tuple(parts[2:])), position=parts[1].start_pos)

    def negation(self, parts: list[Any]) -> Raw:
        return Raw("not", (parts[0],))

    def negative(self, parts: list[Any]) -> Raw:
        return Raw("negative", (parts[0],))

    def call(self, parts: list[Any]) -> Raw:
        return Raw("call", (parts[0], tuple(parts[1:])))

    def reference(self, parts: list[Any]) -> Raw:
        return Raw("reference", (parts[0],))

    def element(self, parts: list[Any]) -> Raw:
        return Raw("element", (parts[0], parts[1]))

    def map(self, parts: list[Any]) -> Raw:
        return Raw("map", (tuple(k for k, _ in parts), tuple(v for _, v in parts)))

    def property(self, parts: list[Any]) -> tuple[str, Raw]:
        name = parts[0]
        return (unquote(name) if isinstance(name, Token) else str(name)), parts[1]

    def array(self, parts: list[Any]) -> Raw:
        return Raw("array", tuple(parts))

    def parameter(self, parts: list[Any]) -> Raw:
        return Raw("parameter", (parts[0],))

    def scalar(self, parts: list[Any]) -> Raw:
        token = parts[0]
        value: Any
        if token.type == "STRING":
            value = unquote(token)
        elif token.type == "FLOAT":
            value = float(token)
        elif token.type in ("INT", "LONG"):
            value = int(token.rstrip("lL"))
        else:
            value = token.lower() == "true"
        return Raw("literal", (value,), position=token.start_pos or 0)

    def INT(self, token: Token) -> Token:
        return token

    def name(self, parts: list[Any]) -> str:
        return str(parts[0])

    def dotted(self, parts: list[Any]) -> str:
        return ".".join(parts)

    def ident(self, parts: list[Any]) -> str:
        return str(parts[0])


_CLAUSES: dict[str, Any] = {
    "fields": (), "sources": (), "where": None, "order": (), "limit": None, "offset": None, "timeout": None,
}  # fmt: skip


@cache
def _parser() -> Lark:
    grammar = (Path(__file__).parent / "yql.lark").read_text(encoding="utf-8")
    return Lark(grammar, parser="lalr", lexer="contextual", transformer=_Build(), propagate_positions=False)
