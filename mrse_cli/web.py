"""`mrse web`: a page to search with."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mrse_cli.config import Config
from mrse_cli.console import console
from mrse_cli.endpoint import LOCAL, Authority, Certificate, Endpoint, Key, Package, connect


def web(
    items: Annotated[Path | None, typer.Option(help="Items file whose images are shown.")] = None,
    app: Package = Path("vespa_app"),
    endpoint: Endpoint = LOCAL,
    port: Annotated[int, typer.Option(help="Port of the page, on this machine.")] = 8000,
    cert: Certificate = None,
    key: Key = None,
    ca: Authority = None,
    config: Config = None,
) -> None:
    """Serve a search page for this machine: query, user, profile, and which recall queue found what.

    Example: mrse web --items items.parquet
    """
    from mrse_model.serving.exported_model import ExportedModel
    from retrieval.searcher import Searcher
    from retrieval.web import Site, serve

    searcher = Searcher(connect(endpoint, cert, key, ca), model=ExportedModel.load(app / "models"))
    serve(Site(searcher, items), port, lambda url: console().print(f"search at {url}, Ctrl-C to stop"))
