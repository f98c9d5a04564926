"""A checkpoint to the seven files that Vespa, the feeder and the searcher read (docs/contracts.md, "The exported
model").

Vespa refuses IR above 13, opset above 26 and bool tensors: we write IR 10 and opset 18, masks as int64. What a rank
profile runs (query_tower, query_experts) takes token ids and masks as float32 and casts them inside: Vespa's ranking
has floats, and would convert them at each evaluation. query_text keeps int64, which the embedder hands over.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from torch import Tensor, nn

from mrse_model.atomic_file import atomic_file
from mrse_model.config import EXPERTS
from mrse_model.errors import InputError
from mrse_model.images.encoders import export_onnx, load_encoder
from mrse_model.model import MRSE, TOKENIZER
from mrse_model.serving.exported_model import INT8_SCALE, ExportedModel, QueryHistory
from mrse_model.serving.manifest import EncoderInfo, Manifest, OnnxFile, Port, TokenizerFile, sha256
from mrse_model.serving.mix import write_mix
from mrse_model.serving.texts import CLS, PAD, SEP, UNK

OPSET, IR = 18, 10
TOLERANCE = 1e-5


class QueryTextGraph(nn.Module):
    """The query tower of someone unknown: the empty history is part of the graph.

    The second output is the same vector as whole numbers, which nearestNeighbor over an int8 field needs: Vespa cuts
    the query's cells to int8, and embed() into an int8 tensor would make bits of them.
    """

    def __init__(self, model: MRSE) -> None:
        super().__init__()
        self.model = model
        dims = model.config.model.dims
        self.register_buffer("entries", torch.zeros(1, 1, dims))
        self.register_buffer("weight", torch.zeros(1, 1))

    entries: Tensor
    weight: Tensor

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        batch = input_ids.shape[0]
        entries = self.entries.expand(batch, -1, -1)
        weight = self.weight.expand(batch, -1)
        embedding = self.model.query_embedding(input_ids, attention_mask, entries, entries, weight)
        return embedding, torch.round(INT8_SCALE * embedding)


class QueryTowerGraph(nn.Module):
    """The query tower with a history."""

    def __init__(self, model: MRSE) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, history_text: Tensor, history_image: Tensor,
        history_weight: Tensor,
    ) -> Tensor:  # fmt: skip
        ids, mask = input_ids.long(), attention_mask.long()
        return self.model.query_embedding(ids, mask, history_text, history_image, history_weight)


class QueryExpertsGraph(nn.Module):
    """What the query tower says without each of its experts: one vector an expert, in the order of EXPERTS.

    A graph of its own, not outputs of query_tower: Vespa's content node computes every output of a graph that it runs,
    and only the rank profile `explain` asks for these.
    """

    def __init__(self, model: MRSE) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, history_text: Tensor, history_image: Tensor,
        history_weight: Tensor,
    ) -> tuple[Tensor, ...]:  # fmt: skip
        tower = self.model.query
        texts = tower.texts(self.model.ngrams, input_ids.long(), attention_mask.long())
        experts = tower.all_experts(texts, history_text, history_image, history_weight)
        return tuple(tower.without(experts, index) for index in range(len(EXPERTS)))


class ItemTowerGraph(nn.Module):
    """The item tower, and the two behaviour features that a history is made of."""

    def __init__(self, model: MRSE) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, image_feature: Tensor, image_present: Tensor,
        history_ids: Tensor, history_mask: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        model = self.model
        components = model.components(image_feature)
        image = model.image_embedding(components, image_present)
        embedding, text_feature = model.item_embeddings(
            input_ids, attention_mask, components, image, image_present, history_ids, history_mask
        )
        return embedding, image, text_feature


@dataclass(frozen=True)
class Exported:
    """What `export_run` wrote. image_encoder: None where the model sees no images, or vectors of the user's own."""

    manifest: Manifest
    image_encoder: Path | None


def export_run(run: str | Path, folder: str | Path) -> Exported:
    """Exports a run's checkpoint into `folder`, and its image encoder into the run, for feeds that encode images.

    Raises InputError where there is no checkpoint, RuntimeError as `export` does.
    """
    manifest = export(MRSE.from_pretrained(run), folder)
    info = manifest.image_encoder
    if info is None or not info.size:  # size 0: the user's own vectors, and no encoder of ours
        return Exported(manifest, None)
    return Exported(manifest, export_onnx(load_encoder(info.name, info.size), Path(run) / "image_encoder.onnx"))


