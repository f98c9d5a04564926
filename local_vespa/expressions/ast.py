"""Ranking expressions as data."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ..tensors import TensorType


class RankingError(ValueError):
    """An expression that Vespa refuses: syntax, unknown function, or tensors that do not fit."""


class Unsupported(RankingError):
    """A part of the language that this engine does not do; the message names it."""


@dataclass(frozen=True)
class RankingNode:
    """A node of an expression; `str()` writes it back."""

    @property
    def children(self) -> tuple[RankingNode, ...]:
        return ()


@dataclass(frozen=True)
class Number(RankingNode):
    value: float

    def __str__(self) -> str:
        return repr(self.value) if self.value != int(self.value) else str(int(self.value))


@dataclass(frozen=True)
class Text(RankingNode):
    """A string in quotes; it stands for a number (`value.string_number`)."""

    value: str

    def __str__(self) -> str:
        return f'"{self.value}"'


@dataclass(frozen=True)
class Reference(RankingNode):
    """A feature, function or parameter: `attribute(price)`, `closeness(field,embedding)`, `onnx(model).output`.

    `str()` is canonical, without spaces, and the key of matchfeatures is Vespa's same form. Arguments of a function of
    the rank profile are expressions in text."""

    name: str
    arguments: tuple[str, ...] = ()
    output: str | None = None

    def __str__(self) -> str:
        arguments = f"({','.join(self.arguments)})" if self.arguments else ""
        return self.name + arguments + (f".{self.output}" if self.output else "")


@dataclass(frozen=True)
class Negative(RankingNode):
    child: RankingNode

    @property
    def children(self) -> tuple[RankingNode, ...]:
        return (self.child,)


@dataclass(frozen=True)
class Inverted(RankingNode):
    """`!x`"""

    child: RankingNode

    @property
    def children(self) -> tuple[RankingNode, ...]:
        return (self.child,)


@dataclass(frozen=True)
class Binary(RankingNode):
    """An operator or a function of two numbers, between tensors a join."""

    operator: str
    left: RankingNode
    right: RankingNode

    @property
    def children(self) -> tuple[RankingNode, ...]:
        return (self.left, self.right)


@dataclass(frozen=True)
class Unary(RankingNode):
    """A function of one number, over a tensor a map."""

    function: str
    child: RankingNode

    @property
    def children(self) -> tuple[RankingNode, ...]:
        return (self.child,)


@dataclass(frozen=True)
class If(RankingNode):
    condition: RankingNode
    then: RankingNode
    otherwise: RankingNode

    @property
    def children(self) -> tuple[RankingNode, ...]:
        return (self.condition, self.then, self.otherwise)


@dataclass(frozen=True)
class Among(RankingNode):
    """`x in [a, b]`"""

    child: RankingNode
    values: tuple[RankingNode, ...]

    @property
    def children(self) -> tuple[RankingNode, ...]:
        return (self.child, *self.values)


@dataclass(frozen=True)
class Reduce(RankingNode):
    """`reduce(child, aggregator, dimensions…)`; without dimensions over all."""

    child: RankingNode
    aggregator: str
    dimensions: tuple[str, ...] = ()

    @property
    def children(self) -> tuple[RankingNode, ...]:
        return (self.child,)


@dataclass(frozen=True)
class Rename(RankingNode):
    child: RankingNode
    before: tuple[str, ...]
    after: tuple[str, ...]

    @property
    def children(self) -> tuple[RankingNode, ...]:
        return (self.child,)


@dataclass(frozen=True)
class Concat(RankingNode):
    left: RankingNode
    right: RankingNode
    dimension: str

    @property
    def children(self) -> tuple[RankingNode, ...]:
        return (self.left, self.right)


@dataclass(frozen=True)
class Cast(RankingNode):
    """`cell_cast(child, cell)`"""

    child: RankingNode
    cell: str

    @property
    def children(self) -> tuple[RankingNode, ...]:
        return (self.child,)


@dataclass(frozen=True)
class Lambda(RankingNode):
    """`map(a, f(x)(…))` and `join(a, b, f(x,y)(…))`: the body over every cell, its parameters bound to the cells of the
    arguments."""

    arguments: tuple[RankingNode, ...]
    parameters: tuple[str, ...]
    body: RankingNode

    @property
    def children(self) -> tuple[RankingNode, ...]:
        return self.arguments


@dataclass(frozen=True)
class Generate(RankingNode):
    """`tensor<float>(x[3])(body)`: the body for every cell, each dimension's name bound to its index."""

    type: TensorType
    body: RankingNode


