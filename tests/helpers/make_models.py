"""Stand-ins for the exported models: tiny seeded graphs with exactly the inputs, outputs and axes of docs/contracts.md.

They know nothing, but they are functions of all their inputs, so a test sees which input reached them.

    python -m tests.helpers.make_models FOLDER
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from mrse_model.serving.mix import write_mix

DIMS, TOKENS, HISTORY, FEATURES = 128, 16, 20, 24
TEXT = """
red blue green black white dress shirt skirt shoe shoes boots bag leather cotton wool summer winter running yoga
pants tank top jacket coat striped dotted plain women men kids sale new
"""
WORDS = TEXT.split()
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]


def make_tokenizer() -> Tokenizer:
    """A Unigram tokenizer with whole words and single letters as tokens; [CLS] text [SEP]."""
    letters = [*"abcdefghijklmnopqrstuvwxyz0123456789", "▁"]
    tokens = [(token, 0.0) for token in SPECIAL]
    tokens += [("▁" + word, -3.0 - 0.01 * n) for n, word in enumerate(WORDS)]
    tokens += [(letter, -9.0 - 0.01 * n) for n, letter in enumerate(letters)]
    tokenizer = Tokenizer(models.Unigram(tokens, unk_id=1))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.add_special_tokens(SPECIAL)
    return tokenizer


def make_models(folder: Path, version: str = "mrse-0123456789ab", seed: int = 7) -> None:
    """Writes the four graphs (.onnx), tokenizer.json and manifest.json into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = make_tokenizer()
    tokenizer.save(str(folder / "tokenizer.json"))
    rng = np.random.default_rng(seed)

    def matrix(rows: int) -> np.ndarray:
        return rng.normal(scale=DIMS**-0.5, size=(rows, DIMS)).astype(np.float32)

    words = {"words": matrix(tokenizer.get_vocab_size()), "axis1": np.array([1]), "axis2": np.array([2])}
    user = {"w_text": matrix(DIMS), "w_image": matrix(DIMS)}
    item = {"w_feature": matrix(FEATURES), "w_seen": matrix(1), "w_image": matrix(DIMS)}
    past = [
        float_input("history_text", HISTORY, DIMS),
        float_input("history_image", HISTORY, DIMS),
        float_input("history_weight", HISTORY),
    ]
    graphs = {
        "query_text": (
            [
                *text_nodes("text"),
                unit("text", "embedding"),
                helper.make_node("Mul", ["embedding", "int8_scale"], ["scaled"]),
                helper.make_node("Round", ["scaled"], ["embedding_int8"]),
            ],
            token_inputs(),
            ["embedding", "embedding_int8"],
            words | {"int8_scale": np.float32(127)},
        ),
        "query_tower": (
            [*text_nodes("text", "ids"), *history_nodes(), add("text", "history", "sum"), unit("sum", "embedding")],
            [*token_inputs(TensorProto.FLOAT), *past],
            ["embedding"],
            words | user,
        ),
        "query_experts": (
            [*text_nodes("text", "ids"), *history_nodes(), *expert_nodes()],
            [*token_inputs(TensorProto.FLOAT), *past],
            [f"without_{expert}" for expert in ("vbert", "light_bert", "ft_att", "history")],
            words | user,
        ),
        "item_tower": (
            item_nodes(),
            [
                *token_inputs(),
                float_input("image_feature", FEATURES),
                float_input("image_present", 1),
                helper.make_tensor_value_info("history_ids", TensorProto.INT64, ["batch", 8, TOKENS]),
                helper.make_tensor_value_info("history_mask", TensorProto.INT64, ["batch", 8, TOKENS]),
            ],
            ["embedding", "image_embedding", "text_feature"],
            words | item | {"axes12": np.array([1, 2]), "axis3": np.array([3])},
        ),
    }
    described = {}
    for name, (nodes, inputs, outputs, constants) in graphs.items():
        ports = [helper.make_tensor_value_info(o, TensorProto.FLOAT, ["batch", DIMS]) for o in outputs]
        used = {i for node in nodes for i in node.input}
        initializers = [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items() if k in used]
        graph = helper.make_graph(nodes, name, inputs, ports, initializers)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
        onnx.checker.check_model(model)
        onnx.save(model, folder / f"{name}.onnx")
        described[name] = {
            "file": f"{name}.onnx",
            "sha256": sha256(folder / f"{name}.onnx"),
            "ir_version": 10,
            "opset": 17,
            "inputs": [describe(port) for port in inputs],
            "outputs": [describe(port) for port in ports],
        }
    manifest = {
        "format": 2,
        "model_version": version,
        "created": "2026-11-23T18:00:00Z",
        "dims": DIMS,
        "distance_metric": "prenormalized-angular",
        "query_tokens": TOKENS,
        "item_tokens": 64,
        "item_text": ["title", "category"],
        "history_length": HISTORY,
        "item_history_queries": 8,
        "event_weights": {"click": 1.0, "cart": 2.0, "order": 3.0},
        "half_life_days": 30.0,
        "special_tokens": {"pad": 0, "unk": 1, "cls": 2, "sep": 3},
        "image_encoder": {"name": "stand-in", "dims": FEATURES, "size": 96},
        "tokenizer": {
            "file": "tokenizer.json",
            "sha256": sha256(folder / "tokenizer.json"),
            "vocab_size": tokenizer.get_vocab_size(),
        },
        "models": described,
        "metrics": {},
        "training": {},
    }
    write_mix(folder, 0.3)
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n", "utf-8")


