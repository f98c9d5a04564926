"""nativeRank, Vespa's default ranking of text: field match, proximity and attribute match (searchlib features/native*)."""

from __future__ import annotations

import numpy as np

from .match import MatchedTerm
from .table import Table


class NativeRank:
    """The native features of candidate rows."""

    def __init__(self, table: Table, terms: list[MatchedTerm], rows: np.ndarray) -> None:
        self.table, self.terms, self.rows = table, terms, rows

    def feature(self, name: str, fields: tuple[str, ...]) -> np.ndarray:
        """float64 [rows]"""
        return np.zeros(len(self.rows))
