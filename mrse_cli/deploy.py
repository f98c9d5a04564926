"""`mrse deploy`: the application package to a config server, a real one or the embedded engine's."""

from __future__ import annotations

import ssl
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer

from mrse_cli.config import Config
from mrse_cli.console import console
from mrse_cli.endpoint import LOCAL_CONFIG_SERVER, ConfigServer
from mrse_cli.package import zip_package
from mrse_model.errors import InputError
from mrse_model.serving.manifest import Manifest
from vespa_package.variants import build_variant

TENANT = "/application/v2/tenant/default"
CONVERGE = f"{TENANT}/application/default/environment/prod/region/default/instance/default/serviceconverge"


def deploy(
    app: Annotated[Path, typer.Argument(help="Application package folder.")] = Path("vespa_app"),
    config_server: ConfigServer = LOCAL_CONFIG_SERVER,
    variant: Annotated[str | None, typer.Option(help="Deploy this variant of the package, such as cluster.")] = None,
    variants: Annotated[Path, typer.Option(help="Folder of the variants.")] = Path("variants"),
    wait: Annotated[float, typer.Option(help="Seconds to wait until all services run the new generation.")] = 120,
    cert: Annotated[Path | None, typer.Option(help="PEM file: client certificate for mutual TLS.")] = None,
    key: Annotated[Path | None, typer.Option(help="PEM file: its private key.")] = None,
    ca: Annotated[Path | None, typer.Option(help="PEM file: who signed the server's certificate.")] = None,
    config: Config = None,
) -> None:
    """Deploy the application package and wait until it runs.

    Vespa Cloud takes the same folder by its own client: vespa config set target cloud, then vespa deploy vespa_app.

    Example: mrse deploy vespa_app --config-server http://localhost:19071
    """
    tls = tls_context(cert, key, ca)
    if variant is None:
        deploy_folder(app, config_server, tls, wait)
        return
    with tempfile.TemporaryDirectory() as scratch:
        deploy_folder(build_variant(app, variants, variant, scratch), config_server, tls, wait)


def deploy_folder(app: Path, config_server: str, tls: ssl.SSLContext, wait: float) -> None:
    """Deploys a package folder, prints what the server says to it, and returns when it runs. Raises InputError."""
    out = console()
    manifest = Manifest.load(app / "models")
    body = zip_package(app)
    try:
        url = httpx.URL(config_server.rstrip("/"))
    except httpx.InvalidURL as error:
        raise InputError(
            f"not a URL: {error}", field="--config-server", fix=f"Write it like {LOCAL_CONFIG_SERVER}"
        ) from None
    with httpx.Client(base_url=url, verify=tls, timeout=120) as server:
        begin = time.perf_counter()
        answer = _post(server, body)
        for line in answer.get("log", []):
            out.print(f"{line.get('level', '').lower()}: {line.get('message', '')}")
        session = int(answer["session-id"])
        _converge(server, session, wait)
    out.print(
        f"{app} with model {manifest.model_version} runs as generation {session} "
        f"({len(body) / 1e6:.1f} MB, {time.perf_counter() - begin:.1f} s)"
    )


def tls_context(cert: Path | None, key: Path | None, ca: Path | None) -> ssl.SSLContext:
    """TLS settings from PEM files. Raises InputError for a file that is missing or no certificate with its key."""
    for option, file in (("--cert", cert), ("--key", key), ("--ca", ca)):
        if file is not None and not file.is_file():
            raise InputError("no such file", file=file, field=option)
    try:
        context = ssl.create_default_context(cafile=str(ca) if ca else None)
    except ssl.SSLError as error:
        raise InputError(f"no certificate authority: {error}", file=ca, field="--ca", fix="Give a PEM file") from None
    if cert:
        try:
            context.load_cert_chain(cert, key)
        except ssl.SSLError as error:
            raise InputError(f"no certificate with its key: {error}", file=cert, field="--cert") from None
    return context


def _post(server: httpx.Client, body: bytes) -> dict[str, Any]:
    try:
        response = server.post(
            f"{TENANT}/prepareandactivate", content=body, headers={"Content-Type": "application/zip"}
        )
    except httpx.HTTPError as error:
        raise InputError(
            f"no config server answers at {server.base_url} ({error})",
            fix="Start one (mrse serve-local, or the container vespaengine/vespa), or give --config-server",
        ) from None
    try:
        answer = response.json()
    except ValueError:
        answer = {"message": response.text[:500]}
    if response.status_code != 200 or "session-id" not in answer:
        code = answer.get("error-code", f"status {response.status_code}")
        raise InputError(f"the package is refused ({code}): {answer.get('message', '')}", fix="mrse validate says more")
    return answer


def _converge(server: httpx.Client, session: int, wait: float) -> None:
    """Waits until every service runs this generation; a config server without the call is taken at its word."""
    deadline = time.monotonic() + wait
    state: dict[str, Any] = {}
    while True:
        try:
            response = server.get(CONVERGE)
            if response.status_code == 404:
                return
            state = response.json()
        except (httpx.HTTPError, ValueError):
            state = {}
        if state.get("converged") and int(state.get("currentGeneration", -1)) >= session:
            return
        if time.monotonic() > deadline:
            behind = [s.get("type", "?") for s in state.get("services", []) if s.get("currentGeneration", -1) < session]
            raise InputError(
                f"generation {session} is not running after {wait:.0f} s (waiting for: {', '.join(behind) or 'all'})",
                fix="See Vespa's log (vespa log), or wait longer with --wait",
            )
        time.sleep(0.3)
