"""Type inference of ranking expressions, without evaluating them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ..tensors import DOUBLE, TensorError, TensorType
from ..tensors.types import Dimension
from .ast import (
    Among,
    Binary,
    Cast,
    CellOrder,
    Cells,
    Concat,
    Function,
    Generate,
    If,
    Lambda,
    Literal,
    Merge,
    Normalized,
    Number,
    RankingError,
    RankingNode,
    Reduce,
    Reference,
    Rename,
    Slice,
    Subspaces,
    Text,
    Tokens,
    Unpack,
    Unsupported,
)
from .parse import parse_expression


def joined(left: TensorType, right: TensorType) -> TensorType:
    """The type of a join: all dimensions of both. Raises RankingError where a dimension differs."""
    if left.is_scalar:
        return decayed(right)
    if right.is_scalar:
        return decayed(left)
    dimensions = {d.name: d for d in left.dimensions}
    for d in right.dimensions:
        if dimensions.setdefault(d.name, d) != d:
            raise RankingError(f"tensors of types {left} and {right} do not fit together: dimension '{d.name}' differs")
    cell = "double" if "double" in (left.cell, right.cell) else "float"
    return TensorType.of(cell, list(dimensions.values()))


def decayed(kind: TensorType) -> TensorType:
    """The type of cells that were computed: bfloat16 and int8 become float."""
    return kind if kind.cell in ("double", "float") else TensorType.of("float", kind.dimensions)


def reduced(kind: TensorType, dimensions: tuple[str, ...]) -> TensorType:
    """The type without some dimensions, or without any where none is named. Raises RankingError for one it lacks."""
    for name in dimensions:
        if kind.dimension(name) is None:
            raise RankingError(f"cannot reduce dimension '{name}' of {kind}: it has no such dimension")
    left = [d for d in kind.dimensions if dimensions and d.name not in dimensions]
    return TensorType.of(decayed(kind).cell, left) if left else DOUBLE


def renamed(kind: TensorType, before: tuple[str, ...], after: tuple[str, ...]) -> TensorType:
    """The type with dimensions renamed. Raises RankingError."""
    if len(before) != len(after):
        raise RankingError("rename takes as many new names as old ones")
    for name in before:
        if kind.dimension(name) is None:
            raise RankingError(f"cannot rename dimension '{name}' of {kind}: it has no such dimension")
    names = dict(zip(before, after, strict=True))
    return TensorType.of(kind.cell, [Dimension(names.get(d.name, d.name), d.size) for d in kind.dimensions])


def concatenated(left: TensorType, right: TensorType, dimension: str) -> TensorType:
    """The type of a concatenation along an indexed dimension that either may have."""
    sizes = 0
    for kind in (left, right):
        found = kind.dimension(dimension)
        if found is not None and found.mapped:
            raise Unsupported(f"local_vespa does not support concat along the mapped dimension '{dimension}'")
        sizes += found.size or 1 if found is not None else 1
    rest = joined(*(TensorType.of(k.cell, [d for d in k.dimensions if d.name != dimension]) for k in (left, right)))
    cell = "double" if "double" in (left.cell, right.cell) and not (left.is_scalar and right.is_scalar) else "float"
    if left.is_scalar and right.is_scalar:
        cell = "double"
    elif left.is_scalar or right.is_scalar:
        cell = decayed(right if left.is_scalar else left).cell
    return TensorType.of(cell, [*rest.dimensions, Dimension(dimension, sizes)])


def merged(left: TensorType, right: TensorType) -> TensorType:
    """The type of a merge: both have the same dimensions. Raises RankingError."""
    if left.dimensions != right.dimensions:
        raise RankingError(f"cannot merge {left} and {right}: their dimensions differ")
    return joined(left, right)


def block_type(kind: TensorType) -> TensorType:
    """The type of one block: the indexed dimensions only."""
    return TensorType.of(kind.cell, list(kind.indexed)) if kind.indexed else DOUBLE


def mapped_subspaces(kind: TensorType, inner: TensorType) -> TensorType:
    """The type of map_subspaces: the mapped dimensions around the type that the function gives. Raises RankingError."""
    if inner.mapped:
        raise RankingError(f"the function of map_subspaces must give a dense tensor, not {inner}")
    if {d.name for d in kind.mapped} & set(inner.names):
        raise RankingError(f"the function of map_subspaces gives {inner}, which has a dimension of {kind} again")
    cell = decayed(kind).cell if inner.is_scalar else inner.cell
    return TensorType.of(cell, [*kind.mapped, *inner.dimensions])


def unpacked(kind: TensorType, cell: str) -> TensorType:
    """The type of unpack_bits. Raises RankingError."""
    if kind.cell != "int8" or len(kind.indexed) != 1:
        raise RankingError(f"unpack_bits takes an int8 tensor with one indexed dimension, not {kind}")
    return TensorType.of(cell, [Dimension(d.name, d.size * 8 if d.size else None) for d in kind.dimensions])


def picked(kind: TensorType, computed: Mapping[str, TensorType], names: tuple[str, ...]) -> TensorType:
    """The type of a slice with computed labels: what is left, and the dimensions of the labels. Raises RankingError."""
    rest = {d.name: d for d in kind.dimensions if d.name not in names}
    for label in computed.values():
        if label.mapped:
            raise RankingError(f"the label of a slice must be a number, not {label}")
        for d in label.dimensions:
            if rest.setdefault(d.name, d) != d:
                raise RankingError(f"the label {label} of a slice of {kind} has a dimension of it again")
    return TensorType.of(kind.cell, list(rest.values())) if rest else DOUBLE


def labels_by_dimension(
    kind: TensorType, wanted: tuple[tuple[str | None, str | RankingNode], ...]
) -> dict[str, str | RankingNode]:
    """The label, index or expression of each dimension that a slice takes. Raises RankingError."""
    taken: dict[str, str | RankingNode] = {}
    for name, label in wanted:
        if name is None or name == "":
            only = kind.indexed if name is None else kind.mapped or kind.indexed
            if len(only) != 1:
                raise RankingError(f"a slice of {kind} must name its dimension")
            name = only[0].name
        found = kind.dimension(name)
        if found is None:
            raise RankingError(f"cannot slice dimension '{name}' of {kind}: it has no such dimension")
        if isinstance(label, str) and found.size is not None and not (label.isdecimal() and int(label) < found.size):
            raise RankingError(f"cannot slice {kind} at {name}:{label}")
        if name in taken:
            raise RankingError(f"a slice of {kind} takes the dimension '{name}' twice")
        taken[name] = label
    return taken


def sliced(kind: TensorType, wanted: tuple[tuple[str | None, str], ...]) -> tuple[TensorType, dict[str, str]]:
    """The type that a slice by labels leaves, and the label or index of each dimension. Raises RankingError."""
    taken = {name: str(label) for name, label in labels_by_dimension(kind, wanted).items()}
    left = [d for d in kind.dimensions if d.name not in taken]
    return (TensorType.of(kind.cell, left) if left else DOUBLE), taken


def infer_type(
    node: RankingNode, type_of: Callable[[Reference], TensorType], functions: Mapping[str, Function] | None = None
) -> TensorType:
    """The type of an expression's value. `type_of` gives that of a feature and raises for an unknown one.
    Raises RankingError where tensors do not fit together, as Vespa does at deploy."""
    try:
        return _Inference(type_of, functions or {}).type(node, {})
    except TensorError as error:  # such as a dimension that a rename gives twice
        raise RankingError(str(error)) from error


class _Inference:
    def __init__(self, type_of: Callable[[Reference], TensorType], functions: Mapping[str, Function]) -> None:
        self.type_of, self.functions = type_of, functions
        self._path: list[str] = []

    def type(self, node: RankingNode, bound: Mapping[str, TensorType]) -> TensorType:
        match node:
            case Number() | Text() | Among():
                for child in node.children:
                    self.type(child, bound)
                return DOUBLE
            case Reference():
                return self._reference(node, bound)
            case Binary():
                left = self.type(node.left, bound)
                return joined(left, self.type(node.right, bound))
            case If():
                condition = self.type(node.condition, bound)
                then, otherwise = self.type(node.then, bound), self.type(node.otherwise, bound)
                if not condition.is_scalar:
                    raise RankingError(f"the condition of an if must be a number, not {condition}")
                if then.dimensions != otherwise.dimensions:
                    raise RankingError(f"an if must give the same type in both branches, not {then} and {otherwise}")
                return then if then.cell == otherwise.cell else joined(then, otherwise)
            case Reduce():
                return reduced(self.type(node.child, bound), node.dimensions)
            case Rename():
                return renamed(self.type(node.child, bound), node.before, node.after)
            case Concat():
                return concatenated(self.type(node.left, bound), self.type(node.right, bound), node.dimension)
            case Cast():
                kind = self.type(node.child, bound)
                return TensorType.of(node.cell, kind.dimensions)
            case Lambda():
                kinds = [self.type(a, bound) for a in node.arguments]
                whole = decayed(kinds[0]) if len(kinds) == 1 else joined(*kinds)
                inner = self.type(node.body, {**bound, **dict.fromkeys(node.parameters, DOUBLE)})
                if not inner.is_scalar:
                    raise RankingError("the function of a map or join must give a number")
                return whole
            case Generate():
                inner = self.type(node.body, {**bound, **dict.fromkeys(node.type.names, DOUBLE)})
                if not inner.is_scalar:
                    raise RankingError(f"the body of a generated {node.type} must be a number, not {inner}")
                return node.type
            case Literal():
                return node.type
            case Slice():
                kind = self.type(node.child, bound)
                taken = labels_by_dimension(kind, node.labels)
                computed = {k: self.type(v, bound) for k, v in taken.items() if isinstance(v, RankingNode)}
                return picked(kind, computed, tuple(taken))
            case Cells():
                for body in node.bodies:
                    inner = self.type(body, bound)
                    if not inner.is_scalar:
                        raise RankingError(f"a cell of {node.type} must be a number, not {inner}")
                return node.type
            case Merge():
                whole = merged(self.type(node.left, bound), self.type(node.right, bound))
                inner = self.type(node.body, {**bound, **dict.fromkeys(node.parameters, DOUBLE)})
                if not inner.is_scalar:
                    raise RankingError("the function of a merge must give a number")
                return whole
            case Subspaces():
                kind = self.type(node.child, bound)
                inner = self.type(node.body, {**bound, node.parameter: block_type(kind)})
                return kind if node.keep else mapped_subspaces(kind, inner)
            case CellOrder():
                return decayed(self.type(node.child, bound))
            case Unpack():
                return unpacked(self.type(node.child, bound), node.cell)
            case Tokens():
                for part in node.parts:
                    kind = self.type(part, bound)
                    if len(kind.indexed) != 1 or kind.mapped:
                        raise RankingError(f"a token sequence needs tensors of one indexed dimension, not {kind}")
                return TensorType.of("float", [Dimension("d0", 1), Dimension("d1", node.size)])
            case Normalized():
                kind = self.type(node.child, bound)
                if not kind.is_scalar:
                    raise RankingError(f"a normalizer needs a number, not {kind}")
                return DOUBLE
        (child,) = node.children
        return decayed(self.type(child, bound))

    def _reference(self, node: Reference, bound: Mapping[str, TensorType]) -> TensorType:
        if node.name in bound and not node.arguments:
            return bound[node.name]
        function = self.functions.get(node.name)
        if function is None or node.output is not None:
            return self.type_of(node)
        if len(node.arguments) != len(function.parameters):
            raise RankingError(
                f"function '{node.name}' takes {len(function.parameters)} arguments, not {len(node.arguments)}"
            )
        if node.name in self._path:
            raise RankingError(f"function '{node.name}' calls itself: {' -> '.join([*self._path, node.name])}")
        arguments = [self.type(parse_expression(a), bound) for a in node.arguments]
        self._path.append(node.name)
        try:
            return self.type(function.body, dict(zip(function.parameters, arguments, strict=True)))
        finally:
            self._path.pop()
