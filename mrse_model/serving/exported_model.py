"""The exported model in ONNX Runtime: texts, images and histories to vectors. Needs no torch.

    model = ExportedModel.load("vespa_app/models")
    model.query_vectors(["red dress"])                        # [1, 128], unit norm
    model.item_vectors(["Red dress"], [["Clothes"]]).embedding

docs/contracts.md states the inputs and outputs of each graph.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

from mrse_model.errors import InputError
from mrse_model.serving.manifest import Manifest
from mrse_model.serving.texts import item_texts, token_matrix

Floats = np.ndarray
CELLS = {"tensor(int64)": np.int64, "tensor(float)": np.float32}  # of a graph's inputs
INT8_SCALE = 127  # a unit vector's cells as whole numbers (variants/int8): items by the feeder, queries by query_text


def attend(query: Floats, keys: Floats, values: Floats, weight: Floats) -> Floats:
    """softmax(query · keys) over `values`, each term scaled by `weight`, to unit norm: F(a, R) of the I2I queues
    (paper, Online system).

    query: [d], keys: [n, d], values: [n, d], weight: [n] ≥ 0. Returns float32 [d].
    """
    scores = keys @ query
    attention = np.exp(scores - scores.max()) * weight
    mixed = attention @ values / attention.sum()
    return (mixed / max(float(np.linalg.norm(mixed)), 1e-9)).astype(np.float32)


@dataclass(frozen=True)
class QueryHistory:
    """A user's last clicked items, newest first, as the items' behaviour features (docs/contracts.md).

    text, image: float32 [h, 128], h ≤ 20; an item without an image has a zero row in image. weight: float32 [h] > 0.
    """

    text: Floats
    image: Floats
    weight: Floats


@dataclass(frozen=True)
class ItemVectors:
    """float32 [n, 128] each; a row of image_embedding is NaN where the item has no image."""

    embedding: Floats
    image_embedding: Floats
    text_feature: Floats


def event_weight(kinds: Sequence[str], ages_seconds: Sequence[float], manifest: Manifest) -> Floats:
    """History weights: event weight × 0.5^(age / half-life). kinds: click, cart, order. Returns float32 [h]."""
    days = np.asarray(ages_seconds, np.float32) / 86400
    base = np.array([manifest.event_weights[k] for k in kinds], np.float32)
    return (base * 0.5 ** (np.maximum(days, 0) / manifest.half_life_days)).astype(np.float32)


class ExportedModel:
    """The graphs and the tokenizer of one export. Build it with `load`."""

    def __init__(self, folder: Path, manifest: Manifest, threads: int) -> None:
        self.folder, self.manifest = folder, manifest
        self._threads = threads
        self._sessions: dict[str, onnxruntime.InferenceSession] = {}
        self._tokenizer = Tokenizer.from_file(str(folder / manifest.tokenizer.file))

    @classmethod
    def load(cls, folder: str | Path, threads: int = 1) -> ExportedModel:
        """Reads an export folder and checks its hashes. threads: ONNX Runtime's intra-op threads. Raises InputError."""
        return cls(Path(folder), Manifest.load(folder), threads)

    def query_vectors(
        self, texts: Sequence[str], histories: Sequence[QueryHistory | None] | None = None, batch: int = 256
    ) -> Floats:
        """Query texts, each with an optional history, to unit vectors float32 [n, 128] (paper §Methodology, query
        tower).
        """
        if histories is not None and len(histories) != len(texts):
            raise ValueError(f"{len(texts)} texts and {len(histories)} histories")
        out = np.empty((len(texts), self.manifest.dims), np.float32)
        for start in range(0, len(texts), batch):
            rows = slice(start, start + batch)
            ids, mask = token_matrix(self._tokenizer, texts[rows], self.manifest.query_tokens)
            inputs = {"input_ids": ids, "attention_mask": mask}
            some = histories[rows] if histories is not None else []
            if any(h is not None for h in some):
                past = history_arrays(some, self.manifest.history_length, self.manifest.dims)
                out[rows] = self._run("query_tower", inputs | past)["embedding"]
            else:
                out[rows] = self._run("query_text", inputs)["embedding"]
        return out

    def item_vectors(
        self,
        titles: Sequence[str],
        categories: Sequence[Sequence[str]],
        image_features: Floats | None = None,
        queries: Sequence[Sequence[str]] | None = None,
        batch: int = 32,
    ) -> ItemVectors:
        """Items to vectors.

        image_features: float32 [n, F], a NaN row (or None for all) where there is no image. queries: the item queries
        of each, most frequent first; the first 8 count. Raises InputError when F is not what the model
        was trained on.
        """
        n, dims = len(titles), self.manifest.dims
        width = self.manifest.image_encoder.dims if self.manifest.image_encoder else self._image_width()
        if image_features is not None and image_features.shape != (n, width):
            encoder = self.manifest.image_encoder.name if self.manifest.image_encoder else "none"
            raise InputError(
                f"image features of shape {image_features.shape} instead of ({n}, {width})",
                field="feature",
                fix=f"The model was trained on encoder {encoder}: extract the features with it",
            )
        out = ItemVectors(*(np.empty((n, dims), np.float32) for _ in range(3)))
        for start in range(0, n, batch):
            rows = slice(start, min(start + batch, n))
            texts = item_texts(self.manifest.item_text, titles[rows], categories[rows])
            ids, mask = token_matrix(self._tokenizer, texts, self.manifest.item_tokens)
            feature = (
                np.full((len(texts), width), np.nan, np.float32) if image_features is None else image_features[rows]
            )
            present = ~np.isnan(feature[:, :1])
            led_ids, led_mask = item_query_tokens(
                self._tokenizer,
                queries[rows] if queries is not None else [()] * len(texts),
                self.manifest.item_history_queries,
                self.manifest.query_tokens,
            )
            inputs = {
                "input_ids": ids,
                "attention_mask": mask,
                "image_feature": np.where(present, feature, 0).astype(np.float32),
                "image_present": present.astype(np.float32),
                "history_ids": led_ids,
                "history_mask": led_mask,
            }
            found = self._run("item_tower", inputs)
            out.embedding[rows] = found["embedding"]
            out.image_embedding[rows] = np.where(present, found["image_embedding"], np.nan)
            out.text_feature[rows] = found["text_feature"]
        return out

    def _run(self, name: str, inputs: dict[str, np.ndarray]) -> dict[str, Floats]:
        session = self._sessions.get(name)
        if session is None:
            session = self._sessions[name] = open_session(self.folder / self.manifest.models[name].file, self._threads)
        names = [o.name for o in session.get_outputs()]
        typed = {i.name: inputs[i.name].astype(CELLS[i.type], copy=False) for i in session.get_inputs()}
        return dict(zip(names, session.run(names, typed), strict=True))

    def _image_width(self) -> int:
        port = next(p for p in self.manifest.models["item_tower"].inputs if p.name == "image_feature")
        return int(port.shape[1])


