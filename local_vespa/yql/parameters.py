"""Lists and weighted sets in request parameters: `in (@values)`, `wand(field, @tokens)` (ParameterListParser.java)."""

from __future__ import annotations

import re
from typing import Any

from .errors import YqlError

_ITEM = re.compile(r"""\s*(?:'([^']*)'|"([^"]*)"|([^,]*?))\s*(?:,|$)""")
_PAIR = re.compile(r"\[\s*([+-]?\d+)\s*,\s*([+-]?\d+)\s*\]\s*,?\s*")
_ENTRY = re.compile(r"""\s*(?:'([^']*)'|"([^"]*)"|([^:'"]*?))\s*:\s*([+-]?\d+)\s*,?\s*""")


def read_list(value: Any) -> list[str]:
    """The items of `a, 'b, c', "d"`; a list is taken as it is."""
    if isinstance(value, (list, tuple)):
        return [str(v) for v in value]
    text, items, at = str(value), [], 0
    while at < len(text):
        found = _ITEM.match(text, at)
        if not found:
            raise YqlError(f"Expected one of [,] after {at} in '{text}'")
        items.append(next(group for group in found.groups() if group is not None))
        at = found.end()
    return items


def read_weighted_set(value: Any) -> list[tuple[str | int, int]]:
    """The tokens and weights of `{a: 1, "b": 2}` or `[[1,2],[3,4]]`. Raises YqlError."""
    text = str(value).strip()
    pattern = {"[]": _PAIR, "{}": _ENTRY}.get(text[:1] + text[-1:])
    if pattern is None:
        raise YqlError(f"Expected a string starting by '[' or '{{', but was '{text[:1]}'")
    tokens: list[tuple[str | int, int]] = []
    at, end = 1, len(text) - 1
    while text[at:end].strip():
        at += len(text[at:end]) - len(text[at:end].lstrip())
        found = pattern.match(text, at, end)
        if not found:
            raise YqlError(f"Expected a token and an integer weight at position {at} of '{text}'")
        if pattern is _PAIR:
            tokens.append((int(found[1]), int(found[2])))
        else:
            tokens.append((next(g for g in found.groups()[:3] if g is not None), int(found[4])))
        at = found.end()
    return tokens
