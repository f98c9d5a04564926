"""What a request may not ask, and what becomes of one that takes too long, as Vespa's source says."""

from __future__ import annotations

import asyncio
import contextlib
import math
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import orjson
import pytest
from granian.constants import HTTPModes, Interfaces
from granian.server.embed import Server

from local_vespa.api import search as search_api
from local_vespa.api.search import SearchApi
from local_vespa.application import Application
from local_vespa.deadline import Deadline, OutOfTime
from local_vespa.documents.operations import read_put
from local_vespa.documents.values import check_id
from local_vespa.engine import Engine
from local_vespa.errors import DocumentError, QueryError
from local_vespa.http import Request, Response, RsgiApplication
from local_vespa.index import analysis
from local_vespa.matching import Matcher
from local_vespa.ranking import phases
from local_vespa.search.executor import run
from local_vespa.search.parameters import Parameters
from local_vespa.search.planner import make_plan
from local_vespa.testing import deploy, free_port, running_engine
from local_vespa.yql import least_items, raw
from local_vespa.yql.raw import MAX_REMEMBERED, _remembered, parse_raw
from tests.helpers.small_app import ask, package_files, put, search, zipped

ALL = "select * from thing where true"


def refusal(answer: tuple[int, dict]) -> tuple[int, int, str]:
    """Status, code and message of a search that is refused."""
    (error,) = answer[1]["root"]["errors"]
    return answer[0], error["code"], error["message"]


# Characters


NO_TEXT = ("\x00", "\x08", "\x0b", "\x0c", "\x1f", "\ufdd0", "\ufddf", "\U0001fffe", "\U0010ffff")
TEXT = ("\t", "\n", "\r", "\x7f", "\x85", "\ufde0", "\ufeff", "\u202e", "\ufffd", "\U0001f45f")


def test_characters_that_are_no_text_are_refused(fresh: str) -> None:
    for character in NO_TEXT:
        code = f"0x{ord(character):X}"
        for fields in ({"title": f"red {character}"}, {"labels": ["a", character]}, {"marks": {character: 1}}):
            status, answer = put(fresh, "a", fields)
            assert status == 400 and f"illegal code point {code}" in answer["message"]
        update = {"fields": {"title": {"assign": character}}}
        assert ask(fresh, "/document/v1/shop/thing/docid/a", update, "PUT")[0] == 400
        status, answer = put(fresh, quote(f"a{character}"), {"title": "a"})
        assert status == 400 and f"Contains illegal code point {code}" in answer["message"]
        assert ask(fresh, f"/document/v1/shop/thing/docid/{quote(character)}")[0] == 400


def test_other_characters_are_taken(fresh: str) -> None:
    for character in TEXT:
        assert put(fresh, quote(f"a{character}"), {"title": f"red {character}shoe"})[0] == 200
        found = ask(fresh, f"/document/v1/shop/thing/docid/{quote('a' + character)}")
        assert found[1]["fields"]["title"] == f"red {character}shoe"


def test_an_id_has_an_end() -> None:
    with pytest.raises(DocumentError, match="Document id length 65537 is longer than max length of 65536"):
        check_id("id:shop:thing::" + "x" * 65_522)
    check_id("id:shop:thing::" + "x" * 65_521)


# Limits of the application


@pytest.mark.parametrize("name", ["maxHits", "maxOffset", "maxQueryItems"])
def test_a_request_cannot_lift_the_limits_of_the_application(shop: str, name: str) -> None:
    expected = (500, 5, f"Failed: {name} must be specified in a query profile.")
    assert refusal(search(shop, yql=ALL, **{name: 5000})) == expected
    assert refusal(ask(shop, f"/search/?yql={quote(ALL)}&{name}=5000")) == expected


def test_nor_the_number_of_groups(shop: str) -> None:
    status, code, message = refusal(search(shop, yql=ALL, **{"grouping.globalMaxGroups": -1}))
    assert (status, code) == (400, 17) and "grouping.globalMaxGroups must be specified in a query profile" in message


