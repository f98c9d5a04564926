"""The transport against a server that fails in every way: each document arrives or is named, and counts are true."""

from __future__ import annotations

import json
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

import pytest
from vespa.application import Vespa

from feeders.feed import feed_again, reasons_file, send_all
from feeders.operations import DeliveryResult, Operation
from feeders.report import Report
from feeders.transport import Policy, Transport

Answer = tuple[int, bytes] | str  # status and body, or "reset"
QUICK = Policy(first_wait=0.01, longest_wait=0.05, request_timeout=5, give_up_after=20, operation_seconds=2)


class Server:
    """Answers writes as `answer` says: given the id and how often it was tried. documents: what was acknowledged."""

    def __init__(self, answer: Callable[[str, int], Answer]) -> None:
        self.answer, self.documents, self.tries = answer, dict[str, int](), dict[str, int]()
        self.most, self._now, self._lock = 0, 0, threading.Lock()


@contextmanager
def serving(answer: Callable[[str, int], Answer], port: int = 0) -> Iterator[tuple[Server, str]]:
    server = Server(answer)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_write(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            name = unquote(self.path.split("?")[0].rsplit("/", 1)[1])
            with server._lock:
                server.tries[name] = server.tries.get(name, 0) + 1
                server._now += 1
                server.most = max(server.most, server._now)
            answer = server.answer(name, server.tries[name])
            with server._lock:
                server._now -= 1
            if isinstance(answer, str):
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                self.close_connection = True
                self.connection.close()
                return
            status, page = answer
            if status == 200 and page.startswith(b"{"):
                server.documents[name] = json.loads(body)["fields"]["n"] if body else -1
            self.send_response(status)
            self.send_header("Content-Length", str(len(page)))
            self.end_headers()
            self.wfile.write(page)

        do_POST = do_PUT = do_DELETE = handle_write

        def log_message(self, *_: object) -> None: ...

        def handle(self) -> None:
            try:
                super().handle()
            except (OSError, ValueError):
                self.close_connection = True

        def finish(self) -> None:
            with suppress(OSError, ValueError):
                super().finish()

    http = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    http.daemon_threads = True
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield server, f"http://127.0.0.1:{http.server_port}"
    finally:
        http.shutdown()
        http.server_close()


OK: Answer = (200, b'{"id": "x"}')
FAILURES: tuple[Answer, ...] = (
    (429, b'{"message": "busy"}'),
    (500, b""),
    (502, b"<html><h1>Bad gateway</h1></html>"),
    (503, b'{"message": "starting"}'),
    (504, b""),
    (507, b'{"message": "disk"}'),
    (200, b"<html>please log in</html>"),
    "reset",
)


def puts(n: int, prefix: str = "i") -> Iterator[Operation]:
    return (Operation("put", "item", f"{prefix}{k}", {"n": k}) for k in range(n))


def counted(report: Report) -> int:
    return report.ok + report.unchanged + report.failed + report.not_reached


def test_with_a_fifth_of_failures_every_document_arrives(tmp_path) -> None:
    chance = random.Random(1)
    report = Report(rows=400)
    with serving(lambda name, tries: chance.choice(FAILURES) if chance.random() < 0.2 else OK) as (server, url):
        send_all(Vespa(url), puts(400), tmp_path / "refused", report=report, policy=QUICK)
    assert server.documents == {f"i{n}": n for n in range(400)}
    assert (report.ok, report.failed, report.not_reached, report.stopped) == (400, 0, 0, "") and report.retries > 20


def test_what_fails_for_good_is_named_and_the_rest_arrives(tmp_path) -> None:
    bodies = {"i3": (503, b"<html>no backend</html>"), "i5": (400, b'{"message": "No field x"}'), "i7": (403, b"")}
    report = Report(rows=90)

    def answer(name: str, tries: int) -> Answer:
        time.sleep(0.02)
        return bodies.get(name, OK)

    with serving(answer) as (server, url):
        send_all(Vespa(url), puts(90), tmp_path / "x.refused.jsonl", report=report, policy=QUICK)
        assert set(server.documents) == {f"i{n}" for n in range(90)} - set(bodies)
        assert (report.ok, report.failed, counted(report)) == (87, 3, 90)
        reasons = [json.loads(line) for line in reasons_file(report.dead_letters).read_text().splitlines()]
        assert {(r["id"].split("::")[1], r["status"], r["message"]) for r in reasons} == {
            ("i3", 503, "no backend"), ("i5", 400, "No field x"), ("i7", 403, ""),
        }  # fmt: skip
        bodies.pop("i3")
        again = feed_again(Vespa(url), report.dead_letters, policy=QUICK)
        assert (again.rows, again.ok, again.failed) == (3, 1, 2) and server.documents["i3"] == 3
        assert {json.loads(line)["put"] for line in report.dead_letters.read_text().splitlines()} == {
            "id:item:item::i5", "id:item:item::i7",
        }  # fmt: skip
        bodies.clear()
        assert feed_again(Vespa(url), report.dead_letters, policy=QUICK).complete and not report.dead_letters.exists()
        assert not reasons_file(report.dead_letters).exists()


@pytest.mark.parametrize("answer", [(503, b""), (507, b'{"message": "disk"}'), (429, b""), "reset"])
def test_an_outage_without_end_is_given_up(tmp_path, answer) -> None:
    report, policy = Report(rows=500), Policy(first_wait=0.01, longest_wait=0.1, give_up_after=0.8)
    told: list[str] = []
    with serving(lambda name, tries: answer) as (_, url):
        send_all(Vespa(url), puts(500), tmp_path / "refused", report=report, policy=policy,
                 progress=lambda now: told.append(now.waiting))  # fmt: skip
    assert "no success for" in told[0] and (answer == "reset" or str(answer[0]) in told[0]), "it says why it waits"
    assert "no success for" in report.stopped and (answer == "reset" or str(answer[0]) in report.stopped)
    assert (report.ok, report.not_reached, counted(report)) == (0, 500, 500)


def test_refusals_of_one_kind_stop_it(tmp_path) -> None:
    report = Report(rows=3000)
    with serving(lambda name, tries: (400, f'{{"message": "No field x in {name}"}}'.encode())) as (_, url):
        send_all(Vespa(url), puts(3000), tmp_path / "refused", report=report, policy=QUICK)
    assert "refusals of one kind in a row, the last: status 400: No field x in" in report.stopped
    assert 50 <= report.failed <= 50 + QUICK.max_in_flight and counted(report) == 3000 and report.not_reached > 2800


def test_an_outage_in_the_middle_is_sat_out(tmp_path) -> None:
    down = threading.Event()
    report = Report(rows=600)

    def answer(name: str, tries: int) -> Answer:
        if name == "i200" and tries == 1:
            down.set()
            threading.Timer(1.0, down.clear).start()
        return "reset" if down.is_set() else OK

    with serving(answer) as (server, url):
        send_all(Vespa(url), puts(600), tmp_path / "refused", report=report, policy=QUICK)
    assert len(server.documents) == 600 and (report.ok, report.failed) == (600, 0)


def test_silence_does_not_hold_it_up(tmp_path) -> None:
    """A connection that hangs costs one time-out, and the request is sent again."""

    def answer(name: str, tries: int) -> Answer:
        if name in ("i3", "i9") and tries == 1:
            time.sleep(1.5)
        return OK

    report = Report(rows=40)
    with serving(answer) as (_, url):
        policy = replace(QUICK, request_timeout=0.5)
        send_all(Vespa(url), puts(40), tmp_path / "refused", report=report, policy=policy)
    assert report.ok == 40 and report.retries >= 2


def test_operations_of_one_document_keep_their_order() -> None:
    order: dict[str, list[int]] = {}
    chance = random.Random(3)
    results: list[DeliveryResult] = []
    with serving(lambda name, tries: chance.choice(FAILURES[:6]) if chance.random() < 0.3 else OK) as (server, url):
        transport = Transport(Vespa(url), results.append, QUICK)
        transport.send(Operation("put", "item", f"i{k % 5}", {"n": k}) for k in range(100))
    for result in results:
        order.setdefault(result.operation.id, []).append(result.operation.fields["n"])
    assert order == {f"i{n}": list(range(n, 100, 5)) for n in range(5)}
    assert server.documents == {f"i{n}": 95 + n for n in range(5)}


def test_a_busy_server_gets_fewer_requests_at_a_time() -> None:
    with serving(lambda name, tries: (429, b"") if server.most > 3 and tries < 3 else OK) as (server, url):
        transport = Transport(Vespa(url), lambda result: None, QUICK)
        transport.send(puts(100))
        assert transport.in_flight_limit < QUICK.max_in_flight and len(server.documents) == 100


def test_an_id_is_one_segment_of_the_path_whatever_is_in_it() -> None:
    ids = ["a/../b", "a#b", "a?b=c&d", "a%2Fb", "é/日本", " lead", "a\nb", "..."]
    with serving(lambda name, tries: OK) as (server, url):
        Transport(Vespa(url), lambda result: None, QUICK).send(
            Operation("update", "item", name, {"n": n}, create=True, condition='item.x == "&"')
            for n, name in enumerate(ids)
        )
    assert server.documents == {name: n for n, name in enumerate(ids)}


def test_what_the_caller_raises_ends_it_in_order(tmp_path) -> None:
    report = Report(rows=100)

    def operations() -> Iterator[Operation]:
        yield from puts(10)
        raise KeyboardInterrupt

    with serving(lambda name, tries: OK) as (server, url), pytest.raises(KeyboardInterrupt):
        send_all(Vespa(url), operations(), tmp_path / "refused", report=report, policy=QUICK)
    assert report.ok == len(server.documents) <= 10 and counted(report) == 100
