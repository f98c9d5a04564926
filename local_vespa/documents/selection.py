"""Document selection: `product.stock > 45 and not product.title = "*hoodie*"`, of conditions, visits and services.xml.

Its logic has three values, as Vespa's: a comparison of order with a field that is not set has no answer (None), and
what has no answer does not match.
"""

from __future__ import annotations

import fnmatch
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from lark import Lark, Token, Tree
from lark.exceptions import UnexpectedInput

from ..errors import DocumentError
from ..patterns import Pattern, PatternError
from ..tensors import Tensor

_GRAMMAR = Lark((Path(__file__).parent / "selection.lark").read_text(), parser="earley", maybe_placeholders=False)
_ESCAPES = {"t": "\t", "n": "\n", "f": "\f", "r": "\r"}
_ORDER: dict[str, Callable[[Any, Any], bool]] = {
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}
_ARITHMETIC: dict[str, Callable[[Any, Any], Any]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: a / b if isinstance(a, float) or isinstance(b, float) else int(a / b),
    "%": lambda a, b: a % b,
}
MAX_REMEMBERED = 500  # characters of a selection that is kept parsed
MAX_LENGTH, MAX_NESTING = 4000, 50  # the time of an Earley parser grows with the square of both
_NEGATIONS = re.compile(rf"(?:not\s+){{{MAX_NESTING}}}", re.IGNORECASE)


class SelectionError(ValueError):
    """A selection that cannot be parsed, with the position."""


class _Invalid(Exception):
    """A value that cannot be computed: the comparison that needs it has no answer."""


@dataclass(frozen=True)
class Selection:
    """A parsed selection."""

    text: str
    tree: Tree[Token]

    def matches(self, document_id: str, fields: Mapping[str, Any]) -> bool:
        """Whether it selects the document with this id (`id:ns:type::x`, which names its type) and these field values
        (absent: null). Raises DocumentError where a regular expression takes too long."""
        return _truth(self.tree, _Document(document_id, fields)) is True


@dataclass(frozen=True)
class _Document:
    id: str
    fields: Mapping[str, Any]

    @property
    def type(self) -> str:
        return self.id.split(":", 3)[2]


def parse_selection(text: str) -> Selection:
    """Parses a selection. Raises SelectionError."""
    return _remembered(text) if len(text) <= MAX_REMEMBERED else _parse(text)


@lru_cache(256)
def _remembered(text: str) -> Selection:
    return _parse(text)


def _parse(text: str) -> Selection:
    if len(text) > MAX_LENGTH:
        raise SelectionError(f"The selection is longer than {MAX_LENGTH} characters")
    depth = 0
    for c in text:
        depth += (c == "(") - (c == ")")
        if depth > MAX_NESTING:
            break
    if depth > MAX_NESTING or _NEGATIONS.search(text):
        raise SelectionError(f"The selection is nested more than {MAX_NESTING} deep")
    try:
        return Selection(text, _GRAMMAR.parse(text))
    except UnexpectedInput as e:
        raise SelectionError(f"Cannot parse the selection '{text}': error at column {e.column}") from e


def _truth(node: Tree[Token], document: _Document) -> bool | None:
    match node.data:
        case "or":
            found = [_truth(c, document) for c in node.children]  # type: ignore[arg-type]
            return True if True in found else None if None in found else False
        case "and":
            found = [_truth(c, document) for c in node.children]  # type: ignore[arg-type]
            return False if False in found else None if None in found else True
        case "negation":
            inner = _truth(node.children[0], document)  # type: ignore[arg-type]
            return None if inner is None else not inner
        case "always" | "never":
            return node.data == "always"
        case "of_type":
            return document.type == str(node.children[0])
    left, operator, right = node.children
    try:
        return _compare(_value(left, document), str(operator), _value(right, document))
    except (_Invalid, TypeError, ArithmeticError):
        return None


