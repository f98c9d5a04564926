"""The clients that people use: pyvespa (HTTP/1.1 and h2c) and the `vespa` command."""

from __future__ import annotations

import asyncio
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import vespacli
from vespa.application import Vespa

from local_vespa.testing import running_engine
from tests.helpers.small_app import THINGS, ask, package_files, search, titles, zipped


def documents(count: int) -> list[dict[str, Any]]:
    return [
        {"id": str(i), "fields": {"title": f"thing number {i}", "price": float(i), "vector": [1.0, i, 0, 0]}}
        for i in range(count)
    ]


def test_pyvespa_sync(fresh):
    app = Vespa(fresh)
    assert app.get_application_status() is not None
    with app.syncio() as session:
        response = session.feed_data_point("thing", "a", THINGS["a"], namespace="shop")
        assert response.is_successful()
        assert session.get_data("thing", "a", namespace="shop").json["fields"]["title"] == "red summer dress"
        assert session.update_data("thing", "a", {"price": 7.0}, namespace="shop").is_successful()
        assert session.get_data("thing", "a", namespace="shop").json["fields"]["price"] == 7.0
        found = session.query(yql="select * from thing where title contains 'dress'", ranking="words")
        assert found.is_successful() and found.hits[0]["fields"]["title"] == "red summer dress"
        assert found.number_documents_retrieved == 1
        assert session.delete_data("thing", "a", namespace="shop").is_successful()
        assert session.get_data("thing", "a", namespace="shop").status_code == 404


def test_pyvespa_async(fresh):
    async def run() -> None:
        async with Vespa(fresh).asyncio(connections=2) as session:
            points = documents(40)
            done = await asyncio.gather(
                *(session.feed_data_point("thing", d["id"], d["fields"], namespace="shop") for d in points)
            )
            assert all(r.is_successful() for r in done)
            answers = await asyncio.gather(
                *(session.query(yql="select title from thing where price = 5") for _ in range(8))
            )
            assert all(a.hits[0]["fields"]["title"] == "thing number 5" for a in answers)

    asyncio.run(run())


@pytest.mark.parametrize("method", ["feed_iterable", "feed_async_iterable"])
def test_pyvespa_feeds_in_bulk_visits_and_deletes(fresh, method):
    app, outcomes = Vespa(fresh), []
    getattr(app, method)(
        documents(150),
        schema="thing",
        namespace="shop",
        callback=lambda response, id: outcomes.append((id, response.status_code)),
    )
    assert sorted(outcomes) == sorted((str(i), 200) for i in range(150))
    seen = []
    for slice in app.visit(content_cluster_name="shop", schema="thing", namespace="shop", slices=3):
        for response in slice:
            seen += [d["id"] for d in response.documents]
    assert sorted(seen) == sorted(f"id:shop:thing::{i}" for i in range(150))
    app.delete_all_docs("shop", "thing", namespace="shop", slices=2)
    assert search(fresh, yql="select * from thing where true")[1]["root"]["fields"]["totalCount"] == 0


def vespa(url: str, home: Path, *arguments: str, input: str | None = None) -> subprocess.CompletedProcess[str]:
    command = [vespacli.get_binary_path(), "--target", url, "--color", "never", *arguments]
    environment = {
        "VESPA_CLI_HOME": str(home),
        "VESPA_CLI_CACHE_DIR": str(home),
        "PATH": "/usr/bin:/bin",
        "HOME": str(home),
    }
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment, input=input)


def test_the_vespa_command(tmp_path):
    package, home = tmp_path / "app", tmp_path / "home"
    home.mkdir()
    for path, data in package_files().items():
        (package / path).parent.mkdir(parents=True, exist_ok=True)
        (package / path).write_bytes(data)
    tests = tmp_path / "app" / "tests" / "system-test"
    tests.mkdir(parents=True)
    step = {"request": {"parameters": {"yql": "select title from thing where title contains 'dress'"}}}
    expected = {"response": {"code": 200, "body": {"root": {"fields": {"totalCount": 2}}}}}
    (tests / "find.json").write_text(json.dumps({"name": "find", "steps": [step | expected]}))
    feed = "\n".join(json.dumps({"put": f"id:shop:thing::{i}", "fields": f}) for i, f in THINGS.items())
    with running_engine(tmp_path / "data") as url:
        refused = vespa(url, home, "deploy", str(tests))
        assert refused.returncode != 0
        deployed = vespa(url, home, "deploy", "--wait", "30", str(package))
        assert deployed.returncode == 0 and "session ID 1" in deployed.stdout + deployed.stderr
        assert vespa(url, home, "status").returncode == 0
        assert vespa(url, home, "status", "deployment").returncode == 0
        fed = json.loads(vespa(url, home, "feed", "-", input=feed).stdout)
        assert fed["feeder.ok.count"] == len(THINGS) == fed["feeder.operation.count"]
        found = json.loads(vespa(url, home, "query", "select title from thing where title contains 'warm'").stdout)
        assert titles(found) == ["warm red shoe and a shoe"]
        got = json.loads(vespa(url, home, "document", "get", "id:shop:thing::a").stdout)
        assert got["fields"]["price"] == 20.0
        removed = vespa(url, home, "document", "remove", "id:shop:thing::e")
        assert removed.returncode == 0
        visited = vespa(url, home, "visit", "--field-set", "thing:title")
        assert sorted(json.loads(line)["id"] for line in visited.stdout.splitlines()) == [
            f"id:shop:thing::{i}" for i in "abcd"
        ]
        tested = vespa(url, home, "test", str(package / "tests" / "system-test"))
        assert tested.returncode == 0, tested.stdout + tested.stderr
        again = vespa(url, home, "deploy", "--wait", "30", str(package))
        assert again.returncode == 0 and "session ID 2" in again.stdout + again.stderr
        assert search(url, yql="select * from thing where true")[1]["root"]["fields"]["totalCount"] == 4


def test_prepare_then_activate(tmp_path):
    with running_engine(tmp_path) as url:
        base = "/application/v2/tenant/default/session"
        status, made = ask(url, base, zipped(package_files()), headers={"Content-Type": "application/zip"})
        assert status == 200
        session = made["session-id"]
        assert ask(url, f"{base}/{session}/prepared", b"", "PUT")[0] == 200
        assert ask(url, "/document/v1/shop/thing/docid/a")[0] == 503
        assert ask(url, f"{base}/{session}/active", b"", "PUT")[1]["session-id"] == session
        assert ask(url, "/document/v1/shop/thing/docid/a")[0] == 404
