"""A grouping request as data."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

AGGREGATORS = ("count", "sum", "avg", "min", "max", "stddev")
ARITHMETIC = ("add", "sub", "mul", "div", "mod")
LEVELS = ("single hit", "single group", "list of groups")


class GroupingError(ValueError):
    """A grouping that Vespa refuses (error 400, code 4), or that this engine does not do."""


@dataclass(frozen=True)
class Expression:
    """An expression over a document or a group; `str()` is Vespa's own way of writing it, which labels results."""

    @property
    def arguments(self) -> tuple[Expression, ...]:
        return ()


@dataclass(frozen=True)
class Attribute(Expression):
    name: str

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Constant(Expression):
    value: int | float | str | bool

    def __str__(self) -> str:
        return f'"{self.value}"' if isinstance(self.value, str) else str(self.value)


@dataclass(frozen=True)
class Bucket(Expression):
    """An interval of `predefined`: from where it begins up to where it ends, which it does not hold (`[0, 30>`) by default."""

    low: int | float | str
    high: int | float | str
    low_inclusive: bool = True
    high_inclusive: bool = False

    def __str__(self) -> str:
        low, high = Constant(self.low), Constant(self.high)
        return f"bucket{'[' if self.low_inclusive else '<'}{low}, {high}{']' if self.high_inclusive else '>'}"


@dataclass(frozen=True)
class Call(Expression):
    """A function, arithmetic operator or aggregator by its name (add, fixedwidth, count, …)."""

    name: str
    of: tuple[Expression, ...] = ()

    @property
    def arguments(self) -> tuple[Expression, ...]:
        return self.of

    def __str__(self) -> str:
        return f"{self.name}({', '.join(map(str, self.of))})"


@dataclass(frozen=True)
class Output:
    """One value to show of a group, under a label; `summary` hits are a Call too."""

    expression: Expression
    label: str | None = None


@dataclass(frozen=True)
class Operation:
    """all(…) or each(…). `max` is None where it is not given and 0 for max(inf)."""

    each: bool
    group: Expression | None = None
    order: tuple[Expression, ...] = ()
    max: int | None = None
    outputs: tuple[Output, ...] = ()
    label: str | None = None
    children: tuple[Operation, ...] = ()


@dataclass(frozen=True)
class GroupingRequest:
    """One grouping of a query. `text` is as it was written."""

    root: Operation
    text: str

    def attributes(self) -> frozenset[str]:
        """Names of the attributes used, for checks against the schema."""
        return frozenset(e.name for e in _expressions(self.root) if isinstance(e, Attribute))


def _expressions(operation: Operation) -> Iterator[Expression]:
    tops = [*operation.order, *(o.expression for o in operation.outputs)]
    for top in [operation.group, *tops] if operation.group else tops:
        assert top is not None
        yield from _walk(top)
    for child in operation.children:
        yield from _expressions(child)


def _walk(expression: Expression) -> Iterator[Expression]:
    yield expression
    for argument in expression.arguments:
        yield from _walk(argument)


def check_level(expression: Expression, level: int) -> None:
    """Raises GroupingError where an expression does not apply at a level (0 a hit, 1 a group, 2 a list of groups)."""
    if isinstance(expression, Attribute) and level != 0:
        raise GroupingError(f"Expression '{expression}' not applicable for {LEVELS[min(level, 2)]}.")
    if isinstance(expression, Call) and expression.name in AGGREGATORS:
        if level < 1:
            raise GroupingError(f"Expression '{expression}' not applicable for {LEVELS[0]}.")
        level -= 1
    for argument in expression.arguments:
        check_level(argument, level)