def test_limits_are_in_query_profiles(tmp_path: Path) -> None:
    files = package_files()
    files["search/query-profiles/default.xml"] = b"""<query-profile id="default">
      <field name="maxHits">2</field><field name="maxQueryItems">4</field>
      <field name="grouping.globalMaxGroups">3</field></query-profile>"""
    with running_engine(tmp_path) as url:
        deploy(url, zipped(files))
        assert "3 hits requested, configured limit: 2" in refusal(search(url, yql=ALL, hits=3))[2]
        words = "select * from thing where userInput(@q)"
        assert search(url, yql=words, q="a b c", hits=1)[0] == 200
        assert refusal(search(url, yql=words, q="a b c d", hits=1)) == (
            400, 3, "Query tree exceeds allowed item count. Configured limit: 4 - Item count: 5",
        )  # fmt: skip
        grouped = ALL + " | all(group(colour) max({}) each(output(count())))"
        assert search(url, yql=grouped.format(3), hits=1)[0] == 200
        assert "( 4 > 3 )" in refusal(search(url, yql=grouped.format(4), hits=1))[2]


@pytest.mark.parametrize(
    ("query", "items"),
    [
        ({"yql": "select * from thing where userInput(@q)", "q": "w " * 10_000}, 10_001),
        ({"yql": "select * from thing where userInput(@q)", "q": "w " * 40_000}, 40_001),
        ({"yql": "select * from thing where " + " or ".join(["title contains 'a'"] * 10_001)}, 10_002),
        ({"yql": f"select * from thing where title contains '{'a ' * 10_001}'"}, 10_002),
        ({"yql": "select * from thing where title contains phrase('a " + "a " * 10_000 + "')"}, 10_002),
    ],
    ids=["userInput", "long text", "or", "text", "phrase"],
)  # fmt: skip
def test_ten_thousand_items_are_enough(shop: str, query: dict[str, str], items: int) -> None:
    status, code, message = refusal(search(shop, **query))
    assert status == 400 and code == 3 and "exceeds allowed item count. Configured limit: 10000" in message
    assert message.endswith(f"Item count: {items}")


def test_a_statement_of_too_many_terms_is_not_even_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    statement = "select * from thing where " + " or ".join(f"title contains 'contains {i}'" for i in range(40_000))
    assert least_items(statement) == 40_001
    assert least_items("select * from thing where title contains 'a = \\' b' # or c = 'd'\n and stock in (1, 2)") == 3
    monkeypatch.setattr(raw, "_parse", lambda text: pytest.fail("it was parsed"))
    package = Application(zipped(package_files()))
    with pytest.raises(QueryError, match="Item count: 40001"):
        make_plan(package, Parameters({"yql": statement}, {}))


@pytest.mark.parametrize(
    "unclosed", ['"' + '\\"' * 100_000, "'" + "\\'" * 100_000 + "\\", "/*=" * 100_000], ids=['"', "'", "/*"]
)
def test_what_nothing_closes_is_looked_through_once(shop: str, unclosed: str) -> None:
    for statement in (f"title contains {unclosed}", f"true | all(group({unclosed}"):  # looked at anew each: an hour
        assert search(shop, yql=f"select * from thing where {statement}")[0] == 400


def test_many_values_are_one_item(shop: str) -> None:
    values = ",".join(map(str, range(20_000)))
    status, answer = search(shop, yql=f"select * from thing where stock in ({values})")
    assert status == 200 and answer["root"]["fields"]["totalCount"] == 4


def test_default_numbers_of_groups_and_hits(shop: str) -> None:
    grouped = ALL + " | all(group(price) each(output(count()) each(output(summary()))))"
    for groups, hits in ((1, 1), (3, 10)):
        asked = {"grouping.defaultMaxGroups": groups, "grouping.defaultMaxHits": hits}
        (root,) = (c for c in search(shop, yql=grouped, hits=0, **asked)[1]["root"]["children"])
        assert len(root["children"][0]["children"]) == groups
    assert refusal(search(shop, yql=ALL, **{"grouping.defaultMaxGroups": "many"}))[:2] == (400, 3)


