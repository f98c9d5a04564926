"""Servers that are no Vespa, or one behind a gateway: HTTP/1.1 alone, 502 first, no answer at all, another answer."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from typer.testing import CliRunner

import feeders.index.deployed
import vespa_package.deploy
from mrse_cli.main import app
from mrse_model.errors import InputError

EMPTY = {"root": {"id": "toplevel", "relevance": 1.0, "fields": {"totalCount": 0}, "children": []}}


@contextmanager
def http11(status: Callable[[int], int]) -> Iterator[str]:
    """A server that speaks HTTP/1.1 alone and answers every request like an empty index; status: of the n-th one."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        asked = 0

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("content-length", 0)))
            body = json.dumps(EMPTY).encode()
            self.send_response(status(Handler.asked))
            Handler.asked += 1
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_PUT = do_POST

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()


@pytest.fixture
def hanging() -> Iterator[str]:
    """A server that takes connections and never answers."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(50)
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def mrse(*arguments: object) -> str:
    done = CliRunner().invoke(app, list(map(str, arguments)), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def test_a_gateway_that_speaks_http_1_1_alone(package) -> None:
    with http11(lambda n: 200) as url:
        assert "0 of 0 matches" in mrse("query", "red dress", "--app", package, "-e", url)


@pytest.mark.parametrize("status", [500, 502])
def test_a_gateway_that_fails_at_first_is_asked_again(package, status) -> None:
    with http11(lambda n: status if n < 1 else 200) as url:
        assert "0 of 0 matches" in mrse("query", "red dress", "--app", package, "-e", url)


def test_another_server_than_vespa_is_no_traceback(package, items) -> None:
    with http11(lambda n: 200) as url, pytest.raises(InputError, match="cannot evaluate its model"):
        mrse("feed", "items", items, "--app", package, "-e", url, "--no-images")


def test_no_command_waits_long_for_a_server_that_hangs(hanging, package, items, monkeypatch) -> None:
    monkeypatch.setattr(feeders.index.deployed, "ANSWER_SECONDS", 1)
    monkeypatch.setattr(vespa_package.deploy, "ANSWER_SECONDS", 1)
    for words, *command in (
        ("no answer from", "query", "red dress", "--app", package, "-e", hanging, "--timeout", 1),
        ("nothing answers at", "feed", "items", items, "--app", package, "-e", hanging, "--no-images"),
        ("does not answer", "deploy", package, "--config-server", hanging),
    ):
        with pytest.raises(InputError, match=words):
            mrse(*command)
