"""The servers that benchmarks/feed.py feeds: one that answers 200 and nothing else, and a proxy that counts and fails.

    python benchmarks/feed_servers.py null PORT
    python benchmarks/feed_servers.py proxy PORT BACKEND SHARE

The proxy answers SHARE of the document requests itself with a failure, half of them after the backend has written, and
passes on the rest. GET /counted says how often each document was written by the backend.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import random
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

JSON = [("content-type", "application/json")]
FAILURES = (
    (429, b'{"message": "busy"}'),
    (500, b""),
    (502, b"<html><h1>Bad gateway</h1></html>"),
    (503, b'{"message": "starting"}'),
    (504, b""),
    (507, b'{"message": "disk"}'),
    (200, b"<html>please log in</html>"),
    (0, b""),  # the connection is cut
)


async def null(scope: Any, protocol: Any) -> None:
    """200 to everything."""
    await protocol()
    protocol.response_bytes(200, JSON, b'{"id": "id:item:item::x"}')


class Proxy(BaseHTTPRequestHandler):
    """Passes on, counts, fails. A connection of a client has one of its own to the backend."""

    protocol_version = "HTTP/1.1"
    backend, share = "", 0.0
    counted: dict[str, int] = {}  # noqa: RUF012
    chance, lock = random.Random(0), threading.Lock()

    def setup(self) -> None:
        super().setup()
        self._behind = http.client.HTTPConnection(urlsplit(self.backend).netloc, timeout=120)

    def finish(self) -> None:
        self._behind.close()
        with contextlib.suppress(OSError, ValueError):
            super().finish()

    def handle(self) -> None:
        with contextlib.suppress(OSError, http.client.HTTPException):  # a client that was killed
            super().handle()

    def _pass_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.path == "/counted":
            with self.lock:
                self._answer(200, json.dumps(self.counted).encode())
            return
        write = self.path.startswith("/document/v1/") and self.command != "GET" and "dryRun" not in self.path
        with self.lock:
            failing = write and self.chance.random() < self.share
            before, failure = self.chance.random() < 0.5, self.chance.choice(FAILURES)
        if failing and before:
            self._answer(*failure)
            return
        self._behind.request(self.command, self.path, body, {"Content-Type": "application/json"})
        answer = self._behind.getresponse()
        content = answer.read()
        if write and answer.status == 200:
            name = self.path.split("?")[0].rsplit("/", 1)[1]
            with self.lock:
                self.counted[name] = self.counted.get(name, 0) + 1
        self._answer(*failure) if failing else self._answer(answer.status, content)

    do_GET = do_POST = do_PUT = do_DELETE = _pass_on

    def _answer(self, status: int, content: bytes) -> None:
        if not status:
            self.close_connection = True
            return
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None: ...


if __name__ == "__main__":
    kind, port = sys.argv[1], int(sys.argv[2])
    if kind == "proxy":
        Proxy.backend, Proxy.share = sys.argv[3], float(sys.argv[4])
        server = ThreadingHTTPServer(("127.0.0.1", port), Proxy)
        server.daemon_threads = True
        server.serve_forever()
    else:
        from granian import Granian
        from granian.constants import HTTPModes, Interfaces

        Granian(
            "feed_servers:null",
            port=port,
            interface=Interfaces.RSGI,
            http=HTTPModes.auto,
            websockets=False,
            log_enabled=False,
        ).serve()
