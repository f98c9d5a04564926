"""What a user clicked, as vectors: the history of the query tower, and the queries of the I2I and image queues."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mrse_model.errors import InputError
from mrse_model.serving.exported_model import QueryHistory, attend, event_weight
from mrse_model.serving.manifest import Manifest

TEMPERATURE = 0.1  # of the queues' attention: the loss's. At 1, twenty clicks outweigh the query ten to one
MAX_HALF_LIVES = 6  # an event older than this counts no more: the tower weighs events against each other alone


@dataclass(frozen=True)
class Event:
    """A user's event with an item. kind: click, cart or order. at: Unix seconds. query: what it was searched with
    (`query_text.key_of`), None where it is not known.
    """

    item_id: str
    kind: str
    at: float
    query: str | None = None


@dataclass(frozen=True)
class ClickedItems:
    """The items of a user's last events with their vectors: those of this query first, then newest first.

    embedding, image_embedding, text_feature: float32 [h, 128]; a row of image_embedding is NaN where there is no
    image. weight: float32 [h], event weight × decay. for_query: bool [h], clicked for the query that is asked.
    """

    ids: list[str]
    embedding: np.ndarray
    image_embedding: np.ndarray
    text_feature: np.ndarray
    weight: np.ndarray
    for_query: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)

    def history(self) -> QueryHistory | None:
        """What the query tower takes; None for no events."""
        return QueryHistory(self.text_feature, self.image_embedding, self.weight) if self.ids else None

    def tower_inputs(self, length: int) -> dict[str, np.ndarray]:
        """The history inputs of query_tower.onnx, float32 [1, length, 128] twice and [1, length], zeros where there
        is none.
        """
        n, dims = len(self), self.embedding.shape[1]
        text, image = np.zeros((1, length, dims), np.float32), np.zeros((1, length, dims), np.float32)
        weight = np.zeros((1, length), np.float32)
        text[0, :n], image[0, :n], weight[0, :n] = self.text_feature, np.nan_to_num(self.image_embedding), self.weight
        return {"history_text": text, "history_image": image, "history_weight": weight}

    def seeds(self) -> ClickedItems:
        """What the queues start from: the items clicked for this query (the paper's H_q), or all where there are
        none.
        """
        if not self.for_query.any():
            return self
        chosen = self.for_query
        return ClickedItems(
            ids=[item for item, kept in zip(self.ids, chosen, strict=True) if kept],
            embedding=self.embedding[chosen],
            image_embedding=self.image_embedding[chosen],
            text_feature=self.text_feature[chosen],
            weight=self.weight[chosen],
            for_query=self.for_query[chosen],
        )


def ranked_events(
    events: Sequence[Event], manifest: Manifest, now: float, query: str | None = None
) -> list[tuple[Event, float]]:
    """One event an item (its heaviest) with its weight: those made for `query` first, each newest first. All of them:
    the caller keeps the first twenty whose items are still there.

    now: Unix seconds; ages are absolute, as in training. Events older than MAX_HALF_LIVES half-lives are left out, and
    one from the future counts as now. Raises InputError for a kind of event that the model does not know.
    """
    for event in events:
        if event.kind not in manifest.event_weights:
            known = ", ".join(manifest.event_weights)
            raise InputError(f"unknown kind of event: {event.kind!r}", field="kind", fix=f"Take one of {known}")
    oldest = now - MAX_HALF_LIVES * manifest.half_life_days * 86400
    kept = [event for event in events if event.at >= oldest]
    weights = event_weight([e.kind for e in kept], [now - e.at for e in kept], manifest)
    best: dict[str, tuple[Event, float]] = {}
    asked: set[str] = set()
    for event, weight in zip(kept, weights, strict=True):
        if query is not None and event.query == query:
            asked.add(event.item_id)
        if event.item_id not in best or weight > best[event.item_id][1]:
            best[event.item_id] = (event, float(weight))
    return sorted(best.values(), key=lambda pair: (pair[0].item_id not in asked, -pair[0].at, pair[0].item_id))


def item_queue(query: np.ndarray, clicked: ClickedItems) -> np.ndarray | None:
    """The I2I query vector F(a, R): attention of a, the query vector, over [a ∥ R], R the clicked items' vectors.

    Source: paper, Online system (the prose: a is the attention's query). None for no clicks.
    """
    if not len(clicked):
        return None
    both = np.vstack([query[None], clicked.embedding])
    weight = np.concatenate([[1.0], clicked.weight]).astype(np.float32)
    return attend(query / TEMPERATURE, both, both, weight)


def image_queue(query: np.ndarray, clicked: ClickedItems) -> np.ndarray | None:
    """The query vector of the image index: the same attention, over the clicked items' image vectors.

    The query vector attends (by the clicked items' own vectors) but is not mixed in: it is no point of the image space.
    None when no clicked item has an image.
    """
    seen = ~np.isnan(clicked.image_embedding[:, 0]) if len(clicked) else np.zeros(0, bool)
    if not seen.any():
        return None
    return attend(query / TEMPERATURE, clicked.embedding[seen], clicked.image_embedding[seen], clicked.weight[seen])


HEX_CELLS = {4: ">u2", 8: ">f4", 16: ">f8"}  # hex digits a cell: bfloat16, float, double


def tensor_values(value: Any, dims: int) -> np.ndarray:
    """A tensor field of a Vespa answer (hex, or any short form) as float32 [dims]; NaN where it is absent.

    >>> tensor_values("3F80C000", 2).tolist()
    [1.0, -2.0]
    """
    if isinstance(value, dict):
        value = value.get("values")
    if value is None:
        return np.full(dims, np.nan, np.float32)
    if not isinstance(value, str):
        return np.array(value, np.float32)
    kind = HEX_CELLS[len(value) // dims]
    cells = np.frombuffer(bytes.fromhex(value), kind)
    if kind == ">u2":  # bfloat16 is the upper half of a float
        return (cells.astype(np.uint32) << 16).view(np.float32)
    return cells.astype(np.float32)


def tensor_hex(values: np.ndarray) -> str:
    """A dense query input as Vespa's bare hex: 8 digits a float32 cell, row by row. A fifth of the time of decimals.

    >>> tensor_hex(np.array([1.0, -2.0]))
    '3f800000c0000000'
    """
    return values.astype(">f4").tobytes().hex()
