"""A grouping request as data."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

MIN_LONG, MAX_LONG = -(2**63), 2**63 - 1  # the open ends of integers


class GroupingError(ValueError):
    """A grouping that Vespa refuses (error 400, code 4), or that this engine does not do."""


@dataclass(frozen=True)
class Expression:
    """An expression over a document or a group; `str()` is Vespa's own way of writing it, which labels results."""

    def attributes(self) -> Iterator[str]:
        """Names of the attributes it reads."""
        return iter(())


@dataclass(frozen=True)
class Attribute(Expression):
    name: str

    def attributes(self) -> Iterator[str]:
        yield self.name

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Constant(Expression):
    value: int | float | str

    def __str__(self) -> str:
        return java_text(self.value, quoted=True)


@dataclass(frozen=True)
class Bucket(Expression):
    """From `low` (inclusive) to `high` (exclusive); an open end of integers is the least or greatest long."""

    low: int | float | str
    high: int | float | str

    def __str__(self) -> str:
        low = "-inf" if self.low in (MIN_LONG, float("-inf")) else java_text(self.low, quoted=True)
        high = "inf" if self.high in (MAX_LONG, float("inf")) else java_text(self.high, quoted=True)
        return f"bucket[{low}, {high}>"


@dataclass(frozen=True)
class Call(Expression):
    """A function, arithmetic operator or aggregator by its name (add, fixedwidth, math.floor, count, …)."""

    name: str
    arguments: tuple[Expression, ...] = ()

    def attributes(self) -> Iterator[str]:
        for argument in self.arguments:
            yield from argument.attributes()

    @property
    def aggregates(self) -> bool:
        """Whether it is over the documents of a group: count, sum, stddev; avg, max, min and xor of one argument."""
        one = len(self.arguments) == 1
        return self.name in ("count", "stddev", "sum") or (self.name in ("avg", "max", "min", "xor") and one)

    def __str__(self) -> str:
        return f"{self.name}({', '.join(map(str, self.arguments))})"


@dataclass(frozen=True)
class Output:
    """One expression of output(…); `label` is that of `as(…)`."""

    expression: Expression
    label: str | None = None


@dataclass(frozen=True)
class Operation:
    """all(…) or each(…) with what its body says. `limit` is max(…), inf for max(inf)."""

    each: bool
    group: Expression | None = None
    limit: float | None = None
    order: tuple[Expression, ...] = ()
    outputs: tuple[Output, ...] = ()
    children: tuple[Operation, ...] = ()
    label: str | None = None
    where: str | None = None

    def attributes(self) -> Iterator[str]:
        """Names of the attributes it reads, with those of the operations inside."""
        for expression in (self.group, *self.order, *(output.expression for output in self.outputs)):
            if expression is not None:
                yield from expression.attributes()
        for child in self.children:
            yield from child.attributes()


@dataclass(frozen=True)
class GroupingRequest:
    """One grouping of a query. `text` is as it was written."""

    root: Operation
    text: str

    def attributes(self) -> frozenset[str]:
        """Names of the attributes used, for checks against the schema."""
        return frozenset(self.root.attributes())


def java_text(value: object, *, quoted: bool = False) -> str:
    """A value as Java prints it: booleans in lower case, doubles with a fraction or an exponent E."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str) and quoted:
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{escaped}"'
    if not isinstance(value, float):
        return str(value)
    if value != value or abs(value) == float("inf"):
        return {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}[str(value)]
    if value == 0 or 1e-3 <= abs(value) < 1e7:
        return repr(value)
    digits = len(repr(value).split("e")[0].replace("-", "").replace(".", "").strip("0"))
    mantissa, exponent = f"{value:.{max(1, digits - 1)}e}".split("e")
    return f"{mantissa}E{int(exponent)}"
