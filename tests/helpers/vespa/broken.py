"""Broken copies of the application package: one defect each, and a word of what Vespa must say about it."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Defect:
    """In `file`, `old` becomes `new`; with new None the file goes away, with an empty `old` it is `new`.

    says: part of Vespa's complaint.
    """

    name: str
    file: str
    old: str
    new: str | None
    says: str


ITEM, SERVICES, TOWER = "schemas/item.sd", "services.xml", "schemas/item/query_tower.profile"
TEXT, GRAM = "    index: enable-bm25\n", "    match: gram\n"
TITLE = "  field title_and_category type string {\n"
DEFECTS = [
    Defect("tensor-type", ITEM, "embedding type tensor<bfloat16>", "embedding type tensor<floaty>", "floaty"),
    Defect("hnsw-without-index", ITEM, "indexing: attribute | index", "indexing: attribute", "hnsw"),
    Defect(
        "hnsw-on-mapped",
        ITEM,
        "embedding type tensor<bfloat16>(x[128])",
        "embedding type tensor<bfloat16>(k{})",
        "index",
    ),
    Defect("distance-metric", ITEM, "prenormalized-angular", "cosine", "COSINE"),
    Defect("fieldset-field", ITEM, "_category, description", "_category, subtitle", "subtitle"),
    Defect("grams-of-one-field", ITEM, TITLE, TITLE + GRAM, "fieldset 'default' are inconsistent"),
    Defect("schema-syntax", ITEM, "enable-bm25", "enable-bm26", "enable-bm26"),
    Defect("attribute-typo", "schemas/item/exact.profile", "attribute(embedding)", "attribute(embeding)", "embeding"),
    Defect(
        "closeness-typo",
        "schemas/item/ann.profile",
        "closeness(field, embedding)",
        "closeness(field, embeding)",
        "embeding",
    ),
    Defect(
        "bm25-of-attribute", "schemas/item/bm25.profile", "0.5 * bm25(description)", "0.5 * bm25(brand)", "bm25(brand)"
    ),
    Defect(
        "unknown-feature", "schemas/item/bm25.profile", "0.5 * bm25(description)", "popularityOf(title)", "popularityOf"
    ),
    Defect(
        "match-feature",
        "schemas/item/three_queues.profile",
        "similarity from_query from_clicks",
        "similarity from_qury",
        "from_qury",
    ),
    Defect("inherits", "schemas/item/ann.profile", "inherits base", "inherits bass", "bass"),
    Defect("phase-option", "schemas/item/hybrid.profile", "rerank-count", "rerank-kount", "rerank-kount"),
    Defect(
        "query-undeclared",
        TOWER,
        "query(tokens) tensor<float>(d0[14])",
        "query(tokns) tensor<float>(d0[14])",
        "query(tokens)",
    ),
    Defect(
        "not-a-number",
        TOWER,
        "sum(query_vector * attribute(embedding))",
        "query_vector * attribute(embedding)",
        "tensor",
    ),
    Defect("onnx-file", "models/query_tower.onnx", "", None, "query_tower.onnx"),
    Defect("onnx-input", TOWER, "input history_weight:", "input history_wait:", "configured inputs"),
    Defect("onnx-output", TOWER, "output embedding: embedding", "output vector: embedding", "vector"),
    Defect("onnx-input-size", TOWER, "d1[20],d2[128])  #", "d1[10],d2[128])  #", "d1[10]"),
    Defect(
        "onnx-input-folded",
        "schemas/item/ablation_history.profile",
        "tensor<float>(d0[1],d1[20])(0)",
        "query(history_weight) * 0",
        "constant",
    ),
    Defect(
        "comment-first", "schemas/item/ann.profile", "rank-profile ann", "# nearest\nrank-profile ann", "ann.profile"
    ),
    Defect("services-element", SERVICES, "min-redundancy", "min-redundansy", "min-redundansy"),
    Defect("services-xml", SERVICES, "</content>", "", "services.xml"),
    Defect("document-type", SERVICES, 'type="shopper"', 'type="shoper"', "shoper"),
    Defect("selection", SERVICES, "item.expires == null", "item.expires ==", "selection"),
    Defect("pooling", SERVICES, "<pooling-strategy>none", "<pooling-strategy>nil", "nil"),
    Defect("embedder-model", SERVICES, "models/query_text.onnx", "models/query_txt.onnx", "query_txt.onnx"),
    Defect("host-alias", SERVICES, 'hostalias="node1" distribution-key', 'hostalias="node2" distribution-key', "node2"),
    Defect("profile-xml", "search/query-profiles/q2i.xml", "</query-profile>", "", "q2i.xml"),
    Defect("profile-parent", "search/query-profiles/hybrid.xml", 'inherits="default"', 'inherits="defalt"', "defalt"),
    Defect("junk-file", "schemas/notes.txt", "", "x", "notes.txt"),
]
GRAMS = Defect("grams", ITEM, TEXT, TEXT + GRAM, "")  # of all fields of the fieldset, as docs/your-data.md advises
PRICE = "    field price type float {\n      indexing: summary | attribute\n"
CHANGES = [  # packages that are good, but not as a change of the default package
    Defect("another-metric", ITEM, "prenormalized-angular", "dotproduct", "hnsw-settings-change"),
    Defect("slower-price", ITEM, PRICE + "      attribute: fast-search\n", PRICE, "fast-search"),
]


def plant(defect: Defect, app: Path, out: Path) -> Path:
    """Copies the package `app` to `out` with the defect in it."""
    shutil.copytree(app, out)
    path = out / defect.file
    if defect.new is None:
        path.unlink()
    elif not defect.old:
        path.write_text(defect.new, "utf-8")
    else:
        text = path.read_text("utf-8")
        assert defect.old in text, f"{defect.name}: {defect.file} has changed"
        path.write_text(text.replace(defect.old, defect.new), "utf-8")
    return out
