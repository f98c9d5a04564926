"""Each fault of a backend ends in the right kind of error, within the deadline, for both clients."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import pytest
from vespa.application import Vespa

from mrse_model.errors import InputError
from retrieval import AsyncSearcher, DeadlineExceeded, Degraded, Searcher, kind_of
from retrieval.backend import Backend, Deadline, Retries
from tests.helpers.faulty_backend import FaultyBackend

DEADLINE = 0.6
GRACE = 2.0  # seconds that a busy machine may add; five seconds is how long the slow backend takes
KINDS = {
    "down": "unavailable",
    "slow": "timeout",
    "trickle": "timeout",
    "hang up": "unavailable",
    "cut off": "unavailable",
    "garbage": "unavailable",
    "no vespa": "unavailable",
    "empty handed": "unavailable",
    "soft timeout": "timeout",
    "400": "caller",
    "401": "unavailable",
    "404": "unavailable",
    "429": "unavailable",
    "500": "unavailable",
    "502": "unavailable",
    "503": "unavailable",
    "504": "timeout",
}


@pytest.fixture
def backend() -> Iterator[FaultyBackend]:
    one = FaultyBackend()
    yield one
    one.close()


def search(url: str, way: str, **options):
    app = Vespa(url)
    if way == "sync":
        with Searcher(app, deadline=DEADLINE) as searcher:
            return searcher.search("red dress", profile="bm25", **options)

    async def ask():
        async with AsyncSearcher(app, deadline=DEADLINE) as searcher:
            return await searcher.search("red dress", profile="bm25", **options)

    return asyncio.run(ask())


@pytest.mark.parametrize("way", ["sync", "async"])
@pytest.mark.parametrize("fault", KINDS)
def test_a_fault_ends_in_its_kind_within_the_deadline(backend, fault, way) -> None:
    backend.fault = fault
    url = "http://127.0.0.1:9" if fault == "down" else backend.url
    begin = time.monotonic()
    with pytest.raises(InputError) as caught:
        search(url, way)
    assert time.monotonic() - begin < DEADLINE + GRACE
    assert kind_of(caught.value) == KINDS[fault], caught.value


@pytest.mark.parametrize("way", ["sync", "async"])
@pytest.mark.parametrize("fault", ["429", "500", "502", "503", "hang up"])
def test_what_passes_is_tried_again(backend, fault, way) -> None:
    backend.fault, backend.recover_after = fault, 1
    assert search(backend.url, way, timeout=10).hits[0].item_id == "i1"
    assert backend.asked == 2


@pytest.mark.parametrize("fault", ["400", "504", "garbage", "401", "404"])
def test_what_stays_is_not_tried_again(backend, fault) -> None:
    backend.fault = fault
    with pytest.raises(InputError):
        search(backend.url, "sync", timeout=10)
    assert backend.asked == 1


def test_tries_are_few(backend) -> None:
    backend.fault = "503"
    with pytest.raises(InputError):
        search(backend.url, "sync", timeout=10)
    assert backend.asked == Retries().attempts


@pytest.mark.parametrize("way", ["sync", "async"])
def test_an_answer_in_part_is_passed_on_or_refused(backend, way) -> None:
    backend.fault = "in part"
    found = search(backend.url, way)
    assert found.coverage.share == 0.5 and found.coverage.reason == "timeout" and found.hits
    with pytest.raises(Degraded) as caught:
        search(backend.url, way, min_coverage=0.9)
    assert caught.value.coverage == 0.5 and kind_of(caught.value) == "degraded"


def test_an_explanation_has_one_deadline_for_its_two_requests(backend) -> None:
    backend.delay = 0.6
    with Searcher(Vespa(backend.url), deadline=1.0) as searcher, pytest.raises(DeadlineExceeded):
        searcher.explain("red dress", "i1")
    backend.delay = 0.0
    with Searcher(Vespa(backend.url), deadline=10.0) as searcher:
        assert searcher.explain("red dress", "i1").hit.item_id == "i1"


def test_vespa_is_told_how_long_it_has(backend) -> None:
    one = Backend(Vespa(backend.url))
    step = next(one.ask({"yql": "x"}, Deadline(0.5)))
    assert step.timeout <= 0.5 and 300 < int(step.body["timeout"].removesuffix("ms")) <= 450
    one.close()
