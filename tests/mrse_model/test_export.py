"""The exported graphs: equal to torch on a golden input, within Vespa's limits, also for a model without images."""

from __future__ import annotations

import shutil
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

import onnx
import onnxruntime
import torch

import mrse_model.export as export_module
from mrse_model.config import EXPERTS, ModelConfig
from mrse_model.errors import InputError
from mrse_model.export import compare_from_texts, export, golden_inputs, version_of
from mrse_model.model import MRSE
from mrse_model.serving.exported_model import ExportedModel, QueryHistory
from mrse_model.serving.manifest import Manifest, OnnxFile
from tests.helpers.small_model import TITLES, small


@pytest.fixture(scope="module")
def without_images() -> MRSE:
    return small(image_dims=0)


@pytest.fixture(scope="module")
def folder(without_images: MRSE, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("export") / "models"
    export(without_images, path)
    return path


def test_a_model_without_images_is_served_as_torch_has_it(without_images: MRSE, folder: Path) -> None:
    exported = ExportedModel.load(folder)
    rng = np.random.default_rng(0)
    some = QueryHistory(
        rng.normal(size=(3, 128)).astype(np.float32), np.full((3, 128), np.nan, np.float32), np.ones(3, np.float32)
    )
    texts, histories = ["red dress", "", "blue jacket"], [some, None, some]
    assert exported.query_vectors(texts, histories) == pytest.approx(
        without_images.query_vectors(texts, histories), abs=1e-5
    )
    arguments = (TITLES[:3], [["Clothes"], [], ["Shoes", "Boots"]], None, [["red dress", "cotton"], [], []])
    ours, theirs = exported.item_vectors(*arguments), without_images.item_vectors(*arguments)
    assert ours.embedding == pytest.approx(theirs.embedding, abs=1e-5)
    assert ours.text_feature == pytest.approx(theirs.text_feature, abs=1e-5)
    assert np.isnan(ours.image_embedding).all()


def test_graphs_are_what_vespa_takes(folder: Path) -> None:
    manifest = Manifest.load(folder)
    for name, model in manifest.models.items():
        graph = onnx.load(folder / model.file)
        assert (graph.ir_version, graph.opset_import[0].version) == (10, 18) == (model.ir_version, model.opset)
        assert {p.type for p in (*model.inputs, *model.outputs)} <= {"int64", "float32"}
        assert name == name.lower() and all(p.name == p.name.lower() for p in (*model.inputs, *model.outputs))
        assert b"/work" not in graph.SerializeToString() and b"site-packages" not in graph.SerializeToString()
    for name in ("query_tower", "query_experts"):  # what a rank profile hands over is floats
        assert {p.type for p in manifest.models[name].inputs} == {"float32"}
    assert {p.type for p in manifest.models["query_text"].inputs} == {"int64"}, "what the embedder hands over"
    assert [p.shape for p in manifest.models["query_tower"].inputs] == [
        ("batch", "tokens"), ("batch", "tokens"), ("batch", 20, 128), ("batch", 20, 128), ("batch", 20),
    ]  # fmt: skip


def test_query_experts_are_the_tower_with_one_expert_zeroed(without_images: MRSE, folder: Path) -> None:
    golden = golden_inputs(without_images)
    ids = golden["query.input_ids"]
    past = {name: golden[name] for name in ("history_text", "history_image", "history_weight")}
    tokens = {"input_ids": ids.astype(np.float32), "attention_mask": (ids > 0).astype(np.float32)}
    inputs = tokens | past
    outputs = [f"without_{name}" for name in EXPERTS]
    found = onnxruntime.InferenceSession(folder / "query_experts.onnx").run(outputs, inputs)
    tower, tensors = without_images.query, [torch.from_numpy(value) for value in inputs.values()]
    with torch.no_grad():
        texts = tower.texts(without_images.ngrams, *(tensor.long() for tensor in tensors[:2]))
        experts = tower.all_experts(texts, *tensors[2:])
        for place, vectors in enumerate(found):
            kept = experts.clone()
            kept[:, place] = 0
            if EXPERTS[place] == "history":
                kept[:, len(EXPERTS) :] = 0  # the preference is what a history tells, too
            assert vectors == pytest.approx(tower.dssm(kept).numpy(), abs=1e-5)
    assert len({vectors.tobytes() for vectors in found}) == len(EXPERTS)


def test_whole_numbers_are_the_embedding_rounded(folder: Path) -> None:
    inputs = {"input_ids": np.array([[2, 9, 7, 3]]), "attention_mask": np.ones((1, 4), np.int64)}
    vector, cells = onnxruntime.InferenceSession(folder / "query_text.onnx").run(None, inputs)
    assert cells == pytest.approx(np.rint(127 * vector), abs=0)
    assert 100 < np.linalg.norm(cells) < 150


def test_the_version_follows_the_weights(without_images: MRSE) -> None:
    before = version_of(without_images)
    assert before == version_of(without_images)
    other = small(image_dims=0)
    other.query.dssm.out.bias.data += 1
    assert version_of(other) != before


SWITCHES: list[dict[str, Any]] = [  # each on its own; use_images is the first model's
    {"image_dims": 0, "use_images": False},
    {"use_category": False},
    {"ngrams": "off"},
    {"ngrams": "teacher"},
    {"experts": ("vbert", "history")},
    {"experts": ("light_bert", "ft_att")},
]


@pytest.mark.parametrize("switch", SWITCHES, ids=str)
def test_for_every_switch_the_export_is_torch_from_texts(
    without_images: MRSE, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, switch: dict[str, Any]
) -> None:
    """`export` itself compares, over texts of its own; here over others, which it must not have been made for."""
    if "image_dims" in switch:
        model, exported = without_images, ExportedModel.load(folder)
    else:
        export_but_the_experts(monkeypatch, folder)
        model = switched(switch)
        export(model, tmp_path / "models")
        exported = ExportedModel.load(tmp_path / "models")
    assert exported.manifest.item_text == model.config.model.text_columns
    size, rng = model.config.model, np.random.default_rng(3)
    features = rng.normal(size=(3, size.image_dims)).astype(np.float32) if size.image_dims else None
    arguments = (TITLES[:3], [["Clothes", "Dresses"], ["Jackets"], []], features, [["red dress"], [], ["shoes"]])
    ours, theirs = exported.item_vectors(*arguments), model.item_vectors(*arguments)
    assert ours.embedding == pytest.approx(theirs.embedding, abs=1e-5)
    assert ours.text_feature == pytest.approx(theirs.text_feature, abs=1e-5)
    assert ours.image_embedding == pytest.approx(theirs.image_embedding, abs=1e-5, nan_ok=True)
    clicked = rng.normal(size=(2, size.dims)).astype(np.float32)
    histories = [None, QueryHistory(clicked, clicked, np.ones(2, np.float32))]
    queries = ["red dress", "shoes"]
    assert exported.query_vectors(queries, histories) == pytest.approx(
        model.query_vectors(queries, histories), abs=1e-5
    )
    without = exported.item_vectors(arguments[0], [[]] * 3, *arguments[2:]).embedding
    assert np.array_equal(without, ours.embedding) is not size.use_category


def switched(switch: dict[str, Any]) -> MRSE:
    """The smallest model with this switch. A teacher's table is as wide as the model, and is used as it is."""
    if switch.get("ngrams") != "teacher":
        return small(dims=16, bert_layers=1, **switch)
    model = small(dims=16, bert_layers=1, ngram_dims=16, **switch)
    model.start_tables(np.random.default_rng(5).normal(size=model.ngrams.table.weight.shape), from_teacher=True)
    return model


def export_but_the_experts(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Lets `export` take query_experts.onnx, which reads no text, from this folder: a quarter of its time."""
    ours = export_module._export_graph

    def quicker(work: Path, name: str, *rest: Any) -> OnnxFile:
        if name != "query_experts":
            return ours(work, name, *rest)
        shutil.copy(folder / "query_experts.onnx", work)
        return Manifest.load(folder).models[name]

    monkeypatch.setattr(export_module, "_export_graph", quicker)


def test_every_switch_is_one_of_those() -> None:
    """A setting of yes or no, or of names, that is added to ModelConfig belongs into the test above."""
    switches = {f.name for f in fields(ModelConfig) if f.type in ("bool", "str", "tuple[str, ...]")}
    assert switches == {name for switch in SWITCHES for name in switch} - {"image_dims"}


@pytest.mark.parametrize("columns", [("title",), ("category", "title")])
def test_an_export_that_makes_other_texts_is_refused(without_images: MRSE, folder: Path, columns: tuple) -> None:
    exported = ExportedModel.load(folder)
    compare_from_texts(without_images, exported)
    exported.manifest = replace(exported.manifest, item_text=columns)
    with pytest.raises(RuntimeError, match="items' embedding from texts differ from torch"):
        compare_from_texts(without_images, exported)


def test_a_text_format_of_unknown_columns_is_refused(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "models")
    path = tmp_path / "models" / "manifest.json"
    path.write_text(path.read_text("utf-8").replace('"category"', '"brand"'), "utf-8")
    with pytest.raises(
        InputError, match=r"field item_text: must list title, category or both, got \['title', 'brand'\]"
    ):
        ExportedModel.load(tmp_path / "models")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: (f / "query_text.onnx").unlink(), r"query_text\.onnx: the file is missing, and .* lists it"),
        (
            lambda f: (f / "tokenizer.json").write_text("{}"),
            r"tokenizer\.json: the file has changed since .* was written",
        ),
        (lambda f: (f / "manifest.json").write_text("{"), r"manifest\.json: not JSON"),
        (
            lambda f: (f / "manifest.json").write_text('{"format": 1}'),
            r"another version .*1 instead of 2.*mrse export",
        ),
        (lambda f: (f / "manifest.json").unlink(), r"the folder has no exported model"),
    ],
)
def test_a_spoilt_export_says_what_is_wrong(folder: Path, tmp_path: Path, spoil, message: str) -> None:
    copy = tmp_path / "models"
    shutil.copytree(folder, copy)
    spoil(copy)
    with pytest.raises(InputError, match=message):
        ExportedModel.load(copy)
