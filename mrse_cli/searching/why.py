"""`mrse why`: why an item is not found for a query, or found where it is."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mrse_cli.config import Config
from mrse_cli.console import console
from mrse_cli.endpoint import LOCAL, Authority, Certificate, Endpoint, Key, Package, connect


def why(
    query: Annotated[str, typer.Argument(help="Text of the query.")],
    item: Annotated[str, typer.Argument(help="Id of the item that should be found.")],
    app: Package = Path("vespa_app"),
    endpoint: Endpoint = LOCAL,
    profile: Annotated[
        str | None,
        typer.Option(help="Rank profile of the search in question. Default: the one that the model recommends."),
    ] = None,
    user: Annotated[str | None, typer.Option(help="User whose history counts.")] = None,
    filter: Annotated[list[str] | None, typer.Option(help="Filter of the search in question; repeatable.")] = None,
    hits: Annotated[int, typer.Option(min=1, max=400, help="Hits per page.")] = 10,
    target_hits: Annotated[int, typer.Option(min=1, help="Candidates from each nearest-neighbour search.")] = 200,
    timeout: Annotated[float, typer.Option(min=0.01, max=600, help="Seconds until a search gives up.")] = 10.0,
    cert: Certificate = None,
    key: Key = None,
    ca: Authority = None,
    config: Config = None,
) -> None:
    """Say why an item is not found: is it in the index, of the same model, let through by each filter, found by words,
    by vectors, and at which rank.

    Example: mrse why "red dress" i17 --filter "price<=50"
    """
    from mrse_model.serving.exported_model import ExportedModel
    from retrieval import Filter, RankProfile, Searcher
    from retrieval.profiles import TABLE
    from retrieval.why import why as ask

    model = ExportedModel.load(app / "models")
    with Searcher(connect(endpoint, cert, key, ca), model=model, deadline=timeout) as searcher:
        checks = ask(
            searcher, query, item, profile=profile if profile is None or profile in TABLE else RankProfile(profile),
            filters=[Filter.parse(f) for f in filter or []], user=user, hits=hits, target_hits=target_hits,
            timeout=timeout,
        )  # fmt: skip
    out = console()
    for check in checks:
        out.print(str(check), style=None if check.ok else "yellow")
