"""Vespa's own code on vespa_app/ and its variants: config model, YQL, ranking, ONNX, embedder, container."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from tokenizers import Tokenizer
from typer.testing import CliRunner

from local_vespa.documents.operations import apply_update, read_put, read_update
from local_vespa.package.schema import read_schema
from local_vespa.package.sd import parse_statements, without_comments
from mrse_model.serving.exported_model import CELLS
from tests.helpers.vespa.broken import DEFECTS, Defect, plant
from tests.helpers.vespa.golden import bits, expected, expected_compact, expected_int8, int8
from tests.helpers.vespa.job import BY_QUEUE, INPUTS, PROFILES, STEPS, WRITES, Judged, tower_inputs
from vespa_package.checks.vespa_java import complaints
from vespa_package.variants import list_variants

pytestmark = pytest.mark.java
VARIANTS = ["default", *list_variants(Path(__file__).parents[2] / "variants")]


def dense(encoded: dict) -> np.ndarray:
    """A tensor of the judge's answer as an array; labels of a mapped dimension in sorted order."""
    if "error" in encoded:
        raise AssertionError(encoded["error"])
    cells = sorted(encoded["cells"], key=lambda cell: [(len(label), label) for label in cell[0]])
    sizes = [int(n) for n in re.findall(r"\[(\d+)\]", encoded["type"])]
    values = np.array([value for _, value in cells])
    return values.reshape(sizes) if sizes and "{}" not in encoded["type"] else values


@pytest.mark.parametrize("name", VARIANTS)
def test_vespa_accepts(judged: Judged, name: str) -> None:
    assert complaints(judged.answer["packages"][name]) == []


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("name", VARIANTS)
def test_vespa_accepts_every_step_of_a_migration(judged: Judged, name: str, step: str) -> None:
    """As a package, and as a change of the package before it: no restart, re-index or re-feed is asked for.

    "May be populated by reindexing" is said of bits that Vespa derives: the backfill populates them.
    """
    verdict = judged.answer["packages"][f"{name}/{step}"]
    assert complaints(verdict) == []
    assert [action for action in verdict["actions"] if "may be populated by reindexing" not in action] == []


def test_vespa_sees_what_a_change_asks_for(judged: Judged) -> None:
    """The test above could not fail if changes were not judged."""
    assert "hnsw-settings-change" in judged.answer["packages"]["another-metric"]["error"]
    actions = judged.answer["packages"]["slower-price"]["actions"]
    assert any("restart" in action and "remove attribute 'fast-search'" in action for action in actions), actions


@pytest.mark.parametrize("defect", DEFECTS, ids=lambda d: d.name)
def test_vespa_refuses(judged: Judged, defect: Defect) -> None:
    found = complaints(judged.answer["packages"][defect.name])
    assert found, "a broken package was accepted"
    assert any(defect.says in complaint for complaint in found), found


def test_vespa_accepts_grams_of_all_texts(judged: Judged) -> None:
    """Of one field alone, which it refuses above, the fieldset would be matched by words."""
    assert complaints(judged.answer["packages"]["grams"]) == []


@pytest.mark.parametrize("field", ["embedding", "image_embedding"])
@pytest.mark.parametrize("name", ["default", "cluster"])
def test_vector_fields(judged: Judged, name: str, field: str) -> None:
    attribute = attributes(judged, name)[field]
    assert attribute["tensortype"] == "tensor<bfloat16>(x[128])"
    assert attribute["distancemetric"] == "PRENORMALIZED_ANGULAR"
    assert attribute["index"]["hnsw"]["enabled"] is True
    assert attribute["index"]["hnsw"]["maxlinkspernode"] == 16
    assert attribute["index"]["hnsw"]["neighborstoexploreatinsert"] == 200
    assert attribute["paged"] is False


def test_compact_keeps_floats_on_disk_and_graphs_over_bits(judged: Judged) -> None:
    found = attributes(judged, "compact")
    assert found["embedding"]["paged"] is True and found["embedding"]["index"]["hnsw"]["enabled"] is False
    assert found["embedding_bits"]["tensortype"] == "tensor<int8>(x[16])"
    assert found["embedding_bits"]["distancemetric"] == "HAMMING"
    assert found["embedding_bits"]["index"]["hnsw"]["enabled"] is True
    scripts = json.dumps(judged.answer["config"]["compact"]["IlscriptsConfig"])
    assert "input embedding | binarize | pack_bits | attribute embedding_bits" in scripts


