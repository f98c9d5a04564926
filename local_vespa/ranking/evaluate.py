"""Evaluates ranking expressions over all candidates at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from .ast import Function, RankingNode, Reference
from .value import Value


class Evaluator:
    """Evaluates the expressions of one rank profile for n candidates of one query.

    `functions`: the profile's, by name. `resolve`: gives a feature that is not one of them (attribute, query, constant,
    closeness, bm25, onnx, firstPhase, …); it is asked once a feature. Functions without parameters are computed once."""

    def __init__(self, functions: Mapping[str, Function], resolve: Callable[[Reference], Value], n: int) -> None:
        raise NotImplementedError

    def evaluate(self, node: RankingNode) -> Value:
        """The value of an expression. Division by zero, log of a negative and so on give inf and NaN, without warnings.
        Raises RankingError."""
        raise NotImplementedError

    def feature(self, reference: Reference) -> Value:
        """The value of a feature or function, as match-features and summary-features ask it."""
        raise NotImplementedError
