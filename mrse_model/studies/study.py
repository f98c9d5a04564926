"""What a study is: a question, its variants (frozen, written beside the results as study.toml), what is measured."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mrse_model.config import toml_literal
from mrse_model.images import DEFAULT_ENCODER

CPU_SECONDS = "training CPU seconds"  # a column


@dataclass(frozen=True)
class Data:
    """What a study learns from and is measured on. validation: judgments of queries that are not learnt from.

    The others as in mrse_model.training.pipeline.Inputs.
    """

    items: Path
    validation: Path
    searches: Path | None = None
    judgments: Path | None = None
    features: Path | None = None
    title: str = "title"
    feature_column: str = "feature"
    encoder: str = DEFAULT_ENCODER


@dataclass(frozen=True)
class Variant:
    """One row of the table.

    Args:
        settings: what differs from the study's settings, as in a settings file.
        run: the training that the row is measured on, where rows share one; default: its own.
        queries: the share of the training queries that is learnt from.
        option: given to the study's measure: what differs between rows of one training.
        versus: the row that it is tested against; default: the study's reference.
        x: its position on a plot's axis.
    """

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    run: str = ""
    queries: float = 1.0
    option: str = ""
    versus: str = ""
    x: float | None = None

    @property
    def folder(self) -> str:
        """The name of its training's folder."""
        return slug(self.run or self.name)


@dataclass(frozen=True)
class Study:
    """A question and the variants that answer it.

    Args:
        question: one sentence. source: where the question comes from.
        reference: the variant that the others are tested against unless they say; it is trained first.
        measure, tabulate, plot: names in mrse_model.studies.measure, .tables and .plots.
        columns: what the table shows, in order; the first is what is plotted.
        until: the last stage of training; "" for all.
        needs: what the data must have beyond the items and the validation judgments (mrse_model.studies.inputs.check).
        note: how to read it; in the table and the docs.
    """

    name: str
    question: str
    source: str
    variants: tuple[Variant, ...]
    reference: str
    measure: str
    columns: tuple[str, ...]
    plot: str = "bars"
    tabulate: str = "rows"
    axis: str = ""
    until: str = ""
    needs: tuple[str, ...] = ("judgments",)
    note: str = ""

    def ordered(self) -> list[Variant]:
        """The variants, the reference first, then the other rows of its training."""
        run = {v.name: v.folder for v in self.variants}[self.reference]
        return sorted(self.variants, key=lambda v: (v.name != self.reference, v.folder != run))

    def versus(self, variant: Variant) -> str:
        """The name of the row that this one is tested against; "" for none."""
        other = variant.versus or self.reference
        return other if other != variant.name else ""

    def toml(self, data: Data, fingerprint: str, version: int, seeds: int = 1) -> str:
        """The study as TOML: its fields, the trainings a row, the version of the code that trains and measures, the
        data, a table a variant.
        """
        plain = {k: getattr(self, k) for k in ("name", "question", "source", "reference", "columns", "until", "note")}
        lines = [f"{key} = {toml_literal(value)}" for key, value in plain.items()]
        lines += [
            f"seeds = {seeds}",
            f"version = {version}",
            "",
            "[data]",
            f"fingerprint = {toml_literal(fingerprint)}",
            f"title = {toml_literal(data.title)}",
        ]
        chosen = {key: getattr(data, key) for key in ("feature_column", "encoder")}
        lines += [f"{key} = {toml_literal(value)}" for key, value in chosen.items() if value != getattr(Data, key)]
        for variant in self.variants:
            lines += [
                "",
                "[[variant]]",
                f"name = {toml_literal(variant.name)}",
                f"run = {toml_literal(variant.folder)}",
            ]
            lines += [f"queries = {variant.queries}"] * (variant.queries < 1)
            lines += [f"option = {toml_literal(variant.option)}"] * bool(variant.option)
            lines += [f"{key} = {toml_literal(value)}" for key, value in _dotted("settings", variant.settings)]
        return "\n".join(lines) + "\n"


def slug(name: str) -> str:
    """A name as a file's name.

    >>> slug("+ user behaviour (I2I)")
    'user-behaviour-i2i'
    """
    return re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-")


def _dotted(prefix: str, values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _dotted(f"{prefix}.{key}", value)
        else:
            yield f"{prefix}.{key}", value
