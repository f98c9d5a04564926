"""What a stranger may send: nothing makes the engine fail, hang or grow. LOCAL_VESPA_FUZZ: how many inputs."""
# ruff: noqa: E501  tables of inputs

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import subprocess
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from local_vespa.testing import deploy, free_port, start
from tests.helpers.hostile import PREPARE, ROOT, Case, Generator
from tests.helpers.small_app import THINGS, ask, package_files, put, search, zipped

INPUTS = int(os.environ.get("LOCAL_VESPA_FUZZ", "300"))
SEED = int(os.environ.get("LOCAL_VESPA_FUZZ_SEED", "1"))
GROWTH_MB = 100
PATIENCE = 20  # seconds until an answer counts as missing


class Victim:
    """An engine that runs the small application, and what is known about its process."""

    def __init__(self, folder: Path, port: int, pid: int) -> None:
        self.folder, self.port, self.pid, self.url = folder, port, pid, f"http://127.0.0.1:{port}"

    def megabytes(self) -> float:
        """Resident memory."""
        return int(subprocess.check_output(["ps", "-o", "rss=", "-p", str(self.pid)])) / 1024

    def log(self) -> str:
        return (self.folder / "engine.log").read_text()

    def raw(self, data: bytes, more: Iterable[bytes] = ()) -> bytes:
        """The first bytes of the answer to bytes as they are; `more` is sent until an answer or a reset comes."""
        with socket.create_connection(("127.0.0.1", self.port), PATIENCE) as s:
            with contextlib.suppress(ConnectionError):
                s.sendall(data)
                for part in more:
                    s.setblocking(False)
                    with contextlib.suppress(BlockingIOError):
                        if answer := s.recv(65536):
                            return answer
                    s.settimeout(PATIENCE)
                    s.sendall(part)
            s.settimeout(PATIENCE)
            return s.recv(65536)


@pytest.fixture(scope="module")
def victim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Victim]:
    folder, port = tmp_path_factory.mktemp("victim"), free_port()
    process = start(folder, port)
    try:
        found = Victim(folder, port, process.pid)
        deploy(found.url, zipped(package_files()))
        for id, fields in THINGS.items():
            put(found.url, id, fields)
        yield found
    finally:
        process.kill()
        process.wait()


def answer_to(victim: Victim, connection: http.client.HTTPConnection, case: Case) -> tuple[int, bytes]:
    try:
        connection.request(case.method, case.path, case.data(), case.headers)
        response = connection.getresponse()
        return response.status, response.read()
    except (http.client.RemoteDisconnected, ConnectionResetError):  # refused before it was read, as HTTP allows
        connection.close()
        return 400, b""


def test_random_inputs(victim):
    connection = http.client.HTTPConnection("127.0.0.1", victim.port, timeout=PATIENCE)
    generator = Generator(SEED)
    statuses: dict[int, int] = {}
    before, slowest = 0.0, (0.0, -1)
    for i, case in enumerate(generator.cases(INPUTS)):
        started = time.monotonic()
        try:
            status, body = answer_to(victim, connection, case)
        except TimeoutError:
            pytest.fail(f"input {i} of seed {SEED} hangs: {case}")
        slowest = max(slowest, (time.monotonic() - started, i))
        statuses[status] = statuses.get(status, 0) + 1
        refused = status in (501, 503, 504) or b"must be specified in a query profile" in body  # as Vespa does it
        assert status < 500 or refused, f"input {i} of seed {SEED}: {status} {body[:300]!r} to {case}"
        if body[:1] == b"{":
            json.loads(body)
        if i == INPUTS // 2:
            before = victim.megabytes()
    grown = victim.megabytes() - before
    print(f"{INPUTS} inputs, statuses {dict(sorted(statuses.items()))}, slowest {slowest}, grown by {grown:.0f} MB")
    assert statuses.get(200, 0) > INPUTS / 10, "the inputs are too broken to reach anything"
    assert grown < GROWTH_MB
    assert "Traceback" not in victim.log()
    assert put(victim.url, "still", {"title": "alive"})[0] == 200
    assert search(victim.url, yql="select * from thing where title contains 'alive'")[1]["root"]["fields"]["totalCount"]


@pytest.mark.parametrize("path", ["/search/", ROOT + "big", PREPARE])
@pytest.mark.parametrize("streamed", [False, True], ids=["announced", "streamed"])
def test_a_gigabyte_is_refused_before_it_is_held(victim, path, streamed):
    before = victim.megabytes()
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/zip\r\n"
    if streamed:
        part = b"100000\r\n" + b" " * (1 << 20) + b"\r\n"
        answer = victim.raw(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode(), (part for _ in range(1024)))
    else:
        answer = victim.raw(f"{head}Content-Length: {1 << 30}\r\n\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 413"), answer[:200]
    assert victim.megabytes() - before < 700
    assert ask(victim.url, "/status.html")[0] == 200