@dataclass(frozen=True)
class Literal(RankingNode):
    """`tensor(x{}):{a:1}` of constant cells."""

    type: TensorType
    text: str


@dataclass(frozen=True)
class Cells(RankingNode):
    """`tensor(x{}):{a: body, b: body}`: computed cells, each with its address in the order of the dimensions."""

    type: TensorType
    addresses: tuple[tuple[str, ...], ...]
    bodies: tuple[RankingNode, ...]

    @property
    def children(self) -> tuple[RankingNode, ...]:
        return self.bodies


@dataclass(frozen=True)
class Slice(RankingNode):
    """`t{label}`, `t{x:label, y:(1 + 1)}` or `t[3]`; a dimension that is not named is the only mapped
    one ('' for braces) or the only indexed one (None for brackets). A label is text or an expression."""

    child: RankingNode
    labels: tuple[tuple[str | None, str | RankingNode], ...]

    @property
    def children(self) -> tuple[RankingNode, ...]:
        return (self.child, *(label for _, label in self.labels if isinstance(label, RankingNode)))


@dataclass(frozen=True)
class Merge(RankingNode):
    """`merge(a, b, f(x,y)(…))`: the cells of both, where both have one the body of the two."""

    left: RankingNode
    right: RankingNode
    parameters: tuple[str, ...]
    body: RankingNode

    @property
    def children(self) -> tuple[RankingNode, ...]:
        return (self.left, self.right)


@dataclass(frozen=True)
class Subspaces(RankingNode):
    """`map_subspaces(t, f(x)(…))` and, with `keep`, `filter_subspaces(t, f(x)(…))`: the body over each block."""

    child: RankingNode
    parameter: str
    body: RankingNode
    keep: bool = False

    @property
    def children(self) -> tuple[RankingNode, ...]:
        return (self.child,)


@dataclass(frozen=True)
class CellOrder(RankingNode):
    """`cell_order(t, max)`: each cell's rank, from 0, when the cells are sorted (max: the greatest is first)."""

    child: RankingNode
    descending: bool

    @property
    def children(self) -> tuple[RankingNode, ...]:
        return (self.child,)


@dataclass(frozen=True)
class Unpack(RankingNode):
    """`unpack_bits(t, cell)`: eight cells for each int8, the highest bit first where `big`."""

    child: RankingNode
    cell: str
    big: bool

    @property
    def children(self) -> tuple[RankingNode, ...]:
        return (self.child,)


@dataclass(frozen=True)
class Tokens(RankingNode):
    """A token sequence for a transformer (TokenTransformer.java): kind ids, types or mask, of length `size`; `ends` are
    the numbers of the first and the separating token."""

    kind: str
    size: int
    ends: tuple[float, float]
    parts: tuple[RankingNode, ...]

    @property
    def children(self) -> tuple[RankingNode, ...]:
        return self.parts


@dataclass(frozen=True)
class Normalized(RankingNode):
    """A normalizer of the global phase over all reranked hits: linear, or reciprocal with its k."""

    child: RankingNode
    kind: str
    k: float = 60.0

    @property
    def children(self) -> tuple[RankingNode, ...]:
        return (self.child,)


@dataclass(frozen=True)
class Function:
    """A rank profile's `function name(parameters) { expression: … }`."""

    name: str
    parameters: tuple[str, ...]
    body: RankingNode


def walk(node: RankingNode) -> Iterator[RankingNode]:
    """A node and everything under it, bodies of lambdas and generators included."""
    yield node
    for child in node.children:
        yield from walk(child)
    if isinstance(node, (Lambda, Generate, Merge, Subspaces)):
        yield from walk(node.body)
