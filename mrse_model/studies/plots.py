"""The plot of a study's results, a PNG by matplotlib."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure  # by itself: no display is needed, and a notebook keeps its own

from mrse_model.atomic_file import atomic_file
from mrse_model.studies.results import Results, Row
from mrse_model.studies.study import Study


def draw(study: Study, results: Results, path: Path) -> None:
    """Draws the results as study.plot says; the file appears whole."""
    figure = Figure(figsize=(7.5, 4.5), layout="constrained")
    axes = figure.subplots()
    PLOTS[study.plot](axes, study, results)
    axes.set_title(results.question, fontsize=10)
    with atomic_file(path) as part:
        figure.savefig(part, dpi=130, format="png")


def _measured(results: Results) -> list[str]:
    """The columns that have intervals."""
    return [c for c in results.columns if any(c in r.measures for r in results.rows)]


def _bars(axes: Axes, study: Study, results: Results) -> None:
    """The first column, a bar a row."""
    column = _measured(results)[0]
    rows = [r for r in results.rows if column in r.measures][::-1]
    positions = range(len(rows))
    found = [r.measures[column] for r in rows]
    errors = [[e.mean - e.low for e in found], [e.high - e.mean for e in found]]
    axes.barh(positions, [e.mean for e in found], xerr=errors, color="#8fb3d9", ecolor="#444444", capsize=3)
    axes.set_yticks(list(positions), [r.name for r in rows])
    axes.set_xlabel(f"{column}, 95 % interval")
    low = min(e.low for e in found)
    axes.set_xlim(left=max(0.0, low - 0.3 * (max(e.high for e in found) - low)))


def _lines(axes: Axes, study: Study, results: Results) -> None:
    """Every column that has intervals, over the variants' x (or, by category, a line a row over the variants)."""
    by_variant = {v.name: v.x for v in study.variants if v.x is not None}
    if study.tabulate == "categories":
        columns = [c for c in results.columns if c in by_variant]
        for row in results.rows:
            axes.plot([by_variant[c] for c in columns], [row.measures[c].mean for c in columns], "o-", label=row.name)
        axes.set_ylabel(study.columns[0])
    else:
        rows = sorted((r for r in results.rows if r.x is not None), key=_place)
        for column in _measured(results):
            some = [r for r in rows if column in r.measures]
            positions = [_place(r) for r in some]
            (line,) = axes.plot(positions, [r.measures[column].mean for r in some], "o-", label=column)
            lows, highs = [r.measures[column].low for r in some], [r.measures[column].high for r in some]
            axes.fill_between(positions, lows, highs, color=line.get_color(), alpha=0.12)
        axes.set_ylabel("95 % interval shaded")
    axes.set_xlabel(study.axis)
    axes.legend(fontsize=8)


def _place(row: Row) -> float:
    return row.x or 0.0


def _curves(axes: Axes, study: Study, results: Results) -> None:
    """The dev score of the study's stage by step."""
    stage = study.until or "dssm"
    for row in results.rows:
        if stage in row.curves:
            steps, scores = zip(*row.curves[stage], strict=True)
            axes.plot(steps, scores, "o-", markersize=3, label=row.name)
    axes.set_xlabel(f"step of {stage}")
    axes.set_ylabel("dev nDCG@10")
    axes.legend()


def _experts(axes: Axes, study: Study, results: Results) -> None:
    """The first columns side by side, a group a row that has them."""
    columns = _measured(results)[:4]
    rows = [r for r in results.rows if columns[0] in r.measures]
    width = 0.8 / len(columns)
    for number, column in enumerate(columns):
        positions = [position + number * width for position in range(len(rows))]
        axes.bar(positions, [r.measures[column].mean for r in rows], width, label=column)
    axes.set_xticks([position + 0.4 - width / 2 for position in range(len(rows))], [r.name for r in rows])
    axes.axhline(0, color="#444444", linewidth=0.8)
    axes.legend(fontsize=8)


PLOTS: dict[str, Callable[[Axes, Study, Results], None]] = {
    "bars": _bars,
    "lines": _lines,
    "curves": _curves,
    "experts": _experts,
}
