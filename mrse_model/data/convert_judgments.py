"""Judgments on other scales to the `judgments` contract: integer grades from 0 on, where 2 and more are relevant.

ESCI letters (Reddy et al. 2022, arXiv 2206.06588), stars, 1–3 as in Home Depot's set, 0–1, averages of several judges.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mrse_model.atomic_file import atomic_file
from mrse_model.data.contract import BATCH, required_texts
from mrse_model.data.table import RenamedTable, Table
from mrse_model.errors import InputError

ESCI = {"E": 3, "EXACT": 3, "S": 2, "SUBSTITUTE": 2, "C": 1, "COMPLEMENT": 1, "I": 0, "IRRELEVANT": 0}
# steps of a scale → the grade of each step; between them averages of judges are interpolated, then rounded
STEPS = {1: (0, 2), 2: (0, 1, 2), 3: (0, 1, 2, 3), 4: (0, 0, 1, 2, 3)}
RANGE = re.compile(r"(-?\d+(?:\.\d+)?)\s*-\s*(-?\d+(?:\.\d+)?)")
SCALES = "grades (integers from 0 on), esci, or LOW-HIGH such as 1-5"
SCHEMA = pa.schema({"query": pa.string(), "item_id": pa.string(), "grade": pa.int16()})


@dataclass(frozen=True)
class ConvertedJudgments:
    """rows: written. grades: how many of each."""

    rows: int
    grades: dict[int, int]


@dataclass(frozen=True)
class Scale:
    """How a value of a judgment becomes a grade."""

    name: str
    low: float = 0.0
    high: float = 0.0

    @classmethod
    def parse(cls, text: str) -> Scale:
        """Reads `grades`, `esci` or LOW-HIGH. Raises InputError.

        >>> Scale.parse("1-5").grade(4), Scale.parse("1-3").grade(2.67), Scale.parse("esci").grade("S")
        (2, 2, 2)
        """
        if text in ("grades", "esci"):
            return cls(text)
        found = RANGE.fullmatch(text.strip())
        if found is None or float(found[1]) >= float(found[2]):
            raise InputError(f"unknown scale: {text!r}", field="--scale", fix=f"Choose {SCALES}")
        return cls("range", float(found[1]), float(found[2]))

    def grade(self, value: Any) -> int:
        """The grade of one value. Raises ValueError for what is not on the scale."""
        if self.name == "esci":
            return ESCI[str(value).strip().upper()]
        number = float(value)
        if self.name == "grades":
            if number < 0 or number >= 2**15 or number != int(number):
                raise ValueError(value)
            return int(number)
        if not self.low <= number <= self.high:
            raise ValueError(value)
        steps = self.high - self.low
        grades = STEPS.get(int(steps), (0, 1, 2, 3)) if steps == int(steps) else (0, 1, 2, 3)
        at = np.interp(number, np.linspace(self.low, self.high, len(grades)), grades)
        return int(at + 0.5)


def convert_judgments(
    source: str | Path, judgments: str | Path, *, scale: str, columns: Mapping[str, str] | None = None
) -> ConvertedJudgments:
    """Writes a `judgments` file from a table of `query`, `item_id` and `grade` on any scale.

    Args:
        scale: `grades`, `esci` or LOW-HIGH. On 0–1 0.75 and more, on 1–3 the highest, on 1–4 and 1–5 the two highest
            values become relevant (grade 2 and more); averages between them are rounded.
        columns: the names of `query`, `item_id` and `grade` where they differ.

    Raises InputError for a value that is not on the scale, and for a pair that comes twice with different grades, with
    the row.
    """
    chosen, table = Scale.parse(scale), RenamedTable(source, columns or {}, SCHEMA.names)
    table.check_output(judgments)
    table.require("query", "string")
    table.require("item_id", "string id")
    table.require("grade", "string", "integer", "number")
    counts: Counter[int] = Counter()
    rows: dict[str, list[Any]] = {name: [] for name in SCHEMA.names}
    for first, batch in table.batches(SCHEMA.names, 16 * BATCH):
        values = table.values(batch, "grade", first)
        grades = [_grade(table, chosen, value, first + i) for i, value in enumerate(values)]
        rows["query"] += required_texts(table, batch, "query", first, "judgment")
        rows["item_id"] += required_texts(table, batch, "item_id", first, "judgment")
        rows["grade"] += grades
        counts.update(grades)
    if not counts:
        raise table.error("it has no rows", fix="Write at least one judgment")
    judged = pa.table(rows, schema=SCHEMA)
    _check_pairs(table, judged)
    with atomic_file(Path(judgments)) as part:
        pq.write_table(judged, part)
    return ConvertedJudgments(counts.total(), dict(sorted(counts.items())))


def _check_pairs(table: Table, judged: pa.Table) -> None:
    """Raises InputError where a pair has two grades: training would not know which to take."""
    pairs = judged.group_by(["query", "item_id"], use_threads=False).aggregate([("grade", "min"), ("grade", "max")])
    wrong = pairs.filter(pc.not_equal(pairs["grade_min"], pairs["grade_max"])).slice(0, 1)
    if wrong.num_rows:
        same = pc.and_(*(pc.equal(judged[name], wrong[name][0]) for name in ("query", "item_id")))
        rows = np.flatnonzero(same.to_numpy())
        grades = judged["grade"].take(rows).to_numpy()
        at = int(np.argmax(grades != grades[0]))
        problem = f"row {rows[0]} gives the same query and item the grade {grades[0]}, this one {grades[at]}"
        raise table.error(problem, row=int(rows[at]), field="grade", fix="Give each pair once: the mean of its judges")


def _grade(table: Table, scale: Scale, value: Any, row: int) -> int:
    if value is None or value != value:
        raise table.error("it is null", row=row, field="grade", fix="Leave out the pairs that have no grade")
    try:
        return scale.grade(value)
    except (KeyError, ValueError, TypeError):
        fix = f"Choose another --scale: {SCALES}"
        raise table.error(f"{value!r} is not on the scale", row=row, field="grade", fix=fix) from None
