"""Paths are made absolute where they enter what hands them on: to other processes, threads and working directories."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import pytest

from feeders.shards import catalogue
from local_vespa.store import Store
from mrse_cli.endpoint import connect
from mrse_cli.searching.serve import serve
from retrieval.service import run
from retrieval.service.settings import PATHS, Compared, Settings


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", PATHS)
def test_of_the_settings_of_the_service(name: str, here: Path) -> None:
    given = {"tls_cert": "cert.pem", name: "some/file"}  # a key of its own needs a certificate
    (here / "settings.toml").write_text("\n".join(f'{key} = "{path}"' for key, path in given.items()))
    for settings in (Settings(**given), Settings.read("settings.toml")):  # type: ignore[arg-type]
        assert getattr(settings, name) == str(here / "some/file")


def test_of_a_model_to_compare_with(here: Path) -> None:
    assert Compared.parse("new=http://localhost:8090,new_app").app == str(here / "new_app")
    assert Compared("next", next_models="models").next_models == str(here / "models")


def test_of_mrse_serve(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Settings] = []
    monkeypatch.setattr(run, "serve", lambda settings, started: given.append(settings))
    options = ("items", "warm", "log", "rules", "cert", "key")
    serve(app=Path("a"), next_models=Path("n"), compare=["b=http://b,c"], **{name: Path(name) for name in options})  # type: ignore[arg-type]
    (settings,) = given
    assert settings.app == str(here / "a")
    assert {name: getattr(settings, name) for name in options} == {name: str(here / name) for name in options}
    assert {one.app or one.next_models for one in settings.compare} == {str(here / "n"), str(here / "c")}


class InOrder:
    """Stands for features that have the items' order."""

    def __init__(self, path: Path, *_: object, **__: object) -> None:
        self.path = path

    def join(self, *_: object) -> int:
        return 0

    def in_order_of(self, *_: object) -> Path:
        return self.path


def test_of_encoding_by_other_processes_and_machines(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"item_id": ["a"], "title": ["red shoe"], "price": [1.0]}), "items.parquet")
    given: list[Any] = []
    monkeypatch.setattr(catalogue, "item_queries_for", lambda *_: None)
    monkeypatch.setattr(catalogue.Manifest, "load", lambda *_: None)
    monkeypatch.setattr(catalogue, "ExtractedFeatures", InOrder)
    monkeypatch.setattr(catalogue, "encode_groups", lambda groups, job, **_: given.extend([groups, job]) or 0)
    catalogue.encode_catalogue(Path("items.parquet"), Path("models"), Path("out"), features=Path("features.parquet"))
    ((group,), job) = given
    assert (group.file, group.shard.parent) == (here / "items.parquet", here / "out")
    assert (job.models, job.features) == (here / "models", here / "features.parquet")


def test_of_the_certificates_of_an_endpoint(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPR_CA_BUNDLE", "VESPA_CLI_DATA_PLANE_CA_CERT_FILE"):
        monkeypatch.setenv(name, "")
    Path("ca.pem").write_text("")
    connect("http://localhost:8080", ca=Path("ca.pem"))
    assert os.environ["HTTPR_CA_BUNDLE"] == os.environ["VESPA_CLI_DATA_PLANE_CA_CERT_FILE"] == str(here / "ca.pem")


def test_of_the_engines_database(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, found = Store(Path("data")), []
    (here / "elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    reader = threading.Thread(target=lambda: found.append(store.get("id:shop:thing::a")))  # opens the file for itself
    reader.start()
    reader.join()
    store.close()
    assert found == [None] and not list((here / "elsewhere").iterdir())
