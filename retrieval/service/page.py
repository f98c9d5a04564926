"""What the search page asks beside the API: what can be chosen on it.

The page itself is `static/`: one HTML file, one style sheet, modules of JavaScript; no build step.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from retrieval.profiles import TABLE, RankProfile

LABELS = {
    "ann": "Vectors",
    "exact": "Vectors, exact",
    "bm25": "Words (BM25)",
    "hybrid": "Hybrid, rank fusion",
    "hybrid_linear": "Hybrid, weighted",
    "three_queues": "Three queues",
    "query_tower": "Query tower in Vespa",
}
NO_FACETS = {"item_id", "title", "description", "image_url", "model_version", "language", "market"}
MAX_FACETS = 6
TEMPERATURE = 0.06  # of training's softmax (docs/design-notes.md)
# Where a hit has a tenth of the best one's weight in the softmax that the model was trained with (dev/LOG.md).
DROP = TEMPERATURE * math.log(10)
FLOOR = 0.3  # cosine below which even the nearest item is far


def page_settings(
    fields: Mapping[str, str] | None, profile: str, own: Sequence[RankProfile] = (), **more: Any
) -> dict[str, Any]:
    """What the page offers: profiles, facets, price, stock, sorting. fields: name → type of the item's fields, None
    where the service has no application package. profile: of a search that names none. own: beside the table's.
    """
    fields = fields or {}
    numeric = [name for name in ("price", "rating", "popularity") if name in fields]
    sorts = [["price", "Price, low to high"], ["-price", "Price, high to low"]] if "price" in fields else []
    sorts += [[f"-{name}", f"{name.capitalize()}, high to low"] for name in numeric if name != "price"]
    texts = ("string", "array<string>")
    return {
        "profiles": [_profile(profile) for profile in (*TABLE.values(), *own)],
        "profile": profile,
        "facets": [n for n, kind in fields.items() if kind in texts and n not in NO_FACETS][:MAX_FACETS],
        "price": "price" if "price" in fields else "",
        "stock": "in_stock" if fields.get("in_stock") == "bool" else "",
        "sorts": sorts,
        "fit": {"drop": DROP, "floor": FLOOR},
    } | more


def _profile(profile: RankProfile) -> dict[str, Any]:
    """cosine: its scores are closenesses of unit vectors, 1 / (2 − cosine). counts: what `total` is a number of."""
    matches = "words" in profile.recall and "query" not in profile.recall
    return {
        "name": profile.name,
        "label": LABELS.get(profile.name, profile.name),
        "cosine": profile in TABLE.values() and profile.recall == ("query",) and profile.user == "vector",
        "counts": "matches" if matches else "candidates",
    }
