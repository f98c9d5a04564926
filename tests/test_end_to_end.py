"""The main job on a small scale: train, export, deploy to the embedded engine, feed, search; and one vector by every
way.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

import onnx
from vespa.application import Vespa

from local_vespa.testing import running_engine
from mrse_cli.application.deploy import deploy
from mrse_cli.feeding.feed import feed
from mrse_model.data.contract import read_catalogue
from mrse_model.errors import InputError
from mrse_model.export import export, golden_inputs
from mrse_model.images.features import FeatureFile
from mrse_model.model import MRSE
from mrse_model.serving.exported_model import ExportedModel, QueryHistory
from mrse_model.serving.manifest import Manifest, sha256
from retrieval.searcher import Searcher

ROOT = Path(__file__).parent.parent
TEXTS = ["blue striped dress", "Red  T-Shirt, 12.5 cm!", "東京", "a b c d e f g h i j k l m n o p q r s t u v w x y z"]


@dataclass(frozen=True)
class Shop:
    """A fed engine. app: the package with the exported model. features: the items' image features."""

    url: str
    app: Path
    model: MRSE
    exported: ExportedModel
    items: Path
    features: Path
    vespa: Vespa


@pytest.fixture(scope="module")
def shop(trained: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    work = tmp_path_factory.mktemp("shop")
    app = work / "app"
    shutil.copytree(ROOT / "vespa_app", app, ignore=shutil.ignore_patterns("models"))
    export(trained.model, app / "models")
    features = trained.run / "cache" / "features.parquet"
    with running_engine(work / "engine") as url:
        deploy(app, config_server=url)
        feed(trained.inputs.items, app=app, endpoint=url, features=features, state=work / "feed.sqlite")
        vespa = Vespa(url)
        exported = ExportedModel.load(app / "models")
        yield Shop(url, app, trained.model, exported, trained.inputs.items, features, vespa)


def search(shop: Shop, **body: Any) -> list[dict[str, Any]]:
    answer = shop.vespa.query(body={"hits": 400, "timeout": "10s", **body})
    return answer.hits


def put_basis(shop: Shop) -> None:
    """128 items whose vectors are the axes: their scores for a query are the query vector's components."""
    for axis in range(128):
        vector = [0.0] * 128
        vector[axis] = 1.0
        fields = {"item_id": f"axis-{axis}", "title": "axis", "brand": "axes", "embedding": vector}
        shop.vespa.feed_data_point("item", f"axis-{axis}", fields, namespace="item")


@pytest.fixture
def axes(shop: Shop) -> Iterator[None]:
    put_basis(shop)
    yield
    for axis in range(128):
        shop.vespa.delete_data("item", f"axis-{axis}", namespace="item")


def components(hits: list[dict[str, Any]]) -> np.ndarray:
    """The vector that 128 scores of the axes spell."""
    out = np.zeros(128)
    for hit in hits:
        out[int(hit["fields"]["item_id"].removeprefix("axis-"))] = hit["relevance"]
    return out


@pytest.mark.parametrize("text", TEXTS)
def test_one_text_by_torch_onnxruntime_and_the_engine_is_one_vector(shop: Shop, axes: None, text: str) -> None:
    torch_vector = shop.model.query_vectors([text])[0]
    onnx_vector = shop.exported.query_vectors([text])[0]
    hits = search(
        shop, yql='select item_id from item where brand contains "axes"', ranking="exact", query=text,
        **{"input.query(q)": "embed(text, @query)"},
    )  # fmt: skip
    assert len(hits) == 128
    assert onnx_vector == pytest.approx(torch_vector, abs=1e-5)
    assert components(hits) == pytest.approx(torch_vector, abs=1e-4)


def test_the_query_tower_inside_the_rank_profile_knows_the_history(shop: Shop, axes: None) -> None:
    golden = golden_inputs(shop.model, batch=1)
    kept = int((golden["history_weight"][0] > 0).sum())
    history = QueryHistory(
        golden["history_text"][0, :kept], golden["history_image"][0, :kept], golden["history_weight"][0, :kept]
    )
    text = "blue striped dress"
    want = shop.model.query_vectors([text], [history])[0]
    producer = shop.exported.query_vectors([text], [history])[0]
    assert producer == pytest.approx(want, abs=1e-5)
    assert np.abs(want - shop.model.query_vectors([text])[0]).max() > 1e-3  # the history really tells
    shown = {f"input.query({name})": golden[name].tolist() for name in ("history_text", "history_image")}
    weight = np.where(np.arange(20) < kept, golden["history_weight"][0], 0)
    hits = search(
        shop, yql='select item_id from item where brand contains "axes"', ranking="query_tower", query=text,
        **{"input.query(tokens)": "embed(tokenizer, @query)", "input.query(history_weight)": [weight.tolist()]},
        **shown,
    )  # fmt: skip
    found = np.zeros(128)
    for hit in hits:
        found[int(hit["fields"]["item_id"].removeprefix("axis-"))] = hit["fields"]["matchfeatures"]["similarity"]
    assert found == pytest.approx(want, abs=1e-4)


def test_what_was_fed_is_what_the_item_tower_says(shop: Shop) -> None:
    catalogue = read_catalogue(shop.items)
    features = FeatureFile(shop.features).matrix(catalogue.ids)
    want = shop.model.item_vectors(catalogue.titles[:20], catalogue.categories[:20], features[:20])
    for row in range(20):
        fields = shop.vespa.get_data("item", catalogue.ids[row], namespace="item").json["fields"]
        assert fields["title"] == catalogue.titles[row]
        assert fields["model_version"] == shop.exported.manifest.model_version
        for name in ("embedding", "text_feature"):
            # bfloat16 keeps 8 bits of a number
            assert fields[name]["values"] == pytest.approx(getattr(want, name)[row], rel=2**-8, abs=1e-6)


def test_nearest_neighbours_are_those_of_an_exact_search(shop: Shop) -> None:
    catalogue = read_catalogue(shop.items)
    features = FeatureFile(shop.features).matrix(catalogue.ids)
    items = shop.model.item_vectors(catalogue.titles, catalogue.categories, features).embedding
    scores = items @ shop.model.query_vectors(["blue striped dress"])[0]
    hits = search(
        shop, yql="select item_id from item where {targetHits: 50}nearestNeighbor(embedding, q)", ranking="ann",
        query="blue striped dress", hits=10, **{"input.query(q)": "embed(text, @query)"},
    )  # fmt: skip
    best = np.sort(scores)[::-1][:10]
    found = [scores[catalogue.row[hit["fields"]["item_id"]]] for hit in hits]
    assert found == pytest.approx(best, abs=5e-3)  # bfloat16 may swap near ties


def test_a_user_s_events_are_found_by_a_search(shop: Shop) -> None:
    ids = [hit["fields"]["item_id"] for hit in search(shop, yql="select item_id from item where true")][:2]
    people = {"U 1": {ids[0]: 1000.0}, "u 1": {ids[0]: 1000.0, ids[1]: 2000.0}}
    for user, clicks in people.items():
        fields = {"user_id": user, "clicks": {"cells": clicks}}
        shop.vespa.feed_data_point("shopper", user, fields, namespace="item")
    searcher = Searcher(shop.vespa, model=shop.exported, deadline=30, clock=lambda: 3000.0)
    assert [searcher.search("dress", user=user).clicks for user in ("U 1", "u 1", "u")] == [1, 2, 0]
    searcher.close()


def test_a_model_that_is_not_deployed_is_refused_before_anything_is_fed(shop: Shop, tmp_path: Path) -> None:
    other = tmp_path / "app"
    shutil.copytree(shop.app, other)
    another_model(other / "models")
    with pytest.raises(InputError, match="mrse-ffffffffffff"):
        feed(shop.items, app=other, endpoint=shop.url, features=shop.features, state=tmp_path / "state.sqlite")
    answer = shop.vespa.get_data("item", read_catalogue(shop.items).ids[0], namespace="item")
    assert answer.json["fields"]["model_version"] == shop.exported.manifest.model_version


def another_model(models: Path) -> None:
    """Turns the export into one of another version: the query tower's last layer is negated."""
    path = models / "query_text.onnx"
    graph = onnx.load(path)
    last = max((i for i in graph.graph.initializer if i.name.endswith("dssm.out.bias")), key=lambda i: i.name)
    last.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(last) + 1, last.name))
    onnx.save(graph, path)
    manifest = Manifest.load(models, check_hashes=False)
    changed = replace(manifest.models["query_text"], sha256=sha256(path))
    replace(manifest, model_version="mrse-ffffffffffff", models=manifest.models | {"query_text": changed}).save(models)
