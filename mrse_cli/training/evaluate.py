"""`mrse evaluate`: a checkpoint against BM25, with intervals."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markdown import Markdown
from rich.table import Table

from mrse_cli.config import Config
from mrse_cli.console import console, remark, resumable

if TYPE_CHECKING:
    from mrse_model.evaluation.report import Report


def evaluate(
    checkpoint: Annotated[Path, typer.Argument(help="Folder of a run (mrse train --out).")],
    items: Annotated[Path, typer.Argument(help="The Parquet file of items that it was trained on.")],
    judgments: Annotated[
        Path | None, typer.Option(help="Judgments of queries not trained on. Default: the clicks after the split.")
    ] = None,
    searches: Annotated[
        Path | None,
        typer.Option(help="Search log that weights the judged queries. Default: the run's searches with a click."),
    ] = None,
    title: Annotated[
        str | None, typer.Option(help="Column of items to read as the title. Default: the one trained with.")
    ] = None,
    baselines: Annotated[
        bool, typer.Option(help="Also FastText, one Transformer, DSSM-α, a plain two-tower, and MiniLM if installed.")
    ] = False,
    seconds: Annotated[float, typer.Option(min=0.01, help="CPU seconds to train each baseline for.")] = 240,
    k: Annotated[
        list[int] | None, typer.Option("--k", min=1, help="K of Recall@K and Rele@K; repeatable. Default: 100 and 500.")
    ] = None,
    against: Annotated[str, typer.Option(help="Ranker to test the others against.")] = "BM25",
    config: Config = None,
) -> None:
    """Measure Recall@K, nDCG@10 and Rele@K against BM25 over the whole catalogue, and what the history adds.

    Recall@K_w and Rele@K_w weight each query by its searches, _u counts each once. The baselines learn from the run's
    own training examples and stay in its cache.

    Example: mrse evaluate runs/mrse data/sample/items.parquet --judgments data/sample/judgments_val.parquet
    """
    from mrse_model.evaluate import evaluate_run

    out = console()
    with resumable(out):
        done = evaluate_run(
            checkpoint, items, judgments=judgments, searches=searches, title=title, baselines=baselines,
            seconds=seconds, cuts=k or (), against=against, say=remark(out),
        )  # fmt: skip
    found = done.measured
    out.print(_table(found.report, 3 if k is None else None))
    out.print(found.mix.line())
    out.print(f"Rele@K, paired tests, share of unjudged items, TREC run and qrels: {done.folder}")
    if found.personal is not None:
        out.print(Markdown(found.personal.markdown()))
    else:
        out.print(f"what the history adds is not measured: {found.not_personal}")
    if not done.kept:
        out.print("the checkpoint keeps the figures it had: these are not of new queries")


def _table(report: Report, columns: int | None) -> Table:
    """nDCG@10 and the recalls, so many columns or all, with their intervals; the file has the rest."""
    shown = [name for name in report.results[0].measures if name.startswith(("nDCG", "Recall"))][:columns]
    table = Table(title=f"{report.queries}: {report.n} queries, exact search over {report.catalogue:,} items")
    table.add_column("")
    for name in shown:
        table.add_column(name)
    for result in report.results:
        cells = [f"{e.mean:.3f} [{e.low:.3f}, {e.high:.3f}]" for e in (result.measures[name] for name in shown)]
        table.add_row(result.name.replace("MRSE + BM25, ", ""), *cells)
    return table
