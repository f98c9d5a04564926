"""What surrounds every request, as plain ASGI: a request id, the bounded queue, headers, metrics, one line of log."""

from __future__ import annotations

import logging
import re
import time
import uuid
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import orjson
from starlette.exceptions import HTTPException

from retrieval.service.metrics import Metrics

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

log = logging.getLogger("mrse.serve")
REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
UNBOUNDED = ("/health", "/ready", "/metrics")  # answered however full the service is
MAX_BODY = 256 * 1024
TOO_LARGE = f"a body of more than {MAX_BODY // 1024} KiB"
SECURITY = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' https: data:; "
        b"connect-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    ),
)


class Wrapping:
    """max_in_flight: requests under way at once, those that wait for Vespa included; one more is answered 429."""

    def __init__(self, app: App, metrics: Metrics, max_in_flight: int) -> None:
        self._app, self._metrics = app, metrics
        self._max, self._now = max_in_flight, 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begin = time.perf_counter()
        headers = {name: value for name, value in scope["headers"]}
        given = headers.get(b"x-request-id", b"").decode("latin-1")
        request_id = given if REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        state = scope.setdefault("state", {})
        state["request_id"], state["log"] = request_id, {}
        status, received, method = 500, 0, scope["method"]
        if method == "HEAD":  # as GET, without the body
            scope["method"] = "GET"

        async def receiving() -> MutableMapping[str, Any]:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > MAX_BODY:  # of a body that came without its length
                raise HTTPException(413, TOO_LARGE)
            return message

        async def sending(message: MutableMapping[str, Any]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                present = {name.lower() for name, _ in message["headers"]}
                extra = [(name, value) for name, value in SECURITY if name not in present]
                message["headers"] = [*message["headers"], (b"x-request-id", request_id.encode()), *extra]
            elif method == "HEAD":
                message = {"type": "http.response.body", "more_body": message.get("more_body", False)}
            await send(message)

        self._now += 1
        self._metrics.in_flight.set(self._now)
        try:
            length = headers.get(b"content-length", b"0")
            if not length.isdigit() or int(length) > MAX_BODY:
                await _refuse(sending, 413, "caller", TOO_LARGE, request_id)
            elif self._now > self._max and scope["path"] not in UNBOUNDED:
                await _refuse(sending, 429, "limited", "more requests than the service takes", request_id, 1)
            else:
                await self._app(scope, receiving, sending)
        finally:
            self._now -= 1
            self._metrics.in_flight.set(self._now)
            seconds = time.perf_counter() - begin
            route = getattr(scope.get("route"), "path_format", "other")
            self._metrics.requests.labels(route, str(status)).inc()
            self._metrics.seconds.labels(route).observe(seconds)
            line = {
                "time": time.time(),
                "request_id": request_id,
                "method": method,
                "path": scope["path"][:200],
                "status": status,
                "seconds": round(seconds, 6),
                **state["log"],
            }
            log.info(orjson.dumps(line, default=str).decode())


async def _refuse(send: Send, status: int, kind: str, message: str, request_id: str, wait: int = 0) -> None:
    headers = [(b"content-type", b"application/json")]
    if wait:
        headers.append((b"retry-after", str(wait).encode()))
    body = orjson.dumps({"error": {"kind": kind, "message": message, "request_id": request_id}})
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
