"""Grouping text to `ast.GroupingRequest`."""

from __future__ import annotations

from .ast import GroupingRequest


def parse_grouping(text: str) -> tuple[GroupingRequest, ...]:
    """The requests of a grouping text (several may be separated by `;`). Raises GroupingError with the position."""
    return ()
