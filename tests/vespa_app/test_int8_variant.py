"""variants/int8 on the embedded engine, fed by the feeder: whole numbers find what the floats would find."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from vespa.application import Vespa

from feeders.feed import feed_items
from feeders.image_features import NoImages
from feeders.items import ItemSource
from local_vespa.testing import deploy, running_engine
from mrse_model.serving.exported_model import ExportedModel
from tests.helpers.make_models import make_models
from vespa_package.fields import DocumentType
from vespa_package.variants import build_variant

REPO = Path(__file__).parents[2]
TITLES = [
    f"{c} {m} {t}" for c in ("red", "blue", "green") for m in ("wool", "cotton") for t in ("dress", "bag", "shoe")
]


def test_whole_numbers_find_what_floats_find(tmp_path: Path) -> None:
    shutil.copytree(REPO / "vespa_app", tmp_path / "app", ignore=shutil.ignore_patterns("models"))
    make_models(tmp_path / "app" / "models")
    app = build_variant(tmp_path / "app", REPO / "variants", "int8", tmp_path / "int8")
    model = ExportedModel.load(app / "models")
    items = tmp_path / "items.parquet"
    pq.write_table(pa.table({"item_id": [f"i{n}" for n in range(len(TITLES))], "title": TITLES}), items)
    right = model.item_vectors(TITLES, [[]] * len(TITLES)).embedding @ model.query_vectors(["red wool dress"])[0]
    order = np.argsort(-right)
    near = order[right[order] > 0.001]
    with running_engine(tmp_path / "engine") as url:
        deploy(url, app)
        vespa = Vespa(url)
        feed_items(vespa, ItemSource.open(items, DocumentType.load(app), model, NoImages()), tmp_path / "journal")

        def ask(profile: str, query: str = "red wool dress") -> list[dict]:
            answer = vespa.query(body={"queryProfile": profile, "query": query, "hits": 50}).json["root"]
            hits: list[dict] = answer.get("children", [])
            return hits

        for profile in ("q2i", "three_queues", "query_tower"):
            hits = ask(profile)
            assert [hit["fields"]["item_id"] for hit in hits] == [f"i{n}" for n in near], profile
            for hit in hits:
                cosine = right[int(hit["fields"]["item_id"][1:])]
                assert hit["fields"]["matchfeatures"]["similarity"] == pytest.approx(cosine, abs=0.01)
        for hit in ask("q2i"):  # closeness is 1 / (2 - cosine)
            features = hit["fields"]["matchfeatures"]
            assert 2 - 1 / features["coarse"] == pytest.approx(features["similarity"], abs=0.02)
        assert {hit["fields"]["item_id"] for hit in ask("three_queues")} == {f"i{n}" for n in near}
        assert all(hit["fields"]["matchfeatures"]["from_query"] > 0 for hit in ask("explain"))
        assert ask("q2i", "") == []