def export(model: MRSE, folder: str | Path) -> Manifest:
    """Writes the four graphs (.onnx), tokenizer.json, the hybrid's constants and manifest.json into `folder`.

    Each graph is run in ONNX Runtime on a golden input and held against torch to 1e-5, and then the whole export from
    texts, as it is served, before anything is replaced; the folder's files are replaced only when all are written.
    Raises RuntimeError when either differs.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    model = model.eval()
    size, meta = model.config.model, model.meta
    mix = meta.get("mix", {})
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".export-") as temporary:
        work = Path(temporary)
        files = {name: _export_graph(work, name, graph, inputs, outputs, example)
                 for name, graph, inputs, outputs, example in graphs(model)}  # fmt: skip
        model.tokenizer.save(str(work / TOKENIZER))
        encoder = meta.get("image_encoder") if size.image_dims else None
        manifest = Manifest(
            model_version=version_of(model),
            created=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            dims=size.dims,
            distance_metric="prenormalized-angular",
            query_tokens=size.query_tokens,
            item_tokens=size.item_tokens,
            item_text=size.text_columns,
            history_length=size.history_length,
            item_history_queries=size.item_history_queries,
            event_weights=dict(model.config.train.event_weights),
            half_life_days=model.config.train.half_life_days,
            special_tokens={"pad": PAD, "unk": UNK, "cls": CLS, "sep": SEP},
            tokenizer=TokenizerFile(TOKENIZER, sha256(work / TOKENIZER), model.tokenizer.get_vocab_size()),
            models=files,
            image_encoder=EncoderInfo(**encoder) if encoder else None,
            metrics={k: float(v) for k, v in meta.get("metrics", {}).items()},
            training=meta.get("training", {}),
            profile=mix.get("profile", "ann"),
            popularity=mix.get("source"),
        )
        write_mix(work, mix.get("weight"), mix.get("popularity", 0.0))
        manifest.save(work)
        compare_from_texts(model, ExportedModel.load(work))
        for path in sorted(work.iterdir()):
            with atomic_file(folder / path.name) as part:
                shutil.move(path, part)
    return manifest


def compare_from_texts(model: MRSE, exported: ExportedModel) -> None:
    """Holds the export against torch to 1e-5 from texts on: tokens, text format, images and histories that are missing.

    The graphs' own check starts at token ids and would not see what is done to a text before. Raises RuntimeError.
    """
    size, rng = model.config.model, np.random.default_rng(7)
    words = [token.strip("▁") for token in model.tokenizer.get_vocab() if token.strip("▁").isalnum()]

    def texts(*lengths: int) -> list[str]:
        return [" ".join(rng.choice(words, length)) for length in lengths]

    def rows(n: int, width: int) -> np.ndarray:
        return rng.normal(size=(n, width)).astype(np.float32)

    def unit(n: int) -> np.ndarray:
        vectors = rows(n, size.dims)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    queries = [*texts(1, 3, 40), "", "[CLS] [SEP] ?!"]
    history = QueryHistory(unit(3), np.where([[1], [1], [0]], unit(3), np.nan), rng.random(3).astype(np.float32))
    histories = [None, history, history, history, None]
    titles = [*texts(1, 5, 90), "[CLS] ?!"]
    categories = [texts(1, 1), texts(2), [], texts(1)]  # the second has two words, the third is of no category
    features = rows(4, size.image_dims) if size.image_dims else None
    if features is not None:
        features[1] = np.nan
    item_queries = [texts(2, 30), [], texts(*[1] * (size.item_history_queries + 1)), texts(1)]
    compared = {"query vectors": (model.query_vectors(queries, histories), exported.query_vectors(queries, histories))}
    compared["query vectors of unknown users"] = model.query_vectors(queries), exported.query_vectors(queries)
    arguments = titles, categories, features, item_queries
    ours, theirs = model.item_vectors(*arguments), exported.item_vectors(*arguments)
    for name in ("embedding", "image_embedding", "text_feature"):
        compared[f"items' {name}"] = getattr(ours, name), getattr(theirs, name)
    for name, (one, other) in compared.items():
        if not np.allclose(one, other, rtol=0, atol=TOLERANCE, equal_nan=True):
            raise RuntimeError(f"{name} from texts differ from torch by {np.nanmax(np.abs(one - other)):.2g}")


def version_of(model: MRSE) -> str:
    """`mrse-` and 12 hex digits of the SHA-256 over the weights, by name, and the tokenizer."""
    digest = hashlib.sha256(model.tokenizer.to_str().encode())
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.contiguous().numpy().tobytes())
    # What the query tower is fed with decides its answer, too: other weights of history are another model.
    train = model.config.train
    digest.update(json.dumps([train.event_weights, train.half_life_days], sort_keys=True).encode())
    return "mrse-" + digest.hexdigest()[:12]


def golden_inputs(model: MRSE, batch: int = 2, seed: int = 7) -> dict[str, np.ndarray]:
    """Inputs of every graph by name, seeded: token ids, a history, an image. The same in every test of equality."""
    size = model.config.model
    rng = np.random.default_rng(seed)

    def ids(*shape: int) -> np.ndarray:
        return np.concatenate(
            [np.full((*shape[:-1], 1), CLS), rng.integers(4, size.vocab_size, (*shape[:-1], shape[-1] - 2)),
             np.full((*shape[:-1], 1), SEP)], -1,
        ).astype(np.int64)  # fmt: skip

    def unit(*shape: int) -> np.ndarray:
        v = rng.normal(size=shape)
        return (v / np.linalg.norm(v, axis=-1, keepdims=True)).astype(np.float32)

    length, queries = size.history_length, size.item_history_queries
    weight = np.where(np.arange(length) < 5, rng.random((batch, length)), 0).astype(np.float32)
    history_ids = ids(batch, queries, size.query_tokens) * (np.arange(queries) < 3)[:, None]
    query, item = ids(batch, size.query_tokens), ids(batch, size.item_tokens)
    item[-1, 9:] = 0
    return {
        "query.input_ids": query,
        "item.input_ids": item,
        "history_text": unit(batch, length, size.dims),
        "history_image": unit(batch, length, size.dims),
        "history_weight": weight,
        "image_feature": rng.normal(size=(batch, max(size.image_dims, 1))).astype(np.float32),
        "image_present": np.array([[1.0]] * (batch - 1) + [[0.0]], np.float32),
        "history_ids": history_ids,
    }


Graph = tuple[str, nn.Module, dict[str, dict[int, str]], Sequence[str], tuple[Tensor, ...]]


def graphs(model: MRSE) -> list[Graph]:
    """Each graph: its name, the module, its inputs with their dynamic axes, its outputs, and a golden input."""
    g = {k: torch.from_numpy(v) for k, v in golden_inputs(model).items()}
    query, item, asked = g["query.input_ids"], g["item.input_ids"], g["history_ids"]
    tokens = {0: "batch", 1: "tokens"}
    text = {"input_ids": tokens, "attention_mask": tokens}
    rows = {0: "batch"}
    history = {"history_text": rows, "history_image": rows, "history_weight": rows}
    image = {"image_feature": rows, "image_present": rows, "history_ids": rows, "history_mask": rows}
    ranked = (query.float(), (query != 0).float(), g["history_text"], g["history_image"], g["history_weight"])
    return [
        ("query_text", QueryTextGraph(model), text, ["embedding", "embedding_int8"], (query, (query != 0).long())),
        ("query_tower", QueryTowerGraph(model), text | history, ["embedding"], ranked),
        ("query_experts", QueryExpertsGraph(model), text | history, [f"without_{name}" for name in EXPERTS], ranked),
        ("item_tower", ItemTowerGraph(model), text | image, ["embedding", "image_embedding", "text_feature"],
         (item, (item != 0).long(), g["image_feature"], g["image_present"], asked, (asked != 0).long())),
    ]  # fmt: skip


def _export_graph(
    work: Path, name: str, graph: nn.Module, axes: dict[str, dict[int, str]], outputs: Sequence[str],
    example: tuple[Tensor, ...],
) -> OnnxFile:  # fmt: skip
    path = work / f"{name}.onnx"
    longest = example[0].shape[1]
    dims = {"batch": torch.export.Dim("batch", min=1), "tokens": torch.export.Dim("tokens", min=2, max=longest)}
    shapes = tuple({axis: dims[label] for axis, label in some.items()} for some in axes.values())
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            graph.eval(), example, dynamo=True, dynamic_shapes=shapes, opset_version=OPSET, verbose=False,
            input_names=list(axes), output_names=[f"out.{name}" for name in outputs], optimize=True,
        )  # fmt: skip
    assert program is not None
    proto = program.model_proto
    # torch calls the rows of a look-up "embedding" too: inner names make room before the outputs get theirs.
    _rename(proto.graph, {name: f"inner.{name}" for name in outputs})
    _rename(proto.graph, {f"out.{name}": name for name in outputs})
    proto.ir_version = IR
    _halve_tables(proto.graph)
    del proto.metadata_props[:]
    for node in proto.graph.node:  # the exporter notes source lines of this machine: of no use, and not the same twice
        del node.metadata_props[:]
        node.doc_string = ""
    onnx.checker.check_model(proto, full_check=True)
    onnx.save(proto, path)
    _compare(path, graph, axes, outputs, example)
    found = onnx.load(path, load_external_data=False)
    return OnnxFile(
        file=path.name,
        sha256=sha256(path),
        ir_version=found.ir_version,
        opset=next(o.version for o in found.opset_import if o.domain in ("", "ai.onnx")),
        inputs=tuple(_port(value) for value in found.graph.input),
        outputs=tuple(_port(value) for value in found.graph.output),
    )


def _rename(graph: onnx.GraphProto, names: dict[str, str]) -> None:
    for value in (*graph.value_info, *graph.initializer, *graph.output):
        value.name = names.get(value.name, value.name)
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]


def _halve_tables(graph: onnx.GraphProto) -> None:
    """Stores the look-up tables whose numbers are all half precision's as such; what is read of them is cast back, so
    no result changes. A table that began as a teacher's is one (experts.NGrams.to_half_precision).
    """
    for table in graph.initializer:
        values, readers = onnx.numpy_helper.to_array(table), [n for n in graph.node if table.name in n.input]
        if values.dtype != np.float32 or not all(n.op_type == "Gather" and n.input[0] == table.name for n in readers):
            continue
        with np.errstate(over="ignore"):
            half = values.astype(np.float16)
        if not np.array_equal(half.astype(np.float32), values):
            continue
        table.CopyFrom(onnx.numpy_helper.from_array(half, table.name))
        for noted in [value for value in graph.value_info if value.name == table.name]:
            graph.value_info.remove(noted)
        for node in readers:
            at, out, found = list(graph.node).index(node), node.output[0], f"{node.output[0]}.half"
            node.output[0] = found
            graph.node.insert(at + 1, onnx.helper.make_node("Cast", [found], [out], to=onnx.TensorProto.FLOAT))


def _compare(path: Path, graph: nn.Module, axes: dict, outputs: Sequence[str], example: tuple[Tensor, ...]) -> None:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for batch, tokens in ((2, example[0].shape[1]), (1, 5)):  # another shape too: the axes must be really dynamic
        some = tuple(
            value[:batch, :tokens] if "tokens" in labels.values() else value[:batch]
            for value, labels in zip(example, axes.values(), strict=True)
        )
        with torch.no_grad():
            want = graph(*some)
        got = session.run(list(outputs), {k: v.numpy() for k, v in zip(axes, some, strict=True)})
        for name, ours, theirs in zip(outputs, want if isinstance(want, tuple) else (want,), got, strict=True):
            gap = float(np.abs(ours.numpy() - theirs).max())
            if not gap <= (1 if name.endswith("_int8") else TOLERANCE):  # a whole number may round the other way
                raise RuntimeError(f"{path.name}: output {name} differs from torch by {gap:.2g}")


def _port(value: onnx.ValueInfoProto) -> Port:
    kind = value.type.tensor_type
    names: dict[int, str] = {onnx.TensorProto.INT64: "int64", onnx.TensorProto.FLOAT: "float32"}
    if kind.elem_type not in names:
        raise InputError(
            f"{value.name} has ONNX type {kind.elem_type}", fix="Only int64 and float32 pass through Vespa"
        )
    return Port(value.name, names[kind.elem_type], tuple(d.dim_param or d.dim_value for d in kind.shape.dim))
