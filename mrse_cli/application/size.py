"""`mrse size`: memory, nodes and what the bill hangs on, from Vespa's published figures."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from mrse_cli.config import Config
from mrse_model.errors import InputError
from vespa_package.attributes import filter_bytes as of_schema
from vespa_package.schema import read_schemas
from vespa_package.sizing import Catalogue, Row
from vespa_package.sizing import size as compute


def parse_count(text: str) -> int:
    """'100M' → 100000000; K, M and B for a thousand, a million and a billion. Raises InputError.

    >>> parse_count("2.5M")
    2500000
    """
    match = re.fullmatch(r"([\d_,]*\.?\d+)\s*([kmb]?)", text.strip().lower())
    if not match:
        raise InputError(f"{text!r} is not a number of items", field="--items", fix="Write 250000, 2.5M or 1B")
    number = float(match[1].replace(",", "").replace("_", ""))
    return round(number * {"": 1, "k": 1e3, "m": 1e6, "b": 1e9}[match[2]])


def size(
    items: Annotated[str, typer.Option(help="Items in the catalogue: 250000, 100M, 1B.")] = "1M",
    dims: Annotated[int, typer.Option(help="Dimensions of a vector.")] = 128,
    cell: Annotated[
        str, typer.Option(help="Cells in the graph: float, bfloat16, int8 (variant int8) or bits (compact).")
    ] = "bfloat16",
    vector_fields: Annotated[int, typer.Option(help="Indexed vectors an item; 1 without images.")] = 2,
    max_links: Annotated[int, typer.Option(help="max-links-per-node of the graphs.")] = 16,
    copies: Annotated[int, typer.Option(help="Copies of every item (redundancy).")] = 2,
    app: Annotated[Path, typer.Option(help="Application package, for the attributes of its item.sd.")] = Path(
        "vespa_app"
    ),
    filter_bytes: Annotated[
        float | None, typer.Option(help="Bytes an item of filter attributes; default: from item.sd.")
    ] = None,
    text_bytes: Annotated[int, typer.Option(help="Bytes an item of text.")] = 500,
    node_memory_gb: Annotated[float, typer.Option(help="Memory of a content node, GB.")] = 64,
    node_vcpus: Annotated[int, typer.Option(help="vCPUs of a content node.")] = 16,
    queries_per_second: Annotated[float, typer.Option(help="Queries that must be answered at the peak.")] = 100,
    config: Config = None,
) -> None:
    """Estimate memory, nodes and cost drivers of an index from Vespa's published formulas, each with its source.

    An estimate to start from: measure your own catalogue on one node before you buy many.

    Example: mrse size --items 100M --dims 128 --queries-per-second 500
    """
    found = compute(
        Catalogue(
            items=parse_count(items),
            dims=dims,
            cell=cell,
            vector_fields=vector_fields,
            max_links=max_links,
            copies=copies,
            filter_bytes=filter_bytes if filter_bytes is not None else of_schema(read_schemas(app)["item"]),
            text_bytes=text_bytes,
            node_memory_gb=node_memory_gb,
            node_vcpus=node_vcpus,
            queries_per_second=queries_per_second,
        )
    )
    out = Console()
    sources = list(dict.fromkeys(row.source for row in (*found.memory, *found.totals) if row.source))
    out.print(_table("Memory of one copy", found.memory, sources))
    out.print(_table("In all", found.totals, sources))
    out.print("What the bill hangs on:")
    for driver in found.drivers:
        out.print(f"  · {driver}", highlight=False)
    out.print("Sources:")
    for number, source in enumerate(sources, 1):  # below the tables, which would cut them on a narrow terminal
        out.print(f"  {number}  {source}", highlight=False, soft_wrap=True)


def _table(title: str, rows: tuple[Row, ...], sources: list[str]) -> Table:
    table = Table("", "amount", "how", "source", title=title, title_justify="left")
    for row in rows:
        table.add_row(row.what, _amount(row), row.how, str(sources.index(row.source) + 1) if row.source else "")
    return table


def _amount(row: Row) -> str:
    if row.unit != "B":
        return (
            f"{row.amount:,.1f} {row.unit}" if row.amount < 10 and row.unit == "h" else f"{row.amount:,.0f} {row.unit}"
        )
    return f"{row.amount / 1e9:,.1f} GB"
