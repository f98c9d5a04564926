"""`mrse study NAME`: one of the paper's experiments, or of its open questions, on your data."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.markdown import Markdown
from rich.table import Table

from mrse_cli.config import Config, Preset
from mrse_cli.console import console, resumable
from mrse_model.images import DEFAULT_ENCODER


def study(
    name: Annotated[str, typer.Argument(help="Name of the study, or `list` to see them all.")],
    items: Annotated[Path | None, typer.Option(help="Parquet file of items; Default: the generated sample.")] = None,
    searches: Annotated[Path | None, typer.Option(help="Parquet file of searches.")] = None,
    judgments: Annotated[Path | None, typer.Option(help="Judgments to train on.")] = None,
    validation_judgments: Annotated[Path | None, typer.Option(help="Judgments of other queries to measure on.")] = None,
    features: Annotated[Path | None, typer.Option(help="Parquet file of image features (mrse features).")] = None,
    feature_column: Annotated[str, typer.Option(help="Column of the vectors in --features.")] = "feature",
    encoder: Annotated[str, typer.Option(help="Image encoder, used without --features.")] = DEFAULT_ENCODER,
    title: Annotated[str, typer.Option(help="Column of the items file that holds the title.")] = "title",
    preset: Annotated[Preset | None, typer.Option(help="Model sizes. Default: base, or tiny for the sample.")] = None,
    settings: Annotated[Path | None, typer.Option(help="TOML file of settings that all variants share.")] = None,
    seeds: Annotated[
        int, typer.Option(min=1, help="Trainings per row, each with its own seed; a row is their mean.")
    ] = 1,
    threads: Annotated[int, typer.Option(min=0, help="Threads; 0 means all cores.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Folder of the study. Default: studies/NAME.")] = None,
    stage_cache: Annotated[
        Path | None, typer.Option(help="Folder of studies whose finished stages are reused; default: that of --out.")
    ] = None,
    config: Config = None,
) -> None:
    """Run a study: train its variants, measure them, and write a table, a plot and a log entry. Run again to resume.

    Example: mrse study beta --out studies/beta
    """
    out_console = console()
    if name == "list":
        out_console.print(_listed())
        return
    from mrse_model.config import choose
    from mrse_model.studies.inputs import given_data
    from mrse_model.studies.registry import find_study
    from mrse_model.studies.runner import run_study

    chosen, folder = find_study(name), out or Path("studies") / name
    data = given_data(
        folder.parent / "sample",
        items,
        validation_judgments,
        searches,
        judgments,
        features,
        title=title,
        feature_column=feature_column,
        encoder=encoder,
    )
    common = choose(preset or ("tiny" if items is None else "base"), settings, threads)
    command = shlex.join(["mrse", *sys.argv[1:]])
    with resumable(out_console):
        results = run_study(
            chosen, data, folder, common, stage_cache=stage_cache, seeds=seeds, command=command, console=out_console
        )
    out_console.print(Markdown(results.table()))
    for remark in results.remarks:
        out_console.print(remark)


def _listed() -> Table:
    from mrse_model.studies.registry import STUDIES

    table = Table("study", "question", "source", "variants")
    for one in STUDIES.values():
        table.add_row(one.name, one.question, one.source, str(len(one.variants)))
    return table
