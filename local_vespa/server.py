"""Starts the engine: one process that serves everything on one port, and deployments on a second one if asked."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import ipaddress
import logging
import signal
import socket
import time
from pathlib import Path

from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP2Settings
from granian.server.embed import Server

from .api import deploy as deploy_api
from .api import model_evaluation as model_api
from .api.deploy import DeployApi
from .api.documents import DocumentApi
from .api.search import SearchApi
from .engine import Engine
from .http import Request, Response, RsgiApplication, Workers
from .index import stemming

log = logging.getLogger("local_vespa")
GRACE_SECONDS = 10
M_MMAP_THRESHOLD, M_ARENA_MAX, LARGE_BYTES = -3, -8, 1 << 20  # of malloc.h


class Router:
    """Sends each request to the API that it is for."""

    def __init__(self, engine: Engine, port: int) -> None:
        self.engine, self.workers = engine, Workers()
        self.documents, self.search = DocumentApi(engine), SearchApi(engine)
        self.deployment, self.started = DeployApi(engine, port), time.time()

    async def handle(self, request: Request) -> Response:
        path = request.path
        if path.startswith("/document/v1"):
            return await self.documents.handle(request)
        if path in ("/search", "/search/"):
            return await self.workers.run(self.search.handle, request)
        if path.startswith(model_api.ROOT):
            if self.engine.application is None or not self.engine.application.package.services.model_evaluation:
                return deploy_api.not_found(request)
            return await self.workers.run(model_api.handle, self.engine.application, request)
        if path.startswith(deploy_api.ROOT):
            return await self.workers.run(self.deployment.handle, request)
        page = deploy_api.status_page(self.engine, request, self.started)
        return page or deploy_api.not_found(request)


async def serve_async(host: str, port: int, data: Path, deploy_port: int | None = None) -> None:
    """Serves until SIGTERM or SIGINT; requests that were begun are finished. Raises RuntimeError for a port or folder
    that is in use."""
    ports = [port, *([deploy_port] if deploy_port and deploy_port != port else [])]
    for p in ports:
        _require_free(host, p)
    engine = Engine(data)
    gc.collect()
    gc.freeze()  # what was loaded stays: the collector need not walk through it again and again
    router = Router(engine, port)
    application = RsgiApplication(router.handle)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, stop.set)
    servers = [
        Server(
            application.__rsgi__, address=host, port=p, interface=Interfaces.RSGI, http=HTTPModes.auto,
            websockets=False, log_enabled=False, http2_settings=HTTP2Settings(max_concurrent_streams=1024),
            backlog=1024,
        )
        for p in ports
    ]  # fmt: skip
    running = [asyncio.create_task(server.serve()) for server in servers]
    _announce(host, port, data, deploy_port)
    await asyncio.wait([asyncio.create_task(stop.wait()), *running], return_when=asyncio.FIRST_COMPLETED)
    log.info("stopping")
    until = time.monotonic() + GRACE_SECONDS
    while application.pending and time.monotonic() < until:
        await asyncio.sleep(0.01)
    for server in servers:
        server.stop()
    with contextlib.suppress(asyncio.TimeoutError):
        await asyncio.wait_for(asyncio.gather(*running, return_exceptions=True), GRACE_SECONDS)
    router.workers.close()
    engine.close()


def serve(host: str, port: int, data: Path | str, deploy_port: int | None = None) -> None:
    """Runs the engine in this thread until SIGTERM or SIGINT.

    `data` is the folder of the database; `deploy_port` serves the same as `port`, for tools that deploy to 19071."""
    with contextlib.suppress(OSError, AttributeError):  # glibc else keeps what growing vectors and each thread leave
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, LARGE_BYTES)
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, 1)
    asyncio.run(serve_async(host, port, Path(data), deploy_port))


def _require_free(host: str, port: int) -> None:
    """Raises RuntimeError where something listens already: granian itself would share the port with it in silence."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as e:
            raise RuntimeError(f"cannot listen on {host}:{port}: {e.strerror}") from e


def _announce(host: str, port: int, data: Path, deploy_port: int | None) -> None:
    if not stemming.EXACT:
        log.warning(stemming.WARNING)
    try:
        local = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        local = False
    log.info(
        "serving http://%s:%d, deployments %son the same port; data in %s",
        host,
        port,
        f"on {deploy_port} and " if deploy_port else "",
        data,
    )
    if local:
        log.info("bound to the loopback interface: only this machine can reach it (--host changes that)")
    else:
        log.warning("bound to %s without authentication: whoever can reach it can read, write and deploy", host)