def _compare(a: Any, operator: str, b: Any) -> bool | None:
    """A comparison. Of an array or weighted set any element may hold it."""
    if isinstance(a, Tensor) or isinstance(b, Tensor):
        if operator in ("=", "==", "!=") and (a is None or b is None):
            return operator == "!="
        raise _Invalid
    if isinstance(a, (list, dict)) and b is not None:
        found = [_compare(element, operator, b) for element in a]
        return True if True in found else None if None in found else False
    if operator in ("=", "==", "!="):
        same = _same(a, b, glob=operator == "=")
        return same if operator != "!=" else not same
    if operator == "=~":
        if not isinstance(a, str) or not isinstance(b, str):
            return False
        try:
            return Pattern(b).found_in(a)
        except PatternError as e:
            raise DocumentError(400, str(e)) from e
    if a is None or b is None or isinstance(a, str) != isinstance(b, str):
        return None
    return _ORDER[operator](a, b)


def _same(a: Any, b: Any, glob: bool) -> bool:
    if glob and isinstance(a, str) and isinstance(b, str) and ("*" in b or "?" in b):
        pattern = "".join(c if c in "*?" else f"[{c}]" if c == "[" else c for c in b)
        return fnmatch.fnmatchcase(a, pattern)
    if a is None or b is None:
        return a is b
    return bool(a == b)


def _value(node: Any, document: _Document) -> Any:
    if isinstance(node, Token):
        raise _Invalid
    match node.data:
        case "sum" | "product":
            value, rest = _value(node.children[0], document), node.children[1:]
            for operator, operand in zip(rest[::2], rest[1::2], strict=True):
                other = _value(operand, document)
                if value is None or other is None:
                    raise _Invalid
                value = _ARITHMETIC[str(operator)](value, other)
            return value
        case "float":
            return float(node.children[0])
        case "integer":
            return int(str(node.children[0]), 0)
        case "string":
            return _unquoted(str(node.children[0]))
        case "null":
            return None
        case "now":
            return int(time.time())
        case "id":
            return _id(document.id, str(node.children[0]).lower() if node.children else "")
        case "call":
            return _called(_value(node.children[0], document), str(node.children[1]).lower())
    return _field(node, document)


def _field(node: Tree[Token], document: _Document) -> Any:
    names = [str(c) for c in node.children if isinstance(c, Token)]
    if names[0] != document.type:
        raise _Invalid
    if len(names) != 2:
        raise _Invalid
    value = document.fields.get(names[1])
    for child in node.children:
        if isinstance(child, Tree) and value is not None:
            token = child.children[0]
            assert isinstance(token, Token)
            key = _unquoted(str(token)) if token.type == "STRING" else str(token)
            if isinstance(value, list):
                value = value[int(key)] if key.isdecimal() and int(key) < len(value) else None
            elif isinstance(value, dict):
                value = next((w for k, w in value.items() if str(k) == key), None)
            else:
                raise _Invalid
    return value


def _id(id: str, part: str) -> Any:
    _, namespace, kind, location, specific = id.split(":", 4)
    match part:
        case "":
            return id
        case "scheme":
            return "id"
        case "namespace":
            return namespace
        case "type":
            return kind
        case "specific":
            return specific
    mark = {"user": "n=", "group": "g="}[part]
    if not location.startswith(mark):
        raise _Invalid
    return int(location[2:]) if part == "user" else location[2:]


def _called(value: Any, function: str) -> Any:
    if function == "lowercase" and isinstance(value, str):
        return value.lower()
    if function == "abs" and isinstance(value, (int, float)):
        return abs(value)
    raise _Invalid


def _unquoted(text: str) -> str:
    def plain(match: re.Match[str]) -> str:
        code = match[1]
        return chr(int(code[1:], 16)) if code[0] == "x" else _ESCAPES.get(code, code)

    return re.sub(r"\\(x[0-9a-fA-F]{2}|.)", plain, text[1:-1])
