"""TREC files: qrels and runs that any evaluation tool reads the same way.

Fields are separated by blanks, so ids are percent-encoded where they hold one. Scores in a run are strictly decreasing
within a query, because tools break ties in different ways.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import quote

import numpy as np

from mrse_model.evaluation.queries import QuerySet
from mrse_model.evaluation.rankers import Ranking


def trec_id(text: str) -> str:
    """An id without blanks. `%` is encoded too, so that two ids never become one.

    >>> trec_id("SKU 7/b")
    'SKU%207/b'
    """
    return quote(text, safe="/:.,;_-+=@#!$&'()*[]~")


def query_id(number: int) -> str:
    """The id of the query at that index of its set: texts are long and hold blanks."""
    return f"q{number + 1}"


def run_lines(ranking: Ranking) -> Iterator[tuple[int, int, int, float]]:
    """(query, item row, rank from 1, strictly decreasing score) of every hit."""
    for i, rows in enumerate(ranking.rows):
        last = float("inf")
        for rank, row in enumerate(rows, start=1):
            if row < 0:
                break
            # A tie, or an order that rounding turned, becomes the next float32 below the hit before: trec_eval compares
            # in that type.
            score = min(float(ranking.scores[i, rank - 1]), last)
            yield i, int(row), rank, score
            last = float(np.nextafter(np.float32(score), np.float32(-np.inf)))


def write_run(path: str | Path, ranking: Ranking, item_ids: Sequence[str], tag: str) -> None:
    """`query Q0 item rank score tag`, one line a hit."""
    with open(path, "w", encoding="utf-8") as file:
        for i, row, rank, score in run_lines(ranking):
            file.write(f"{query_id(i)} Q0 {trec_id(item_ids[row])} {rank} {score:.9g} {trec_id(tag)}\n")


def write_qrels(path: str | Path, queries: QuerySet, item_ids: Sequence[str]) -> None:
    """`query 0 item grade`, one line a judged pair."""
    with open(path, "w", encoding="utf-8") as file:
        for i, (rows, grades) in enumerate(zip(queries.items, queries.grades, strict=True)):
            for row, grade in zip(rows, grades, strict=True):
                file.write(f"{query_id(i)} 0 {trec_id(item_ids[row])} {grade}\n")


def write_topics(path: str | Path, queries: QuerySet) -> None:
    """`query <tab> text`: what the ids stand for."""
    with open(path, "w", encoding="utf-8") as file:
        file.writelines(f"{query_id(i)}\t{' '.join(text.split())}\n" for i, text in enumerate(queries.texts))
