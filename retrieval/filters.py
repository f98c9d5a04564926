"""Filters as data, turned into YQL whose strings are parameters: no text of a user is ever part of the query
language.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from mrse_model.errors import InputError

Scalar = str | int | float | bool
OPERATORS = ("!=", "<=", ">=", "=", "<", ">")
NAME = re.compile(r"[A-Za-z_]\w*")
NUMBER = re.compile(r"[+-]?\d+(\.\d+)?")


@dataclass(frozen=True)
class Filter:
    """`field operator value`; several values with = mean any of them, with != none of them.

    Strings match whole attribute values (and the members of an array), numbers and bools compare.

    >>> Filter.parse("price<=50")
    Filter(field='price', operator='<=', values=(50,))
    >>> Filter.parse("colour=red|blue").values
    ('red', 'blue')
    """

    field: str
    operator: str
    values: tuple[Scalar, ...]

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.field) or self.operator not in OPERATORS or not self.values:
            raise InputError(f"not a filter: {self.field} {self.operator} {self.values}", fix="Write FIELD=VALUE")
        ordered = self.operator in ("<", ">", "<=", ">=")
        if ordered and not all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in self.values):
            raise InputError(f"{self.operator} needs a number, not {self.values[0]!r}", field=self.field)

    @classmethod
    def parse(cls, text: str) -> Filter:
        """Reads colour=red, colour=red|blue, category!=Shoes, price<=50, in_stock=true, sizes="38" (the text, not
        the number).

        Raises InputError.
        """
        found = re.fullmatch(r"\s*(\w+)\s*(!=|<=|>=|=|<|>)\s*(.*?)\s*", text)
        if found is None:
            raise InputError(f"not a filter: {text!r}", fix="Write FIELD=VALUE, FIELD!=VALUE, FIELD<=NUMBER, …")
        return cls(found[1], found[2], tuple(_scalar(v) for v in found[3].split("|")))


def _scalar(text: str) -> Scalar:
    if text in ("true", "false"):
        return text == "true"
    if len(text) > 1 and text[0] == text[-1] == '"':
        return text[1:-1]
    if NUMBER.fullmatch(text):
        return float(text) if "." in text else int(text)
    return text


def where(filters: Sequence[Filter]) -> tuple[str, dict[str, str]]:
    """The filters as a YQL condition (joined by and; "" for none) and the parameters it refers to.

    >>> where([Filter("colour", "=", ("red",)), Filter("price", "<", (50,))])
    ('colour contains @filter0 and price < 50', {'filter0': 'red'})
    """
    parameters: dict[str, str] = {}
    terms: list[str] = []
    for one in filters:
        equal = "=" if one.operator == "!=" else one.operator
        alternatives = []
        for value in one.values:
            if isinstance(value, str):
                name = f"filter{len(parameters)}"
                parameters[name] = value
                alternatives.append(f"{one.field} contains @{name}")
            else:
                literal = str(value).lower() if isinstance(value, bool) else repr(value)
                alternatives.append(f"{one.field} {equal} {literal}")
        term = " or ".join(alternatives)
        if one.operator == "!=":
            term = f"!({term})"
        elif len(alternatives) > 1:
            term = f"({term})"
        terms.append(term)
    return " and ".join(terms), parameters
