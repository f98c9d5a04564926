"""Sorting by attributes: `order by` and the `sorting` parameter."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import INVALID_PARAMETER, QueryError, unsupported
from ..index.attributes import MultiColumn, NumberColumn, StringColumn
from ..index.table import Table

_SPECIAL = {
    "[rank]": "[relevance]",
    "[relevance]": "[relevance]",
    "[relevancy]": "[relevance]",
    "[docid]": "[docid]",
    "[source]": "[source]",
}


@dataclass(frozen=True)
class Criterion:
    """One criterion: an attribute, [relevance] or [docid]; `function` is lowercase, raw or uca (the default of
    strings)."""

    field: str
    ascending: bool
    function: str = "uca"


def parse_sorting(text: str) -> tuple[Criterion, ...]:
    """The `sorting` parameter: `+added -price -[rank] +lowercase(title)`. Raises QueryError."""
    found = []
    for part in text.split():
        ascending = part[0] != "-"
        match = re.fullmatch(r"(?:(lowercase|raw|uca)\(([\w.]+)(?:,[^)]*)?\)|(\[\w+\]|[\w.]+))", part.lstrip("+-"))
        if match is None:
            raise QueryError(INVALID_PARAMETER, unsupported(f"the sorting '{part}'"))
        name = match[2] or match[3]
        found.append(criterion(name, ascending, match[1]))
    return tuple(found)


def criterion(name: str, ascending: bool, function: str | None) -> Criterion:
    """A criterion with its name as this module knows it."""
    return Criterion(_SPECIAL.get(name.lower(), name), ascending, function or "uca")


def relevance_key(score: float) -> tuple[bool, float]:
    """A key that puts the greatest relevance first and NaN last."""
    return (True, 0.0) if score != score else (False, -score)


def sort_keys(
    table: Table, rows: np.ndarray, relevance: np.ndarray, criteria: tuple[Criterion, ...]
) -> list[tuple[Any, ...]]:
    """A key for each row. A value that was never set, or is NaN, is the smallest; rows of a type without the field come
    first."""
    keys: list[list[Any]] = [[] for _ in rows]
    for c in criteria:
        values = _values(table, rows, relevance, c)
        for i, key in enumerate(keys):
            if values is None:
                key.append((0,))
            else:
                value = _Reversed(values[i]) if not c.ascending else values[i]
                key.append((1, value))
    return [tuple(k) for k in keys]


def _values(table: Table, rows: np.ndarray, relevance: np.ndarray, c: Criterion) -> list[Any] | None:
    if c.field == "[relevance]":
        return [_number_key(score) for score in relevance.tolist()]
    if c.field == "[docid]":
        return rows.tolist()
    column = table.columns.get(c.field)
    if isinstance(column, NumberColumn):
        values, present = column.values[rows], column.present[rows]
        return [_number_key(v if p else None) for v, p in zip(values.tolist(), present.tolist(), strict=True)]
    if isinstance(column, StringColumn):
        key = {"raw": str.encode, "lowercase": str.lower, "uca": collation}[c.function]
        made = [key(text) for text in column.values]  # type: ignore[operator]
        return [made[code] for code in column.codes[rows]]
    if isinstance(column, MultiColumn):
        raise QueryError(INVALID_PARAMETER, unsupported(f"sorting by the multi-value attribute '{c.field}'"))
    return None


def _number_key(value: float | None) -> tuple[int, float]:
    """None and NaN below every number, -inf included."""
    return (0, 0) if value is None or value != value else (1, value)


def collation(text: str) -> tuple[tuple[int, str], ...]:
    """Unicode collation at its primary level, near enough: case and accents do not count; blanks, then punctuation,
    then symbols, then digits, then letters."""
    order = {"Z": 0, "C": 0, "P": 1, "S": 2, "N": 3}
    plain = unicodedata.normalize("NFKD", text).casefold()
    return tuple((order.get(unicodedata.category(c)[0], 4), c) for c in plain if unicodedata.category(c)[0] != "M")


class _Reversed:
    """A value that sorts the other way round."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def __lt__(self, other: _Reversed) -> bool:
        return bool(other.value < self.value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Reversed) and bool(self.value == other.value)
