"""Starts the service: granian with workers, a port that is free, a log of JSON lines on stderr, a graceful end."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from mrse_model.errors import InputError
from retrieval.service.settings import MULTIPROCESS, Settings

TARGET = "retrieval.service.run:application"
DRAIN = 10  # seconds that requests under way may take once the service ends


def application() -> object:
    """The application of a worker (granian's factory)."""
    from retrieval.service.app import create_app

    configure_log()
    return create_app()


def configure_log() -> None:
    """Lines of JSON as they are, on stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    log = logging.getLogger("mrse.serve")
    log.handlers[:], log.propagate = [handler], False
    log.setLevel(logging.INFO)


def require_free(address: str, port: int) -> None:
    """Raises InputError where something listens already: two services on one port would share its requests."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError as error:
            fix = "Stop what listens there, or give another --port"
            raise InputError(f"{address}:{port} cannot be taken ({error.strerror})", field="--port", fix=fix) from None


def tls_options(settings: Settings) -> dict[str, Any]:
    """Granian's options for TLS, {} for none. Raises InputError for a certificate, key or authority that cannot be
    read, or that do not belong together.
    """
    if settings.tls_cert is None:
        return {}
    cert, key, authority = settings.tls_cert, settings.tls_key or settings.tls_cert, settings.tls_client_ca
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(cert, key)
        if authority:
            context.load_verify_locations(authority)
    except OSError as error:
        named = {cert, key, authority} - {None}
        problem = f"{', '.join(sorted(map(str, named)))}: {error.strerror or error}"
        raise InputError(problem, field="tls_cert", fix="Give PEM files of one certificate") from None
    client = {"ssl_ca": Path(authority), "ssl_client_verify": True} if authority else {}
    return {"ssl_cert": Path(cert), "ssl_key": Path(key), **client}


def start(settings: Settings, log: Path) -> subprocess.Popen[bytes]:
    """A process that serves, once it answers; what it writes goes to `log`. Raises InputError where it does not start.

    It lives on after this one: whoever started it stops it.
    """
    code = "from retrieval.service.run import serve, Settings; serve(Settings.from_environment(), print)"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-c", code], env=os.environ | settings.environment(), stdout=out, stderr=out,
            start_new_session=True,
        )  # fmt: skip
    for _ in range(600):
        with suppress(OSError):
            socket.create_connection((settings.address, settings.port), timeout=5).close()
            return process
        if process.poll() is not None:
            break
        time.sleep(0.1)
    process.kill()
    raise InputError("the service does not start", file=log, fix="Read the file for the reason")


def serve(settings: Settings, started: Callable[[str], None]) -> None:
    """Serves until Ctrl-C or SIGTERM; requests under way are answered first. Raises InputError for what is wrong,
    before the first worker starts.
    """
    from granian import Granian
    from granian.constants import HTTPModes, Interfaces

    require_free(settings.address, settings.port)
    tls = tls_options(settings)
    shared = tempfile.mkdtemp(prefix="mrse-serve-") if settings.workers > 1 else None
    if shared:
        os.environ[MULTIPROCESS] = shared  # before prometheus_client is imported

    from retrieval.service.app import Service

    asyncio.run(Service(settings).close())  # what a worker would fail at is said here, once
    os.environ |= settings.environment()
    server = Granian(
        TARGET,
        address=settings.address,
        port=settings.port,
        interface=Interfaces.ASGI,
        http=HTTPModes.auto,
        workers=settings.workers,
        websockets=False,
        factory=True,
        log_enabled=False,
        backlog=1024,
        respawn_failed_workers=True,
        workers_kill_timeout=DRAIN,
        **tls,
    )
    server.on_startup(lambda: started(f"{'https' if tls else 'http'}://{settings.address}:{settings.port}"))
    try:
        server.serve()
    finally:
        if shared:
            shutil.rmtree(shared, ignore_errors=True)
