"""Variants are overlays: they build, and what they repeat of the default package is still the same there."""

from __future__ import annotations

from pathlib import Path

import pytest

from mrse_model.errors import InputError
from vespa_package.overlay import merge_services, merge_statements
from vespa_package.schema import read_schemas
from vespa_package.variants import build_variant, built_as, list_variants

REPO = Path(__file__).parents[2]


def test_build(package: Path, tmp_path: Path) -> None:
    out = build_variant(package, REPO / "variants", "cloud", tmp_path / "cloud")
    assert (out / "deployment.xml").is_file() and not (out / "hosts.xml").exists()
    assert (out / "models" / "manifest.json").read_bytes() == (package / "models" / "manifest.json").read_bytes()
    (out / "left over").write_text("x", "utf-8")
    build_variant(package, REPO / "variants", "cloud", out)
    assert not (out / "left over").exists() and built_as(out) == "cloud" and built_as(package) is None
    with pytest.raises(InputError, match="not empty"):
        build_variant(package, REPO / "variants", "cloud", tmp_path)
    with pytest.raises(InputError, match="cluster"):
        build_variant(package, REPO / "variants", "clutser", tmp_path / "other")


def test_every_folder_is_listed() -> None:
    folders = {path.name for path in (REPO / "variants").iterdir() if path.is_dir()}
    assert folders == set(list_variants(REPO / "variants"))


def test_compact_has_the_fields_of_the_default(package: Path, tmp_path: Path) -> None:
    default = read_schemas(package)["item"]
    compact = read_schemas(build_variant(package, REPO / "variants", "compact", tmp_path / "compact"))["item"]
    assert set(compact.fields) - set(default.fields) == {"embedding_bits", "image_bits"}
    for name, field in default.fields.items():
        assert compact.fields[name].type == field.type, name
        if field.type.startswith("tensor"):
            continue
        assert compact.fields[name].indexing == field.indexing and compact.fields[name].options == field.options
    assert set(compact.profiles) == set(default.profiles)
    for name in ("query_tower", "explain"):
        same = compact.profiles[name].functions
        assert {k: v for k, v in same.items() if k != "coarse"} == default.profiles[name].functions
        assert compact.profiles[name].onnx == default.profiles[name].onnx


def test_a_field_and_a_setting_added_to_the_package_are_in_every_variant(app: Path, tmp_path: Path) -> None:
    schema = app / "schemas" / "item.sd"
    text = schema.read_text("utf-8").replace(
        "    # Text\n", "    field season type string { indexing: attribute }\n", 1
    )
    schema.write_text(text, "utf-8")
    linear = app / "schemas" / "item" / "hybrid_linear.profile"
    linear.write_text(linear.read_text("utf-8").replace("double: -1", "double: 0.4"), "utf-8")
    services = app / "services.xml"
    services.write_text(services.read_text("utf-8").replace("<search/>", '<search/>\n<handler id="mine"/>'), "utf-8")
    for name in list_variants(REPO / "variants"):
        built = build_variant(app, REPO / "variants", name, tmp_path / name)
        assert "season" in read_schemas(built)["item"].fields, name
        assert "double: 0.4" in (built / "schemas" / "item" / "hybrid_linear.profile").read_text("utf-8"), name
    assert 'handler id="mine"' in (tmp_path / "int8" / "services.xml").read_text("utf-8")


BASE = """schema item { # one
  document item {

    # Words
    field title type string { # shown
      indexing: summary
    }
    field a type int { indexing: attribute } # last
  }
  fieldset default { fields: title }
}
"""


def merge(fragment: str, base: str = BASE) -> str:
    return merge_statements(base, fragment, Path("item.sd"), Path("variants/x/item.sd"))


def test_a_statement_replaces_its_namesake_and_brings_its_comment() -> None:
    merged = merge(
        "schema item { document item {\n    # New words\n    field title type string { indexing: index }\n} }"
    )
    assert merged == BASE.replace(
        "    # Words\n    field title type string { # shown\n      indexing: summary\n    }",
        "    # New words\n    field title type string { indexing: index }",
    )
    kept = merge("schema item { document item {\n    field a type long { indexing: attribute }\n} }")
    assert kept == BASE.replace(
        "field a type int { indexing: attribute } # last", "field a type long { indexing: attribute }"
    )


def test_a_statement_without_a_namesake_is_added_at_the_end_of_its_block() -> None:
    merged = merge("schema item {\n document item {\n    field b type int { } # b\n }\n  field c type int { }\n}\n")
    assert merged == BASE.replace("# last\n", "# last\n    field b type int { } # b\n").replace(
        "title }\n}", "title }\n  field c type int { }\n}"
    )
    assert merge("schema item { }") == BASE
    inline = merge("rank-profile a {\n  first-phase { expression: 2 }\n}", "rank-profile a { inputs { } }\n")
    assert inline == "rank-profile a { inputs { } \n  first-phase { expression: 2 }\n}\n"


def test_a_fragment_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"of schema shopper, and item\.sd of schema item"):
        merge("schema shopper { }")
    with pytest.raises(InputError, match="never closed"):
        merge("schema item {")
    base, fragment = tmp_path / "services.xml", tmp_path / "fragment.xml"
    base.write_text('<services><container id="default"><search/></container></services>', "utf-8")
    fragment.write_text('<services><container id="feed"><search/></container></services>', "utf-8")
    with pytest.raises(InputError, match=r"has no container feed\. Take one of: default"):
        merge_services(base, fragment)


def test_services_agree_on_the_embedder() -> None:
    def embedder(file: Path) -> str:
        text = file.read_text("utf-8")
        block = text[text.index('<component id="text"') : text.index("</component>")]
        return " ".join(part.split("<!--")[0].strip() for part in block.splitlines() if part.strip()[:4] != "<!--")

    default = embedder(REPO / "vespa_app" / "services.xml")
    for name in ("cluster", "cloud"):
        assert embedder(REPO / "variants" / name / "services.xml") == default, name