def test_int8_keeps_floats_on_disk_and_graphs_over_whole_numbers(judged: Judged) -> None:
    found = attributes(judged, "int8")
    for field in ("embedding", "image_embedding"):
        assert found[field]["paged"] is True and found[field]["index"]["hnsw"]["enabled"] is False
        graph = found[field + "_int8"]
        assert graph["tensortype"] == "tensor<int8>(x[128])" and graph["paged"] is False
        assert graph["distancemetric"] == "PRENORMALIZED_ANGULAR" and graph["index"]["hnsw"]["enabled"] is True


def test_the_engine_joins_texts_as_vespa_does(judged: Judged) -> None:
    """A put makes the text of what it has; an update of a part of the texts makes it of that part, or leaves it."""
    text = (Path(__file__).parents[2] / "vespa_app" / "schemas" / "item.sd").read_text("utf-8")
    item = read_schema(parse_statements(without_comments(text), "item.sd"), {})
    before = {"title_and_category": "before"}
    for write, made in zip(WRITES, judged.answer["indexing"][0], strict=True):
        if write["update"]:
            body = {"fields": {name: {"assign": value} for name, value in write["fields"].items()}}
            after = apply_update(read_update(item, "id:item:item::a", body).fields, item, before)
            assert after["title_and_category"] == (made or "before"), write
        else:
            put = read_put(item, "id:item:item::a", {"fields": write["fields"]})
            assert put.fields.get("title_and_category") == made, write
    assert "Red dress Women Clothes" in judged.answer["indexing"][0]


def test_filters_are_indexed(judged: Judged) -> None:
    found = attributes(judged, "default")
    for field in ("item_id", "category", "brand", "colour", "market", "price", "model_version"):
        assert found[field]["fastsearch"] is True, field
    assert found["expires"]["fastaccess"] is True


def test_onnx_inputs(judged: Judged) -> None:
    config = judged.answer["config"]["default"]["OnnxModelsConfig"]["items/search/cluster.items/item"]
    models = {model["name"]: model for model in config["model"]}
    tower = models["query_tower"]
    assert {i["name"]: i["source"] for i in tower["input"]} == {
        name: f"rankingExpression({name})" for name in INPUTS["query_tower"]
    }
    assert [o["name"] for o in tower["output"]] == ["embedding"]
    assert {i["name"]: i["source"] for i in models["tower_without_history"]["input"]}["history_weight"] == (
        "rankingExpression(zero_weight)"
    )
    experts = models["query_experts"]
    assert {i["name"] for i in experts["input"]} == set(INPUTS["query_experts"])
    assert {o["name"] for o in experts["output"]} == {
        f"without_{expert}" for expert in ("vbert", "light_bert", "ft_att", "history")
    }


@pytest.mark.parametrize("name", ["default", "cluster", "compact"])
def test_embedder_options(judged: Judged, name: str) -> None:
    config = judged.answer["config"][name]
    (embedder,) = config["HuggingFaceEmbedderConfig"].values()
    assert embedder["poolingStrategy"] == "none" and embedder["normalize"] is True
    assert embedder["transformerMaxTokens"] == 16 and embedder["transformerOutput"] == "embedding"
    assert embedder["transformerTokenTypeIds"] == ""
    (runtime,) = config["OnnxEvaluatorConfig"].values()
    assert runtime["intraOpThreads"] == 1


def test_int8_has_a_second_embedder_for_whole_numbers(judged: Judged) -> None:
    embedders = judged.answer["config"]["int8"]["HuggingFaceEmbedderConfig"].values()
    assert {e["transformerOutput"]: e["normalize"] for e in embedders} == {"embedding": True, "embedding_int8": False}
    assert {e["poolingStrategy"] for e in embedders} == {"none"}


def test_filter_strategy(judged: Judged) -> None:
    config = judged.answer["config"]["default"]["RankProfilesConfig"]["items/search/cluster.items/item"]
    for profile in config["rankprofile"]:
        if profile["name"] in ("default", "unranked"):
            continue
        properties = {p["name"]: p["value"] for p in profile["fef"]["property"]}
        assert properties["vespa.matching.global_filter.lower_limit"] == "0.05", profile["name"]
        assert properties["vespa.matching.nns.filter_first_upper_limit"] == "0.3"


def test_cluster_is_closed_and_redundant(judged: Judged) -> None:
    config = judged.answer["config"]["cluster"]
    connectors = [c for c in config["ConnectorConfig"].values() if c["listenPort"] == 8443]
    assert len(connectors) == 2
    assert all(c["ssl"]["enabled"] is True and c["ssl"]["clientAuth"] == "NEED_AUTH" for c in connectors)
    assert not any(c["listenPort"] == 8080 for c in config["ConnectorConfig"].values())
    trusted = {c["ssl"]["caCertificateFile"] for c in connectors}
    assert len(trusted) == 2, "a searcher's certificate must not be able to write"
    (distribution,) = config["StorDistributionConfig"].values()
    assert distribution["redundancy"] == 2 and len([g for g in distribution["group"] if g["nodes"]]) == 2


