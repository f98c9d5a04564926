"""The bars of quality.py: of a report, of the history, of the training's time, and of the studies' results."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from bars import Bar

from mrse_model.evaluation.checkpoint import MIX
from mrse_model.evaluation.personal import PersonalResult
from mrse_model.evaluation.report import Report
from mrse_model.model import MRSE
from mrse_model.studies.registry import BETAS, STUDIES
from mrse_model.studies.runner import LEARNT_FROM, is_current
from mrse_model.studies.study import slug

NDCG, RECALL = "nDCG@10", "Recall@500"
# Absolute bars hold for the data they were set on: the fashion catalogue, by the column that is read as the title.
FASHION = {"title_without_colour": {NDCG: 0.91, "Recall@100": 0.965}, "title": {NDCG: 0.955}}
PERSONAL_LIFT = 0.10
MINUTES = 45  # of a whole training, preset base
ADDED = ("+ n-grams", "+ image", "+ category", "+ history")  # the rows of the ablation, in Table 2's order
RUN = "run: mrse study {0} … --out FOLDER/{0}, then --studies FOLDER"
TERMS = {"MNSCE alone": "mnsce", "triplet alone": "triplet"}  # the rows of the loss study


def report_bars(report: Report, title: str, absolute: bool, learnt_from_judgments: bool) -> list[Bar]:
    """The bars that a report decides. absolute: the data is the one for which figures were set. What has learnt from
    spans of titles alone is held against BM25.
    """
    mrse = report["MRSE"]
    out = [Bar(f"{title}:{m}", mrse.value(m), t) for m, t in FASHION.get(title, {}).items()] if absolute else []
    if learnt_from_judgments:
        out.append(Bar(f"{title}:over_two_tower_low", mrse.against[NDCG].low, 0, ">"))
        out.append(Bar(f"{title}:hybrid_minus_vectors", report[MIX].value(NDCG) - mrse.value(NDCG), 0))
    else:
        out.append(Bar(f"{title}:hybrid_minus_bm25", report[MIX].value(NDCG) - report["BM25"].value(NDCG), 0))
    return out


def history_bars(personal: PersonalResult | None, title: str) -> list[Bar]:
    """What a user's history adds; personal: None where no search could tell."""
    relative, low = (personal.lift.relative, personal.lift.relative_low) if personal else (None, None)
    why = "no search after the split has a click and a history"
    return [
        Bar(f"{title}:history_lift_recall@20", relative, PERSONAL_LIFT, why=why),
        Bar(f"{title}:history_lift_low", low, 0, ">", why),
    ]


def cpu_seconds(model: MRSE) -> float:
    """CPU time of a training: all its parts but "data", which is the reading, and the images where they are extracted
    in the run.
    """
    spent = model.meta["training"]["cpu_seconds"]
    return sum(seconds for part, seconds in spent.items() if part != "data")


def training_bar(model: MRSE, title: str, base: bool, features_given: bool) -> Bar:
    """CPU minutes of a training with the preset base, feature extraction apart: what it takes on one core, and so the
    most that it takes on two. base: whether it had that preset's settings.
    """
    name = f"{title}:training_minutes"
    if not base:
        return Bar(name, None, MINUTES, "<=", "run with --preset base, without --settings of its own")
    extracted = not features_given and model.config.model.image_dims
    reading = 0.0 if extracted else model.meta["training"]["cpu_seconds"].get("data", 0.0)
    return Bar(name, (cpu_seconds(model) + reading) / 60, MINUTES, "<=")


def study_bars(folder: Path | None, data: Collection[str]) -> list[Bar]:
    """What the studies ablation, loss and beta decide, by FOLDER/NAME/results.json; prints on what each was run.
    Results of other data (`data`: studies.runner.about), of another version or other variants than today's, and of
    queries that were learnt from do not count.

    Each added part and the hybrid loss: the lower end of the paired interval of nDCG@10 and of Recall@500. β: the best
    by Recall@500 is inside the grid; beside it the lower end of the best minus β 0.
    """
    ablation, loss, beta = (_rows(folder, name, data) for name in ("ablation", "loss", "beta"))
    lows: dict[str, float | None] = {}
    for name in ADDED:
        lows[f"ablation:{slug(name)}_low"] = _against(ablation, name, NDCG, "low")
    for name, term in TERMS.items():
        high = _against(loss, name, RECALL, "high")  # of the term minus the hybrid loss
        lows[f"loss:hybrid_minus_{term}_low"] = None if high is None else -high
    nothing: dict[str, Any] = {"name": "", "x": None}
    best = max(beta.values(), key=lambda row: row["measures"][RECALL]["mean"], default=nothing)
    lows["beta:best_minus_0_low"] = 0.0 if best["x"] == 0 else _against(beta, best["name"], RECALL, "low", "β 0")
    return [
        *(Bar(name, low, 0, ">", RUN.format(name.split(":")[0])) for name, low in lows.items()),
        Bar("beta:best_above_first", best["x"], BETAS[0], ">", RUN.format("beta")),
        Bar("beta:best_below_last", best["x"], BETAS[-1], "<", RUN.format("beta")),
    ]


def _rows(folder: Path | None, study: str, data: Collection[str]) -> dict[str, dict[str, Any]]:
    """The rows of a study by name; none where it was not run, not to its end, or on something else."""
    path = folder / study / "results.json" if folder else None
    if path is None or not path.is_file():
        return {}
    results = json.loads(path.read_text("utf-8"))
    why = ""
    if not is_current(STUDIES[study], path.parent):
        why = "another version, or other variants"
    elif results["data"].partition(":")[0] not in data:
        why = "other data"
    elif LEARNT_FROM in results["data"]:
        why = "its queries were learnt from"
    print(f"study {study}: {results['data']}" + (f"; does not count: {why}" if why else ""))
    if why:
        return {}
    unfinished = study == "beta" and results["missing"]  # the best of a part of the grid says nothing
    return {} if unfinished else {row["name"]: row for row in results["rows"]}


def _against(rows: dict[str, dict[str, Any]], name: str, measure: str, end: str, versus: str = "") -> float | None:
    """An end of the interval of a row's difference to the row that it is tested against (`versus`, if that is said)."""
    row = rows.get(name)
    if row is None or measure not in row["against"] or versus not in ("", row["versus"]):
        return None
    return float(row["against"][measure][end])
