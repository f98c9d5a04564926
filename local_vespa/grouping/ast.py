"""A grouping request as data."""

from __future__ import annotations

from dataclasses import dataclass


class GroupingError(ValueError):
    """A grouping that Vespa refuses (error 400, code 4), or that this engine does not do."""


@dataclass(frozen=True)
class Expression:
    """An expression over a document or a group; `str()` is Vespa's own way of writing it, which labels results."""


@dataclass(frozen=True)
class Attribute(Expression):
    name: str


@dataclass(frozen=True)
class Constant(Expression):
    value: int | float | str | bool


@dataclass(frozen=True)
class Call(Expression):
    """A function or arithmetic operator by its name (add, fixedwidth, count, …)."""

    name: str
    arguments: tuple[Expression, ...] = ()


@dataclass(frozen=True)
class Operation:
    """all(…) or each(…)."""

    each: bool


@dataclass(frozen=True)
class GroupingRequest:
    """One grouping of a query. `text` is as it was written."""

    root: Operation
    text: str

    def attributes(self) -> frozenset[str]:
        """Names of the attributes used, for checks against the schema."""
        raise NotImplementedError
