"""The query cache: what hits, what it gives back, and that another model's vectors are refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mrse_model.errors import InputError
from mrse_model.serving.exported_model import ExportedModel, QueryHistory
from retrieval.embed_producer import VERSION_KEY, EmbedProducer, precompute

DAY = 86400


@pytest.fixture(scope="module")
def model(package) -> ExportedModel:
    return ExportedModel.load(package / "models")


@pytest.fixture
def log(tmp_path) -> Path:
    queries = ["Red dress", "red  DRESS", "blue skirt", "old query", " "]
    at = [20 * DAY, 19 * DAY, 20 * DAY, 2 * DAY, 20 * DAY]
    n = len(queries)
    rows = {
        "search_id": [str(i) for i in range(n)],
        "user_id": ["u"] * n,
        "timestamp": at,
        "query": queries,
        "shown": pa.array([[]] * n, pa.list_(pa.string())),
        "clicked": pa.array([[]] * n, pa.list_(pa.string())),
    }
    file = tmp_path / "searches.parquet"
    pq.write_table(pa.table(rows), file)
    return file


def test_a_repeated_query_comes_from_memory_and_is_the_same(model) -> None:
    producer = EmbedProducer(model)
    first = producer.vectors(["red dress", "blue skirt"])
    again = producer.vectors(["Red  DRESS ", "green coat"])
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_allclose(first, model.query_vectors(["red dress", "blue skirt"]), atol=1e-6)
    stats = producer.stats
    assert (stats.memory, stats.computed, stats.personal) == (1, 3, 0) and stats.hit_rate == 0.25


def test_the_least_recently_used_query_is_dropped(model) -> None:
    producer = EmbedProducer(model, size=2)
    for text in ("red", "blue", "red", "green", "blue"):
        producer.vectors([text])
    assert (producer.stats.memory, producer.stats.computed) == (1, 4)


def test_a_query_with_a_history_is_computed_for_the_user_alone(model) -> None:
    producer = EmbedProducer(model)
    one = np.eye(1, 128, dtype=np.float32)
    history = QueryHistory(one, one, np.ones(1, np.float32))
    plain, personal = producer.vectors(["red dress", "red dress"], [None, history])
    assert float(plain @ personal) < 0.999
    np.testing.assert_array_equal(producer.vectors(["red dress"])[0], plain)
    assert (producer.stats.personal, producer.stats.memory, producer.stats.computed) == (1, 1, 1)


def test_the_last_week_is_computed_ahead(model, log, tmp_path) -> None:
    out = tmp_path / "queries.parquet"
    assert precompute(model, log, out) == 2, "two spellings are one query, the old and the blank one are none"
    assert pq.read_table(out).to_pydict()["searches"] == [2, 1]
    producer = EmbedProducer(model, precomputed=out)
    vectors = producer.vectors(["RED dress", "blue skirt", "old query"])
    np.testing.assert_allclose(vectors, model.query_vectors(["red dress", "blue skirt", "old query"]), atol=1e-6)
    assert (producer.stats.precomputed, producer.stats.computed) == (2, 1)


def test_vectors_of_another_model_are_refused(model, log, tmp_path) -> None:
    out = tmp_path / "queries.parquet"
    precompute(model, log, out)
    table = pq.read_table(out)
    pq.write_table(table.replace_schema_metadata({VERSION_KEY: b"mrse-other"}), out)
    with pytest.raises(InputError, match=r"queries.parquet, field model_version: query vectors of mrse-other"):
        EmbedProducer(model, precomputed=out)
