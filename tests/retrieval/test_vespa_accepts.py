"""Vespa's own container code takes every query that the Searcher sends: YQL, parameters and typed inputs."""

from __future__ import annotations

import json
import os

import pytest
from vespa.application import Vespa

from mrse_model.serving.exported_model import ExportedModel
from retrieval.filters import Filter
from retrieval.history.behaviour import Event
from retrieval.profiles import TABLE
from retrieval.searcher import Searcher
from vespa_package.checks.vespa_java import ask, why_not

FILTERS = [
    Filter.parse(text)
    for text in ("colour=red|blue", "category!=Shoes", "price<=50", "price>9.5", "in_stock=true", 'sizes="38"')
]


@pytest.mark.java
@pytest.mark.skipif(why_not() is not None and not os.environ.get("CI"), reason=str(why_not()))
def test_vespa_parses_every_query_of_the_searcher(vespa, package, answer) -> None:
    vespa.answer = answer
    clicks = [Event("a'b\"c", "click", 1.0), Event("c d", "order", 2.0)]
    for model in (None, ExportedModel.load(package / "models")):
        searcher = Searcher(Vespa(vespa.url), model=model, deadline=30, clock=lambda: 10.0)
        for profile in TABLE:
            searcher.search('red "dress" or (', profile=profile, filters=FILTERS)
            searcher.search("red dress", profile=profile, clicks=clicks if model else (), exact=True)
        searcher.close()
    statements = [
        {
            "package": "app",
            "yql": body["yql"],
            "parameters": {k: _text(k, v) for k, v in body.items() if k not in ("yql", "hits")},
        }
        for body in vespa.queries
    ]
    verdict = ask({"packages": [{"name": "app", "dir": str(package)}], "yql": statements})
    errors = [(s["yql"], a["error"]) for s, a in zip(statements, verdict["yql"], strict=True) if "error" in a]
    assert errors == []
    assert len(statements) > 3 * len(TABLE)


def _text(name: str, value: object) -> str:
    if isinstance(value, str) and value.startswith("embed("):  # the judge runs no embedder: what it would give
        value = [0.5] * (14 if name == "input.query(tokens)" else 128)
    return value if isinstance(value, str) else json.dumps(value)
