"""How the commands that search print what was found, a table or JSON, and the options that they share."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

import orjson
import typer
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from retrieval import SearchResult

Timeout = Annotated[float, typer.Option(min=0.01, max=600, help="Seconds until the search gives up.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Shares = Mapping[str, Mapping[str, float]]  # item id → part → what the score loses without it


def print_json(out: Console, found: SearchResult, shares: Shares | None = None) -> None:
    """All of a result; with shares, those beside each hit."""
    result = dataclasses.asdict(found)
    for hit in result["hits"] if shares is not None else ():
        hit["shares"] = (shares or {}).get(hit["item_id"], {})
    out.print(orjson.dumps(result, option=orjson.OPT_INDENT_2).decode())


def print_hits(out: Console, found: SearchResult, shares: Shares | None = None, note: str = "") -> None:
    """A line a hit, then facets, counts, and what could not be done as asked. note: at the end of the counts."""
    columns = ("item", "title", "category", "score", *(("queues",) if any(h.queues for h in found.hits) else ()))
    table = Table(*columns, box=None)
    for hit in found.hits:
        queues = ", ".join(f"{name} {rank}" if rank else name for name, rank in hit.queues.items())
        row = [hit.item_id, hit.title, " › ".join(hit.category), f"{hit.score:.4f}", queues]
        table.add_row(*row[: len(columns)])
    out.print(table, soft_wrap=False)
    if shares:
        _print_shares(out, shares)
    for name, buckets in found.facets.items():
        out.print(f"{name}: " + ", ".join(f"{b.value} {b.count}" for b in buckets))
    out.print(f"{len(found.hits)} of {found.total} matches, {found.profile}, {found.seconds * 1000:.1f} ms{note}")
    for fallback in found.fallbacks:
        out.print(f"without {fallback.step}: {fallback.reason}", style="yellow")
    if not found.coverage.full:
        share = f"{found.coverage.share:.0%} of the documents were searched"
        out.print(f"{share}: {found.coverage.reason}", style="yellow")


def _print_shares(out: Console, shares: Shares) -> None:
    parts = [
        part for part in next(iter(shares.values())) if any(abs(s.get(part, 0)) >= 0.0005 for s in shares.values())
    ]
    table = Table("item", *parts, box=None, title="what each score loses without a part", title_justify="left")
    for item, of_item in shares.items():
        table.add_row(item, *(f"{of_item.get(part, 0):.3f}" for part in parts))
    out.print(table, soft_wrap=False)
