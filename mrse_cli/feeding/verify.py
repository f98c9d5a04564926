"""`mrse verify`: the index against the items file, document by document."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mrse_cli.config import Config
from mrse_cli.console import console
from mrse_cli.endpoint import LOCAL, Authority, Certificate, Endpoint, Key, Package, connect
from mrse_cli.feeding.feed import (
    Columns,
    Encoder,
    FeatureColumn,
    Features,
    Judgments,
    Language,
    Searches,
    State,
    Title,
    Vectors,
    WithImages,
)


def verify(
    file: Annotated[list[Path], typer.Argument(help="Parquet: the items file, several, or a folder of part files.")],
    app: Package = Path("vespa_app"),
    endpoint: Endpoint = LOCAL,
    features: Features = None,
    feature_column: FeatureColumn = "feature",
    image_encoder: Encoder = None,
    images: WithImages = True,
    searches: Searches = None,
    judgments: Judgments = None,
    columns: Columns = None,
    title: Title = "title",
    language: Language = None,
    vectors: Vectors = None,
    fix: Annotated[bool, typer.Option("--fix", help="Feed what is missing or wrong, remove what is orphaned.")] = False,
    max_removals: Annotated[
        int | None, typer.Option(min=0, help="Most items that --fix may remove. Default: 100, or 5 % of the index.")
    ] = None,
    state: State = None,
    threads: Annotated[int, typer.Option(min=1, help="Threads for the item tower.")] = 2,
    cert: Certificate = None,
    key: Key = None,
    ca: Authority = None,
    config: Config = None,
) -> None:
    """Compare the index with FILE: missing, orphaned and stale items, wrong vectors, other models. Exact counts.

    Give the same files and options as to mrse feed items. Exit code 1: something is wrong (and was not fixed).

    Example: mrse verify items.parquet --features features.parquet --fix
    """
    from feeders.index.journal import journal_file
    from feeders.index.verify import verify as compare
    from feeders.inputs import open_items
    from mrse_model.serving.exported_model import ExportedModel

    out = console()
    source = open_items(
        file,
        app,
        ExportedModel.load(app / "models", threads=threads),
        features=features,
        feature_column=feature_column,
        image_encoder=image_encoder,
        images=images,
        searches=searches,
        judgments=judgments,
        columns=[name.strip() for name in columns.split(",")] if columns is not None else None,
        title=title,
        language=language,
        vectors=vectors,
        check_images=False,
        warn=out.print,
    )
    found = compare(
        connect(endpoint, cert, key, ca), source, state or journal_file(app), fix=fix, max_removals=max_removals
    )
    out.print(f"{found.counts['right']:,} right, {found.wrong:,} wrong")
    for verdict, ids in found.ids.items():
        more = ", …" if found.counts[verdict] > len(ids) else ""
        out.print(f"{found.counts[verdict]:,} {verdict}: {', '.join(ids)}{more}")
    if found.fields:
        fields = ", ".join(f"{name} ({count:,})" for name, count in found.fields.most_common())
        out.print(f"fields that differ: {fields}")
    if found.fixed is not None:
        out.print(f"fixed: {found.fixed.ok} written, {found.fixed.removed} removed, {found.fixed.failed} refused")
    if found.wrong and (found.fixed is None or not found.fixed.complete):
        raise typer.Exit(1)