def token_inputs(kind: int = TensorProto.INT64) -> list[onnx.ValueInfoProto]:
    """What rank profiles run takes floats, as Vespa's ranking has them."""
    return [helper.make_tensor_value_info(name, kind, ["batch", "tokens"]) for name in ("input_ids", "attention_mask")]


def float_input(name: str, *shape: int) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", *shape])


def text_nodes(output: str, ids: str = "input_ids") -> list[onnx.NodeProto]:
    """Sum of the word vectors under the mask: [batch, tokens] → [batch, 128]; other `ids` are cast from input_ids."""
    cast = [] if ids == "input_ids" else [helper.make_node("Cast", ["input_ids"], [ids], to=TensorProto.INT64)]
    return [
        *cast,
        helper.make_node("Gather", ["words", ids], ["vectors"]),
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["mask", "axis2"], ["mask3"]),
        helper.make_node("Mul", ["vectors", "mask3"], ["masked"]),
        helper.make_node("ReduceSum", ["masked", "axis1"], [output], keepdims=0),
    ]


def history_nodes() -> list[onnx.NodeProto]:
    """Weighted sum over the 20 clicked items of both features, each through its matrix; zero weights give zero."""
    nodes = [helper.make_node("Unsqueeze", ["history_weight", "axis2"], ["weight3"])]
    for kind in ("text", "image"):
        nodes += [
            helper.make_node("Mul", [f"history_{kind}", "weight3"], [f"weighted_{kind}"]),
            helper.make_node("ReduceSum", [f"weighted_{kind}", "axis1"], [f"total_{kind}"], keepdims=0),
            helper.make_node("MatMul", [f"total_{kind}", f"w_{kind}"], [f"from_{kind}"]),
        ]
    return [*nodes, add("from_text", "from_image", "history")]


def expert_nodes() -> list[onnx.NodeProto]:
    """Four vectors that all differ from the query tower's and from each other where there is a history."""
    nodes = [add("text", "from_text", "no_vbert"), unit("no_vbert", "without_vbert"), unit("text", "without_history")]
    for expert, matrix in (("light_bert", "w_text"), ("ft_att", "w_image")):
        nodes += [
            helper.make_node("MatMul", ["text", matrix], [f"turned_{expert}"]),
            add(f"turned_{expert}", "history", f"no_{expert}"),
            unit(f"no_{expert}", f"without_{expert}"),
        ]
    return nodes


def item_nodes() -> list[onnx.NodeProto]:
    return [
        *text_nodes("text"),
        unit("text", "text_feature"),
        helper.make_node("MatMul", ["image_feature", "w_feature"], ["projected"]),
        helper.make_node("MatMul", ["image_present", "w_seen"], ["seen"]),
        add("projected", "seen", "image"),
        unit("image", "image_embedding"),
        helper.make_node("MatMul", ["image", "w_image"], ["looks"]),
        helper.make_node("Gather", ["words", "history_ids"], ["asked4"]),
        helper.make_node("Cast", ["history_mask"], ["asked_mask"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["asked_mask", "axis3"], ["asked_mask4"]),
        helper.make_node("Mul", ["asked4", "asked_mask4"], ["asked_masked"]),
        helper.make_node("ReduceSum", ["asked_masked", "axes12"], ["asked"], keepdims=0),
        add("text", "looks", "words_and_looks"),
        add("words_and_looks", "asked", "all"),
        unit("all", "embedding"),
    ]


def add(a: str, b: str, output: str) -> onnx.NodeProto:
    return helper.make_node("Add", [a, b], [output])


def unit(a: str, output: str) -> onnx.NodeProto:
    return helper.make_node("LpNormalization", [a], [output], axis=1, p=2)


def describe(port: onnx.ValueInfoProto) -> dict[str, object]:
    tensor = port.type.tensor_type
    kind = "int64" if tensor.elem_type == TensorProto.INT64 else "float32"
    return {"name": port.name, "type": kind, "shape": [d.dim_param or d.dim_value for d in tensor.shape.dim]}


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


if __name__ == "__main__":
    make_models(Path(sys.argv[1]))
