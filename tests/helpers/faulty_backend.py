"""A backend that is at fault, one way at a time: raw HTTP, so that it can stop in the middle."""

from __future__ import annotations

import json
import socketserver
import threading
import time
from typing import Any

GOOD = json.dumps(
    {"root": {"fields": {"totalCount": 1}, "children": [{"id": "x", "relevance": 1.0, "fields": {"item_id": "i1"}}]}}
)


class FaultyBackend:
    """fault: of `answer`. asked: requests so far. recover_after: answers well after so many requests."""

    def __init__(self) -> None:
        self.fault, self.asked, self.recover_after, self.delay = "", 0, 10**9, 0.0
        backend = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                while True:
                    line = self.rfile.readline()
                    if not line:
                        return
                    length = 0
                    while (header := self.rfile.readline().strip()) != b"":
                        if header.lower().startswith(b"content-length:"):
                            length = int(header.split(b":")[1])
                    self.rfile.read(length)
                    backend.asked += 1
                    if not backend.answer(self.wfile):
                        return

        class Server(socketserver.ThreadingTCPServer):
            daemon_threads, allow_reuse_address, request_queue_size = True, True, 128

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def answer(self, out: Any) -> bool:
        """Writes an answer; whether the connection stays."""
        if self.delay:
            time.sleep(self.delay)
        fault = "" if self.asked > self.recover_after else self.fault
        if fault == "slow":
            time.sleep(5)
        if fault == "hang up":
            return False
        if fault.isdigit():
            body = {"504": _error(12, "Timed out"), "400": _error(3, "Could not parse")}.get(
                fault, "<html>Bad Gateway</html>"
            )
            return _send(out, body, int(fault))
        if fault == "garbage":
            return _send(out, "\x00\xff{no json")
        if fault == "no vespa":
            return _send(out, '{"hello": "world"}')
        if fault == "cut off":
            out.write(
                b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 500\r\n\r\n" + GOOD[:40].encode()
            )
            return False
        if fault == "trickle":
            out.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 500\r\n\r\n")
            for byte in GOOD.encode():
                out.write(bytes([byte]))
                out.flush()
                time.sleep(0.05)
            return False
        if fault == "empty handed":
            return _send(out, _error(10, "Backend communication error"))
        if fault == "soft timeout":
            return _send(out, _error(12, "Timeout"))
        if fault == "in part":
            whole = json.loads(GOOD)
            whole["root"]["coverage"] = {"coverage": 50, "documents": 5, "degraded": {"timeout": True}}
            return _send(out, json.dumps(whole))
        return _send(out, GOOD)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def _error(code: int, words: str) -> str:
    return json.dumps(
        {"root": {"fields": {"totalCount": 0}, "errors": [{"code": code, "summary": words, "message": words}]}}
    )


def _send(out: Any, body: str, status: int = 200) -> bool:
    raw = body.encode()
    out.write(
        f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {len(raw)}\r\n\r\n".encode() + raw
    )
    out.flush()
    return True
