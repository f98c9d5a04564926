"""`mrse encode`: the vectors of a catalogue, as Parquet shards that `mrse feed items --vectors` takes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from mrse_cli.config import Config
from mrse_cli.console import console, resumable
from mrse_cli.endpoint import Package
from mrse_cli.feeding.feed import FeatureColumn, Features, Judgments, Searches, Title
from mrse_model.progress import progress_bar


def encode(
    items: Annotated[list[Path], typer.Argument(help="Parquet: an items file, several, or a folder of part files.")],
    out: Annotated[Path, typer.Option(help="Folder for the shards.")],
    app: Package = Path("vespa_app"),
    features: Features = None,
    feature_column: FeatureColumn = "feature",
    searches: Searches = None,
    judgments: Judgments = None,
    title: Title = "title",
    processes: Annotated[int, typer.Option(min=1, help="Processes, or workers of Ray.")] = os.cpu_count() or 1,
    ray: Annotated[
        str | None, typer.Option(help="Encode on a Ray cluster: its address, or `local` to start one here.")
    ] = None,
    config: Config = None,
) -> None:
    """Encode a catalogue on many cores: a shard of vectors for each row group. Run it again to make missing shards.

    Example: mrse encode items/ --out vectors/ --features features.parquet
    """
    from feeders.shards.catalogue import encode_catalogue

    lines = console()
    with resumable(lines), progress_bar(lines) as bar:
        task = bar.add_task("encoding", total=None)
        done = encode_catalogue(
            items,
            app / "models",
            out,
            features=features,
            feature_column=feature_column,
            searches=searches,
            judgments=judgments,
            title=title,
            processes=processes,
            ray=ray,
            progress=lambda rows, of: bar.update(task, completed=rows, total=of),
            warn=lines.print,
        )
    lines.print(f"{done.items:,} items in {done.shards} shards in {out}, {done.made} of them new")
