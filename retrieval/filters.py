"""Filters as data, turned into YQL whose strings are parameters: no text of a user is ever part of the query
language. Sorting and facets are here too: they name fields and nothing else.
"""

from __future__ import annotations

import difflib
import itertools
import math
import numbers
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from mrse_model.errors import InputError

Scalar = str | int | float | bool
OPERATORS = ("!=", "<=", ">=", "=", "<", ">")
NAME = re.compile(r"[A-Za-z_]\w*", re.ASCII)
NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)
NUMERIC = {"byte", "int", "long", "float", "double"}
MAX_VALUES = 1000  # of one filter
COLLAPSED, WITHOUT = "collapsed", "without"  # labels of the group lists of a search that collapses


@dataclass(frozen=True)
class Filter:
    """`field operator value`; several values with = mean any of them, with != none of them.

    Strings match whole attribute values (and the members of an array), numbers and bools compare. Numbers of numpy,
    pandas and Decimal are numbers.

    >>> Filter.parse("price<=50")
    Filter(field='price', operator='<=', values=(50,))
    >>> Filter.parse("colour=red|blue").values
    ('red', 'blue')
    >>> Filter("price", "<", (Decimal("9.5"),)).values
    (9.5,)
    """

    field: str
    operator: str
    values: tuple[Scalar, ...]

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.field) or self.operator not in OPERATORS:
            raise InputError(f"not a filter: {self.field} {self.operator}", fix="Write FIELD=VALUE")
        values = self.values if isinstance(self.values, (tuple, list)) else (self.values,)
        if not values:
            raise InputError("a filter without a value", field=self.field, fix="Leave it out, or give a value")
        if len(values) > MAX_VALUES:
            raise InputError(f"{len(values)} values exceed {MAX_VALUES}", field=self.field)
        object.__setattr__(self, "values", tuple(plain(value, self.field) for value in values))
        ordered = self.operator in ("<", ">", "<=", ">=")
        if ordered and not all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in self.values):
            raise InputError(f"{self.operator} needs a number, not {self.values[0]!r}", field=self.field)

    @classmethod
    def parse(cls, text: str) -> Filter:
        """Reads colour=red, colour=red|blue, category!=Shoes, price<=50, in_stock=true, sizes="38" (the text, not
        the number).

        Raises InputError.
        """
        found = re.fullmatch(r"\s*(\w+)\s*(!=|<=|>=|=|<|>)\s*(.*?)\s*", text, re.DOTALL)
        if found is None:
            raise InputError(f"not a filter: {text!r}", fix="Write FIELD=VALUE, FIELD!=VALUE, FIELD<=NUMBER, …")
        if found[3][:1] in ("=", "<", ">"):
            right = f"{found[1]}{found[2][:1]}{found[3].lstrip('=<>')}"
            raise InputError(
                f"unknown operator {found[2]}{found[3][:1]} in {text!r}", field=found[1], fix=f"Write {right}"
            )
        return cls(found[1], found[2], tuple(_scalar(v) for v in found[3].split("|")))

    def checked(self, fields: Mapping[str, str] | None) -> Filter:
        """The filter with values of the field's type. fields: field name → its type in the schema; None: unknown, and
        nothing is checked. Raises InputError for a field that is not there and for values that it cannot hold.
        """
        if fields is None:
            return self
        kind = field_type(self.field, fields)
        inner = re.sub(r"^(array|weightedset)<(.*)>$", r"\2", kind)
        if inner in NUMERIC:
            return Filter(self.field, self.operator, tuple(_number(v, self.field, inner) for v in self.values))
        if self.operator not in ("=", "!="):
            raise InputError(f"the field is {kind}: only = and != apply", field=self.field)
        if inner == "bool":
            if not all(isinstance(v, bool) for v in self.values):
                raise InputError(f"must be true or false, got {self.values[0]!r}", field=self.field)
            return self
        if inner == "string":
            return Filter(self.field, self.operator, tuple(v if isinstance(v, str) else _text(v) for v in self.values))
        raise InputError(f"the field is {kind}: it cannot be filtered by", field=self.field)


def field_type(name: str, fields: Mapping[str, str]) -> str:
    """The type of a field. Raises InputError that names the nearest one."""
    if name in fields:
        return fields[name]
    near = difflib.get_close_matches(name, fields, 1)
    fix = f"Did you mean {near[0]}?" if near else "One of " + ", ".join(sorted(fields))
    raise InputError("there is no such field", field=name, fix=fix)


