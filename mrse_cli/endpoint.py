"""The options that name a Vespa endpoint, shared by the commands that talk to one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer
from vespa.application import Vespa

from mrse_model.errors import InputError

LOCAL, LOCAL_CONFIG_SERVER = "http://localhost:8080", "http://localhost:19071"

Endpoint = Annotated[
    str, typer.Option("--endpoint", "-e", envvar="MRSE_ENDPOINT", help="URL of Vespa's container (query and feed).")
]
ConfigServer = Annotated[str, typer.Option(envvar="MRSE_CONFIG_SERVER", help="URL of the config server.")]
QueryEndpoint = Annotated[
    str | None,
    typer.Option(
        envvar="MRSE_QUERY_ENDPOINT",
        help="URL of the container that answers queries, where --endpoint takes documents alone (variants/cluster).",
    ),
]
Certificate = Annotated[
    Path | None,
    typer.Option("--cert", envvar="VESPA_CLI_DATA_PLANE_CERT_FILE", help="PEM file: client certificate for mTLS."),
]
Key = Annotated[
    Path | None, typer.Option("--key", envvar="VESPA_CLI_DATA_PLANE_KEY_FILE", help="PEM file: its private key.")
]
Authority = Annotated[
    Path | None,
    typer.Option(
        "--ca", envvar="VESPA_CLI_DATA_PLANE_CA_CERT_FILE", help="PEM file: the server's certificate authority."
    ),
]
Package = Annotated[Path, typer.Option("--app", help="Application package, with the exported model in models/.")]


def connect(endpoint: str, cert: Path | None = None, key: Path | None = None, ca: Path | None = None) -> Vespa:
    """pyvespa's handle of an endpoint. A token is taken from VESPA_CLI_DATA_PLANE_TOKEN, never from a flag.

    Raises InputError for a URL without a scheme and for certificate files that do not exist.
    """
    if not endpoint.startswith(("http://", "https://")):
        raise InputError(f"not a URL: {endpoint!r}", field="--endpoint", fix=f"Write it like {LOCAL}")
    for option, file in (("--cert", cert), ("--key", key), ("--ca", ca)):
        if file is not None and not file.is_file():
            raise InputError("no such file", file=file, field=option)
    if ca is not None:  # pyvespa has no argument for it; its HTTP library and the Vespa client read these
        os.environ["HTTPR_CA_BUNDLE"] = os.environ["VESPA_CLI_DATA_PLANE_CA_CERT_FILE"] = str(ca.resolve())
    return Vespa(
        endpoint.rstrip("/"),
        cert=str(cert) if cert else None,
        key=str(key) if key else None,
        vespa_cloud_secret_token=os.environ.get("VESPA_CLI_DATA_PLANE_TOKEN"),
    )
