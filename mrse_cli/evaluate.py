"""`mrse evaluate`: a checkpoint against BM25, with intervals."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markdown import Markdown
from rich.table import Table

from mrse_cli.config import Config
from mrse_cli.console import console, resumable
from mrse_model.errors import InputError

if TYPE_CHECKING:
    from mrse_model.evaluation.queries import QuerySet
    from mrse_model.evaluation.rankers import Ranker
    from mrse_model.evaluation.report import Report


def evaluate(
    checkpoint: Annotated[Path, typer.Argument(help="Folder of a run (mrse train --out).")],
    items: Annotated[Path, typer.Argument(help="The Parquet file of items that it was trained on.")],
    judgments: Annotated[
        Path | None, typer.Option(help="Judgments of queries not trained on; default: the clicks after the split.")
    ] = None,
    searches: Annotated[
        Path | None,
        typer.Option(help="Search log that weighs the judged queries; default: the run's searches with a click."),
    ] = None,
    title: Annotated[
        str | None, typer.Option(help="Column of items to read as the title. Default: the one trained with.")
    ] = None,
    baselines: Annotated[
        bool, typer.Option(help="Also FastText, one Transformer, DSSM-α, a plain two-tower, and MiniLM if installed.")
    ] = False,
    seconds: Annotated[float, typer.Option(min=0.01, help="CPU seconds that each baseline may train.")] = 240,
    k: Annotated[
        list[int] | None, typer.Option("--k", min=1, help="K of Recall@K and Rele@K; repeat it. Default: 100 and 500.")
    ] = None,
    against: Annotated[str, typer.Option(help="The ranker that the others are tested against.")] = "BM25",
    config: Config = None,
) -> None:
    """Measure Recall@K, nDCG@10 and Rele@K beside BM25 over the whole catalogue, and what the history adds.

    Recall@K_w and Rele@K_w weigh a query by its searches, _u counts each once. The baselines learn from the run's own
    training examples; trained, they stay in its cache.

    Example: mrse evaluate runs/mrse data/sample/items.parquet --judgments data/sample/judgments_val.parquet
    """
    import numpy as np

    from mrse_model.baselines import compared
    from mrse_model.data.contract import read_catalogue, read_judgments
    from mrse_model.data.example_files import ExampleSummary, queries_in_training
    from mrse_model.evaluation.checkpoint import CUTS, RANKERS, measure, pseudo_query_set, trained_on
    from mrse_model.evaluation.queries import clicked_queries, judged_queries, traffic_of, traffic_of_run
    from mrse_model.model import MRSE
    from mrse_model.training.pipeline import title_of
    from mrse_model.training.share import fingerprint_of

    out = console()
    model = MRSE.from_pretrained(checkpoint)
    rankers = [*RANKERS, *(compared.names(checkpoint) if baselines else ())]
    if against not in rankers:
        fix = "One of: " + ", ".join(map(repr, rankers)) + ("" if baselines else "; with --baselines more")
        raise InputError(f"no ranker {against!r}", field="--against", fix=fix)
    catalogue = read_catalogue(items, title=title or title_of(checkpoint))
    cache = checkpoint / "cache"
    summary = ExampleSummary.load(cache / "examples")
    features = np.load(cache / "features.npy", mmap_mode="r") if model.config.model.image_dims else None
    made, ids = model.meta["training"], fingerprint_of(catalogue.ids)
    if len(catalogue.ids) != made["items"] or made.get("item_ids", ids) != ids:  # a run of an older version has none
        problem = f"{len(catalogue.ids)} items, and the run was trained on {made['items']}: others, or in another order"
        raise InputError(problem, file=items, field="item_id", fix="Give the run's own items file")
    if too_deep := [depth for depth in k or () if depth > len(catalogue.ids)]:
        fix = f"Give {len(catalogue.ids)} at most"
        raise InputError(f"{too_deep[0]} of {len(catalogue.ids)} items", field="--k", fix=fix)
    validation = cache / "examples" / "validation.parquet" if summary.validation_searches else None
    if searches is not None and judgments is None:
        raise InputError("they weigh judged queries", field="--searches", fix="Give --judgments")
    known_labels = 0
    if judgments is not None:
        judged = read_judgments(judgments, catalogue, unknown="skip")
        if judged.skipped:
            out.print(f"left out: {judged.skipped:,} judgments of items that are not in {items}")
        traffic = traffic_of(searches) if searches is not None else traffic_of_run(cache / "examples")
        queries = judged_queries(judgments.stem, judged, traffic=traffic)
        if traffic or searches is not None:
            out.print(_traffic(queries, traffic))
        if queries.left_out:
            out.print(f"left out: {queries.left_out:,} judged queries without a relevant item")
        learnt = trained_on(cache / "examples", queries)
        known_labels = learnt.get("judgments", 0)
        for by, known in learnt.items():
            out.print(
                f"warning: {known:,} of these {len(queries):,} queries were trained on with their {by}: "
                "what is measured on them is not what new queries will find. Give judgments of others",
                style="yellow",
            )
    elif validation is not None:
        queries = clicked_queries("clicks after the split", validation)
    else:
        out.print("neither judgments nor searches: the queries are pieces of titles, which says little about people")
        queries = pseudo_query_set(catalogue, but=queries_in_training(cache / "examples")["texts"])
        if not len(queries):
            queries = pseudo_query_set(catalogue)
            out.print("warning: all of them were trained on: new queries will find less", style="yellow")
    folder = checkpoint / "evaluation" / queries.name.replace(" ", "-")
    others: list[Ranker] = []
    if baselines:
        with resumable(out):
            others = compared.baselines(checkpoint, catalogue, features, seconds, seconds, say=out.print)
    with out.status(f"{len(catalogue.ids):,} items, {len(queries):,} queries: vectors, BM25, exact search"):
        found = measure(
            model, catalogue, features, cache / "examples", queries, others,
            baseline=against, cuts=k or CUTS, folder=folder,
        )  # fmt: skip
    out.print(_table(found.report, 3 if k is None else None))
    out.print(f"linear hybrid: query(alpha), the share of the words, {found.weight}: chosen on {found.tuned_on}")
    out.print(f"Rele@K, paired tests, share of unjudged items, TREC run and qrels: {folder}")
    if found.personal is not None:
        out.print(Markdown(found.personal.markdown()))
    else:
        out.print(f"what the history adds is not measured: {found.not_personal}")
    if known_labels:
        out.print("the checkpoint keeps the figures that it had: these are not of new queries")
    else:
        model.meta["metrics"] = found.metrics()
        model.save_meta(checkpoint)


def _traffic(queries: QuerySet, traffic: Mapping[str, int]) -> str:
    """One line about the weights of judged queries."""
    from mrse_model.data.search_log import query_key

    counts = [traffic[key] for key in map(query_key, queries.texts) if key in traffic]
    if queries.weighted:
        return f"_w: by traffic; {len(counts)} of {len(queries)} judged queries were asked, in {sum(counts):,} searches"
    why = "every judged query was asked equally often" if counts else "no judged query is in the search log"
    return f"{why}: nothing is weighted by traffic"


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