DEEP = 100_000


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/search/", b'{"yql":' + b"[" * DEEP + b"]" * DEEP + b"}"),
        ("/search/", b'{"a":' * DEEP + b"1" + b"}" * DEEP),
        ("/search/", b'{"yql": "select * from thing where ' + b"(" * DEEP + b"true" + b")" * DEEP + b'"}'),
        ("/search/", b'{"yql": "select * from thing where ' + b"!(" * 5000 + b"true" + b")" * 5000 + b'"}'),
        ("/search/", b'{"yql": "select * from thing where true | ' + b"all(group(colour) each(" * 3000 + b"))" * 3000 + b'"}'),
        (ROOT + "deep", b'{"fields": {"vector":' + b"[" * DEEP + b"]" * DEEP + b"}}"),
        (ROOT + "deep", b'{"fields": {"title":' + b"[" * 900 + b"]" * 900 + b"}}"),
        (ROOT + "deep?condition=" + "(" * 20000, b'{"fields": {}}'),
        (ROOT + "deep?condition=" + "(" * 1500 + "true" + ")" * 1500, b'{"fields": {}}'),
        (ROOT + "deep?condition=" + "not%20" * 600 + "true", b'{"fields": {}}'),
    ],
)  # fmt: skip
def test_deep_nesting_is_refused(victim, path, body):
    status, _ = ask(victim.url, path, body)
    assert status in (400, 414, 431)
    assert "Traceback" not in victim.log()


def with_profile(text: str) -> bytes:
    return zipped(
        package_files() | {"schemas/thing/bad.profile": f"rank-profile bad inherits base {{ {text} }}".encode()}
    )


@pytest.mark.parametrize(
    "text",
    [
        f"first-phase {{ expression: {'(' * 20000}1{')' * 20000} }}",
        f"first-phase {{ expression: {'-' * 20000}1 }}",
        f"first-phase {{ expression: {'if(1,' * 3000}1{',2)' * 3000} }}",
        "first-phase { expression: sum(tensor<double>(x[100000],y[100000])(x+y)) }",
        "first-phase { expression: sum(tensor<double>(x[4000000000])(x)) }",
        "inputs { query(huge) tensor<double>(x[100000],y[100000]) } first-phase { expression: sum(query(huge)) }",
    ],
    ids=["parentheses", "signs", "ifs", "generator", "generator32", "input"],
)
def test_bottomless_rank_profiles_are_refused(victim, text):
    before = victim.megabytes()
    status, answer = ask(victim.url, PREPARE, with_profile(text), headers={"Content-Type": "application/zip"})
    assert (status, answer["error-code"]) == (400, "INVALID_APPLICATION_PACKAGE")
    assert victim.megabytes() - before < 300


def test_a_malicious_regular_expression_ends(victim):
    assert put(victim.url, "regex", {"colour": "a" * 60})[0] == 200
    started = time.monotonic()
    status, _ = search(victim.url, yql="select * from thing where colour matches '^(a|a)*b$|(a+)+c$'", timeout="5s")
    assert status in (200, 400) and time.monotonic() - started < PATIENCE
    assert ask(victim.url, ROOT + "regex", method="DELETE")[0] == 200


def test_connections_that_say_nothing_hold_up_nobody(victim):
    idle = [socket.create_connection(("127.0.0.1", victim.port)) for _ in range(100)]
    half = [socket.create_connection(("127.0.0.1", victim.port)) for _ in range(20)]
    for s in half:
        s.sendall(b"POST /search/ HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
    assert search(victim.url, yql="select * from thing where true")[0] == 200
    for s in idle + half:
        s.close()


def test_it_listens_on_the_loopback_interface_and_says_so(victim):
    assert "bound to the loopback interface: only this machine can reach it" in victim.log()
    own = socket.gethostbyname(socket.gethostname())
    if own.startswith("127."):
        pytest.skip("this machine has no other address to try")
    with pytest.raises(OSError):
        socket.create_connection((own, victim.port), 2)


def test_elsewhere_it_warns(tmp_path):
    port = free_port()
    process = start(tmp_path, port, "--host", "0.0.0.0")
    process.terminate()
    process.wait(20)
    assert "without authentication" in (tmp_path / "engine.log").read_text()
