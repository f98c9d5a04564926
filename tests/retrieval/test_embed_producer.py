"""The query cache: what hits, what it gives back, and that another model's vectors are refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mrse_model.errors import InputError
from mrse_model.serving.exported_model import ExportedModel, QueryHistory
from retrieval.embed_producer import OVERHEAD, EmbedProducer, WarmVectors
from retrieval.warm import curve, read_log, warm, window

DAY = 86400


@pytest.fixture(scope="module")
def model(package) -> ExportedModel:
    return ExportedModel.load(package / "models")


@pytest.fixture
def log(tmp_path) -> Path:
    queries = ["Red dress", "red  DRESS", "blue skirt", "old query", " "]
    return write_log(tmp_path, list(zip(queries, [20 * DAY, 19 * DAY, 20 * DAY, 2 * DAY, 20 * DAY], strict=True)))


def write_log(folder: Path, searches: list[tuple[str, float]]) -> Path:
    queries, n = [query for query, _ in searches], len(searches)
    at = [int(at) for _, at in searches]
    rows = {
        "search_id": [str(i) for i in range(n)],
        "user_id": ["u"] * n,
        "timestamp": at,
        "query": queries,
        "shown": pa.array([[]] * n, pa.list_(pa.string())),
        "clicked": pa.array([[]] * n, pa.list_(pa.string())),
    }
    file = folder / "searches.parquet"
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


def test_the_least_recently_used_query_is_dropped_and_bytes_are_counted(model) -> None:
    entry = OVERHEAD + 128 * 4
    producer = EmbedProducer(model, max_bytes=2 * entry + 4 * len("redblue"))
    for text in ("red", "blue", "red", "green", "blue"):
        producer.vectors([text])
    assert (producer.stats.memory, producer.stats.computed) == (1, 4)
    assert producer.stats.bytes == entry + 4 * len("blue"), "two of longer texts no longer fit"
    for n in range(200):
        producer.vectors([f"query {n}"])
    assert producer.stats.bytes <= producer.max_bytes


def test_a_query_with_a_history_is_computed_for_the_user_alone(model) -> None:
    producer = EmbedProducer(model)
    one = np.eye(1, 128, dtype=np.float32)
    history = QueryHistory(one, one, np.ones(1, np.float32))
    plain, personal = producer.vectors(["red dress", "red dress"], [None, history])
    assert float(plain @ personal) < 0.999
    np.testing.assert_array_equal(producer.vectors(["red dress"])[0], plain)
    assert (producer.stats.personal, producer.stats.memory, producer.stats.computed) == (1, 1, 1)


def test_queries_are_computed_ahead_and_found_in_the_file(model, log, tmp_path) -> None:
    out, searches = tmp_path / "queries.arrow", read_log(log)
    chosen = window(searches, days=7)
    assert warm(model, searches, chosen.start, out) == 2, (
        "two spellings are one query, the old and the blank one are none"
    )
    producer = EmbedProducer(model, precomputed=out)
    assert sorted(producer.ahead.queries()) == [("blue skirt", 1), ("red dress", 2)]
    vectors = producer.vectors(["RED dress", "blue skirt", "old query"])
    np.testing.assert_allclose(vectors, model.query_vectors(["red dress", "blue skirt", "old query"]), atol=1e-6)
    assert (producer.stats.precomputed, producer.stats.computed) == (2, 1)


def test_the_last_searches_are_counted_from_the_end(log) -> None:
    searches = read_log(log)
    assert len(searches) == 4 and window(searches, last=2).start == 2 and window(searches, last=99).start == 0
    assert window(searches).searches == 4
    with pytest.raises(InputError, match="1 or more"):
        window(searches, days=0)


def test_a_window_where_the_log_thins_out_is_said(model, tmp_path) -> None:
    file = write_log(tmp_path, [("busy", day * DAY) for day in range(60) for _ in range(50)] + [("late", 100 * DAY)])
    searches = read_log(file)
    thin = window(searches, days=7)
    assert thin.searches == 1 and "the last 7 days hold 1 searches" in thin.warning and "--last" in thin.warning
    assert window(searches, days=100).warning == ""


def test_the_curve_is_of_searches_that_came_after(tmp_path) -> None:
    rows = [(f"q{n % 9}", n * DAY / 10) for n in range(900)] + [(f"new{n}", (90 + n / 10) * DAY) for n in range(100)]
    points = curve(read_log(write_log(tmp_path, rows)), sizes=(1,), windows=(7,))
    assert {p.hit_rate for p in points} == {0.0}, "what is new cannot have been computed ahead"
    rows = [(f"q{n % 9}", n * DAY / 10) for n in range(1000)]
    points = curve(read_log(write_log(tmp_path, rows)), sizes=(1,), windows=(7,))
    assert {(p.size, round(p.hit_rate, 2)) for p in points} == {(1, 0.12), (9, 1.0)} or points[-1].hit_rate == 1.0


def test_the_file_tells_queries_of_one_hash_apart(model, log, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("retrieval.warm.key_hash", lambda key: 7)
    monkeypatch.setattr("retrieval.embed_producer.key_hash", lambda key: 7)
    out = tmp_path / "queries.arrow"
    warm(model, read_log(log), 0, out)
    file = WarmVectors(out, model.manifest.model_version, 128)
    for text in ("red dress", "blue skirt", "old query"):
        np.testing.assert_allclose(file.get(text), model.query_vectors([text])[0], atol=1e-6)
    assert file.get("none") is None


def test_vectors_of_another_model_and_other_files_are_refused(model, log, tmp_path) -> None:
    out = tmp_path / "queries.arrow"
    warm(model, read_log(log), 0, out)
    with pytest.raises(InputError, match=r"queries.arrow, field model_version: query vectors of mrse-0123456789ab"):
        WarmVectors(out, "mrse-other", 128)
    for file in (log, tmp_path / "none.arrow"):
        with pytest.raises(InputError, match="mrse warm"):
            EmbedProducer(model, precomputed=file)
