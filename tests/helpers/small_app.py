"""A small application, made here, its documents, and requests to an engine that runs it."""

from __future__ import annotations

import io
import json
import urllib.error
import urllib.request
import zipfile
from functools import lru_cache
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, models, pre_tokenizers, processors

SERVICES = """<services version="1.0">
  <container id="default" version="1.0">
    <search/><document-api/><model-evaluation/>
    <component id="text" type="hugging-face-embedder">
      <transformer-model path="models/text.onnx"/><tokenizer-model path="models/tokenizer.json"/>
      <max-tokens>8</max-tokens><transformer-output>vector</transformer-output>
      <pooling-strategy>none</pooling-strategy><normalize>true</normalize>
    </component>
    <component id="pieces" type="hugging-face-tokenizer"><model path="models/tokenizer.json"/></component>
    <nodes><node hostalias="node1"/></nodes>
  </container>
  <content id="shop" version="1.0">
    <min-redundancy>1</min-redundancy>
    <documents><document type="thing" mode="index"/><document type="person" mode="index"/></documents>
    <nodes><node hostalias="node1" distribution-key="0"/></nodes>
  </content>
</services>"""

THING = """
schema thing {
  document thing {
    field title type string {
      indexing: index | summary
      index: enable-bm25
    }
    field colour type string { indexing: attribute | summary }
    field labels type array<string> { indexing: attribute | summary }
    field marks type weightedset<string> { indexing: attribute | summary }
    field ages type weightedset<int> { indexing: attribute }
    field price type float { indexing: attribute | summary }
    field stock type int { indexing: attribute | summary }
    field sold type bool { indexing: attribute | summary }
    field added type long { indexing: attribute | summary }
    field vector type tensor<float>(x[4]) {
      indexing: attribute | index | summary
      attribute { distance-metric: prenormalized-angular }
      index { hnsw { max-links-per-node: 8 } }
    }
    field parts type tensor<float>(p{},x[2]) { indexing: attribute | summary }
  }
  fieldset default { fields: title }
  document-summary short { summary title { } summary price { } }
  onnx-model tower { file: models/tower.onnx  
    input person: query(person)
    output out: out
  }
  rank-profile base {
    inputs {
      query(q) tensor<float>(x[4])
      query(person) tensor<float>(d0[1],d1[4])
      query(boost) double: 0.5
    }
  }
}
"""

PROFILES = {
    "near": "first-phase { expression: closeness(field, vector) } match-features: closeness(field, vector)",
    "words": "first-phase { expression: bm25(title) } match-features: bm25(title)",
    "marked": "first-phase { expression: rawScore(marks) }",
    "two": """first-phase { expression: attribute(stock) }
    second-phase { expression: query(boost) * attribute(price)
      rerank-count: 2 }
    match-features: firstPhase secondPhase""",
    "fused": """function lexical() { expression: bm25(title) }
    function semantic() { expression: closeness(field, vector) }
    first-phase { expression: semantic }
    global-phase { expression: reciprocal_rank_fusion(lexical, semantic)
      rerank-count: 10 }
    match-features: lexical semantic""",
    "tower": """function person() { expression: rename(reduce(onnx(tower).out, sum, d0), d1, x) }
    first-phase { expression: sum(person * attribute(vector)) }
    summary-features: attribute(price)""",
}

PERSON = """
schema person {
  document person {
    field name type string { indexing: attribute | summary }
    field clicks type tensor<float>(item{},x[2]) { indexing: attribute | summary }
  }
}
"""


def onnx_bytes(nodes: list[Any], inputs: list[Any], outputs: list[Any], weights: dict[str, np.ndarray]) -> bytes:
    graph = helper.make_graph(nodes, "g", inputs, outputs, [numpy_helper.from_array(w, n) for n, w in weights.items()])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


@lru_cache(1)
def text_model() -> bytes:
    """The sum of the rows of a table at the token ids: [batch, tokens] to [batch, 4]."""
    table = np.arange(40, dtype=np.float32).reshape(10, 4) % 7 - 3
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["rows"]),
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["mask", "last"], ["mask3"]),
        helper.make_node("Mul", ["rows", "mask3"], ["kept"]),
        helper.make_node("ReduceSum", ["kept", "middle"], ["vector"], keepdims=0),
    ]
    inputs = [
        helper.make_tensor_value_info(n, TensorProto.INT64, ["batch", "tokens"])
        for n in ("input_ids", "attention_mask")
    ]
    outputs = [helper.make_tensor_value_info("vector", TensorProto.FLOAT, ["batch", 4])]
    return onnx_bytes(nodes, inputs, outputs, {"table": table, "last": np.array([2]), "middle": np.array([1])})


