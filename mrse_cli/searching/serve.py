"""`mrse serve`: the search service and its page."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from mrse_cli.config import Config
from mrse_cli.console import console
from mrse_cli.endpoint import LOCAL, Certificate, Key


def serve(
    app: Annotated[
        Path | None,
        typer.Option(help="Application package, with the exported model in models/. Default: vespa_app."),
    ] = None,
    endpoint: Annotated[
        str | None,
        typer.Option("--endpoint", "-e", envvar="MRSE_ENDPOINT", help=f"URL of Vespa's container. Default: {LOCAL}."),
    ] = None,
    settings: Annotated[
        Path | None,
        typer.Option(help="TOML file: keys, token_secret, origins, … (docs/serving.md); flags win over it."),
    ] = None,
    address: Annotated[
        str | None, typer.Option(help="Address to listen on. Default: 127.0.0.1, this machine alone.")
    ] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="Default: 8000.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, max=256, help="Processes. Default: 1.")] = None,
    demo: Annotated[bool, typer.Option("--demo", help="Any user may be searched for, and users are listed.")] = False,
    items: Annotated[Path | None, typer.Option(help="Items file whose images the page shows.")] = None,
    warm: Annotated[
        Path | None, typer.Option(help="Query vectors of `mrse warm`; suggestions come from it too.")
    ] = None,
    log: Annotated[Path | None, typer.Option(help="Folder for what was served and clicked: a search log.")] = None,
    language: Annotated[
        str | None, typer.Option(help="Language of the queries: en, pt-BR. Default: Vespa detects it.")
    ] = None,
    rules: Annotated[
        Path | None, typer.Option(help="TOML file of synonyms, pinned and buried items (docs/serving.md).")
    ] = None,
    compare: Annotated[
        list[str] | None,
        typer.Option(
            help="NAME=ENDPOINT[,APP]: a further model, for model=NAME of a search and side by side on the page. "
            "APP: its package, by default --app. May be repeated."
        ),
    ] = None,
    next_models: Annotated[
        Path | None,
        typer.Option(help="While mrse migrate runs: folder of the new export, searched as model=next."),
    ] = None,
    now: Annotated[
        float | None,
        typer.Option(help="Unix seconds: serve as if this were the time, for a log that ended in the past."),
    ] = None,
    cert: Certificate = None,
    key: Key = None,
    config: Config = None,
) -> None:
    """Serve searches over HTTP: /v1/search and related routes, OpenAPI at /openapi.json, a page at /.

    Example: mrse serve --demo --items items.parquet
    """
    from retrieval.service.run import serve as run
    from retrieval.service.settings import Compared, Settings

    compared = [Compared.parse(text) for text in compare or []]
    if next_models is not None:
        compared.append(Compared("next", next_models=str(next_models)))
    chosen = Settings.read(
        settings,
        endpoint=endpoint,
        app=str(app) if app else None,
        address=address,
        port=port,
        workers=workers,
        demo=demo or None,
        items=str(items) if items else None,
        warm=str(warm) if warm else None,
        log=str(log) if log else None,
        language=language,
        rules=str(rules) if rules else None,
        compare=compared or None,
        now=now,
        cert=str(cert) if cert else None,
        key=str(key) if key else None,
    )
    if chosen.app is None:
        chosen = replace(chosen, app="vespa_app")
    run(chosen, lambda url: console().print(f"search at {url}, Ctrl-C to stop"))