def attributes(judged: Judged, name: str) -> dict[str, dict]:
    config = judged.answer["config"][name]["AttributesConfig"]["items/search/cluster.items/item"]
    return {attribute["name"]: attribute for attribute in config["attribute"]}


@pytest.mark.parametrize(
    "position, table", list(enumerate([expected, expected_compact, expected_int8])), ids=["default", "compact", "int8"]
)
def test_every_function_equals_numpy(judged: Judged, position: int, table) -> None:
    values, right = judged.answer["functions"][position], table(judged.models)
    for name in ("default", "unranked", "base"):
        values.pop(name, None)
    assert set(values) == set(right)
    fused_by_the_container = {("hybrid", "globalphase"), ("hybrid_linear", "globalphase")}
    compared = 0
    for profile, functions in values.items():
        for function, value in functions.items():
            if (profile, function) in fused_by_the_container:
                continue
            assert function in right[profile], f"{profile}.{function} has no expected value in vespa/golden.py"
            want = np.asarray(right[profile][function], np.float64)
            np.testing.assert_allclose(dense(value), want, atol=1e-4, rtol=1e-4, err_msg=f"{profile}.{function}")
            compared += 1
    assert compared >= 80


def test_onnx_equals_onnxruntime(judged: Judged) -> None:
    inputs, answers = tower_inputs(judged.models), iter(judged.answer["onnx"])
    for model, names in INPUTS.items():
        session = onnxruntime.InferenceSession(judged.models / f"{model}.onnx")
        outputs = [output.name for output in session.get_outputs()]
        typed = {port.name: inputs[port.name].astype(CELLS[port.type]) for port in session.get_inputs()}
        assert set(typed) == set(names)
        for value in session.run(outputs, typed):
            np.testing.assert_allclose(dense(next(answers)), value, atol=1e-4)


def test_vespa_equals_torch(judged: Judged) -> None:
    """torch's own answers, not ONNX Runtime's: the whole way from the module to Vespa's evaluator."""
    if not judged.torch:
        assert os.environ.get("CI") != "true"
        pytest.skip("no torch: pip install -e '.[train]'")
    assert {name.split(".")[0] for name in judged.torch} == set(INPUTS)
    for (name, value), answered in zip(judged.torch.items(), judged.answer["torch"], strict=True):
        whole_numbers = name.endswith("_int8")  # one may round the other way
        np.testing.assert_allclose(dense(answered), value, atol=1 if whole_numbers else 1e-4, rtol=0, err_msg=name)


def test_every_written_yql_parses(judged: Judged) -> None:
    assert len(judged.yql) >= 5
    wrong = [
        f"{written.file}: {written.yql}: {answer['error']}"
        for written, answer in zip(judged.yql, judged.answer["yql"], strict=True)
        if "error" in answer
    ]
    assert not wrong, "\n".join(wrong)


def answer(judged: Judged, number: int, package: int = 0) -> dict:
    served = judged.answer["serve"][package]
    assert "error" not in served, served["error"]
    found = served["answers"][number]
    assert found["status"] == 200, found
    body = json.loads(found["body"])
    assert "errors" not in body.get("root", {}), body
    return body


def query_vector(judged: Judged, text: str) -> np.ndarray:
    tokenizer = Tokenizer.from_file(str(judged.models / "tokenizer.json"))
    ids = np.array([tokenizer.encode(text).ids])
    session = onnxruntime.InferenceSession(judged.models / "query_text.onnx")
    vector: np.ndarray = session.run(["embedding"], {"input_ids": ids, "attention_mask": np.ones_like(ids)})[0][0]
    return vector


@pytest.mark.parametrize("number, name", list(enumerate(PROFILES)), ids=PROFILES)
def test_container_runs_query_profile(judged: Judged, number: int, name: str) -> None:
    body = answer(judged, number)
    seen = judged.answer["serve"][0]["answers"][number]["seen"]
    found = [hit["fields"]["item_id"] for hit in body["root"]["children"]]
    assert (sorted(found) if name == "hybrid" else found) == list("abc")  # hybrid's order is the weight's, of training
    assert seen["profile"] == {"q2i": "ann", "hybrid": "hybrid_linear"}.get(name, name)
    np.testing.assert_allclose(seen["features"]["q"]["values"], query_vector(judged, "Red dress"), atol=1e-4)
    assert seen["tree"].count("item_nearest_neighbor") == (3 if name in BY_QUEUE else 1)
    if name in BY_QUEUE:  # a stranger: zeros, which no item is within distance 0.999 of
        assert not np.any(seen["features"]["i2i"]["values"]) and not np.any(seen["features"]["image"]["values"])
        assert seen["tree"].count("distance_threshold: 0.999") == 3
    if name in ("query_tower", "explain"):
        tokens = Tokenizer.from_file(str(judged.models / "tokenizer.json")).encode(
            "Red dress", add_special_tokens=False
        )
        assert seen["features"]["tokens"]["values"] == tokens.ids + [0] * (14 - len(tokens.ids))


