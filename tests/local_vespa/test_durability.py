"""What was acknowledged survives kill -9 in the middle of writing."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading

from local_vespa.testing import deploy, free_port, start
from tests.helpers.small_app import ask, package_files, zipped

KILLS = int(os.environ.get("LOCAL_VESPA_KILLS", "2"))


def test_acknowledged_writes_survive_kills(tmp_path):
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    known: dict[str, int | None] = {}  # what was acknowledged last; None: removed
    unsure: set[str] = set()  # written when the kill came: either state is right
    lock = threading.Lock()

    def write(worker: int, round: int, enough: threading.Event) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        for n in range(100_000):
            id, remove = f"{worker}-{n % 40}", n % 7 == 6
            path, body = f"/document/v1/shop/thing/docid/{id}", json.dumps({"fields": {"stock": round * 100_000 + n}})
            try:
                connection.request("DELETE" if remove else "POST", path, None if remove else body)
                response = connection.getresponse()
                response.read()
            except (OSError, http.client.HTTPException):
                with lock:
                    unsure.add(id)
                return
            assert response.status == 200
            with lock:
                known[id] = None if remove else round * 100_000 + n
            if n == 60:
                enough.set()

    process = start(tmp_path, port)
    try:
        deploy(url, zipped(package_files()))
        for round in range(KILLS):
            unsure.clear()
            enough = [threading.Event() for _ in range(4)]
            workers = [threading.Thread(target=write, args=(w, round, enough[w])) for w in range(4)]
            for worker in workers:
                worker.start()
            for event in enough:
                assert event.wait(60)
            process.send_signal(signal.SIGKILL)
            process.wait()
            for worker in workers:
                worker.join()
            process = start(tmp_path, port)
            for id, stock in known.items():
                if id in unsure:
                    continue
                status, found = ask(url, f"/document/v1/shop/thing/docid/{id}")
                assert (status, found.get("fields", {}).get("stock")) == (
                    (404, None) if stock is None else (200, stock)
                ), id
            total = ask(url, "/search/", {"yql": "select * from thing where true", "hits": 0})[1]["root"]["fields"][
                "totalCount"
            ]
            visited = ask(url, "/document/v1/shop/thing/docid/?wantedDocumentCount=1024")[1]["documentCount"]
            assert total == visited
    finally:
        process.kill()
        process.wait()


def test_sigterm_finishes_what_was_begun(tmp_path):
    port = free_port()
    process = start(tmp_path, port)
    url = f"http://127.0.0.1:{port}"
    deploy(url, zipped(package_files()))
    assert ask(url, "/document/v1/shop/thing/docid/a", {"fields": {"stock": 1}})[0] == 200
    process.terminate()
    assert process.wait(20) == 0
    assert "stopping" in (tmp_path / "engine.log").read_text()


def test_sigterm_under_load_loses_nothing_that_was_acknowledged(tmp_path):
    port = free_port()
    process = start(tmp_path, port)
    url = f"http://127.0.0.1:{port}"
    deploy(url, zipped(package_files()))
    acknowledged: list[str] = []
    enough = threading.Event()

    def write(worker: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        for n in range(100_000):
            id = f"{worker}-{n}"
            try:
                connection.request("POST", f"/document/v1/shop/thing/docid/{id}", json.dumps({"fields": {"stock": n}}))
                response = connection.getresponse()
                response.read()
            except (OSError, http.client.HTTPException):
                return
            assert response.status == 200
            acknowledged.append(id)
            if n == 40:
                enough.set()

    workers = [threading.Thread(target=write, args=(w,)) for w in range(4)]
    for worker in workers:
        worker.start()
    assert enough.wait(60)
    process.terminate()
    assert process.wait(30) == 0
    for worker in workers:
        worker.join()
    assert not (tmp_path / "local_vespa.sqlite-wal").exists()  # the log was folded into the file
    with contextlib.closing(sqlite3.connect(tmp_path / "local_vespa.sqlite")) as database:
        stored = {id.rpartition(":")[2] for (id,) in database.execute("SELECT id FROM document")}
    assert len(acknowledged) > 40 and stored >= set(acknowledged)


def test_a_port_in_use_is_refused(tmp_path):
    port = free_port()
    process = start(tmp_path / "one", port)
    try:
        command = [sys.executable, "-m", "local_vespa", "--port", str(port), "--data", str(tmp_path / "two")]
        second = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert second.returncode == 2 and f"cannot listen on 127.0.0.1:{port}" in second.stderr
    finally:
        process.kill()
        process.wait()


def test_a_second_port_for_deployments(tmp_path):
    port, deploy_port = free_port(), free_port()
    process = start(tmp_path, port, "--deploy-port", str(deploy_port))
    try:
        deploy(f"http://127.0.0.1:{deploy_port}", zipped(package_files()))
        base = "/application/v2/tenant/default/application/default/environment/prod/region/default/instance/default"
        status, found = ask(f"http://127.0.0.1:{deploy_port}", f"{base}/serviceconverge")
        assert status == 200 and found["converged"] and found["services"][0]["port"] == port
        assert ask(f"http://127.0.0.1:{port}", "/document/v1/shop/thing/docid/a", {"fields": {"stock": 1}})[0] == 200
    finally:
        process.terminate()
        assert process.wait(20) == 0
