"""Ranking expression text to `ast`."""

from __future__ import annotations

from .ast import RankingNode, Reference


def parse_expression(text: str) -> RankingNode:
    """The expression. Raises RankingError with the position, Unsupported for what this engine does not do."""
    raise NotImplementedError


def parse_feature(text: str) -> Reference:
    """One feature, as listed in match-features: `closeness(field, embedding)`. Raises RankingError."""
    raise NotImplementedError
