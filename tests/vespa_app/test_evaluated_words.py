"""What `mrse evaluate` calls BM25, and mixes with the vectors, is what the deployed package ranks by."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from vespa.application import Vespa

from local_vespa.testing import deploy, running_engine
from mrse_model.data.contract import read_catalogue
from mrse_model.evaluation.checkpoint import catalogue_words
from tests.helpers.feeding import package  # noqa: F401

KINDS = ["dress", "boot", "hat", "mug", "lamp"]
WORDS = ["red", "blue", "steel", "cotton", "soft", "garden", "women", "men", "gift", "summer"]


def test_the_words_that_are_evaluated_are_those_that_are_deployed(package: Path, tmp_path: Path) -> None:  # noqa: F811
    """Titles, categories and descriptions, of which some are missing."""
    rng = random.Random(1)
    rows = [
        {
            "item_id": f"i{n}",
            "title": " ".join([*rng.sample(WORDS, rng.randint(1, 4)), rng.choice(KINDS)]),
            "category": rng.choice([["women", "clothing"], ["men"], ["house", "garden"], None]),
            "description": rng.choice([None, " ".join(rng.choices(WORDS, k=rng.randint(3, 9)))]),
        }
        for n in range(60)
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "items.parquet")
    words = catalogue_words(read_catalogue(tmp_path / "items.parquet"))
    queries = ["red dress", "women dress", "garden mug", "clothing", "gift men summer"]
    expected = words.search(queries, 60)
    with running_engine(tmp_path / "engine") as url:
        deploy(url, package)
        vespa = Vespa(url)
        for row in rows:
            vespa.feed_data_point("item", row["item_id"], {k: v for k, v in row.items() if v}, namespace="item")
        for query, found, scores in zip(queries, expected.rows, expected.scores, strict=True):
            body = {"yql": "select item_id from item where userInput(@words)", "words": query, "ranking": "bm25"}
            hits = vespa.query(body=body | {"hits": 60, "model.type": "any"}).hits
            there = {rows[row]["item_id"]: score for row, score in zip(found, scores, strict=True) if row >= 0}
            assert {hit["fields"]["item_id"] for hit in hits} == there.keys(), query
            ours = np.array([there[hit["fields"]["item_id"]] for hit in hits])
            assert np.allclose([hit["relevance"] for hit in hits], ours, rtol=1e-3), query
            # debug
