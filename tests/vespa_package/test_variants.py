"""Variants are overlays: they build, and what they repeat of the default package is still the same there."""

from __future__ import annotations

from pathlib import Path

import pytest

from mrse_model.errors import InputError
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
    for name in ("query_tower", "personal"):
        same = compact.profiles[name].functions
        assert {k: v for k, v in same.items() if k != "coarse"} == default.profiles[name].functions
        assert compact.profiles[name].onnx == default.profiles[name].onnx


def test_services_agree_on_the_embedder() -> None:
    def embedder(file: Path) -> str:
        text = file.read_text("utf-8")
        block = text[text.index('<component id="text"') : text.index("</component>")]
        return " ".join(part.split("<!--")[0].strip() for part in block.splitlines() if part.strip()[:4] != "<!--")

    default = embedder(REPO / "vespa_app" / "services.xml")
    for name in ("cluster", "cloud"):
        assert embedder(REPO / "variants" / name / "services.xml") == default, name
