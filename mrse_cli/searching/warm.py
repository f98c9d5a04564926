"""`mrse warm`: query vectors computed ahead, and how many searches they would have served."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from mrse_cli.config import Config
from mrse_cli.console import console
from mrse_cli.endpoint import Package


def warm(
    searches: Annotated[Path, typer.Argument(help="Search log: a searches file.")],
    out: Annotated[Path, typer.Option(help="The file to write.")] = Path("queries.arrow"),
    app: Package = Path("vespa_app"),
    last: Annotated[int | None, typer.Option(min=1, help="The last N searches.")] = None,
    days: Annotated[float | None, typer.Option(help="The searches of the last N days.")] = None,
    minimum: Annotated[int, typer.Option(min=1, help="Keep queries with at least this many searches.")] = 1,
    config: Config = None,
) -> None:
    """Compute the vectors of frequent queries into a file that servers share.

    Without --last or --days: all of the log. The table is measured on the log's last tenth.

    Example: mrse warm searches.parquet --last 100000 --out queries.arrow
    """
    from mrse_model.serving.exported_model import ExportedModel
    from retrieval.warm import curve, read_log, window
    from retrieval.warm import warm as write

    console_ = console()
    log = read_log(searches)
    chosen = window(log, last=last, days=days)
    if chosen.warning:
        console_.print(f"warning: {chosen.warning}", style="yellow")
    n = write(ExportedModel.load(app / "models"), log, chosen.start, out, minimum=minimum)
    console_.print(f"{n:,} query vectors of {chosen.searches:,} searches in {out}")
    points = curve(log)
    if not points:
        return
    table = Table("days of history", "queries kept", "hit rate", box=None, title="on the log's last tenth")
    for point in points:
        table.add_row(f"{point.days:g}", f"{point.size:,}", f"{point.hit_rate:.3f}")
    console_.print(table, soft_wrap=False)
