"""`mrse similar`: the items most like one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mrse_cli.config import Config
from mrse_cli.console import console
from mrse_cli.endpoint import LOCAL, Authority, Certificate, Endpoint, Key, Package, connect
from mrse_cli.searching.hits import AsJson, Timeout, print_hits, print_json


def similar(
    item: Annotated[str, typer.Argument(help="Id of an item.")],
    app: Package = Path("vespa_app"),
    endpoint: Endpoint = LOCAL,
    filter: Annotated[list[str] | None, typer.Option(help="in_stock=true, price<=50; repeatable.")] = None,
    hits: Annotated[int, typer.Option(min=1, max=400, help="How many hits.")] = 10,
    timeout: Timeout = 10.0,
    json: AsJson = False,
    cert: Certificate = None,
    key: Key = None,
    ca: Authority = None,
    config: Config = None,
) -> None:
    """Find the items whose vectors are nearest to an item's.

    Example: mrse similar i17 --filter in_stock=true
    """
    from mrse_model.serving.exported_model import ExportedModel
    from retrieval import Filter, Searcher

    model = ExportedModel.load(app / "models")
    with Searcher(connect(endpoint, cert, key, ca), model=model, deadline=timeout) as searcher:
        found = searcher.similar(item, filters=[Filter.parse(f) for f in filter or []], hits=hits)
    out = console()
    if json:
        print_json(out, found)
    else:
        print_hits(out, found)
