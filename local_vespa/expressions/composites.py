"""Functions of ranking expressions that are made of others (com.yahoo.tensor.functions)."""

from __future__ import annotations

from .ast import Binary, Generate, Lambda, Merge, Number, RankingNode, Reduce, Subspaces, Unary, walk


def bound_names(body: RankingNode) -> set[str]:
    """The names that lambdas and generators inside a body bind."""
    names: set[str] = set()
    for node in walk(body):
        if isinstance(node, (Lambda, Merge)):
            names |= set(node.parameters)
        elif isinstance(node, Subspaces):
            names.add(node.parameter)
        elif isinstance(node, Generate):
            names |= set(node.type.names)
    return names


def plain_index(node: RankingNode) -> str | RankingNode:
    """The index of a slice in brackets: as text where it is a whole number."""
    return str(int(node.value)) if isinstance(node, Number) and node.value.is_integer() else node


def normalized(name: str, child: RankingNode, dimensions: tuple[str, ...]) -> RankingNode:
    if name in ("argmax", "argmin"):
        return Binary("==", child, Reduce(child, name[3:], dimensions))
    if name == "softmax":
        exponential = Unary("exp", child)
        return Binary("/", exponential, Reduce(exponential, "sum", dimensions))
    if name == "l1_normalize":
        return Binary("/", child, Reduce(child, "sum", dimensions))
    return Binary("/", child, Unary("sqrt", Reduce(Binary("*", child, child), "sum", dimensions)))


def similarity(name: str, left: RankingNode, right: RankingNode, dimensions: tuple[str, ...]) -> RankingNode:
    if name == "euclidean_distance":
        return Unary("sqrt", Reduce(Unary("square", Binary("-", left, right)), "sum", dimensions))
    product = Reduce(Binary("*", left, right), "sum", dimensions)
    if name == "matmul":
        return product
    squares = [Reduce(Binary("*", side, side), "sum", dimensions) for side in (left, right)]
    return Binary("/", product, Unary("sqrt", Binary("*", *squares)))
