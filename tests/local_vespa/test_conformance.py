"""tests.helpers.conformance_check against the engine that runs vespa_app/ with stand-in models."""

from __future__ import annotations

import shutil
from pathlib import Path

from local_vespa.testing import deploy, running_engine
from tests.helpers import conformance_check
from tests.helpers.make_models import make_models

REPO = Path(__file__).parents[2]


def test_every_case(tmp_path):
    shutil.copytree(REPO / "vespa_app", tmp_path / "app", ignore=shutil.ignore_patterns("models"))
    make_models(tmp_path / "app" / "models")
    with running_engine(tmp_path / "data") as url:
        deploy(url, tmp_path / "app")
        assert conformance_check.problems(url, tmp_path / "app" / "models") == {}


def test_a_wrong_answer_is_seen():
    items = conformance_check.documents()
    reference = conformance_check.Reference(items, Path())
    case = {"right": "cosine", "vectors": {"q": 3}, "parameters": {"hits": 2}}
    right = sorted(reference.scores(case).items(), key=lambda pair: -pair[1])

    def problem(*hits):
        children = [{"fields": {"item_id": id}, "relevance": score} for id, score in hits]
        return conformance_check.difference(
            case, reference, {"root": {"fields": {"totalCount": 40}, "children": children}}
        )

    assert problem(*right[:2]) is None
    assert problem(right[0], right[30]) == "a better item is missing"
    assert problem(right[1], right[0]) == "not in order"
    assert "would be right" in problem(right[0], (right[1][0], 0.123))
