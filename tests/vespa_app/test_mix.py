"""What training chose is deployed: the share of words and the weight of popularity, by which hybrid_linear ranks and a
query may say others, and the rank profile of a search that names none.
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
from mrse_model.errors import InputError
from mrse_model.evaluation.popularity import prior
from mrse_model.evaluation.rankers import Ranking, add_prior
from mrse_model.evaluation.tuning import Mix
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
    for weight, popularity in ((None, 0.0), (0.0, 0.1), (0.35, 0.0), (1.0, 0.02)):
        write_mix(tmp_path, weight, popularity)
        assert read_mix(tmp_path) == (weight, popularity)


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


BEFORE = """rank-profile before inherits hybrid_linear {
  # hybrid_linear before popularity was a part of it
  function alpha() {
    expression: if(query(alpha) < 0, sum(constant(mix_alpha)), query(alpha))
  }
  global-phase {
    expression: if(alpha < 0, reciprocal_rank_fusion(lexical, semantic), semantic + alpha * (evidence - semantic))
    rerank-count: 200
  }
}
"""


def test_popularity_is_added_as_the_python_ranker_adds_it(tmp_path: Path) -> None:
    app, items = tmp_path / "app", tmp_path / "items.parquet"
    shutil.copytree(REPO / "vespa_app", app, ignore=shutil.ignore_patterns("models"))
    (app / "schemas" / "item" / "before.profile").write_text(BEFORE, "utf-8")
    make_models(app / "models")
    popularity = [None, 0.0, 1.0, 40.0, 1e6, 2.5, None, -3.0, 7.0]
    ids = [f"i{n}" for n in range(len(TITLES))]
    pq.write_table(pa.table({"item_id": ids, "title": TITLES, "popularity": popularity}), items)
    added = prior(np.array([np.nan if value is None else value for value in popularity]))

    def ranking(url: str, profile: str, **inputs: float) -> Ranking:
        body = {"queryProfile": "hybrid", "query": "red dress", "hits": 20, "timeout": "9s", "ranking": profile}
        body |= {f"input.query({name})": value for name, value in inputs.items()}
        hits = Vespa(url).query(body=body).hits
        rows = [ids.index(hit["fields"]["item_id"]) for hit in hits]
        return Ranking(np.array([rows]), np.array([[hit["relevance"] for hit in hits]]))

    with running_engine(tmp_path / "engine") as url:
        for weight in (0.25, None):
            for of_popularity in (0.0, 0.02):
                write_mix(app / "models", weight, of_popularity)
                mrse("deploy", app, "--config-server", url)
                if (weight, of_popularity) == (0.25, 0.0):
                    mrse("feed", "items", items, "--app", app, "-e", url)
                before, now = ranking(url, "before"), ranking(url, "hybrid_linear")
                if not of_popularity:  # bit for bit
                    assert now.rows.tolist() == before.rows.tolist() and now.scores.tolist() == before.scores.tolist()
                    continue
                mix = Mix(weight, popularity=of_popularity)
                wanted = add_prior(before, mix.added(np.expm1(added)))
                assert now.rows.tolist() == wanted.rows.tolist() != before.rows.tolist()
                assert now.scores[0] == pytest.approx(wanted.scores[0], abs=1e-5)
                off = ranking(url, "hybrid_linear", popularity=0)  # as the query says
                assert off.scores.tolist() == before.scores.tolist()
        (app / "models" / "mix_popularity.json").unlink()
        refused = CliRunner().invoke(main.app, ["deploy", str(app), "--config-server", url])
        assert isinstance(refused.exception, InputError) or refused.exit_code == 2
        said = str(refused.exception) + refused.output
        assert "models/mix_popularity.json is not in the package" in said and "mrse export" in said
