"""Does a user's history help? Recall@K of the items clicked in a search, with the history and without it.

Each row is one search after the training split, with the events that came strictly before it. The two query matrices
come from the same model; only the history differs. Intervals are bootstrapped over users: a user's searches are alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mrse_model.data.table import Table
from mrse_model.errors import InputError
from mrse_model.evaluation.bootstrap import Bootstrap, Comparison, Estimate
from mrse_model.evaluation.rankers import search_exact

K = 20


@dataclass(frozen=True)
class PersonalSearches:
    """Searches whose user has a history; row i of each list is one search.

    history, kind, age: items (rows), event kinds (0 click, 1 cart, 2 order) and ages in seconds, newest first.
    """

    queries: list[str]
    users: list[str]
    clicked: list[list[int]]
    history: list[list[int]]
    kind: list[list[int]]
    age: list[list[float]]

    def __len__(self) -> int:
        return len(self.queries)

    def longest_history(self) -> tuple[str, str]:
        """The user with the longest history, and what that user searched for next."""
        row = max(range(len(self)), key=lambda row: len(self.history[row]))
        return self.users[row], self.queries[row]


def personal_searches(validation: str | Path) -> PersonalSearches:
    """The validation searches (docs/contracts.md) with a known user, a click and a history."""
    columns = ("query", "user_id", "target_items", "history_items", "history_kind", "history_age")
    rows = pq.read_table(Table(validation).path, columns=list(columns)).to_pylist()
    kept = [
        [row[c] for c in columns] for row in rows if row["user_id"] and row["target_items"] and row["history_items"]
    ]
    if not kept:
        raise InputError(
            "no search with a click is by a user with earlier clicks",
            file=validation,
            fix="Give a log with user_id in which users search more than once",
        )
    return PersonalSearches(*(list(column) for column in zip(*kept, strict=True)))


@dataclass(frozen=True)
class PersonalResult:
    """Recall@20 with and without history, and their paired comparison; `relative` in it is the lift."""

    searches: int
    users: int
    with_history: Estimate
    without: Estimate
    lift: Comparison

    def markdown(self) -> str:
        """One paragraph of Markdown."""
        c = self.lift
        return (
            f"Recall@{K} of the clicked items, {self.searches:,} searches of {self.users:,} users: "
            f"{self.with_history.mean:.4f} with history, {self.without.mean:.4f} without; "
            f"{c.relative:+.1%} [{c.relative_low:+.1%}, {c.relative_high:+.1%}], p {c.p:.4f} (bootstrap over users).\n"
        )


def clicked_recall(
    queries: NDArray[np.float32], items: NDArray[np.float32], clicked: Sequence[Sequence[int]], cut: int = K
) -> NDArray[np.float64]:
    """|clicked ∩ top cut| / |clicked| of each search [n]."""
    rows = search_exact(queries, items, cut).rows
    return np.array([np.isin(wanted, found).mean() for wanted, found in zip(clicked, rows, strict=True)])


def compare_personal(
    searches: PersonalSearches,
    items: NDArray[np.float32],
    with_history: NDArray[np.float32],
    without: NDArray[np.float32],
) -> PersonalResult:
    """Item vectors [m, d]; query vectors of the searches [n, d] with each one's history, and without."""
    one = clicked_recall(with_history, items, searches.clicked)
    two = clicked_recall(without, items, searches.clicked)
    bootstrap = Bootstrap(len(searches), clusters=searches.users)
    return PersonalResult(
        len(searches), bootstrap.n, bootstrap.estimate(one), bootstrap.estimate(two), bootstrap.compare(one, two)
    )
