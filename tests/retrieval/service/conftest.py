"""The service over the recording server, in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

pytest.importorskip("fastapi")

from starlette.testclient import TestClient

from retrieval.service.app import create_app
from retrieval.service.settings import Settings


@pytest.fixture
def client_of(vespa, answer, package) -> Iterator[Callable[..., TestClient]]:
    """A client of a service with these settings."""
    vespa.answer = answer
    opened: list[TestClient] = []

    def make(**given: Any) -> TestClient:
        settings = Settings(**{"endpoint": vespa.url, "app": str(package), "deadline": 10.0, "now": 1000.0} | given)
        client = TestClient(create_app(settings), raise_server_exceptions=False, client=("127.0.0.1", 50000))
        client.__enter__()
        opened.append(client)
        return client

    yield make
    for client in opened:
        client.__exit__(None, None, None)


@pytest.fixture
def client(client_of) -> TestClient:
    return client_of()
