"""`mrse sample`: generate a catalogue with images, searches and judgments."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mrse_cli.config import Config
from mrse_cli.console import console


def sample(
    folder: Annotated[Path, typer.Argument(help="Where to write the Parquet files.")] = Path("data/sample"),
    items: Annotated[int, typer.Option(min=1, help="How many items.")] = 2400,
    seed: Annotated[int, typer.Option(help="The same seed gives the same files.")] = 7,
    config: Config = None,
) -> None:
    """Write a sample catalogue: items with drawn images, searches by users with planted preferences, and judgments.

    Example: mrse sample data/sample --items 2400
    """
    from mrse_model.sample.catalogue import write_sample

    written = write_sample(folder, items=items, seed=seed)
    for file in (written.items, written.searches, written.judgments, written.judgments_val):
        console().print(str(file))
