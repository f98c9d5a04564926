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
    from feeders.item_queries import item_queries_for, write_item_queries
    from feeders.shards.encode import Job, encode_groups, groups_of
    from mrse_model.data.contract import ItemsFile
    from mrse_model.serving.exported_model import ExportedModel

    lines = console()
    file = ItemsFile(items, title=title)
    manifest = ExportedModel.load(app / "models").manifest
    queries = item_queries_for(manifest, searches, judgments, warn=lines.print)
    groups, path = groups_of(file, out), None
    if queries is not None:
        out.mkdir(parents=True, exist_ok=True)
        path = write_item_queries(queries, file, out / "item_queries.json")
    job = Job(app / "models", title, features, feature_column, path)
    with resumable(lines), progress_bar(lines) as bar:
        task = bar.add_task("encoding", total=file.rows)
        if ray is None:
            made = encode_groups(groups, job, processes=processes, progress=lambda rows: bar.advance(task, rows))
        else:
            from feeders.shards.ray_job import encode_with_ray

            address = None if ray == "local" else ray
            made = encode_with_ray(groups, job, workers=processes, address=address,
                                   progress=lambda rows: bar.advance(task, rows))  # fmt: skip
    lines.print(f"{file.rows:,} items in {len(groups)} shards in {out}, {made} of them new")
