"""Evaluates rankers over one query set: measures with intervals, a paired test against a baseline, slices, TREC files.

report = evaluate([bm25, two_tower, mrse], queries, catalogue.ids, baseline="bm25", folder="runs/demo/evaluation")
print(report.markdown())
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mrse_model.evaluation.bootstrap import Bootstrap, Comparison, Estimate
from mrse_model.evaluation.measures import NDCG_CUT, per_query, unjudged_share
from mrse_model.evaluation.queries import QuerySet
from mrse_model.evaluation.rankers import Ranker
from mrse_model.evaluation.trec import query_id, write_qrels, write_run, write_topics

WEIGHTED = ("Recall", "Rele")  # by traffic (_w) too, where it is known


@dataclass(frozen=True)
class Result:
    """One ranker on one query set. `slices`: slice → measure → estimate. `against`: measure → comparison, or empty."""

    name: str
    measures: dict[str, Estimate]
    slices: dict[str, dict[str, Estimate]]
    against: dict[str, Comparison]
    unjudged_at_10: float
    seconds: float

    def value(self, measure: str) -> float:
        """The mean of a measure."""
        return self.measures[measure].mean


@dataclass(frozen=True)
class Report:
    """What `evaluate` found."""

    queries: str
    n: int
    left_out: int
    catalogue: int
    baseline: str | None
    results: list[Result]

    def __getitem__(self, name: str) -> Result:
        for result in self.results:
            if result.name == name:
                return result
        raise KeyError(name)

    def json(self) -> str:
        """Everything, for machines."""
        return json.dumps(asdict(self), indent=1) + "\n"

    def markdown(self) -> str:
        """Markdown tables: one for all queries, one for each slice, one of the paired tests."""
        names = list(self.results[0].measures)
        left = f"; {self.left_out} without a relevant item left out" if self.left_out else ""
        lines = [f"### {self.queries}", "", f"{self.n} queries over {self.catalogue:,} items, exact search{left}. "]
        lines[-1] += "Mean and 95 % bootstrap interval over queries."
        asked = [e.n for name, e in self.results[0].measures.items() if name.endswith("_w")]
        if asked:
            lines[-1] += f" _w: by traffic, of the {asked[0]} queries that are asked; _u: each query once."
        lines += _table(names, [(r.name, r.measures) for r in self.results])
        unjudged = ", ".join(f"{r.name} {r.unjudged_at_10:.0%}" for r in self.results)
        lines += ["", f"Unjudged among the first 10: {unjudged}."]
        for part in self.results[0].slices:
            n = next(iter(self.results[0].slices[part].values())).n
            lines += ["", f"Only the {n} queries with {part}:"]
            lines += _table(names, [(r.name, r.slices[part]) for r in self.results])
        compared = [r for r in self.results if r.against]
        if compared:
            lines += ["", f"Paired bootstrap against {self.baseline}:", "", "| ranker | measure | difference | p |"]
            lines += ["| --- | --- | --- | --- |"]
            for result in compared:
                for name, c in result.against.items():
                    lines.append(
                        f"| {result.name} | {name} | {c.difference:+.4f} [{c.low:+.4f}, {c.high:+.4f}] | {c.p:.4f} |"
                    )
        return "\n".join(lines) + "\n"


def _table(names: Sequence[str], rows: Sequence[tuple[str, dict[str, Estimate]]]) -> list[str]:
    lines = ["", "| ranker | " + " | ".join(names) + " |", "| --- |" + " --- |" * len(names)]
    for label, measures in rows:
        found = [measures.get(name) for name in names]
        cells = [f"{e.mean:.3f} [{e.low:.3f}, {e.high:.3f}]" if e else "–" for e in found]
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    return lines


def evaluate(
    rankers: Sequence[Ranker],
    queries: QuerySet,
    item_ids: Sequence[str],
    *,
    baseline: str | None = None,
    cuts: Sequence[int] = (100, 500),
    folder: str | Path | None = None,
) -> Report:
    """Ranks the whole catalogue for every query with every ranker, and measures.

    Args:
        item_ids: of all items, in row order. baseline: name of the ranker that the others are tested against.
        cuts: the K of Recall@K and Rele@K.
        folder: where `NAME.run`, `qrels`, `topics.tsv`, `report.md`, `report.json` and `per_query.json` go.
    """
    out = Path(folder) if folder is not None else None
    with _appearing_whole(out) as work:
        return _evaluate(rankers, queries, item_ids, baseline, cuts, work)


@contextmanager
def _appearing_whole(folder: Path | None) -> Iterator[Path | None]:
    """Gives a folder to write a report's files into; they go to `folder` together at the end, in place of the last
    report's: none stands beside those of another evaluation.
    """
    if folder is None:
        yield None
        return
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as name:
        yield Path(name)
        last = folder / "report.json"
        for result in json.loads(last.read_text("utf-8"))["results"] if last.is_file() else ():
            (folder / _run_file(result["name"])).unlink(missing_ok=True)
        for path in Path(name).iterdir():
            path.replace(folder / path.name)


def _run_file(ranker: str) -> str:
    return f"{ranker.replace('/', '_')}.run"


def _evaluate(
    rankers: Sequence[Ranker],
    queries: QuerySet,
    item_ids: Sequence[str],
    baseline: str | None,
    cuts: Sequence[int],
    out: Path | None,
) -> Report:
    values: dict[str, dict[str, NDArray[np.float64]]] = {}
    seconds: dict[str, float] = {}
    unjudged: dict[str, float] = {}
    if out:
        write_qrels(out / "qrels", queries, item_ids)
        write_topics(out / "topics.tsv", queries)
    for ranker in rankers:
        began = time.perf_counter()
        ranking = ranker.search(queries.texts, max(*cuts, NDCG_CUT))
        seconds[ranker.name] = time.perf_counter() - began
        values[ranker.name] = per_query(queries, ranking, cuts)
        unjudged[ranker.name] = unjudged_share(queries, ranking)
        if out:
            write_run(out / _run_file(ranker.name), ranking, item_ids, ranker.name)
    results = []
    every = np.ones(len(queries), bool)
    for name, found in values.items():
        against: dict[str, Comparison] = {}
        if baseline is not None and name != baseline:
            other = values[baseline]
            against = {s.name: s.bootstrap.compare(s.of(found), s.of(other)) for s in _samples(queries, found, every)}
        slices = {part: _estimates(queries, found, keep) for part, keep in queries.slices.items() if keep.any()}
        everything = _estimates(queries, found, every)
        results.append(Result(name, everything, slices, against, unjudged[name], seconds[name]))
    report = Report(queries.name, len(queries), queries.left_out, len(item_ids), baseline, results)
    if out:
        rows = {
            query_id(i): {
                "text": text,
                **{n: {m: float(v[i]) for m, v in found.items()} for n, found in values.items()},
            }
            for i, text in enumerate(queries.texts)
        }
        (out / "per_query.json").write_text(json.dumps(rows, indent=0) + "\n", "utf-8")
        (out / "report.json").write_text(report.json(), "utf-8")
        (out / "report.md").write_text(report.markdown(), "utf-8")
    return report


@dataclass(frozen=True)
class _Sample:
    """A measure as it is reported: its name, and the queries (rows) that it is a mean of."""

    name: str
    measure: str
    rows: NDArray[np.int64]
    bootstrap: Bootstrap

    def of(self, values: dict[str, NDArray[np.float64]]) -> NDArray[np.float64]:
        """The measure's values at these queries."""
        return values[self.measure][self.rows]


def _samples(queries: QuerySet, measures: Iterable[str], keep: NDArray[np.bool_]) -> Iterator[_Sample]:
    """What is reported of the kept queries; recall and relevance also by traffic, of the queries that are asked."""
    rows = np.flatnonzero(keep)
    asked = rows[queries.traffic[rows] > 0]
    plain = Bootstrap(len(rows))
    by_traffic = Bootstrap(len(asked), weights=queries.traffic[asked]) if len(asked) else None
    for measure in measures:
        if not queries.weighted or not measure.startswith(WEIGHTED):
            yield _Sample(measure, measure, rows, plain)
            continue
        if by_traffic is not None:
            yield _Sample(f"{measure}_w", measure, asked, by_traffic)
        yield _Sample(f"{measure}_u", measure, rows, plain)


def _estimates(
    queries: QuerySet, values: dict[str, NDArray[np.float64]], keep: NDArray[np.bool_]
) -> dict[str, Estimate]:
    return {s.name: s.bootstrap.estimate(s.of(values)) for s in _samples(queries, values, keep)}
