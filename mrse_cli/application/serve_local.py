"""`mrse serve-local`: the embedded engine, for laptops, tests and demos."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import typer

from mrse_cli.config import Config
from mrse_model.errors import InputError


def serve_local(
    data: Annotated[
        Path, typer.Option(help="Folder for documents and the deployed package; kept between runs.")
    ] = Path("local_vespa_data"),
    port: Annotated[int, typer.Option(help="Port for queries and documents.")] = 8080,
    deploy_port: Annotated[int, typer.Option(help="Port for deployments.")] = 19071,
    host: Annotated[
        str, typer.Option(help="Address to listen on; any but the default is open to other machines.")
    ] = "127.0.0.1",
    config: Config = None,
) -> None:
    """Run the embedded engine, which speaks Vespa's HTTP API, until Ctrl-C.

    It is meant for one machine and small catalogues; the same package runs on Vespa for everything else.

    Example: mrse serve-local --data /var/tmp/shop
    """
    from local_vespa.server import serve

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        serve(host, port, data, deploy_port)
    except RuntimeError as error:
        raise InputError(str(error)) from error
