"""The search page: what each address answers."""

from __future__ import annotations

from collections.abc import Iterator

import orjson
import pytest
from vespa.application import Vespa

from mrse_model.serving.exported_model import ExportedModel
from retrieval.searcher import Searcher
from retrieval.web import Site


@pytest.fixture
def site(vespa, answer, package, items) -> Iterator[Site]:
    vespa.answer = answer
    searcher = Searcher(Vespa(vespa.url), model=ExportedModel.load(package / "models"))
    yield Site(searcher, items)
    searcher.close()


def test_the_page_offers_the_profiles(site) -> None:
    status, kind, body = site.reply("/", "")
    assert status == 200 and kind.startswith("text/html") and b"three_queues" in body


def test_a_search_is_answered_as_json(site, vespa) -> None:
    status, _, body = site.reply("/search", "q=red+dress&profile=hybrid&filter=price%3C%3D50")
    found = orjson.loads(body)
    assert status == 200 and found["total"] == 7 and found["hits"][0]["title"] == "Red dress"
    assert vespa.queries[-1]["ranking"] == "hybrid" and "price <= 50" in vespa.queries[-1]["yql"]


def test_a_bad_query_is_said(site) -> None:
    status, _, body = site.reply("/search", "q=&profile=ann")
    assert status == 400 and "blank" in orjson.loads(body)["error"]


def test_images_come_from_the_items_file(site, columns) -> None:
    assert site.reply("/image/i1", "") == (200, "image/png", columns["image"][1])
    assert site.reply("/image/i0", "")[0] == 404, "an item without an image"
    assert site.reply("/nothing", "")[0] == 404
