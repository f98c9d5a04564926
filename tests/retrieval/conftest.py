"""The fixtures of tests/feeders, and what the recording server says to the Searcher."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from tests.helpers.feeding import *  # noqa: F403


@pytest.fixture
def answer() -> Callable[[dict], dict]:
    """A hit for a query, and vectors for the items of a history."""
    rng = np.random.default_rng(3)

    def reply(body: dict) -> dict:
        children = []
        if body.get("presentation.summary") == "vectors":
            for key in sorted(k for k in body if k.startswith("item")):
                fields = {"item_id": body[key], "model_version": "mrse-0123456789ab"}
                for name in ("embedding", "image_embedding", "text_feature"):
                    fields[name] = rng.normal(size=128).tolist()
                children.append({"id": body[key], "relevance": 0.0, "fields": fields})
        elif body["hits"]:
            fields = {"item_id": "i1", "title": "Red dress", "category": ["a"], "matchfeatures": {"from_query": 0.5}}
            children.append({"id": "x", "relevance": 0.5, "fields": fields})
        return {"root": {"id": "toplevel", "relevance": 1.0, "fields": {"totalCount": 7}, "children": children}}

    return reply