# Time


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"timeout": "0"}, (504, 12, "No time left after waiting for")),
        ({"timeout": "0.0001 ms"}, (504, 12, "No time left after waiting for")),
        ({"yql": ALL + " timeout 0"}, (504, 12, "No time left after waiting for")),
        ({"timeout": "-1"}, (400, 3, "Could not set 'timeout': Error parsing '-1'")),
        ({"timeout": "soon"}, (400, 3, "Could not set 'timeout': Error parsing 'soon'")),
        ({"timeout": "1.2.3"}, (400, 3, "Could not set 'timeout': Error parsing '1.2.3'")),
        ({"timeout": "2000000"}, (400, 3, "must be positive and smaller than 1000000000 ms but was 2000000000")),
        ({"yql": ALL + " timeout -5"}, (400, 17, "must be positive and smaller than 1000000000 ms but was -5")),
        ({"ranking.softtimeout.factor": "2"}, (400, 3, "factor must be in the range [0.0, 1.0], got 2.0")),
    ],
)
def test_timeouts_that_are_over_or_wrong(shop: str, asked: dict[str, str], expected: tuple[int, int, str]) -> None:
    status, code, message = refusal(search(shop, **{"yql": ALL, **asked}))
    assert (status, code) == expected[:2] and expected[2] in message


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("3", 3),
        ("500ms", 0.5),
        ("500 ms", 0.5),
        ("2 s", 2),
        (" 1ks", 1000),
        ("1500\u00b5s", 0.001),
        ("1min", 1),
        ("7", 7),
    ],
)
def test_units_of_time(text: str, seconds: float) -> None:
    assert Parameters({"timeout": text}, {}).timeout() == seconds


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    made = Engine(tmp_path)
    made.deploy(zipped(package_files()))

    async def feed() -> None:
        schema = made.schema("thing")
        puts = [read_put(schema, f"id:shop:thing::{i}", {"fields": {"title": "red", "stock": i}}) for i in range(40)]
        await asyncio.gather(*map(made.submit, puts))

    asyncio.run(feed())
    yield made
    made.close()


class Ends(Deadline):
    """Is over at the n-th question; the soft one at a question of its own."""

    def __init__(self, questions: float, soft: float = math.inf) -> None:
        super().__init__(math.inf)
        self.questions, self.soft = questions, soft

    @property
    def over(self) -> bool:
        self.questions -= 1
        return self.questions < 0

    def sooner(self, share: float) -> Deadline:
        return Ends(self.soft)


def planned(engine: Engine, **parameters: str):
    assert engine.application is not None
    return make_plan(engine.application, Parameters({"yql": ALL, "ranking.profile": "two", **parameters}, {}))


