"""A run measured on judged, clicked or made-up queries: what `mrse evaluate` does, for Python.

from mrse_model.evaluate import evaluate_run

evaluation = evaluate_run("runs/shop", "items.parquet", judgments="judgments_val.parquet")
evaluation.measured.report["MRSE"].measures["nDCG@10"].mean
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mrse_model.baselines import compared
from mrse_model.data.contract import Catalogue, read_catalogue, read_judgments
from mrse_model.data.example_files import ExampleSummary, queries_in_training
from mrse_model.data.search_log import query_key
from mrse_model.errors import InputError
from mrse_model.evaluation.bm25 import BM25
from mrse_model.evaluation.checkpoint import CUTS, RANKERS, Measured, measure, pseudo_query_set, trained_on
from mrse_model.evaluation.queries import QuerySet, clicked_queries, judged_queries, traffic_of, traffic_of_run
from mrse_model.evaluation.rankers import Ranker
from mrse_model.fingerprint import fingerprint_of
from mrse_model.model import MRSE
from mrse_model.training.claim import title_of

Say = Callable[[str], object]


@dataclass(frozen=True)
class Evaluation:
    """queries: what was measured on. folder: the report, TREC runs and qrels. kept: whether the checkpoint took the
    figures over; not where the queries' own judgments were trained on.
    """

    queries: QuerySet
    measured: Measured
    folder: Path
    kept: bool


def evaluate_run(
    run: str | Path,
    items: str | Path,
    *,
    judgments: str | Path | None = None,
    searches: str | Path | None = None,
    title: str | None = None,
    baselines: bool = False,
    seconds: float = 240,
    cuts: Sequence[int] = (),
    against: str = BM25.name,
    say: Say = print,
) -> Evaluation:
    """Measures a run's checkpoint beside BM25 over the whole catalogue and writes `run`/evaluation/NAME.

    Args:
        items: the file that the run was trained on. judgments: of queries that were not trained on; without them the
            clicks after the split are measured on, and where there are none, spans of titles. searches: a log that
            weights the judged queries; without it, the run's own.
        baselines: train and measure those, too, each for `seconds` of CPU time. cuts: K of Recall@K and Rele@K.
        against: the ranker that the others are tested against. say: gets remarks and warnings, a line each.

    Raises InputError for bad input and for items that are not the run's.
    """
    run = Path(run)
    model = MRSE.from_pretrained(run)
    _check_ranker(against, run, baselines)
    catalogue = read_catalogue(items, title=title or title_of(run))
    examples = run / "cache" / "examples"
    summary = ExampleSummary.load(examples)
    features = np.load(run / "cache" / "features.npy", mmap_mode="r") if model.config.model.image_dims else None
    _check_items(model, catalogue)
    if too_deep := [depth for depth in cuts if depth > len(catalogue)]:
        raise InputError(f"{too_deep[0]} exceeds the catalogue size ({len(catalogue)})", field="--k")
    if searches is not None and judgments is None:
        raise InputError(
            "a search log only weights judged queries, and there are none",
            field="--searches",
            fix="Give --judgments, too",
        )
    known_labels = 0
    if judgments is not None:
        queries = _judged(Path(judgments), catalogue, examples, searches, say)
        known_labels = _warn_of_known(examples, queries, say)
    elif summary.validation_searches:
        queries = clicked_queries("clicks after the split", examples / "validation.parquet")
    else:
        queries = _made_up(catalogue, examples, say)
    folder = run / "evaluation" / queries.name.replace(" ", "-")
    others: list[Ranker] = compared.baselines(run, catalogue, features, seconds, seconds, say=say) if baselines else []
    say(f"{len(catalogue):,} items, {len(queries):,} queries: vectors, BM25, exact search")
    measured = measure(
        model, catalogue, features, examples, queries, others, baseline=against, cuts=cuts or CUTS, folder=folder
    )
    if not known_labels:
        model.meta["metrics"] = measured.metrics()
        model.save_meta(run)
    return Evaluation(queries, measured, folder, not known_labels)


def _check_ranker(against: str, run: Path, baselines: bool) -> None:
    rankers = [*RANKERS, *(compared.names(run) if baselines else ())]
    if against not in rankers:
        fix = "Choose one of " + ", ".join(map(repr, rankers)) + ("" if baselines else "; with --baselines more")
        raise InputError(f"unknown ranker {against!r}", field="--against", fix=fix)


def _check_items(model: MRSE, catalogue: Catalogue) -> None:
    made, ids = model.meta["training"], fingerprint_of(catalogue.ids)
    if len(catalogue) != made["items"] or made.get("item_ids", ids) != ids:  # a run of an older version has none
        problem = f"{len(catalogue)} items, and the run was trained on {made['items']}: others, or in another order"
        raise InputError(problem, file=catalogue.path, field="item_id", fix="Give the run's own items file")


def _judged(judgments: Path, catalogue: Catalogue, examples: Path, searches: str | Path | None, say: Say) -> QuerySet:
    judged = read_judgments(judgments, catalogue, unknown="skip")
    if judged.skipped:
        say(f"left out: {judged.skipped:,} judgments of items that are not in {catalogue.path}")
    traffic = traffic_of(searches) if searches is not None else traffic_of_run(examples)
    queries = judged_queries(judgments.stem, judged, traffic=traffic)
    if traffic or searches is not None:
        say(_traffic(queries, traffic))
    if queries.left_out:
        say(f"left out: {queries.left_out:,} judged queries without a relevant item")
    return queries


def _warn_of_known(examples: Path, queries: QuerySet, say: Say) -> int:
    """Warns of queries that were trained on; how many of them with their judgments."""
    learnt = trained_on(examples, queries)
    for by, known in learnt.items():
        say(
            f"warning: {known:,} of these {len(queries):,} queries were trained on with their {by}: "
            "what is measured on them is not what new queries will find. Give judgments of others"
        )
    return learnt.get("judgments", 0)


def _made_up(catalogue: Catalogue, examples: Path, say: Say) -> QuerySet:
    say("no judgments and no searches: the queries are spans of titles, which says little about what users ask for")
    queries = pseudo_query_set(catalogue, but=queries_in_training(examples)["texts"])
    if not len(queries):
        queries = pseudo_query_set(catalogue)
        say("warning: all of them were trained on: new queries will find less")
    return queries


def _traffic(queries: QuerySet, traffic: Mapping[str, int]) -> str:
    """One line about the weights of judged queries."""
    counts = [traffic[key] for key in map(query_key, queries.texts) if key in traffic]
    if queries.weighted:
        return f"_w: by traffic; {len(counts)} of {len(queries)} judged queries were asked, in {sum(counts):,} searches"
    why = "every judged query was asked equally often" if counts else "no judged query is in the search log"
    return f"{why}: nothing is weighted by traffic"
