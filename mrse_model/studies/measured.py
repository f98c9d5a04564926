"""What was measured on a variant: a value for each query or search, single numbers, curves; and its file."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from mrse_model.atomic_file import atomic_file
from mrse_model.studies.study import CPU_SECONDS

Floats = np.ndarray


@dataclass(frozen=True)
class Values:
    """A measure's values [n]. Values of one group are of the same units in every variant, so they can be paired;
    clusters: what is resampled together (the user of each search), or None.
    """

    group: str
    values: Floats
    clusters: Sequence[str] | None = None


@dataclass(frozen=True)
class Measured:
    """values: measure → Values. numbers: what has no interval. curves: stage → [[step, dev score], …]."""

    values: dict[str, Values]
    numbers: dict[str, float] = field(default_factory=dict)
    curves: dict[str, list[list[float]]] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        """Appears whole or not at all."""
        groups = {v.group: list(v.clusters) if v.clusters is not None else None for v in self.values.values()}
        whole = {
            "groups": groups,
            "values": {name: {"group": v.group, "values": v.values.tolist()} for name, v in self.values.items()},
            "numbers": self.numbers,
            "curves": self.curves,
        }
        with atomic_file(path) as part:
            part.write_text(json.dumps(whole) + "\n", "utf-8")

    @staticmethod
    def load(path: Path) -> Measured:
        """What `save` wrote."""
        raw = json.loads(path.read_text("utf-8"))
        values = {
            name: Values(v["group"], np.array(v["values"]), raw["groups"][v["group"]])
            for name, v in raw["values"].items()
        }
        return Measured(values, raw["numbers"], raw["curves"])


def mean_of(trainings: Sequence[Measured]) -> Measured:
    """What was measured on several trainings of one variant, as one: every value's mean; the first one's curves."""
    first = trainings[0]
    values = {
        name: Values(v.group, np.mean([m.values[name].values for m in trainings], axis=0), v.clusters)
        for name, v in first.values.items()
    }
    numbers = {name: float(np.mean([m.numbers[name] for m in trainings])) for name in first.numbers}
    return Measured(values, numbers, first.curves)


def stage_figures(run: Path, stages: Sequence[str]) -> tuple[dict[str, float], dict]:
    """Of a run: CPU_SECONDS of the stages' steps (a stage keeps them with its weights, so what another run trained, or
    this one before a kill, counts too); of its log.jsonl the last stage's steps and its first step with 99 % of its
    best score; and the dev score by step of each stage.
    """
    lines = (run / "log.jsonl").read_text("utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    curves, numbers = {}, {}
    for stage in stages:
        scores = {r["step"]: r["score"] for r in rows if r["stage"] == stage and "score" in r}
        if scores:
            curves[stage] = [[float(step), score] for step, score in sorted(scores.items())]
            best = max(scores.values())
            numbers = {
                "best dev nDCG@10": best,
                "steps": float(max(scores)),
                "steps to 99 %": float(min(step for step, score in scores.items() if score >= 0.99 * best)),
            }
    states = [run / "state" / f"{stage}.pt" for stage in stages]  # none of a stage that the model does without
    kept = [torch.load(path, weights_only=True, mmap=True) for path in states if path.exists()]
    seconds = sum(state.get("cpu_seconds", math.nan) for state in kept)  # an older version kept none
    return numbers | {CPU_SECONDS: round(seconds, 1)}, curves
