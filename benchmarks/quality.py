"""How good MRSE's rankings are, beside BM25, MiniLM, FastText, a Transformer, DSSM-α and a plain two-tower.

Ran against: all of these, over the whole catalogue by exact search, with the same texts, pictures and judgments. It
trains MRSE (or takes up the run in --runs) and, for the same CPU time, the plain two-tower; the text-only baselines get
--seconds. With --bars it ends in lines `bar NAME VALUE TARGET ok|short` and exits with 1 if one is short.

    python benchmarks/quality.py --bars                                   # on the generated sample
    python benchmarks/quality.py --data ../shared/data/fashion --runs runs/fashion --bars

--data holds items.parquet and either judgments_val.parquet with judgments_train.parquet (or judgments.parquet) to learn
from, or judgments.parquet alone: then MRSE learns from pseudo-queries. searches.parquet is used where there is one.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console

from mrse_model.baselines.bm25 import BM25
from mrse_model.baselines.compared import TWO_TOWER, baselines
from mrse_model.config import Config, preset, read_config
from mrse_model.data.contract import read_catalogue, read_judgments
from mrse_model.data.sample import write_sample
from mrse_model.data.table import Table
from mrse_model.errors import InputError
from mrse_model.evaluate import MIX, measure
from mrse_model.evaluation.queries import judged_queries, with_wording_slices
from mrse_model.evaluation.report import Report
from mrse_model.model import META, MRSE
from mrse_model.train import Inputs, train

NDCG = "nDCG@10"
# Absolute bars hold for the data they were set on: the fashion catalogue, by the column that is read as the title.
FASHION = {"title_without_colour": {NDCG: 0.91, "Recall@100": 0.965}, "title": {NDCG: 0.955}}
PERSONAL_LIFT = 0.10


@dataclass(frozen=True)
class Bar:
    """One line of the verdict. strict: the value has to lie above the target."""

    name: str
    value: float
    target: float
    strict: bool = False

    @property
    def ok(self) -> bool:
        return self.value > self.target if self.strict else self.value >= self.target

    def __str__(self) -> str:
        return f"bar {self.name} {self.value:.4f} {self.target:.4f} {'ok' if self.ok else 'short'}"


@dataclass(frozen=True)
class Data:
    """The files of a folder: what is learnt from, and what is measured on."""

    items: Path
    searches: Path | None
    learn: Path | None
    judged: Path
    wording: Path | None

    @classmethod
    def find(cls, folder: Path) -> Data:
        def there(name: str) -> Path | None:
            return folder / name if (folder / name).is_file() else None

        plain, judged = there("judgments.parquet"), there("judgments_val.parquet")
        learn = (there("judgments_train.parquet") or plain) if judged else None
        judged = judged or plain
        if judged is None or there("items.parquet") is None:
            fix = "It needs items.parquet and judgments.parquet or judgments_val.parquet"
            raise InputError("this is no data to measure on", file=folder, fix=fix)
        return cls(folder / "items.parquet", there("searches.parquet"), learn, judged, there("queries_val.parquet"))


def sample_data(folder: Path) -> Path:
    """The generated sample catalogue in `folder`, written if it is not there."""
    if not (folder / "items.parquet").exists():
        write_sample(folder)
    return folder


def trained(data: Data, title: str, features: Path | None, run: Path, config: Config) -> MRSE:
    """MRSE of that run; trained, or trained on, where the run is not finished."""
    if (run / META).is_file():
        return MRSE.from_pretrained(run)
    inputs = Inputs(items=data.items, searches=data.searches, judgments=data.learn, features=features, title=title)
    return train(inputs, run, config, Console(stderr=True))


def cpu_seconds(model: MRSE) -> float:
    """CPU time that the training of a model took, reading the data and making the image features apart."""
    spent = model.meta["training"]["cpu_seconds"]
    return sum(seconds for part, seconds in spent.items() if part != "data")


def measure_title(
    data: Data, title: str, features_file: Path | None, run: Path, config: Config, seconds: float
) -> list[Bar]:
    """Trains, measures and prints for one title column; returns its bars."""
    model = trained(data, title, features_file, run, config)
    catalogue = read_catalogue(data.items, title=title)
    examples = run / "cache" / "examples"
    features = np.load(run / "cache" / "features.npy", mmap_mode="r") if model.config.model.image_dims else None
    queries = judged_queries(f"{data.judged.stem}, {title}", read_judgments(data.judged, catalogue, unknown="skip"))
    if data.wording:
        queries = with_wording_slices(queries, data.wording)
    others = baselines(run, catalogue, features, seconds, two_tower_seconds=cpu_seconds(model))
    baseline = TWO_TOWER if data.learn else BM25.name
    found = measure(model, catalogue, features, examples, queries, others, baseline, folder=run / "evaluation")
    print(found.report.markdown(), flush=True)
    print(f"linear mix: weight of BM25 {found.weight}, chosen on {found.tuned_on}")
    print("unjudged among the top 10: " + ", ".join(f"{r.name} {r.unjudged_at_10:.0%}" for r in found.report.results))
    fashion = "title_without_colour" in Table(data.items).schema.names
    out = bars(found.report, title, absolute=fashion, learnt_from_judgments=data.learn is not None)
    if found.personal is not None:
        print(found.personal.markdown())
        lift = found.personal.lift
        out.append(Bar(f"{title}:history_lift_recall@20", lift.relative, PERSONAL_LIFT))
        out.append(Bar(f"{title}:history_lift_low", lift.relative_low, 0, strict=True))
    return out


def bars(report: Report, title: str, absolute: bool, learnt_from_judgments: bool) -> list[Bar]:
    """The bars that a report decides. absolute: the data is the one for which figures were set. What has learnt from
    pieces of titles alone is held against BM25.
    """
    mrse = report["MRSE"]
    out = [Bar(f"{title}:{m}", mrse.value(m), t) for m, t in FASHION.get(title, {}).items()] if absolute else []
    if learnt_from_judgments:
        out.append(Bar(f"{title}:over_two_tower_low", mrse.against[NDCG].low, 0, strict=True))
        out.append(Bar(f"{title}:hybrid_minus_vectors", report[MIX].value(NDCG) - mrse.value(NDCG), 0))
    else:
        out.append(Bar(f"{title}:hybrid_minus_bm25", report[MIX].value(NDCG) - report["BM25"].value(NDCG), 0))
    return out


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of Parquet files; default: the generated sample")
    parser.add_argument("--titles", nargs="+", help="columns to read as the title; default: those with a bar")
    parser.add_argument("--features", type=Path, help="image features (mrse features); default: extracted in the run")
    parser.add_argument("--runs", type=Path, help="where the runs are, RUNS/TITLE; default: a temporary folder")
    parser.add_argument("--preset", help="base or tiny; default: base, and tiny for the sample")
    parser.add_argument("--settings", type=Path, help="TOML file of model, loss and train settings")
    parser.add_argument("--seconds", type=float, default=240, help="CPU seconds of training for text-only baselines")
    parser.add_argument("--bars", action="store_true")
    args = parser.parse_args(arguments)
    config = preset(args.preset or ("base" if args.data else "tiny"))
    if args.settings:
        config = read_config(args.settings, config)
    try:
        with tempfile.TemporaryDirectory() as name:
            data = Data.find(args.data or sample_data(Path(name) / "sample"))
            columns = Table(data.items).schema.names
            titles = args.titles or [title for title in FASHION if title in columns]
            runs = args.runs or Path(name) / "runs"
            verdict = [
                bar
                for title in titles
                for bar in measure_title(data, title, args.features, runs / title, config, args.seconds)
            ]
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    if not args.bars:
        return 0
    for bar in verdict:
        print(bar)
    return 0 if all(bar.ok for bar in verdict) else 1


if __name__ == "__main__":
    sys.exit(main())
