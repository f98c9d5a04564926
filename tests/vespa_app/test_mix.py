"""The share of words that training chose is deployed: hybrid_linear ranks by it, and a query may say another."""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner
from vespa.application import Vespa

from local_vespa.testing import running_engine
from mrse_cli import main
from mrse_model.serving.mix import read_mix, write_mix
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

    def scores(url: str, ranking: str, **inputs: float) -> dict[str, float]:
        body = {"queryProfile": "hybrid", "query": "red dress", "ranking": ranking, "hits": 20, "timeout": "9s"}
        body |= {f"input.query({name})": value for name, value in inputs.items()}
        hits = Vespa(url).query(body=body).hits
        return {hit["fields"]["item_id"]: hit["relevance"] for hit in hits}

    with running_engine(tmp_path / "engine") as url:
        found = []
        for weight in (0.25, None):
            write_mix(app / "models", weight)
            mrse("deploy", app, "--config-server", url)
            if weight is not None:
                mrse("feed", "items", items, "--app", app, "-e", url)
            found.append(scores(url, "hybrid_linear"))
        words, vectors = (scores(url, "hybrid_linear", alpha=alpha) for alpha in (1, 0))
        fusion = scores(url, "hybrid")
    summed, fused = found
    assert len(summed) == len(TITLES) and max(words.values()) == max(vectors.values()) == 1
    assert fused == pytest.approx(fusion)
    assert summed == pytest.approx({item: 0.25 * words[item] + 0.75 * vectors[item] for item in words}, abs=1e-5)
    assert summed != pytest.approx(vectors, abs=0.01)
