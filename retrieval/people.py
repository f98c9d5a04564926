"""A person from Vespa: the last events of their `shopper` document, and the vectors of the items in them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
from vespa.application import VespaSync
from vespa.exceptions import VespaError
from vespa.io import VespaQueryResponse

from mrse_model.errors import InputError
from mrse_model.manifest import Manifest
from retrieval.behaviour import ClickedItems, Event, last_events, tensor_values

NAMESPACE = "item"
DOCUMENT_API = "Start Vespa (mrse serve-local), or give an --endpoint that has document-api as well as search"
KINDS = {"clicks": "click", "carts": "cart", "orders": "order"}


def events_of(session: VespaSync, user: str) -> list[Event]:
    """The events of a `shopper` document; [] for a person that Vespa does not know. Raises InputError where the
    endpoint does not answer, or does not serve documents.
    """
    where = session.app.end_point
    try:
        answer = session.get_data("shopper", user, namespace=NAMESPACE)
        body = answer.json
    except Exception as error:  # httpr's exceptions share no base class
        raise InputError(f"{where} gives no person ({error})", fix=DOCUMENT_API) from None
    if answer.status_code == 404 and "id" in body:
        return []
    if answer.status_code != 200:
        raise InputError(f"{where} gives no person: status {answer.status_code}, {body}", fix=DOCUMENT_API)
    fields: dict[str, Any] = body.get("fields", {})
    return [Event(item, kind, at) for field, kind in KINDS.items() for item, at in _cells(fields.get(field)).items()]


def _cells(tensor: Any) -> dict[str, float]:
    """A mapped tensor of one dimension as Vespa renders it: {"cells": {"B01": 1.0}}, or a list of address and value."""
    cells = tensor.get("cells", {}) if isinstance(tensor, dict) else {}
    if isinstance(cells, dict):
        return cells
    return {next(iter(cell["address"].values())): cell["value"] for cell in cells}


def clicked_items(
    session: VespaSync,
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
    found = _vectors(session, [event.item_id for event, _ in newest], manifest, suffix)
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


def _vectors(session: VespaSync, item_ids: Sequence[str], manifest: Manifest, suffix: str) -> dict[str, dict[str, Any]]:
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
    try:
        answer = cast(VespaQueryResponse, session.query(body=body))
    except VespaError as error:
        raise InputError(f"the items of a history cannot be read: {error}") from None
    except Exception as error:  # httpr's exceptions share no base class
        raise InputError(f"nothing answers at {session.app.end_point} ({error})", fix="Start it") from None
    return {hit["fields"]["item_id"]: hit["fields"] for hit in answer.hits}
