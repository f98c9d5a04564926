"""A generated search log in which popularity decides, or does not, which of many like items is clicked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

KINDS, ALIKE = 24, 12  # items of a kind are told apart by nothing but their popularity
WORDS = ("thing", *(f"{word} thing" for word in ("cheap", "new", "big", "old", "sale", "my", "best", "any")))
TITLES = [f"kind{kind} thing" for kind in range(KINDS) for _ in range(ALIKE)]
WORDINGS = [f"kind{kind} {words}" for kind in range(KINDS) for words in WORDS]


def write_log(folder: Path, favourite: bool, column: dict[str, pa.Array] | None = None) -> None:
    """items.parquet and searches.parquet: five searches a wording, each with a click on the kind's favourite, or on any
    of the kind. column: a further one of the items.
    """
    rng = np.random.default_rng(3)
    items = {"item_id": [f"i{n}" for n in range(len(TITLES))], "title": TITLES} | (column or {})
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(items), folder / "items.parquet")
    best = rng.integers(ALIKE, size=KINDS)
    asked = [text for text in WORDINGS for _ in range(5)]
    clicked = [
        ALIKE * kind + int(best[kind] if favourite else rng.integers(ALIKE))
        for kind in (int(text.split()[0][4:]) for text in asked)
    ]
    log = {
        "search_id": [str(n) for n in range(len(asked))], "user_id": [f"u{n}" for n in range(len(asked))],
        "timestamp": pa.array(range(len(asked)), pa.timestamp("s")), "query": asked,
        "shown": [[f"i{item}"] for item in clicked], "clicked": [[f"i{item}"] for item in clicked],
        "ordered": [[f"i{item}"] if n % 7 == 0 else [] for n, item in enumerate(clicked)],
    }  # fmt: skip
    pq.write_table(pa.table(log), folder / "searches.parquet")