@lru_cache(1)
def tower_model() -> bytes:
    """Twice its input: [1, 4] to [1, 4]."""
    shape = [1, 4]
    return onnx_bytes(
        [helper.make_node("Mul", ["person", "two"], ["out"])],
        [helper.make_tensor_value_info("person", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, shape)],
        {"two": np.array([2], np.float32)},
    )


@lru_cache(1)
def tokenizer() -> bytes:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "red", "blue", "dress", "shoe", "hat", "warm"]
    made = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return made.to_str().encode()


def package_files() -> dict[str, bytes]:
    """The files of the application; tests change copies of them."""
    files = {
        "services.xml": SERVICES,
        "schemas/thing.sd": THING,
        "schemas/person.sd": PERSON,
        "search/query-profiles/default.xml": """<query-profile id="default">
          <field name="maxHits">500</field>
        </query-profile>""",
        "search/query-profiles/meaning.xml": """<query-profile id="meaning" inherits="default">
          <field name="ranking">near</field><field name="hits">2</field>
          <field name="ranking.features.query(q)">embed(text, @query)</field>
          <field name="yql">select title from thing where {targetHits:3}nearestNeighbor(vector, q)</field>
        </query-profile>""",
    }
    for name, body in PROFILES.items():
        files[f"schemas/thing/{name}.profile"] = f"rank-profile {name} inherits base {{\n{body}\n}}\n"
    made = {path: text.encode() for path, text in files.items()}
    return made | {
        "models/text.onnx": text_model(),
        "models/tower.onnx": tower_model(),
        "models/tokenizer.json": tokenizer(),
    }


def zipped(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for path, data in files.items():
            archive.writestr(path, data)
    return buffer.getvalue()


VECTORS = {"a": [1.0, 0.0, 0.0, 0.0], "b": [0.6, 0.8, 0.0, 0.0], "c": [0.0, 1.0, 0.0, 0.0], "d": [0.0, 0.0, 1.0, 0.0]}
THINGS: dict[str, dict[str, Any]] = {
    "a": {
        "title": "red summer dress",
        "colour": "Red",
        "labels": ["new", "sale"],
        "price": 20.0,
        "stock": 3,
        "sold": True,
    },
    "b": {"title": "blue dress", "colour": "Blue", "labels": ["sale"], "price": 35.5, "stock": 7, "marks": {"eco": 2}},
    "c": {"title": "warm red shoe and a shoe", "colour": "red", "price": 80.0, "stock": 0},
    "d": {"title": "hats", "colour": "Green", "stock": 9, "parts": {"blocks": {"p": [1, 2]}}},
    "e": {"title": "a plain thing without a vector", "price": 5.0},
}
for _name, _vector in VECTORS.items():
    THINGS[_name]["vector"] = _vector


def ask(
    url: str, path: str, body: Any = None, method: str | None = None, headers: dict[str, str] | None = None
) -> tuple[int, Any]:
    """Status and JSON (or text) of a request; a body is sent as JSON unless it is bytes."""
    data = body if isinstance(body, (bytes, type(None))) else json.dumps(body).encode()
    method = method or ("POST" if data is not None else "GET")
    request = urllib.request.Request(
        url + path, data, {"Content-Type": "application/json"} | (headers or {}), method=method
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            status, text = response.status, response.read().decode()
    except urllib.error.HTTPError as e:
        status, text = e.code, e.read().decode()
    try:
        return status, json.loads(text)
    except ValueError:
        return status, text


def put(url: str, id: str, fields: dict[str, Any], kind: str = "thing") -> tuple[int, Any]:
    return ask(url, f"/document/v1/shop/{kind}/docid/{id}", {"fields": fields})


def search(url: str, **parameters: Any) -> tuple[int, Any]:
    return ask(url, "/search/", parameters)


def titles(answer: Any) -> list[str]:
    return [hit["fields"]["title"] for hit in answer["root"].get("children", [])]
