"""What training chose is deployed: the share of words, by which hybrid_linear ranks and a query may say another, and
the rank profile of a search that names none.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner
from vespa.application import Vespa

from local_vespa.testing import running_engine
from mrse_cli import main
from mrse_model.serving.exported_model import ExportedModel
from mrse_model.serving.manifest import Manifest
from mrse_model.serving.mix import read_mix, write_mix
from retrieval import QueryVector, Searcher
from retrieval.service.page import page_settings
from tests.helpers.make_models import make_models

REPO = Path(__file__).parents[2]
TITLES = [f"{colour} {kind}" for colour in ("red", "blue", "green") for kind in ("wool dress", "bag", "cotton shoe")]


def mrse(*arguments: object) -> None:
    result = CliRunner().invoke(main.app, list(map(str, arguments)), catch_exceptions=False)
    assert result.exit_code == 0, result.output


def test_the_constant_is_read_back(tmp_path: Path) -> None:
    for weight in (None, 0.0, 0.35, 1.0):
        write_mix(tmp_path, weight)
        assert read_mix(tmp_path) == weight


def test_the_deployed_package_mixes_as_the_model_says(tmp_path: Path) -> None:
    app, items = tmp_path / "app", tmp_path / "items.parquet"
    shutil.copytree(REPO / "vespa_app", app, ignore=shutil.ignore_patterns("models"))
    make_models(app / "models")
    pq.write_table(pa.table({"item_id": [f"i{n}" for n in range(len(TITLES))], "title": TITLES}), items)

    def scores(url: str, ranking: str | None, **inputs: float) -> dict[str, float]:
        body = {"queryProfile": "hybrid", "query": "red dress", "hits": 20, "timeout": "9s"}
        body |= {"ranking": ranking} if ranking else {}
        body |= {f"input.query({name})": value for name, value in inputs.items()}
        hits = Vespa(url).query(body=body).hits
        return {hit["fields"]["item_id"]: hit["relevance"] for hit in hits}

    def searched(url: str, app: Path, recommended: str) -> dict[str, float]:
        """By a Searcher that is told no profile, with a model that recommends this one."""
        manifest = replace(Manifest.load(app / "models"), profile=recommended)
        manifest.save(app / "models")
        with Searcher(Vespa(url), model=ExportedModel.load(app / "models")) as searcher:
            result = searcher.search("red dress", hits=20)
            assert result.profile == searcher.profile == recommended
            by_vector = searcher.search(QueryVector(np.eye(1, manifest.dims)[0], manifest.model_version))
            assert by_vector.profile == "ann"  # it has no words
        assert page_settings(None, searcher.profile)["profile"] == recommended
        return {hit.item_id: hit.score for hit in result.hits}

    with running_engine(tmp_path / "engine") as url:
        found = []
        for weight in (0.25, None):
            write_mix(app / "models", weight)
            mrse("deploy", app, "--config-server", url)
            if weight is not None:
                mrse("feed", "items", items, "--app", app, "-e", url)
            found.append(scores(url, "hybrid_linear"))
            assert scores(url, None) == found[-1]  # what the query profile ranks by
            assert searched(url, app, "hybrid_linear") == pytest.approx(found[-1], abs=1e-5)
            assert searched(url, app, "ann") != pytest.approx(found[-1], abs=1e-3)
        words, vectors = (scores(url, "hybrid_linear", alpha=alpha) for alpha in (1, 0))
        fusion = scores(url, "hybrid")
    summed, fused = found
    assert len(summed) == len(TITLES) and 0 < max(words.values()) < 1
    assert fused == pytest.approx(fusion)
    assert summed == pytest.approx({item: 0.25 * words[item] + 0.75 * vectors[item] for item in words}, abs=1e-5)
    assert summed != pytest.approx(vectors, abs=0.01)
