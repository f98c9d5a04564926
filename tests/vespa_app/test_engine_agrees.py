"""The embedded engine on the golden input of tests/vespa_java: it says what numpy and Vespa's evaluator say."""

from __future__ import annotations

import json
import shutil
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from local_vespa.testing import deploy, running_engine
from tests.helpers.make_models import make_models
from tests.helpers.vespa import golden

REPO = Path(__file__).parents[2]

PROFILES = [
    "exact",
    "query_tower",
    "ablation_query_text",
    "ablation_history",
    "ablation_history_text",
    "ablation_history_image",
    "explain",
]
# what the content node computes from matching, which the golden input gives as numbers
QUEUES = {"from_query", "from_clicks", "from_images"}
OF_MATCHING = {"firstPhase", "lexical", *QUEUES}


def call(url: str, body: dict[str, Any]) -> dict[str, Any]:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as response:
        answer: dict[str, Any] = json.load(response)
    return answer


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    work = tmp_path_factory.mktemp("engine")
    shutil.copytree(REPO / "vespa_app", work / "app", ignore=shutil.ignore_patterns("models"))
    make_models(work / "app" / "models")
    with running_engine(work / "data") as url:
        deploy(url, work / "app")
        vectors = {name: getattr(golden, name).tolist() for name in ("embedding", "image_embedding", "text_feature")}
        call(f"{url}/document/v1/item/item/docid/golden", {"fields": {"item_id": "golden", "title": "x", **vectors}})
        yield url, work / "app" / "models"


@pytest.mark.parametrize("profile", PROFILES)
def test_match_features_equal_the_golden_values(engine: tuple[str, Path], profile: str) -> None:
    url, models = engine
    inputs = {k: v for k, v in golden.features().items() if k.startswith("query(") and "bits" not in k}
    query = {"yql": 'select * from item where item_id in ("golden")', "ranking": profile}
    answer = call(f"{url}/search/", query | {f"input.{name}": value for name, value in inputs.items()})
    (hit,) = answer["root"]["children"]
    want = golden.expected(models)[profile]
    compared = 0
    for name, value in hit["fields"]["matchfeatures"].items():
        if name in want and name not in OF_MATCHING:
            assert value == pytest.approx(float(want[name]), abs=1e-4), name
            compared += 1
    assert compared >= (11 if profile == "explain" else 1)
    assert hit["relevance"] == pytest.approx(float(want["firstphase"]), abs=1e-4)
