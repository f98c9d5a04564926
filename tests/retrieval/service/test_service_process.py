"""The service as a process: how it starts, ends, is too busy, and that it does not grow."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpr
import httpx
import pytest

from local_vespa.testing import free_port
from mrse_model.errors import InputError
from retrieval.service.run import require_free
from tests.helpers.faulty_backend import FaultyBackend

ROOT = Path(__file__).parents[3]
GROWTH = 1.05
ORIGIN = {"origin": "https://shop.example"}


@pytest.fixture
def backend() -> Iterator[FaultyBackend]:
    one = FaultyBackend()
    yield one
    one.close()


class Service:
    def __init__(self, backend: str, *options: str) -> None:
        self.url = f"http://127.0.0.1:{(port := free_port())}"
        command = [sys.executable, "-m", "mrse_cli.main", "serve", "--endpoint", backend, "--port", str(port), *options]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        self.log = tempfile.TemporaryFile("w+")  # noqa: SIM115 (a pipe that is not read would fill)
        self.process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=self.log, text=True
        )
        for _ in range(1200):
            try:
                if httpr.get(f"{self.url}/health", timeout=2).status_code == 200:
                    return
            except Exception:
                assert self.process.poll() is None, self.logged()
                time.sleep(0.05)
        raise AssertionError("the service does not start")

    def search(self, text: str = "red dress", **more: object) -> httpr.Response:
        return httpr.post(
            f"{self.url}/v1/search", json={"query": text, "profile": "bm25", **more}, headers=ORIGIN, timeout=30
        )

    def rss(self) -> int:
        """Kilobytes of the worker."""
        pids = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        status = [Path(f"/proc/{pid}/status").read_text() for pid in [str(self.process.pid), *pids]]
        return max(int(line.split()[1]) for text in status for line in text.splitlines() if line.startswith("VmRSS:"))

    def stop(self) -> tuple[int, str]:
        """Exit code and log."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60), self.logged()

    def logged(self) -> str:
        self.log.seek(0)
        return self.log.read()


@pytest.fixture
def service(backend, package) -> Iterator[Service]:
    one = Service(backend.url, "--app", str(package))
    yield one
    if one.process.poll() is None:
        one.stop()


def test_requests_under_way_are_answered_before_the_end(service, backend) -> None:
    assert service.search().status_code == 200
    backend.delay = 0.5
    answers: list[int] = []
    asking = threading.Thread(target=lambda: answers.append(service.search("slow", timeout=5).status_code))
    asking.start()
    time.sleep(0.2)
    code, log = service.stop()
    asking.join()
    assert answers == [200] and code == 0
    lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    searched = [line for line in lines if line["path"] == "/v1/search"]
    assert [line["status"] for line in searched] == [200, 200]
    assert all(len(line["request_id"]) == 32 and line["stages"]["search"] > 0 for line in searched)
    assert not any("red dress" in json.dumps(line) for line in lines), "what people type is in the search log alone"


def test_a_port_that_is_taken_is_refused(service) -> None:
    port = int(service.url.rsplit(":", 1)[1])
    with pytest.raises(InputError, match=rf"--port: 127\.0\.0\.1:{port} cannot be taken"):
        require_free("127.0.0.1", port)
    require_free("127.0.0.1", free_port())


def test_too_many_requests_are_told_to_come_again(backend, package, tmp_path) -> None:
    file = tmp_path / "serve.toml"
    file.write_text('max_in_flight = 2\norigins = ["https://shop.example"]\n')
    service = Service(backend.url, "--app", str(package), "--settings", str(file))
    try:
        backend.delay = 0.4
        answers: list[httpr.Response] = []
        asking = [threading.Thread(target=lambda: answers.append(service.search(timeout=8))) for _ in range(10)]
        for thread in asking:
            thread.start()
        time.sleep(0.2)
        assert httpr.get(f"{service.url}/health", timeout=5).status_code == 200, "answered however full it is"
        for thread in asking:
            thread.join()
        refused = [answer for answer in answers if answer.status_code == 429]
        assert refused and {answer.status_code for answer in answers} == {200, 429}
        assert refused[0].headers["access-control-allow-origin"] == ORIGIN["origin"], "the shop's page may read it"
        assert refused[0].headers["retry-after"] == "1" and refused[0].json()["error"]["kind"] == "limited"
    finally:
        service.stop()


def test_a_body_is_bounded_whether_it_tells_its_length_or_not(service) -> None:
    whole = b'{"query": "' + b"x" * 300_000 + b'"}'
    small = b'{"query": "red", "profile": "bm25"}'
    for body, status in (
        (whole, 413),
        (iter([whole[:100_000], whole[100_000:]]), 413),
        (iter([small[:9], small[9:]]), 200),
    ):
        headers = {"content-type": "application/json"}
        answer = httpx.post(f"{service.url}/v1/search", content=body, headers=headers)
        assert answer.status_code == status
        assert status == 200 or answer.json()["error"]["kind"] == "caller"


def test_a_fault_of_the_backend_is_an_answer(service, backend) -> None:
    for fault, status, kind in (("503", 503, "unavailable"), ("slow", 504, "timeout"), ("garbage", 503, "unavailable")):
        backend.fault = fault
        answer = service.search(timeout=0.5)
        assert (answer.status_code, answer.json()["error"]["kind"]) == (status, kind), fault
    backend.fault = ""
    assert service.search().status_code == 200


def test_many_events_wait_no_longer_than_one_for_a_vespa_that_hangs(service, backend) -> None:
    """Two seconds, twice the deadline; the server answers after five."""
    backend.fault = "slow"
    answers: list[tuple[int, str]] = []

    def send(user: int) -> None:
        body = {"item": "i1", "session": f"session-number-{user:02}"}
        answer = httpx.post(f"{service.url}/v1/events", json=body, timeout=8)
        answers.append((answer.status_code, answer.json()["error"]["kind"]))

    asking = [threading.Thread(target=send, args=(user,)) for user in range(40)]
    for thread in asking:
        thread.start()
    for thread in asking:
        thread.join()
    assert answers == [(503, "unavailable")] * 40


def test_two_workers_share_a_port_and_their_metrics(backend, package) -> None:
    service = Service(backend.url, "--app", str(package), "--workers", "2")
    try:
        for n in range(20):
            assert service.search(f"dress {n}").status_code == 200
        counted = 'mrse_requests_total{route="/v1/search",status="200"} 20.0'
        for _ in range(100):  # a worker counts a request once it is answered: the other one may be read before
            if counted in (text := httpr.get(f"{service.url}/metrics", timeout=5).text):
                break
            time.sleep(0.05)
        assert counted in text
    finally:
        assert service.stop()[0] == 0


@pytest.mark.slow
@pytest.mark.skipif(not os.environ.get("CI"), reason="a minute of load: runs where CI is set")
def test_a_minute_of_mixed_load_does_not_grow_the_service(service) -> None:
    sizes: list[int] = []
    begin, turn = time.monotonic(), 0
    while time.monotonic() < begin + 60:
        turn += 1
        profile = ("ann", "bm25", "hybrid")[turn % 3]
        answer = service.search(f"dress {turn}", profile=profile, facets=["colour"], hits=turn % 40, timeout=10)
        assert answer.status_code == 200, answer.text
        if time.monotonic() > begin + 12 * (len(sizes) + 1):
            sizes.append(service.rss())
    assert service.rss() <= GROWTH * sizes[0], sizes
