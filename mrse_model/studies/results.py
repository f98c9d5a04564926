"""A study's results: rows with intervals and paired tests, as JSON, as Markdown, and as an entry for dev/LOG.md."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import date
from typing import Any

from mrse_model.errors import InputError
from mrse_model.evaluation.bootstrap import Bootstrap, Comparison, Estimate
from mrse_model.studies.measured import Measured, Values
from mrse_model.studies.study import Study


@dataclass(frozen=True)
class Row:
    """One row of a table. against: measure → comparison with the row `versus`, where both have it."""

    name: str
    x: float | None
    measures: dict[str, Estimate]
    versus: str = ""
    against: dict[str, Comparison] = field(default_factory=dict)
    numbers: dict[str, float] = field(default_factory=dict)
    curves: dict[str, list[list[float]]] = field(default_factory=dict)


@dataclass(frozen=True)
class Results:
    """A study's table. remarks: sentences that belong to it. missing: variants that are not measured yet. seeds:
    trainings a row.
    """

    study: str
    question: str
    source: str
    data: str
    reference: str
    columns: tuple[str, ...]
    rows: list[Row]
    note: str = ""
    remarks: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    seeds: int = 1

    def json(self) -> str:
        """Everything, for machines."""
        return json.dumps(_finite(asdict(self)), indent=1, ensure_ascii=False) + "\n"

    def table(self) -> str:
        """The rows as a Markdown table: mean and interval."""
        lines = ["| | " + " | ".join(self.columns) + " |", "| --- |" + " --- |" * len(self.columns)]
        return "\n".join(lines + [f"| {r.name} | {' | '.join(cell(r, c) for c in self.columns)} |" for r in self.rows])

    def differences(self) -> str:
        """The paired tests as a Markdown table, or ""."""
        lines = ["| | against | measure | difference | p |", "| --- | --- | --- | --- | --- |"]
        for row in self.rows:
            for name in self.columns:
                if name in row.against:
                    c = row.against[name]
                    lines.append(f"| {row.name} | {row.versus} | {name} | {difference(c)} | {c.p:.4f} |")
        return "\n".join(lines) if len(lines) > 2 else ""

    def markdown(self) -> str:
        """The page results.md."""
        parts = [f"# {self.study}: {self.question}", f"{self.source}. Data: {self.data}.", self.table()]
        trainings = "One training a row, one seed: the intervals do not hold what another seed would change."
        if self.seeds > 1:
            trainings = f"A query's value is its mean over {self.seeds} trainings a row, of {self.seeds} seeds: the "
            trainings += "intervals are of other queries, not of other seeds."
        parts.append(
            "Mean and 95 % bootstrap interval over queries (over users where the measure is of users). " + trainings
        )
        parts += [self.note] if self.note else []
        parts += list(self.remarks)
        if self.differences():
            parts.append(f"Paired bootstrap:\n\n{self.differences()}")
        if self.missing:
            parts.append(f"Not measured yet: {', '.join(self.missing)}.")
        return "\n\n".join(parts) + "\n"

    def log_entry(self, command: str, today: date) -> str:
        """What goes into dev/LOG.md: what was asked, the command, what was seen."""
        parts = [f"**{self.study} ({today:%Y-%m-%d}).** {self.question} `{command}`", self.table()]
        found = " ".join(self.remarks) or self._sentence()
        return "\n\n".join([*parts, found] if found else parts) + "\n"

    def _sentence(self) -> str:
        """The best row of each column; and of the first column the differences that are clear of 0, and the others."""
        best = []
        for column in self.columns:
            means = {r.name: r.measures[column].mean for r in self.rows if column in r.measures}
            winners = [name for name, mean in means.items() if mean == max(means.values())]
            if len(winners) == 1 < len(means) and any(column in r.against for r in self.rows):
                best.append(f"{column} {winners[0]}")
        column = self.columns[0]
        tests = [(f"{r.name} − {r.versus}", r.against[column]) for r in self.rows if column in r.against]
        clear = [f"{name} {difference(c)}" for name, c in tests if c.low > 0 or c.high < 0]
        level = [f"{name} {difference(c)}" for name, c in tests if c.low <= 0 <= c.high]
        return " ".join(
            [f"Best: {', '.join(best)}."] * bool(best)
            + [f"{column}, clear of 0: {', '.join(clear)}."] * bool(clear)
            + [f"{column}, not clear of 0: {', '.join(level)}."] * bool(level)
        )


def _finite(value: Any) -> Any:
    """NaN (a ratio to 0) as None, which JSON has."""
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def difference(c: Comparison) -> str:
    """A difference and its interval."""
    return f"{c.difference:+.4f} [{c.low:+.4f}, {c.high:+.4f}]"


def cell(row: Row, column: str) -> str:
    """A figure as it stands in the table; – for none.

    >>> cell(Row("x", None, {"a": Estimate(0.5, 0.4, 0.6, 9)}, numbers={"steps": 1200.0}), "a")
    '0.500 [0.400, 0.600]'
    """
    if column in row.measures:
        e = row.measures[column]
        return f"{e.mean:.3f} [{e.low:.3f}, {e.high:.3f}]"
    if column in row.numbers:
        return f"{row.numbers[column]:,.4g}" if abs(row.numbers[column]) < 10 else f"{row.numbers[column]:,.0f}"
    return "–"


def tabulate(study: Study, measured: Mapping[str, Measured], data: str) -> Results:
    """A row a variant, in the study's order, each tested against the row that it is to be compared with.

    Raises InputError where the data has nothing of what the study shows.
    """
    rows = []
    for variant in study.variants:
        if variant.name not in measured:
            continue
        found, versus = measured[variant.name], study.versus(variant)
        base = measured[versus].values if versus in measured else {}
        against = {
            name: _bootstrap(values).compare(values.values, base[name].values)
            for name, values in found.values.items()
            if name in base
        }
        estimates = {name: _bootstrap(v).estimate(v.values) for name, v in found.values.items()}
        rows.append(Row(variant.name, variant.x, estimates, versus, against, found.numbers, found.curves))
    shown = tuple(c for c in study.columns if any(c in r.measures or c in r.numbers for r in rows))
    if not shown:
        wanted = ", ".join(study.columns)
        fix = "Give a log of returning users, or run it on the generated sample"
        raise InputError(f"none of the measures of the study {study.name!r} could be computed ({wanted})", fix=fix)
    missing = tuple(v.name for v in study.variants if v.name not in measured)
    return Results(
        study.name, study.question, study.source, data, study.reference, shown, rows, study.note, missing=missing
    )


def _bootstrap(values: Values) -> Bootstrap:
    return Bootstrap(len(values.values), clusters=values.clusters)