def test_what_was_ranked_in_time_is_the_answer(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(phases, "FIRST_ROWS", 5)
    assert engine.application is not None
    whole = run(engine.application, engine.tables, planned(engine))
    assert (whole.total, whole.parts[0].covered) == (40, 40)
    part = run(engine.application, engine.tables, planned(engine), Ends(math.inf, soft=1))
    assert (part.total, part.parts[0].covered) == (15, 15)  # 5 rows, then 10, then it was over
    assert {hit.row for hit in part.hits} <= set(range(15)) and len(part.hits) == 10


def test_half_an_answer_says_so(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(phases, "FIRST_ROWS", 5)
    monkeypatch.setattr(search_api, "Deadline", lambda *_: Ends(math.inf, soft=0))
    body = orjson.dumps({"yql": ALL, "ranking": "two"})
    answer = SearchApi(engine).handle(Request("POST", "/search/", {}, {}, body, ""))
    assert answer.status == 200
    coverage = orjson.loads(answer.body)["root"]["coverage"]
    assert coverage.pop("degraded") == {
        "match-phase": False, "timeout": True, "adaptive-timeout": False, "anntimeout": False, "non-ideal-state": False,
    }  # fmt: skip
    assert coverage == {"coverage": 12, "documents": 5, "full": False, "nodes": 1, "results": 1, "resultsFull": 0}
    whole = orjson.dumps({"yql": ALL, "ranking": "two", "ranking.softtimeout.enable": False})
    answer = SearchApi(engine).handle(Request("POST", "/search/", {}, {}, whole, ""))
    assert orjson.loads(answer.body)["root"]["coverage"]["full"] is True


@pytest.mark.parametrize("questions", range(6))
def test_without_time_nothing_is_found(engine: Engine, questions: int, monkeypatch: pytest.MonkeyPatch) -> None:
    words = "select * from thing where userQuery() and !(title contains 'blue')"
    monkeypatch.setattr(search_api, "Deadline", lambda *_: Ends(questions))
    body = orjson.dumps({"yql": words, "query": "red shoe", "ranking": "two"})
    answer = SearchApi(engine).handle(Request("POST", "/search/", {}, {}, body, ""))
    assert answer.status == 504 and orjson.loads(answer.body)["root"]["errors"][0]["code"] == 12


def test_a_search_does_not_wait_for_the_tables_beyond_its_time(engine: Engine) -> None:
    body = orjson.dumps({"yql": ALL, "timeout": "50ms"})
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with engine.lock.alone():
            held.set()
            done.wait(30)

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait(30)
    try:
        assert SearchApi(engine).handle(Request("POST", "/search/", {}, {}, body, "")).status == 504
    finally:
        done.set()
        holder.join()


def test_the_search_of_a_client_that_has_gone_ends(engine: Engine) -> None:
    request = Request("POST", "/search/", {}, {}, orjson.dumps({"yql": ALL}), "")
    request.disconnected.set()
    assert SearchApi(engine).handle(request).status == 504
    assert engine.application is not None
    with pytest.raises(OutOfTime):
        Matcher(engine.tables["thing"], {}, "shop", deadline=Deadline(60, disconnected=request.disconnected)).run(
            planned(engine).where
        )


def test_a_request_knows_when_its_client_has_gone() -> None:
    seen: list[bool] = []

    async def handle(request: Request) -> Response:
        for _ in range(1000):
            if request.disconnected.is_set():
                break
            await asyncio.sleep(0.01)
        seen.append(request.disconnected.is_set())
        return Response(200)

    async def main() -> None:
        port = free_port()
        application = RsgiApplication(handle)
        server = Server(
            application.__rsgi__, address="127.0.0.1", port=port, interface=Interfaces.RSGI, http=HTTPModes.auto,
            websockets=False, log_enabled=False,
        )  # fmt: skip
        serving = asyncio.create_task(server.serve())
        for _ in range(500):
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                break
            await asyncio.sleep(0.01)
        writer.write(b"GET /search/?yql=x HTTP/1.1\r\nHost: x\r\n\r\n")
        await writer.drain()
        while not application.pending:
            await asyncio.sleep(0.01)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        writer.close()
        while application.pending:
            await asyncio.sleep(0.01)
        server.stop()
        await asyncio.wait_for(asyncio.gather(serving, return_exceptions=True), 20)

    asyncio.run(asyncio.wait_for(main(), 40))
    assert seen == [True]


# Memory


def test_long_texts_are_not_remembered(shop: str) -> None:
    before = analysis._remembered.cache_info().currsize
    for i in range(20):
        analysis.normalized(f"{i}" + "x" * 1000)
    assert analysis._remembered.cache_info().currsize == before
    before = _remembered.cache_info().currsize
    parse_raw(f"select * from thing where title contains '{'x' * MAX_REMEMBERED}'")
    assert _remembered.cache_info().currsize == before
    assert search(shop, yql="select * from thing where userInput(@q)", q="x" * 200_000)[0] == 200
