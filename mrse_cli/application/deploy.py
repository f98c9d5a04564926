"""`mrse deploy`: the application package to a config server, a real one or the embedded engine's."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mrse_cli.config import Config
from mrse_cli.console import console
from mrse_cli.endpoint import LOCAL_CONFIG_SERVER, ConfigServer


def deploy(
    app: Annotated[Path, typer.Argument(help="Application package folder.")] = Path("vespa_app"),
    config_server: ConfigServer = LOCAL_CONFIG_SERVER,
    variant: Annotated[str | None, typer.Option(help="Deploy this variant of the package, such as cluster.")] = None,
    variants: Annotated[Path, typer.Option(help="Folder of the variants.")] = Path("variants"),
    out: Annotated[
        Path | None, typer.Option(help="Where the variant's package is built. Default: build/VARIANT.")
    ] = None,
    build_only: Annotated[bool, typer.Option("--build-only", help="Build the variant's package, and stop.")] = False,
    wait: Annotated[float, typer.Option(min=0, help="Seconds to wait until all services run it.")] = 300,
    cert: Annotated[Path | None, typer.Option(help="PEM file: client certificate for mutual TLS.")] = None,
    key: Annotated[Path | None, typer.Option(help="PEM file: its private key.")] = None,
    ca: Annotated[Path | None, typer.Option(help="PEM file: the CA that signed the server's certificate.")] = None,
    config: Config = None,
) -> None:
    """Deploy the application package and wait until it runs.

    A variant is built into a folder, which later commands take: mrse feed --app build/int8. Vespa Cloud takes a folder
    by its own client: vespa config set target cloud, then vespa deploy build/cloud.

    Example: mrse deploy vespa_app --config-server http://localhost:19071
    """
    from vespa_package.deploy import deploy_package, tls_context
    from vespa_package.variants import build_variant

    screen = console()
    tls = tls_context(cert, key, ca)
    if variant is not None:
        app = build_variant(app, variants, variant, out or Path("build") / variant)
        screen.print(f"built the variant {variant} in {app}: give later commands --app {app}")
    if build_only:
        return
    done = deploy_package(app, config_server, tls=tls, wait=wait, say=screen.print)
    screen.print(
        f"{app} with model {done.model_version} runs as generation {done.generation} "
        f"({done.size / 1e6:.1f} MB, {done.seconds:.1f} s)"
    )
