"""An application package with stand-in models, an items file, and a server that records what it is sent."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from onnx import numpy_helper
from PIL import Image

from mrse_model.serving.manifest import sha256
from tests.helpers.make_models import FEATURES, make_models
from tests.helpers.recording_vespa import RecordingVespa

TESTS = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """vespa_app/ with stand-in models in it."""
    folder = tmp_path_factory.mktemp("package") / "app"
    shutil.copytree(TESTS.parent / "vespa_app", folder, ignore=shutil.ignore_patterns("models"))
    make_models(folder / "models")
    return folder


@pytest.fixture
def vespa(package: Path) -> Iterator[RecordingVespa]:
    with RecordingVespa(package / "models") as server:
        yield server


def image(colour: str) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (8, 8), colour).save(out, "PNG")
    return out.getvalue()


@pytest.fixture
def columns() -> dict[str, list]:
    """A good items file as columns; a test breaks one value of it."""
    return {
        "item_id": [f"i{n}" for n in range(12)],
        "title": [f"red dress {n}" for n in range(12)],
        "category": [["women", "dress"]] * 12,
        "price": [float(n) for n in range(12)],
        "in_stock": [n % 2 == 0 for n in range(12)],
        "image": [image("red") if n % 3 else None for n in range(12)],
    }


@pytest.fixture
def items(tmp_path: Path, columns: dict[str, list]) -> Path:
    file = tmp_path / "items.parquet"
    pq.write_table(pa.table(columns), file)
    return file


@pytest.fixture
def features(tmp_path: Path, columns: dict[str, list]) -> Path:
    """Features of those items, null where there is no image, in another order than the items."""
    from mrse_model.images.features import feature_array, feature_schema
    from mrse_model.serving.manifest import EncoderInfo

    vectors = np.random.default_rng(0).normal(size=(12, FEATURES)).astype(np.float32)
    vectors[::3] = np.nan
    file = tmp_path / "features.parquet"
    schema = feature_schema(EncoderInfo("stand-in", FEATURES, 96), "weights", "x")
    order = list(reversed(range(12)))
    ids = pa.array([columns["item_id"][n] for n in order])
    images = pa.nulls(12, schema.field("image_digest").type)
    pq.write_table(pa.table([ids, feature_array(vectors[order]), images], schema=schema), file)
    return file


@pytest.fixture
def new_models(package, tmp_path) -> Path:
    """Another model: the stand-in with other word vectors and another version."""
    folder = shutil.copytree(package / "models", tmp_path / "new")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["model_version"] = "mrse-ffffffffffff"
    for name, described in manifest["models"].items():
        graph = onnx.load(folder / f"{name}.onnx")
        for tensor in graph.graph.initializer:
            if tensor.name == "words":
                tensor.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(tensor)[::-1].copy(), "words"))
        onnx.save(graph, folder / f"{name}.onnx")
        described["sha256"] = sha256(folder / f"{name}.onnx")
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder
