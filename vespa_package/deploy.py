"""Deploys an application package to a config server, real or the embedded engine's: zip, send, wait until it runs."""

from __future__ import annotations

import fnmatch
import io
import ssl
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from mrse_model.errors import InputError
from mrse_model.serving.manifest import Manifest
from vespa_package.bundled import require_package
from vespa_package.schema import missing_constants, read_schemas

ANSWER_SECONDS = 20  # for the first, small question to a config server
TENANT = "/application/v2/tenant/default"
CONVERGE = f"{TENANT}/application/default/environment/prod/region/default/instance/default/serviceconverge"
EXAMPLE = "http://localhost:19071"
WAIT = 300.0  # seconds; a fresh node starts its services for the first time, which takes minutes on a slow machine
PATIENCE = 15.0  # seconds after which a wait is explained
LOOPBACK = ("localhost", "127.0.0.1", "[::1]")  # never through a proxy


@dataclass(frozen=True)
class Deployment:
    """What runs now. generation: the config server's session. size: bytes sent."""

    generation: int
    model_version: str
    size: int
    seconds: float


def deploy_package(
    app: Path,
    config_server: str,
    *,
    tls: ssl.SSLContext | None = None,
    wait: float = WAIT,
    say: Callable[[str], None] = print,
) -> Deployment:
    """Deploys a package folder and returns when all services run it.

    wait: seconds for the deployment and as many for the services. say: takes what the server says and what is waited
    for, a line each. Raises InputError for a package that is refused, a server that does not answer, or services that
    are not up in time.
    """
    require_package(app)
    manifest = Manifest.load(app / "models")
    for schema in read_schemas(app).values():
        for missing in missing_constants(schema.profiles.values(), app):
            raise missing
    body = zip_package(app)
    try:
        url = httpx.URL(config_server.rstrip("/"))
    except httpx.InvalidURL as error:
        raise InputError(f"not a URL: {error}", field="--config-server", fix=f"Write it like {EXAMPLE}") from None
    if url.scheme not in ("http", "https") or not url.host:
        raise InputError(f"not a URL: {config_server!r}", field="--config-server", fix=f"Write it like {EXAMPLE}")
    direct: dict[str, httpx.BaseTransport | None] = {f"all://{host}": None for host in LOOPBACK}
    timeout = httpx.Timeout(max(wait, 30), connect=10)
    verify: ssl.SSLContext | bool = tls if tls is not None else True
    with httpx.Client(base_url=url, verify=verify, timeout=timeout, mounts=direct) as server:
        begin = time.perf_counter()
        _require_answer(server)
        answer = _send(server, body, wait)
        for line in answer.get("log", []):
            say(f"{line.get('level', '').lower()}: {line.get('message', '')}")
        generation = int(answer["session-id"])
        _converge(server, generation, wait, say)
    return Deployment(generation, manifest.model_version, len(body), time.perf_counter() - begin)


def zip_package(folder: Path) -> bytes:
    """The files of a package, zipped as `vespa deploy` does, in a stable order. Raises InputError when it is no
    application package.
    """
    require_package(folder)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in package_files(folder):
            archive.write(file, file.relative_to(folder).as_posix())
    return out.getvalue()


def package_files(folder: Path) -> Iterator[Path]:
    """The files that are deployed: all but hidden ones and what .vespaignore names. A line of it is a path or a pattern
    of paths; a folder takes all below it.
    """
    ignore = folder / ".vespaignore"
    lines = ignore.read_text("utf-8").splitlines() if ignore.is_file() else []
    patterns = [line.strip().strip("/") for line in lines if line.strip() and not line.startswith("#")]
    for file in sorted(folder.rglob("*")):
        parts = file.relative_to(folder).parts
        hidden = any(part.startswith(".") for part in parts)
        levels = ["/".join(parts[:n]) for n in range(1, len(parts) + 1)]
        ignored = any(fnmatch.fnmatch(level, pattern) for level in levels for pattern in patterns)
        if file.is_file() and not hidden and not ignored:
            yield file


def tls_context(cert: Path | None, key: Path | None, ca: Path | None) -> ssl.SSLContext:
    """TLS settings from PEM files. Raises InputError for a file that is missing or no certificate with its key."""
    for option, file in (("--cert", cert), ("--key", key), ("--ca", ca)):
        if file is not None and not file.is_file():
            raise InputError("no such file", file=file, field=option)
    try:
        context = ssl.create_default_context(cafile=str(ca) if ca else None)
    except ssl.SSLError as error:
        raise InputError(
            f"not a certificate authority: {error}", file=ca, field="--ca", fix="Give a PEM file"
        ) from None
    if cert:
        try:
            context.load_cert_chain(cert, key)
        except ssl.SSLError as error:
            raise InputError(f"no certificate with its key: {error}", file=cert, field="--cert") from None
    return context


def _require_answer(server: httpx.Client) -> None:
    """A server that hangs is seen here, and not after the time that a deployment may take."""
    try:
        server.get("/state/v1/health", timeout=ANSWER_SECONDS)
    except httpx.ReadTimeout:
        problem = f"{server.base_url} takes connections and does not answer ({ANSWER_SECONDS} s)"
        raise InputError(problem, fix="See whether it is Vespa's config server, and its log") from None
    except httpx.HTTPError:
        return  # deploying says what is wrong


def _send(server: httpx.Client, body: bytes, wait: float) -> dict[str, Any]:
    try:
        response = server.post(
            f"{TENANT}/prepareandactivate", content=body, headers={"Content-Type": "application/zip"}
        )
    except httpx.ReadTimeout:
        raise InputError(
            f"{server.base_url} has not deployed the package in {wait:.0f} s, and may still be working on it",
            fix="It continues by itself; run the command again to see, or wait longer with --wait",
        ) from None
    except httpx.HTTPError as error:
        raise InputError(
            f"no config server answers at {server.base_url} ({error})",
            fix="Start one (mrse serve-local, or the container vespaengine/vespa), or give --config-server",
        ) from None
    try:
        answer = response.json()
    except ValueError:
        answer = {"message": response.text[:500]}
    if not isinstance(answer, dict):
        answer = {"message": str(answer)[:500]}
    if response.status_code != 200 or "session-id" not in answer:
        code = answer.get("error-code", f"status {response.status_code}")
        raise InputError(f"the package is refused ({code}): {answer.get('message', '')}", fix="mrse validate says more")
    return answer


def _converge(server: httpx.Client, generation: int, wait: float, say: Callable[[str], None]) -> None:
    """Waits until every service runs this generation; a config server without the call is taken at its word."""
    begin = time.monotonic()
    explained = False
    while True:
        behind = "all"
        try:
            response = server.get(CONVERGE, timeout=10)
            if response.status_code == 404:
                return
            state = response.json()
            if state.get("converged") and int(state.get("currentGeneration", -1)) >= generation:
                return
            slow = [
                s.get("type", "?") for s in state.get("services", []) if s.get("currentGeneration", -1) < generation
            ]
            behind = ", ".join(dict.fromkeys(slow)) or "all"
        except (httpx.HTTPError, ValueError, AttributeError):
            pass  # it restarts, or is not up yet
        waited = time.monotonic() - begin
        if waited > wait:
            raise InputError(
                f"generation {generation} is deployed, but does not run everywhere after {wait:.0f} s (waiting for: "
                f"{behind})",
                fix="It continues by itself: run the command again to see, wait longer with --wait, or read vespa log",
            )
        if waited > PATIENCE and not explained:
            explained = True
            say(f"waiting for {behind}, up to {wait:.0f} s: a node's first deployment takes minutes")
        time.sleep(0.3)