def plain(value: Any, field: str) -> Scalar:
    """A value of numpy, pandas or Decimal as Python's own. Raises InputError for what is no value."""
    if hasattr(value, "item") and not isinstance(value, (str, bytes)):  # a numpy scalar
        value = value.item()
    if isinstance(value, Decimal):
        value = int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, (bool, str)):
        if value == "":
            raise InputError("a filter without a value", field=field, fix="Leave it out, or give a value")
        return value
    if isinstance(value, numbers.Integral):
        if not -(2**63) <= int(value) < 2**63:
            raise InputError(f"{value} is beyond 64 bits", field=field)
        return int(value)
    if isinstance(value, numbers.Real) and math.isfinite(float(value)):
        return float(value)
    raise InputError(f"{value!r} cannot be filtered by", field=field, fix="Give a text, a number, true or false")


def _number(value: Scalar, field: str, kind: str) -> int | float:
    if isinstance(value, (bool, str)):
        raise InputError(f"must be a number ({kind}), got {value!r}", field=field, fix=f"Write {field}=NUMBER")
    return value


def _text(value: Scalar) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _scalar(text: str) -> Scalar:
    if text in ("true", "false"):
        return text == "true"
    if len(text) > 1 and text[0] == text[-1] == '"':
        return text[1:-1]
    if NUMBER.fullmatch(text) and len(text) < 40:
        return float(text) if any(c in text for c in ".eE") else int(text)
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
                alternatives.append(f"{one.field} {equal} {_literal(value)}")
        term = " or ".join(alternatives)
        if one.operator == "!=":
            term = f"!({term})"
        elif len(alternatives) > 1:
            term = f"({term})"
        terms.append(term)
    return " and ".join(terms), parameters


def _literal(value: int | float | bool) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return format(Decimal(repr(value)), "f")  # YQL has no exponents
    return f"{value}L" if abs(value) >= 2**31 else str(value)


@dataclass(frozen=True)
class Sort:
    """By a field, instead of by rank.

    >>> Sort.parse("-price")
    Sort(field='price', descending=True)
    """

    field: str
    descending: bool = False

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.field):
            raise InputError(f"no field: {self.field!r}", field="sort", fix="Write price or -price")

    @classmethod
    def parse(cls, text: str) -> Sort:
        """price (ascending) or -price. Raises InputError."""
        return cls(text.strip().removeprefix("-"), text.strip().startswith("-"))


@dataclass(frozen=True)
class Facet:
    """The values of a field among the matches, with counts. limit: the most frequent ones. bounds: instead, the counts
    between numbers, ascending: (20, 50) makes below 20, 20 to 50, from 50 on.
    """

    field: str
    limit: int = 20
    bounds: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.field):
            raise InputError(f"no field: {self.field!r}", field="facets")
        if not 1 <= self.limit <= 1000:
            raise InputError(f"limit must be 1 to 1000, got {self.limit}", field=f"facets.{self.field}")
        bounds = tuple(float(b) for b in self.bounds)
        if len(bounds) > 100 or list(bounds) != sorted(set(bounds)) or not all(map(math.isfinite, bounds)):
            raise InputError("bounds must be ascending numbers", field=f"facets.{self.field}")
        object.__setattr__(self, "bounds", bounds)

    def grouping(self) -> str:
        """`all(group(…) …)`."""
        if not self.bounds:
            return f"all(group({self.field}) max({self.limit}) order(-count()) each(output(count())))"
        edges = ["-inf", *(_literal(b) for b in self.bounds), "inf"]
        buckets = ", ".join(f"bucket({low}, {high})" for low, high in itertools.pairwise(edges))
        return f"all(group(predefined({self.field}, {buckets})) each(output(count())))"


def tail(sort: Sequence[Sort], facets: Sequence[Facet], collapse: str | None = None, groups: int = 0) -> str:
    """What follows the condition: ` order by … | all(…)`, "" for neither. collapse: a string field; behind the facets
    are listed the best hit of each of the first so many `groups` of it, and as many hits without a value.

    >>> tail([Sort("price", True)], [Facet("colour", 5)])
    ' order by price desc | all(all(group(colour) max(5) order(-count()) each(output(count()))))'
    """
    order = ", ".join(f"{s.field} {'desc' if s.descending else 'asc'}" for s in sort)
    listed = [facet.grouping() for facet in facets]
    if collapse is not None:
        none = f"predefined(strlen({collapse}), bucket(0, 1))"  # a missing string is an empty one
        listed += [
            f"all(group({collapse}) max({groups + 1}) each(max(1) each(output(summary()))) as({COLLAPSED}))",
            f"all(group({none}) each(max({groups}) each(output(summary()))) as({WITHOUT}))",
        ]
    return (f" order by {order}" if order else "") + (f" | all({' '.join(listed)})" if listed else "")
