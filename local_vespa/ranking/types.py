"""Type inference of ranking expressions, without evaluating them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ..tensors import TensorType
from .ast import Function, RankingNode, Reference


def infer_type(
    node: RankingNode, type_of: Callable[[Reference], TensorType], functions: Mapping[str, Function] | None = None
) -> TensorType:
    """The type of an expression's value. `type_of` gives that of a feature and raises for an unknown one.
    Raises RankingError where tensors do not fit together, as Vespa does at deploy."""
    raise NotImplementedError
