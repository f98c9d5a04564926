"""`mrse validate`: each planted defect is found, alone, with its file and its fix."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from mrse_model.serving.mix import write_mix
from vespa_package.checks.all import validate, warnings
from vespa_package.variants import build_variant, list_variants

REPO = Path(__file__).parents[2]
ITEM, SERVICES, PROFILES = "schemas/item.sd", "services.xml", "schemas/item"
Q2I, TOWER, MANIFEST = "search/query-profiles/q2i.xml", f"{PROFILES}/query_tower.profile", "models/manifest.json"


def swap(file: str, old: str, new: str) -> Callable[[Path], None]:
    def plant(app: Path) -> None:
        text = (app / file).read_text("utf-8")
        assert old in text, f"{file} has changed"
        (app / file).write_text(text.replace(old, new), "utf-8")

    return plant


def swap_bytes(file: str) -> Callable[[Path], None]:
    def plant(app: Path) -> None:
        (app / file).write_bytes(b"x")

    return plant


def drop(file: str) -> Callable[[Path], None]:
    return lambda app: (app / file).unlink()


def in_manifest(change: Callable[[dict], object]) -> Callable[[Path], None]:
    def plant(app: Path) -> None:
        manifest = json.loads((app / MANIFEST).read_text("utf-8"))
        change(manifest)
        (app / MANIFEST).write_text(json.dumps(manifest), "utf-8")

    return plant


# name: (how it is planted, the file that the message must name, words of the problem, words of the fix)
DEFECTS: dict[str, tuple[Callable[[Path], None], str, str, str]] = {
    "no model": (drop("models/query_tower.onnx"), "query_tower.onnx", "missing", "mrse export"),
    "older export": (drop("models/mix_popularity.json"), "hybrid_linear.profile", "mix_popularity", "mrse export"),
    "changed model": (swap_bytes("models/query_text.onnx"), "query_text.onnx", "SHA-256", "mrse export"),
    "dimensions": (in_manifest(lambda m: m.update(dims=256)), ITEM, "256 dimensions", "tensor<bfloat16>(x[256])"),
    "metric": (
        swap(ITEM, "distance-metric: prenormalized-angular", "distance-metric: euclidean"),
        ITEM,
        "euclidean",
        "prenormalized-angular",
    ),
    "no graph": (swap(ITEM, "hnsw {", "hamster {"), ITEM, "no HNSW", "index { hnsw"),
    "no version": (
        swap(ITEM, "field model_version", "field model_vision"),
        ITEM,
        "two models could mix",
        "field model_version",
    ),
    "fieldset": (
        swap(ITEM, "_category, description", "_category, subtitle"),
        ITEM,
        "subtitle",
        "Remove it",
    ),
    "brace": (swap(ITEM, "  fieldset default {", "  fieldset default"), ITEM, "without its {", "Remove"),
    "parent": (swap(f"{PROFILES}/ann.profile", "inherits base", "inherits bass"), "ann.profile", "bass", "base"),
    "second parent": (
        swap(f"{PROFILES}/ann.profile", "inherits base", "inherits exact, bass"),
        "ann.profile",
        "inherits bass,",
        "base",
    ),
    "comment first": (
        swap(f"{PROFILES}/ann.profile", "rank-profile ann", "# near\nrank-profile ann"),
        "ann.profile",
        "comment",
        "braces",
    ),
    "undeclared input": (
        swap(TOWER, "query(tokens) tensor", "query(tokns) tensor"),
        "query_tower.profile",
        "query(tokens)",
        "inputs",
    ),
    "attribute": (
        swap(f"{PROFILES}/exact.profile", "attribute(embedding)", "attribute(embeding)"),
        "exact.profile",
        "embeding",
        "Write the name embedding",
    ),
    "closeness": (
        swap(f"{PROFILES}/ann.profile", "(field, embedding)", "(field, embeding)"),
        "ann.profile",
        "embeding",
        "Write the name embedding",
    ),
    "bm25": (
        swap(ITEM, "    index: enable-bm25\n  }\n\n  fieldset", "  }\n\n  fieldset"),
        "profile",
        "bm25(title_and_category)",
        "enable-bm25",
    ),
    "match feature": (
        swap(f"{PROFILES}/three_queues.profile", "similarity from_query", "similarity from_qury"),
        "three_queues.profile",
        "from_qury",
        "Write the name from_query, or define it",
    ),
    "onnx file": (
        swap(TOWER, "models/query_tower.onnx", "models/tower.onnx"),
        "query_tower.profile",
        "models/tower.onnx",
        "mrse export",
    ),
    "onnx input": (
        swap(TOWER, "input history_weight:", "input weight:"),
        "query_tower.profile",
        "no input weight",
        "history_weight",
    ),
    "onnx output": (
        swap(TOWER, "output embedding:", "output vector:"),
        "query_tower.profile",
        "no output vector",
        "embedding",
    ),
    "onnx size": (
        swap(TOWER, "d1[20],d2[128])  #", "d1[10],d2[128])  #"),
        "query_tower.profile",
        "d1[10]",
        "sizes of the graph",
    ),
    "folded zero": (
        swap(f"{PROFILES}/ablation_history.profile", "tensor<float>(d0[1],d1[20])(0)", "query(history_weight) * 0"),
        "profile",
        "folds",
        "zeros",
    ),
    "special tokens": (
        in_manifest(lambda m: m["special_tokens"].update(cls=5)),
        "query_tower.profile",
        "CLS 5",
        "customTokenInputIds(5, 3, 16",
    ),
    "tokens": (in_manifest(lambda m: m.update(query_tokens=32)), "query_tower.profile", "14 tokens", "d0[30]"),
    "opset": (
        in_manifest(lambda m: m["models"]["item_tower"].update(opset=28)),
        "item_tower.onnx",
        "opset 28",
        "mrse export",
    ),
    "services xml": (swap(SERVICES, "</content>", ""), SERVICES, "not XML", "line and column"),
    "embedder path": (
        swap(SERVICES, "models/query_text.onnx", "models/text.onnx"),
        SERVICES,
        "models/text.onnx",
        "mrse export",
    ),
    "pooling": (
        swap(SERVICES, "<pooling-strategy>none", "<pooling-strategy>mean"),
        SERVICES,
        "mean",
        "<pooling-strategy>none",
    ),
    "normalize": (swap(SERVICES, "<normalize>true</normalize>", ""), SERVICES, "unit vectors", "<normalize>true"),
    "max tokens": (swap(SERVICES, "<max-tokens>16", "<max-tokens>64"), SERVICES, "64", "<max-tokens>16"),
    "document type": (swap(SERVICES, 'type="shopper"', 'type="shoper"'), SERVICES, "shoper", "shopper"),
    "selection": (swap(SERVICES, "item.expires &gt;", "item.expiry &gt;"), SERVICES, "item.expiry", "attribute"),
    "ranking": (swap(Q2I, '"ranking">ann', '"ranking">an'), "q2i.xml", "ranking an", "ann"),
    "embedder name": (swap(Q2I, "embed(text,", "embed(txt,"), "q2i.xml", "txt", "text"),
    "short name": (
        swap(Q2I, "ranking.features.query(q)", "input.query(q)"),
        "q2i.xml",
        "requests only",
        "ranking.features.query(q)",
    ),
    "pasted text": (
        swap("search/query-profiles/hybrid.xml", "userInput(@query)", 'title contains "%{query}"'),
        "hybrid.xml",
        "user text",
        "userInput(@query)",
    ),
    "vector field": (
        swap(Q2I, "nearestNeighbor(embedding", "nearestNeighbor(text_feature"),
        "q2i.xml",
        "text_feature",
        "embedding",
    ),
    "query vector": (swap(Q2I, "(embedding, q)", "(embedding, vec)"), "q2i.xml", "vec", "input of the rank profile"),
    "profile parent": (swap(Q2I, 'inherits="default"', 'inherits="defalt"'), "q2i.xml", "defalt", "default"),
}


@pytest.mark.parametrize("name", DEFECTS)
def test_defect_is_found_with_its_file_and_fix(app: Path, name: str) -> None:
    plant, file, problem, fix = DEFECTS[name]
    plant(app)
    found = validate(app)
    fitting = [p for p in found if problem in str(p) and file in str(p.file) and fix in (p.fix or "")]
    assert fitting, "\n".join(map(str, found))
    assert str(app) in str(fitting[0]) and str(fitting[0]).count("\n") == 0


INT8_DEFECTS: dict[str, tuple[Callable[[Path], None], str, str, str]] = {
    "type": (swap(ITEM, "tensor<int8>(x[128])", "tensor<int8>(x[16])"), ITEM, "tensor<int8>(x[128])", "variants/int8"),
    "metric": (
        swap(ITEM, "distance-metric: prenormalized-angular", "distance-metric: hamming"),
        ITEM, "need prenormalized-angular", "variants/int8",
    ),
    "graph": (swap(ITEM, "hnsw {", "hamster {"), ITEM, "index none", "variants/int8"),
    "bits": (
        swap(f"{PROFILES}/base.profile", "query(q_int8) tensor<float>", "query(q_int8) tensor<int8>"),
        "q2i.xml", "makes bits", "tensor<float>(x[128])",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", INT8_DEFECTS)
def test_defect_of_int8_is_found(app: Path, tmp_path: Path, name: str) -> None:
    built = build_variant(app, REPO / "variants", "int8", tmp_path / "int8")
    plant, file, problem, fix = INT8_DEFECTS[name]
    plant(built)
    found = validate(built)
    assert any(problem in str(p) and file in str(p.file) and fix in (p.fix or "") for p in found), found


@pytest.mark.parametrize("column, words", [
    ({"title": ["x"]}, "item_id"),
    ({"item_id": ["a"]}, "title"),
    ({"item_id": ["a"], "title": ["x"], "price": ["12"]}, "does not fit float"),
    ({"item_id": ["a"], "title": ["x"], "colours": ["red"]}, "field colours type string"),
    ({"item_id": ["a"], "title": ["x"], "sizes": [[1]]}, "does not fit array<string>"),
    ({"item_id": ["a"], "title": ["x"], "embedding": [[1.0]]}, "the model fills this field"),
])  # fmt: skip
def test_columns_against_fields(package: Path, tmp_path: Path, column: dict, words: str) -> None:
    items = tmp_path / "items.parquet"
    pq.write_table(pa.table(column), items)
    (problem,) = validate(package, items)
    assert words in str(problem) and str(items) in str(problem)


def test_a_column_without_a_field_is_named(package: Path, tmp_path: Path) -> None:
    from mrse_cli.main import app as cli

    items = tmp_path / "items.parquet"
    pq.write_table(pa.table({"item_id": ["a"], "title": ["x"], "supplier": ["y"]}), items)
    done = CliRunner().invoke(cli, ["validate", str(package), "--items", str(items)])
    assert done.exit_code == 0 and "supplier: not fed" in done.output


def test_columns_that_fit(package: Path, tmp_path: Path) -> None:
    items = tmp_path / "items.parquet"
    columns = {"item_id": ["a"], "title": ["x"], "category": ["shoes"], "price": [3], "image": [b""], "sizes": [["S"]]}
    pq.write_table(pa.table(columns), items)
    assert validate(package, items) == []
    items.write_bytes(b"no parquet")
    assert "not a readable Parquet file" in str(validate(package, items)[0])


def test_all_problems_at_once(app: Path) -> None:
    for name in ("metric", "pooling", "ranking", "changed model"):
        DEFECTS[name][0](app)
    files = {Path(str(p.file)).name for p in validate(app)}
    assert {"item.sd", "services.xml", "q2i.xml", "query_text.onnx"} <= files


def test_package_and_variants_are_clean(package: Path, tmp_path: Path) -> None:
    assert validate(package) == []
    for name in list_variants(REPO / "variants"):
        assert validate(build_variant(package, REPO / "variants", name, tmp_path / name)) == [], name


@pytest.mark.parametrize("parents", ["exact, three_queues", "three_queues,exact"])
def test_a_profile_may_inherit_several(app: Path, parents: str) -> None:
    profile = f"rank-profile both inherits {parents} {{\n  match-features: similarity from_query\n}}\n"
    (app / PROFILES / "both.profile").write_text(profile, "utf-8")
    assert validate(app) == []


def test_a_choice_of_training_that_no_profile_reads_is_warned_of(app: Path) -> None:
    write_mix(app / "models", 0.4, 0.2)
    assert warnings(app) == []
    profile = f"{PROFILES}/hybrid_linear.profile"
    swap(profile, "    mix_popularity tensor<float>(x[1]): file: models/mix_popularity.json", "    #")(app)
    (warning,) = warnings(app)
    assert "training chose 0.2 in mix_popularity.json" in str(warning) and str(warning.file).endswith(profile)
    write_mix(app / "models", 0.4)
    assert warnings(app) == []


def test_a_language_that_nothing_says_is_warned_of(app: Path) -> None:
    from mrse_cli.main import app as cli

    assert warnings(app) == []
    DEFAULT = "search/query-profiles/default.xml"
    swap(DEFAULT, '<field name="model.language">en</field>', "")(app)
    (queries,) = warnings(app)
    assert "queries do not say their language" in str(queries) and str(queries.file).endswith(DEFAULT)
    swap(ITEM, "| set_language", "| summary")(app)
    (documents,) = warnings(app)
    assert "nothing sets the language of title, description" in str(documents) and "set_language" in str(documents.fix)
    said = CliRunner().invoke(cli, ["validate", str(app)])
    assert said.exit_code == 0 and "warning: " in said.output and "no problem found" in said.output


def test_command(app: Path) -> None:
    from mrse_cli.main import app as cli

    good = CliRunner().invoke(cli, ["validate", str(app)])
    assert good.exit_code == 0 and "no problem found" in good.output
    DEFECTS["pooling"][0](app)
    DEFECTS["ranking"][0](app)
    bad = CliRunner().invoke(cli, ["validate", str(app)])
    assert bad.exit_code == 2
    lines = bad.output.splitlines()
    assert len(lines) == 3 and lines[-1].startswith("2 problems")