@pytest.mark.parametrize("number, name", list(enumerate(PROFILES)), ids=PROFILES)
def test_container_embeds_bits(judged: Judged, number: int, name: str) -> None:
    answer(judged, number, package=1)
    seen = judged.answer["serve"][1]["answers"][number]["seen"]
    vector = query_vector(judged, "Red dress")
    if name not in BY_QUEUE:  # whose candidates are found by the bits alone
        np.testing.assert_allclose(seen["features"]["q"]["values"], vector, atol=1e-4)
    assert seen["features"]["q_bits"] == {"type": "tensor<int8>(x[16])", "values": bits(vector).tolist()}


@pytest.mark.parametrize("number, name", list(enumerate(PROFILES)), ids=PROFILES)
def test_container_embeds_whole_numbers(judged: Judged, number: int, name: str) -> None:
    answer(judged, number, package=2)
    seen = judged.answer["serve"][2]["answers"][number]["seen"]
    vector = query_vector(judged, "Red dress")
    if name not in BY_QUEUE:
        np.testing.assert_allclose(seen["features"]["q"]["values"], vector, atol=1e-4)
    np.testing.assert_allclose(seen["features"]["q_int8"]["values"], int8(vector), atol=1)
    if name in BY_QUEUE:
        assert not np.any(seen["features"]["i2i_int8"]["values"])


def test_container_fuses(judged: Judged) -> None:
    scores = {
        hit["fields"]["item_id"]: hit["relevance"] for hit in answer(judged, len(PROFILES) + 4)["root"]["children"]
    }
    lexical, semantic = {"b": 1, "c": 2, "a": 3}, {"a": 1, "b": 2, "c": 3}
    assert scores == pytest.approx({i: 1 / (60 + lexical[i]) + 1 / (60 + semantic[i]) for i in "abc"})
    linear = {hit["fields"]["item_id"]: hit["relevance"] for hit in answer(judged, len(PROFILES))["root"]["children"]}
    words, vectors = {"a": 0.0, "b": 64 / 464, "c": 4 / 404}, {"a": 0.9, "b": 0.8, "c": 0.1}
    assert linear == pytest.approx({i: 0.3 * words[i] + 0.7 * vectors[i] for i in "abc"})


def test_blank_query_is_a_zero_vector(judged: Judged) -> None:
    answer(judged, len(PROFILES) + 1)
    assert not np.any(judged.answer["serve"][0]["answers"][len(PROFILES) + 1]["seen"]["features"]["q"]["values"])


@pytest.mark.parametrize("offset", [2, 3])
def test_user_text_is_never_yql(judged: Judged, offset: int) -> None:
    answer(judged, len(PROFILES) + offset)
    seen = [a.get("seen") for a in judged.answer["serve"][0]["answers"]]
    same = seen[PROFILES.index("q2i" if offset == 2 else "hybrid")]
    shape = lambda note: re.findall(r"item_(?:nearest_neighbor|true|or\b|weak_and|and\b)", note["tree"])  # noqa: E731
    assert shape(seen[len(PROFILES) + offset]) == shape(same)


def test_model_evaluation_serves_the_tower(judged: Judged) -> None:
    listed = answer(judged, len(PROFILES) + 5)
    assert {"query_text", "query_tower", "query_experts", "item_tower"} <= set(listed)
    evaluated = answer(judged, len(PROFILES) + 6)
    inputs = {name: tower_inputs(judged.models)[name].astype(np.float32) for name in INPUTS["query_tower"]}
    session = onnxruntime.InferenceSession(judged.models / "query_tower.onnx")
    cells = evaluated.get("values") or [cell["value"] for cell in evaluated["cells"]]
    np.testing.assert_allclose(np.ravel(cells), session.run(["embedding"], inputs)[0][0], atol=1e-4)


def test_validate_command_asks_vespa(judged: Judged, tmp_path: Path) -> None:
    from mrse_cli.main import app as cli

    broken = plant(next(d for d in DEFECTS if d.name == "unknown-feature"), judged.models.parent, tmp_path / "app")
    quiet, loud = (CliRunner().invoke(cli, ["validate", str(broken), *more]) for more in ([], ["--vespa"]))
    assert quiet.exit_code == 0, "only Vespa knows its features"
    assert loud.exit_code == 2 and "popularityOf" in loud.output
