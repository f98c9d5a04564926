"""The service over the recording server, in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi")

import numpy as np
from starlette.testclient import TestClient
from vespa.application import Vespa

from feeders.encoding import bfloat16_hex
from local_vespa.testing import deploy, running_engine
from mrse_model.serving.exported_model import ExportedModel
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


@pytest.fixture(scope="module")
def engine(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Forty items, four of them without a colour."""
    with running_engine(tmp_path_factory.mktemp("engine")) as url:
        deploy(url, package)
        model = ExportedModel.load(package / "models")
        titles = [
            f"{colour} {thing} {n}"
            for n in range(5)
            for colour in ("red", "blue")
            for thing in ("dress", "hat", "coat", "shoe")
        ]
        vectors = model.item_vectors(titles, [[t.split()[1]] for t in titles])
        vespa = Vespa(url)
        for n, title in enumerate(titles):
            fields = {
                "item_id": f"i{n}",
                "title": title,
                "category": [title.split()[1]],
                "model_version": model.manifest.model_version,
            }
            if n % 10 != 9:  # four have none
                fields["colour"] = title.split()[0]
            for name in ("embedding", "text_feature"):
                fields[name] = {"values": bfloat16_hex(np.asarray(getattr(vectors, name)[n : n + 1]))[0]}
            assert vespa.feed_data_point("item", f"i{n}", fields, namespace="item").status_code == 200
        yield url
