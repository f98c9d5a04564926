"""HTTP as the rest of the engine sees it: requests with limits, responses, and the RSGI application that granian
calls."""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
import time
import zlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

import orjson

log = logging.getLogger("local_vespa")
MAX_BODY = 128 << 20  # a larger document or query is a mistake
MAX_PACKAGE = 512 << 20
PATIENCE = 0.05  # seconds before a request's client is watched
JSON = "application/json;charset=UTF-8"
_OPTIONS = orjson.OPT_NON_STR_KEYS | orjson.OPT_SERIALIZE_NUMPY


@dataclass(frozen=True)
class Request:
    """A request whose body was read and unpacked. `path` is decoded; `authority` is the host and port it was sent to;
    `received` is the time.monotonic() of its arrival; `disconnected` is set when its client closes the connection."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes
    authority: str
    received: float = field(default_factory=time.monotonic)
    disconnected: threading.Event = field(default_factory=threading.Event)


@dataclass(frozen=True)
class Response:
    """What goes back: text, bytes, or JSON made by `json_response`."""

    status: int
    body: bytes = b""
    content_type: str = JSON
    headers: dict[str, str] = field(default_factory=dict)


class TooLarge(Exception):
    """A body beyond its limit: 413."""


def json_response(status: int, value: Any) -> Response:
    """JSON. NaN and infinities, for which orjson writes null, become strings, as Jackson writes them."""
    body = orjson.dumps(value, option=_OPTIONS)
    return Response(status, orjson.dumps(_finite(value), option=_OPTIONS) if b"null" in body else body)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        if value != value:
            return "NaN"
        if value in (float("inf"), float("-inf")):
            return "Infinity" if value > 0 else "-Infinity"
        return value
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(v) for v in value]
    return value


def unpack(data: bytes, limit: int) -> bytes:
    """Gunzips a body. Raises TooLarge beyond the limit, zlib.error on bad data."""
    stream = zlib.decompressobj(zlib.MAX_WBITS | 16)
    out = stream.decompress(data, limit + 1)
    if len(out) > limit:
        raise TooLarge
    if not stream.eof:
        raise zlib.error("the gzip stream ends early")
    return out


Handler = Callable[[Request], Awaitable[Response]]


class RsgiApplication:
    """Reads requests within their limits, hands them to `handle`, and answers. `workers` run what would hold up
    others."""

    def __init__(self, handle: Handler) -> None:
        self._handle = handle
        self.pending = 0

    async def __rsgi__(self, scope: Any, protocol: Any) -> None:
        self.pending += 1
        try:
            response = await self._respond(scope, protocol)
        finally:
            self.pending -= 1
        headers = [("content-type", response.content_type), *response.headers.items()]
        protocol.response_bytes(response.status, headers, response.body)

    async def _respond(self, scope: Any, protocol: Any) -> Response:
        headers = {name.lower(): value for name, value in scope.headers.items()}
        limit = MAX_PACKAGE if scope.path.startswith("/application/v2/") else MAX_BODY
        try:
            body = await self._body(protocol, headers, limit)
        except TooLarge:
            return json_response(413, {"message": f"The body is larger than {limit} bytes"})
        except zlib.error as e:
            return json_response(400, {"message": f"The body is not gzip: {e}"})
        query = dict(parse_qsl(scope.query_string, keep_blank_values=True))
        authority = scope.authority or headers.get("host", "localhost")
        request = Request(scope.method, scope.path, query, headers, body, authority)
        watch = _Watch(protocol, request) if scope.path.startswith("/search") else None
        try:
            return await self._handle(request)
        except RecursionError:
            return json_response(400, {"message": "The request is nested too deeply"})
        except asyncio.CancelledError:
            raise
        except Exception:
            log.exception("%s %s failed", scope.method, scope.path)
            return json_response(500, {"message": "Internal error of local_vespa; its log has the details"})
        finally:
            if watch is not None:
                watch.cancel()

    @staticmethod
    async def _body(protocol: Any, headers: dict[str, str], limit: int) -> bytes:
        if int(headers.get("content-length") or 0) > limit:
            raise TooLarge
        if "content-length" in headers:
            body = await protocol()
        else:
            parts, size = [], 0
            async for part in protocol:
                size += len(part)
                if size > limit:
                    raise TooLarge
                parts.append(part)
            body = b"".join(parts)
        return unpack(body, limit) if headers.get("content-encoding") == "gzip" else body


class _Watch:
    """Sets `disconnected` of a request whose client goes away. It looks from PATIENCE on: most are answered before, and
    watching costs half as much again as the rest of HTTP."""

    def __init__(self, protocol: Any, request: Request) -> None:
        self._protocol, self._request = protocol, request
        self._gone: asyncio.Future[None] | None = None
        self._timer = asyncio.get_running_loop().call_later(PATIENCE, self._begin)

    def _begin(self) -> None:
        self._gone = asyncio.ensure_future(self._protocol.client_disconnect())
        self._gone.add_done_callback(lambda done: None if done.cancelled() else self._request.disconnected.set())

    def cancel(self) -> None:
        self._timer.cancel()
        if self._gone is not None:
            self._gone.cancel()


class Workers:
    """Threads for searches and deployments, so that the event loop stays free for writes. An executor of the standard
    library does the same for twice the CPU time a request."""

    def __init__(self, threads: int = 2) -> None:
        self._jobs: queue.SimpleQueue[tuple[asyncio.Future[Response], Callable[..., Response], Any] | None]
        self._jobs = queue.SimpleQueue()
        self._threads = [threading.Thread(target=self._work, name=f"search-{n}", daemon=True) for n in range(threads)]
        for thread in self._threads:
            thread.start()

    async def run(self, work: Callable[..., Response], *arguments: Any) -> Response:
        """What `work` returns or raises."""
        future: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
        self._jobs.put((future, work, arguments))
        return await future

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            future, work, arguments = job
            response, problem = None, None
            try:
                response = work(*arguments)
            except BaseException as e:
                problem = e
            loop = future.get_loop()
            if not loop.is_closed():
                loop.call_soon_threadsafe(_settle, future, response, problem)

    def close(self) -> None:
        """Ends the threads after the jobs that wait."""
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join()


def _settle(future: asyncio.Future[Response], response: Response | None, problem: BaseException | None) -> None:
    if future.done():  # the waiting client has disconnected
        return
    if response is None:
        future.set_exception(problem or RuntimeError("no response"))
    else:
        future.set_result(response)
