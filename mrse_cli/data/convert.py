"""`mrse convert`: search logs and judgments as other tools write them, to the Parquet files that MRSE reads."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mrse_cli.config import Config
from mrse_cli.console import console
from mrse_model.errors import InputError

if TYPE_CHECKING:
    from mrse_model.data.convert import Converted

group = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Convert clicks, event logs, UBI exports or judgments to the files that MRSE reads (docs/your-data.md).",
)

Columns = Annotated[
    list[str] | None, typer.Option("--column", help="A column of another name: query=search_term; repeatable.")
]
SearchesOut = Annotated[Path, typer.Option("--out", "-o", help="The searches file to write.")]


@group.command("clicks")
def convert_clicks_command(
    file: Annotated[Path, typer.Argument(help="Parquet: query, item_id; optional user_id, timestamp, count.")],
    out: SearchesOut = Path("searches.parquet"),
    column: Columns = None,
    config: Config = None,
) -> None:
    """Convert clicks alone, one per row or with a count.

    Example: mrse convert clicks clicks.parquet --column query=search_term --out searches.parquet
    """
    from mrse_model.data.convert import convert_clicks

    _report(convert_clicks(file, out, columns=_columns(column)), out)


@group.command("events")
def convert_events_command(
    file: Annotated[
        Path, typer.Argument(help="Parquet: user_id, timestamp, event, query, item_id; optional search_id, position.")
    ],
    out: SearchesOut = Path("searches.parquet"),
    column: Columns = None,
    config: Config = None,
) -> None:
    """Convert a flat log of events: impressions, clicks, carts and orders.

    Without search_id, events of one user for one query without a pause of 30 minutes are one search.

    Example: mrse convert events events.parquet --column event=action --out searches.parquet
    """
    from mrse_model.data.convert import convert_events

    _report(convert_events(file, out, columns=_columns(column)), out)


@group.command("ubi")
def convert_ubi_command(
    queries: Annotated[Path, typer.Argument(help="Parquet: an export of ubi_queries.")],
    events: Annotated[Path, typer.Argument(help="Parquet: an export of ubi_events.")],
    out: SearchesOut = Path("searches.parquet"),
    config: Config = None,
) -> None:
    """Convert OpenSearch's User Behavior Insights.

    Example: mrse convert ubi ubi_queries.parquet ubi_events.parquet --out searches.parquet
    """
    from mrse_model.data.convert import convert_ubi

    _report(convert_ubi(queries, events, out), out)


@group.command("judgments")
def convert_judgments_command(
    file: Annotated[Path, typer.Argument(help="Parquet: query, item_id, grade.")],
    scale: Annotated[
        str, typer.Option(help="grades (integers from 0 on), esci (letters), or LOW-HIGH: 1-3, 1-4, 1-5, 0-1, 0-100.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="The judgments file to write.")] = Path("judgments.parquet"),
    column: Columns = None,
    config: Config = None,
) -> None:
    """Convert relevance judgments on another scale, also averages; grade 2 and more will count as relevant.

    Example: mrse convert judgments labels.parquet --scale 1-5 --column grade=stars --out judgments.parquet
    """
    from mrse_model.data.convert_judgments import convert_judgments

    done = convert_judgments(file, out, scale=scale, columns=_columns(column))
    grades = ", ".join(f"{count:,} × {grade}" for grade, count in done.grades.items())
    console().print(f"{out}: {done.rows:,} judgments ({grades})")


def _columns(given: list[str] | None) -> dict[str, str]:
    columns: dict[str, str] = {}
    for text in given or []:
        ours, equals, theirs = text.partition("=")
        if not (equals and ours and theirs):
            raise InputError(f"not a column: {text!r}", field="--column", fix="Write it like query=search_term")
        columns[ours.strip()] = theirs.strip()
    return columns


def _report(done: Converted, out: Path) -> None:
    for notice in done.notices:
        console().print(notice)
    console().print(f"{out}: {done.searches:,} searches, {done.events:,} clicks, carts and orders")
    for reason, count in done.dropped.items():
        console().print(f"left out: {count:,} × {reason}")
