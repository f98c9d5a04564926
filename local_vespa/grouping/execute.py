"""Runs a grouping over columns of attributes and makes Vespa's JSON tree of groups."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .ast import GroupingRequest


@dataclass(frozen=True)
class Column:
    """An attribute's values of the matched documents, in their order.

    `kind`: int (byte, int, long), float (float, double), string, bool. One value a document (None: never set), or, where
    `multi`, a list of them (array elements, keys of a weighted set)."""

    kind: str
    values: Sequence[Any]
    multi: bool = False


@dataclass(frozen=True)
class GroupingSource:
    """What a grouping runs on: `size` matched documents, `column(name)` their attribute (KeyError: no such attribute),
    `relevance` float64 [size], `hit(row, summary_class)` the JSON of a hit for output(summary())."""

    size: int
    column: Callable[[str], Column]
    relevance: np.ndarray
    hit: Callable[[int, str | None], dict[str, Any]]


def execute(request: GroupingRequest, source: GroupingSource, *, number: int = 0) -> dict[str, Any]:
    """The JSON of `group:root:<number>`, as Vespa renders it. Raises GroupingError."""
    raise NotImplementedError
