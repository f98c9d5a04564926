"""`mrse served`: the log of `mrse serve` as a search log, and what was searched in vain."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mrse_cli.config import Config
from mrse_cli.console import console


def served(
    folder: Annotated[Path, typer.Argument(help="The folder of `mrse serve --log`.")],
    out: Annotated[Path, typer.Option(help="The searches file to write.")] = Path("searches.parquet"),
    top: Annotated[int, typer.Option(min=0, help="How many queries without a result to print.")] = 10,
    config: Config = None,
) -> None:
    """Write what was served and clicked as a search log, for mrse train --searches.

    Example: mrse served served/ --out searches.parquet
    """
    from retrieval.service.served import to_parquet, without_results

    say = console().print
    say(f"{to_parquet(folder, out):,} searches in {out}")
    for query, n in without_results(folder, top):
        say(f"found nothing, {n} times: {query}")
