"""What a user clicked, as vectors: the history of the query tower, and the queries of the I2I and image queues."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mrse_model.serving.exported_model import QueryHistory, attend, event_weight
from mrse_model.serving.manifest import Manifest


@dataclass(frozen=True)
class Event:
    """A user's event with an item. kind: click, cart or order. at: Unix seconds."""

    item_id: str
    kind: str
    at: float


@dataclass(frozen=True)
class ClickedItems:
    """The items of a user's last events with their vectors, newest first.

    embedding, image_embedding, text_feature: float32 [h, 128]; a row of image_embedding is NaN where there is no
    image. weight: float32 [h], event weight × decay.
    """

    ids: list[str]
    embedding: np.ndarray
    image_embedding: np.ndarray
    text_feature: np.ndarray
    weight: np.ndarray

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


def last_events(events: Sequence[Event], manifest: Manifest, now: float | None = None) -> list[tuple[Event, float]]:
    """The newest events, one an item (its heaviest), with weights; at most the model's history length, newest first.

    now: Unix seconds; the newest event's time by default, so that a log of last year is not all decay.
    """
    if not events:
        return []
    moment = now if now is not None else max(e.at for e in events)
    weights = event_weight([e.kind for e in events], [moment - e.at for e in events], manifest)
    best: dict[str, tuple[Event, float]] = {}
    for event, weight in zip(events, weights, strict=True):
        if event.item_id not in best or weight > best[event.item_id][1]:
            best[event.item_id] = (event, float(weight))
    newest = sorted(best.values(), key=lambda pair: (-pair[0].at, pair[0].item_id))
    return newest[: manifest.history_length]


def item_queue(query: np.ndarray, clicked: ClickedItems) -> np.ndarray | None:
    """The I2I query vector F(a, R): attention of a, the query vector, over [a ∥ R], R the clicked items' vectors.

    Source: paper, Online system (the prose: a is the attention's query). None for no clicks.
    """
    if not len(clicked):
        return None
    both = np.vstack([query[None], clicked.embedding])
    return attend(query, both, both, np.concatenate([[1.0], clicked.weight]).astype(np.float32))


def image_queue(query: np.ndarray, clicked: ClickedItems) -> np.ndarray | None:
    """The query vector of the image index: the same attention, over the clicked items' image vectors.

    The query vector attends (by the clicked items' own vectors) but is not mixed in: it is no point of the image space.
    None when no clicked item has an image.
    """
    seen = ~np.isnan(clicked.image_embedding[:, 0]) if len(clicked) else np.zeros(0, bool)
    if not seen.any():
        return None
    return attend(query, clicked.embedding[seen], clicked.image_embedding[seen], clicked.weight[seen])


def tensor_values(value: Any, dims: int) -> np.ndarray:
    """A tensor field of a Vespa answer (any of its short forms) as float32 [dims]; NaN where it is absent."""
    if value is None:
        return np.full(dims, np.nan, np.float32)
    return np.array(value["values"] if isinstance(value, dict) else value, np.float32)
