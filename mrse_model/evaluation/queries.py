"""What is evaluated: queries, their graded items, their traffic, and slices of them that are reported apart."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mrse_model.data.contract import Judgments
from mrse_model.data.example_files import JUDGED
from mrse_model.data.search_log import query_key
from mrse_model.data.table import Table
from mrse_model.errors import InputError

SLICE_COLUMN = "share_exact_not_worded_in_title"


@dataclass(frozen=True)
class QuerySet:
    """Queries with relevance.

    Args:
        name: in reports and file names.
        texts: n distinct queries. items, grades: the judged item rows of each query and their grades (0: irrelevant).
        positive: from this grade on an item is relevant for recall.
        traffic: searches of each query, float64 [n]; the same of all where it is not known.
        slices: name → bool [n], reported apart.
    """

    name: str
    texts: list[str]
    items: list[NDArray[np.int32]]
    grades: list[NDArray[np.int16]]
    positive: int
    traffic: NDArray[np.float64]
    slices: dict[str, NDArray[np.bool_]] = field(default_factory=dict)
    left_out: int = 0  # queries without a relevant item: recall is not defined for them

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def top_grade(self) -> int:
        """The highest grade there is."""
        return max(int(g.max()) for g in self.grades)

    @property
    def weighted(self) -> bool:
        """Whether some are asked more often than others, so that means by traffic differ from plain ones."""
        return bool((self.traffic != self.traffic[0]).any())


def judged_queries(
    name: str, judgments: Judgments, *, traffic: Mapping[str, float] | None = None, positive: int = 2
) -> QuerySet:
    """The queries of a judgments file. An item is relevant from grade `positive` on (or the highest grade, if lower).
    A query is one however it is spelt (`query_key`), as in training: its text is the first spelling, and an item that
    two spellings grade apart has the higher grade.

    traffic: searches of each query, by its `query_key`; a query that it lacks is never asked. Without it, or where it
    lacks them all, traffic is not known. Raises InputError when nothing is relevant.
    """
    positive = min(positive, max(int(judgments.grade.max(initial=0)), 1))
    judged: dict[str, tuple[str, dict[int, int]]] = {}
    for text, rows, values in judgments.groups():
        _, of_query = judged.setdefault(query_key(text), (text, {}))
        for row, grade in zip(rows.tolist(), values.tolist(), strict=True):
            of_query[row] = max(grade, of_query.get(row, 0))
    relevant = [(text, some) for text, some in judged.values() if max(some.values(), default=0) >= positive]
    left_out = len(judged) - len(relevant)
    texts = [text for text, _ in relevant]
    items = [np.array(list(some), np.int32) for _, some in relevant]
    grades = [np.array(list(some.values()), np.int16) for _, some in relevant]
    if not texts:
        judgments.check()
        raise InputError(
            "no query has a relevant item", file=judgments.path, field="grade", fix="Give judgments with grades above 0"
        )
    counts = np.array([float((traffic or {}).get(query_key(text), 0)) for text in texts])
    known = counts if counts.any() else np.ones(len(texts))
    return QuerySet(name, texts, items, grades, positive, known, left_out=left_out)


def clicked_queries(name: str, validation: str | Path) -> QuerySet:
    """The queries of validation searches (docs/contracts.md), with all items clicked for each; traffic = searches.

    A query is one however it is spelt (`query_key`); its text is the first spelling.
    """
    table = pq.read_table(Table(validation).path, columns=["query", "target_items"])
    clicked: dict[str, set[int]] = {}
    spelling: dict[str, str] = {}
    searches: Counter[str] = Counter()
    for query, items in zip(table["query"].to_pylist(), table["target_items"].to_pylist(), strict=True):
        if items:
            key = query_key(query)
            spelling.setdefault(key, query)
            clicked.setdefault(key, set()).update(items)
            searches[key] += 1
    if not clicked:
        raise InputError("no search has a click", file=validation, fix="Give --judgments")
    rows = [np.array(sorted(some), np.int32) for some in clicked.values()]
    grades = [np.ones(len(some), np.int16) for some in rows]
    return QuerySet(name, list(spelling.values()), rows, grades, 1, np.array([float(searches[k]) for k in clicked]))


def traffic_of(searches: str | Path) -> dict[str, int]:
    """How often each query (its `query_key`) is asked in a searches file. Raises InputError without a query column."""
    table = Table(searches)
    table.require("query", "string")
    counts: Counter[str] = Counter()
    for first, batch in table.batches(["query"], 1 << 16):
        counts.update(map(query_key, table.texts(batch, "query", first, null="")))
    del counts[""]
    return dict(counts)


def traffic_of_run(examples: Path) -> dict[str, int]:
    """How often each query (its `query_key`) is asked in the searches of a run's examples (RUN/cache/examples), those
    after the split among them: those with a click, no bots. {} for a run without searches.
    """
    columns = ["kind", "query", "user_id", "search_id", "timestamp"]

    def clicks() -> Iterator[tuple[str, ...]]:
        for shard in sorted(examples.glob("train-*.parquet")):
            for batch in pq.ParquetFile(shard).iter_batches(8192, columns=columns):
                for kind, *search in zip(*(batch.column(c).to_pylist() for c in columns), strict=True):
                    if kind < JUDGED:
                        yield tuple(search)

    counts = Counter(query_key(search[0]) for search, _ in groupby(clicks()))  # what was clicked in one is in a row
    counts.update(map(query_key, pq.read_table(examples / "validation.parquet", columns=["query"])[0].to_pylist()))
    return dict(counts)


def with_wording_slices(queries: QuerySet, path: str | Path) -> QuerySet:
    """Adds the slices `worded` and `not worded`: is at least half of a query's exact matches named by its title?

    path: a Parquet file of `query` and `share_exact_not_worded_in_title` (0 to 1).
    """
    table = Table(path)
    table.require("query", "string")
    if SLICE_COLUMN not in table.schema.names:
        raise table.error("the column is missing", field=SLICE_COLUMN, fix="Leave the slices out")
    columns = pq.read_table(path, columns=["query", SLICE_COLUMN])
    share = dict(zip(columns["query"].to_pylist(), columns[SLICE_COLUMN].to_pylist(), strict=True))
    values = np.array([share.get(text, np.nan) for text in queries.texts], float)
    slices = {"exact matches worded in the title": values < 0.5, "not worded in the title": values >= 0.5}
    return QuerySet(**{**queries.__dict__, "slices": {**queries.slices, **slices}})
