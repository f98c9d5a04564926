"""A user from Vespa: the last events of their `shopper` document, and the vectors of the items in them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mrse_model.serving.manifest import Manifest
from retrieval.behaviour import ClickedItems, Event, last_events, tensor_values

SPELLINGS = 20  # users at most whose ids differ in case alone, which a word of an attribute does not tell apart
Ask = Callable[[dict[str, Any]], dict[str, Any]]  # the body of a query → Vespa's answer; raises InputError
KINDS = {"clicks": "click", "carts": "cart", "orders": "order"}


def events_of(ask: Ask, user: str) -> list[Event]:
    """The events of a `shopper` document; [] for a user that Vespa does not know. By a search, because a container
    for queries need not serve documents (variants/cluster).
    """
    body = {
        "yql": "select * from shopper where user_id contains @user",
        "user": user,
        "ranking": "unranked",
        "presentation.format.tensors": "short",
        "hits": SPELLINGS,
    }
    found = [hit["fields"] for hit in ask(body)["root"].get("children", []) if hit["fields"]["user_id"] == user]
    fields: dict[str, Any] = found[0] if found else {}
    return [Event(item, kind, at) for field, kind in KINDS.items() for item, at in _cells(fields.get(field)).items()]


def _cells(tensor: Any) -> dict[str, float]:
    """A mapped tensor of one dimension as Vespa renders it: {"cells": {"B01": 1.0}}, or a list of address and value."""
    cells = tensor.get("cells", {}) if isinstance(tensor, dict) else {}
    if isinstance(cells, dict):
        return cells
    return {next(iter(cell["address"].values())): cell["value"] for cell in cells}


def clicked_items(
    ask: Ask,
    events: Sequence[Event],
    manifest: Manifest,
    *,
    now: float | None = None,
    suffix: str = "",
) -> ClickedItems:
    """The vectors of the items of the last events. Items that left the index or are of another model drop out.

    now: Unix seconds (`last_events`). suffix: of the second set of vectors (mrse migrate).
    """
    newest = last_events(events, manifest, now)
    found = _vectors(ask, [event.item_id for event, _ in newest], manifest, suffix)
    kept = [(event.item_id, weight) for event, weight in newest if event.item_id in found]
    rows = [found[item_id] for item_id, _ in kept]

    def stack(name: str) -> np.ndarray:
        matrix = [tensor_values(row.get(name + suffix), manifest.dims) for row in rows]
        return np.stack(matrix) if matrix else np.empty((0, manifest.dims), np.float32)

    return ClickedItems(
        ids=[item_id for item_id, _ in kept],
        embedding=stack("embedding"),
        image_embedding=stack("image_embedding"),
        text_feature=stack("text_feature"),
        weight=np.array([weight for _, weight in kept], np.float32),
    )


def _vectors(ask: Ask, item_ids: Sequence[str], manifest: Manifest, suffix: str) -> dict[str, dict[str, Any]]:
    if not item_ids:
        return {}
    names = {f"item{i}": item_id for i, item_id in enumerate(item_ids)}
    any_of = " or ".join(f"item_id contains @{name}" for name in names)
    body = {
        "yql": f"select * from item where ({any_of}) and model_version{suffix} contains @model_version",
        "model_version": manifest.model_version,
        "ranking": "unranked",
        "presentation.summary": "vectors",
        "presentation.format.tensors": "short-value",
        "hits": len(item_ids),
        **names,
    }
    hits = ask(body)["root"].get("children", [])
    return {hit["fields"]["item_id"]: hit["fields"] for hit in hits}
