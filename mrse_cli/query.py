"""`mrse query`: one query, its hits as a table; or the vectors of a week's queries computed ahead."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, cast

import typer
from rich.table import Table

from mrse_cli.config import Config
from mrse_cli.console import console
from mrse_cli.endpoint import LOCAL, Authority, Certificate, Endpoint, Key, Package, connect
from mrse_model.errors import InputError


def query(
    text: Annotated[str, typer.Argument(help="What a user would type.")] = "",
    app: Package = Path("vespa_app"),
    endpoint: Endpoint = LOCAL,
    profile: Annotated[
        str,
        typer.Option(help="ann, exact, bm25, hybrid, hybrid_linear, personal, three_queues or query_tower."),
    ] = "ann",
    user: Annotated[str | None, typer.Option(help="A shopper in Vespa: the last events are the history.")] = None,
    clicked: Annotated[list[str] | None, typer.Option(help="An item clicked just now; may be repeated.")] = None,
    filter: Annotated[
        list[str] | None, typer.Option(help="colour=red|blue, price<=50, category!=Shoes; may be repeated.")
    ] = None,
    hits: Annotated[int, typer.Option(min=1, max=400, help="How many hits.")] = 10,
    target_hits: Annotated[int, typer.Option(min=1, help="Candidates of each nearest-neighbour search.")] = 200,
    embed: Annotated[
        str, typer.Option(help="vespa: embed(text, @query) in the container. here: the exported model of --app.")
    ] = "vespa",
    precomputed: Annotated[Path | None, typer.Option(help="Query vectors computed ahead, for --embed here.")] = None,
    precompute: Annotated[
        Path | None,
        typer.Option(help="No query: compute last week's queries of --searches into this file."),
    ] = None,
    searches: Annotated[Path | None, typer.Option(help="Search log for --precompute.")] = None,
    cert: Certificate = None,
    key: Key = None,
    ca: Authority = None,
    config: Config = None,
) -> None:
    """Search, and print the hits as a table.

    A user (--user or --clicked) needs the exported model here, for the history.

    Example: mrse query "red dress" --profile three_queues --user u17 --filter "price<=50"
    """
    from mrse_model.serving.exported_model import ExportedModel
    from retrieval.behaviour import Event
    from retrieval.embed_producer import EmbedProducer
    from retrieval.embed_producer import precompute as compute
    from retrieval.filters import Filter
    from retrieval.searcher import Profile, Searcher

    out = console()
    if embed not in ("vespa", "here"):
        raise InputError(f"no way to embed: {embed!r}", field="--embed", fix="Take vespa or here")
    if precompute is not None:
        if searches is None:
            raise InputError("--precompute needs a search log", field="--searches", fix="Give --searches FILE")
        n = compute(ExportedModel.load(app / "models"), searches, precompute)
        out.print(f"{n} query vectors in {precompute}")
        return
    local = embed == "here" or user is not None or bool(clicked)
    producer = EmbedProducer(ExportedModel.load(app / "models"), precomputed=precomputed) if local else None
    searcher = Searcher(connect(endpoint, cert, key, ca), producer=producer)
    try:
        result = searcher.search(
            text,
            user=user,
            clicks=[Event(item, "click", 0.0) for item in clicked] if clicked else None,
            filters=[Filter.parse(f) for f in filter or []],
            hits=hits,
            profile=cast(Profile, profile),
            target_hits=target_hits,
        )
    finally:
        searcher.close()
    table = Table("item", "title", "category", "score", box=None)
    for hit in result.hits:
        table.add_row(hit.item_id, hit.title, " › ".join(hit.category), f"{hit.score:.4f}")
    out.print(table, soft_wrap=False)
    history = f", {result.clicks} clicked items" if local and (user or clicked) else ""
    out.print(f"{len(result.hits)} of {result.total} matches, {profile}, {result.seconds * 1000:.1f} ms{history}")