def history_arrays(histories: Sequence[QueryHistory | None], length: int, dims: int) -> dict[str, Floats]:
    """Histories as the query tower's inputs: history_text, history_image [n, length, dims], history_weight [n, length],
    zeros where there is no entry; NaN rows of images become zeros.
    """
    n = len(histories)
    text, image = np.zeros((n, length, dims), np.float32), np.zeros((n, length, dims), np.float32)
    weight = np.zeros((n, length), np.float32)
    for row, history in enumerate(histories):
        if history is not None and len(history.weight):
            kept = min(length, len(history.weight))
            text[row, :kept] = history.text[:kept]
            image[row, :kept] = np.nan_to_num(history.image[:kept])
            weight[row, :kept] = history.weight[:kept]
    return {"history_text": text, "history_image": image, "history_weight": weight}


def item_query_tokens(
    tokenizer: Tokenizer, queries: Sequence[Sequence[str]], count: int, tokens: int
) -> tuple[np.ndarray, np.ndarray]:
    """The first `count` item queries of each item → ids and mask, int64 [n, count, tokens]."""
    ids = np.zeros((len(queries), count, tokens), np.int64)
    mask = np.zeros_like(ids)
    indices = [(row, column) for row, few in enumerate(queries) for column in range(min(count, len(few)))]
    if indices:
        rows, columns = np.array(indices).T
        found, found_mask = token_matrix(tokenizer, [queries[r][c] for r, c in indices], tokens)
        ids[rows, columns, : found.shape[1]], mask[rows, columns, : found.shape[1]] = found, found_mask
    return ids, mask


def open_session(path: Path, threads: int) -> onnxruntime.InferenceSession:
    """An ONNX Runtime session on CPU. Raises InputError when the file is missing or no model."""
    if not path.is_file():
        raise InputError("no such model file", file=path, fix="Run: mrse export CHECKPOINT --app vespa_app")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises pybind exceptions without a common base
        raise InputError(f"not an ONNX model that ONNX Runtime takes: {error}", file=path) from None
