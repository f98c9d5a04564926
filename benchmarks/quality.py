"""How good MRSE's rankings are, beside BM25, MiniLM, FastText, a Transformer, DSSM-α and a plain two-tower.

Ran against: all of these, over the whole catalogue by exact search, with the same texts, images and judgments. It
trains MRSE (or takes up the run in --runs) and, for the same CPU time, the plain two-tower; the text-only baselines get
--seconds. With --bars it ends in lines `bar NAME VALUE TARGET ok|short` and exits with 1 if one is short, or if it was
not measured: those of the studies are read from --studies, the one of the training's speed is measured with --speed.

    python benchmarks/quality.py --bars                                   # on the generated sample
    for s in ablation loss beta; do mrse study $s … --seeds 3 --out studies/$s; done  # close calls: one seed is too few
    python benchmarks/quality.py --data ../shared/data/fashion --runs runs/fashion --studies studies --speed --bars

--data holds items.parquet and either judgments_val.parquet with judgments_train.parquet (or judgments.parquet) to learn
from, or judgments.parquet alone: then MRSE learns from pseudo-queries, and neither studies nor speed are asked for.
searches.parquet is used where there is one.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import training_speed
from bars import Bar, verdict
from quality_bars import FASHION, cpu_seconds, history_bars, report_bars, study_bars, training_bar
from quality_data import Data, sample_data
from rich.console import Console

from mrse_model.baselines.compared import TWO_TOWER, baselines
from mrse_model.config import Config, preset, read_config, result_affecting
from mrse_model.data.contract import read_catalogue, read_judgments
from mrse_model.data.table import Table
from mrse_model.errors import InputError
from mrse_model.evaluation.bm25 import BM25
from mrse_model.evaluation.checkpoint import measure, trained_on
from mrse_model.evaluation.queries import judged_queries, with_wording_slices
from mrse_model.studies.runner import about
from mrse_model.training.claim import Inputs
from mrse_model.training.pipeline import train


def measure_title(data: Data, inputs: Inputs, run: Path, config: Config, seconds: float) -> list[Bar]:
    """Trains MRSE, or reads its finished run, measures and prints for one title column; returns its bars."""
    model, title = train(inputs, run, config, Console(stderr=True)), inputs.title
    catalogue = read_catalogue(data.items, title=title)
    examples = run / "cache" / "examples"
    features = np.load(run / "cache" / "features.npy", mmap_mode="r") if model.config.model.image_dims else None
    queries = judged_queries(f"{data.judged.stem}, {title}", read_judgments(data.judged, catalogue, unknown="skip"))
    for by, known in trained_on(examples, queries).items():
        print(f"warning: {known:,} of these {len(queries):,} queries were trained on with their {by}")
    if data.wording and title == "title":  # what that file says is of these titles
        queries = with_wording_slices(queries, data.wording)
    others = baselines(run, catalogue, features, seconds, two_tower_seconds=cpu_seconds(model))
    baseline = TWO_TOWER if data.learn else BM25.name
    found = measure(model, catalogue, features, examples, queries, others, baseline, folder=run / "evaluation")
    print(found.report.markdown(), flush=True)
    print(found.mix.line())
    print("unjudged among the top 10: " + ", ".join(f"{r.name} {r.unjudged_at_10:.0%}" for r in found.report.results))
    fashion = "title_without_colour" in Table(data.items).schema.names
    out = report_bars(found.report, title, absolute=fashion, learnt_from_judgments=data.learn is not None)
    if found.personal is not None:
        print(found.personal.markdown())
    if data.searches is not None:
        out += history_bars(found.personal, title)
    if fashion:
        base = result_affecting(config) == result_affecting(preset("base"))
        out.append(training_bar(model, title, base, features_given=inputs.features is not None))
    return out


def speed_bar(data: Path, folder: Path, clock: str | None) -> Bar:
    """Pairs a second against sentence-transformers, as training_speed.py measures; clock: None to leave it out."""
    if clock is None:
        return training_speed.bar(None, "run with --speed")
    if not training_speed.installed():
        return training_speed.bar(None, f"needs: {training_speed.NEEDS}")
    return training_speed.bar(training_speed.compare(data, folder, clock=clock))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of Parquet files; default: the generated sample")
    parser.add_argument("--titles", nargs="+", help="columns to read as the title; default: those with a bar")
    parser.add_argument("--features", type=Path, help="image features (mrse features); default: extracted in the run")
    parser.add_argument("--feature-column", default=Inputs.feature_column, help="column of the vectors in --features")
    parser.add_argument("--runs", type=Path, help="where the runs are, RUNS/TITLE; default: a temporary folder")
    parser.add_argument("--preset", help="base or tiny; default: base, and tiny for the sample")
    parser.add_argument("--settings", type=Path, help="TOML file of model, loss and train settings")
    parser.add_argument("--seconds", type=float, default=240, help="CPU seconds of training for text-only baselines")
    parser.add_argument("--studies", type=Path, help="folder of the studies' folders: STUDIES/ablation, loss, beta")
    parser.add_argument(
        "--speed", nargs="?", const="wall", choices=training_speed.CLOCKS,
        help="also measure the training's speed, by this clock (cpu: on a machine that others use)",
    )  # fmt: skip
    parser.add_argument("--bars", action="store_true")
    args = parser.parse_args(arguments)
    config = preset(args.preset or ("base" if args.data else "tiny"))
    if args.settings:
        config = read_config(args.settings, config)
    try:
        with tempfile.TemporaryDirectory() as name:
            folder = args.data or sample_data(Path(name) / "sample")
            data = Data.find(folder)
            if data.learn is None and (args.studies or args.speed):
                problem = "there are no judgments to learn from, and the studies and the speed are of such data"
                raise InputError(problem, file=folder, fix="Leave --studies and --speed out")
            columns = Table(data.items).schema.names
            titles = args.titles or [title for title in FASHION if title in columns]
            runs = args.runs or Path(name) / "runs"
            bars: list[Bar] = []
            for title in titles:
                inputs = Inputs(
                    items=data.items, searches=data.searches, judgments=data.learn, features=args.features,
                    feature_column=args.feature_column, title=title,
                )  # fmt: skip
                bars += measure_title(data, inputs, runs / title, config, args.seconds)
            if data.learn is not None:
                about_data = {about(data.items, title) for title in titles}
                bars += [*study_bars(args.studies, about_data), speed_bar(folder, Path(name), args.speed)]
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    return verdict(bars) if args.bars else 0


if __name__ == "__main__":
    sys.exit(main())
