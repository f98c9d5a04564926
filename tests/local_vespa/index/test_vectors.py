"""Nearest neighbours against computing every distance."""

import weakref

import numpy as np
import pytest

from local_vespa.index import vector_index as vectors
from local_vespa.index.distance_metrics import NO_DISTANCE, least_closeness
from local_vespa.index.quantized import QuantizedIndex
from local_vespa.index.vector_index import VectorColumn
from local_vespa.package.schema import Field, FieldType
from local_vespa.tensors import Tensor

RNG = np.random.default_rng(5)
METRICS = ["euclidean", "angular", "dotproduct", "prenormalized-angular", "hamming"]


def column_of(metric, rows, hnsw=None, cell="float"):
    cell = "int8" if metric == "hamming" else cell
    kind = FieldType.parse(f"tensor<{cell}>(x[{rows.shape[1]}])")
    column = VectorColumn(Field("v", kind, attribute=True, index=True, metric=metric, hnsw=hnsw))
    for row in rows:
        column.append(None if np.isnan(row).any() else Tensor.dense(kind.tensor, row))
    return column


def distance(metric, query, rows):
    if metric == "euclidean":
        return np.linalg.norm(rows - query, axis=1)
    if metric == "hamming":
        bits = np.unpackbits(rows.astype(np.int8).view(np.uint8), axis=1)
        return (bits != np.unpackbits(query.astype(np.int8).view(np.uint8))).sum(1)
    if metric == "dotproduct":
        return -(rows @ query)
    if metric == "angular":
        return np.arccos(np.clip(rows @ query / np.linalg.norm(rows, axis=1) / np.linalg.norm(query), -1, 1))
    return 1 - np.clip(rows @ query / (query @ query), -1, 1)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("share", [1.0, 0.5, 0.02])
def test_exact_search_is_exact(metric, share):
    rows = RNG.integers(-100, 100, (400, 8)).astype(np.float32)
    query, allowed = rows[7] + 1, RNG.random(400) < share
    allowed[:3] = True
    column = column_of(metric, rows)
    found = column.nearest(query, 10, allowed, approximate=False)
    expected = distance(metric, query, rows)
    best = np.sort(expected[allowed])[:10]
    assert allowed[found].all()
    assert expected[found] == pytest.approx(best, abs=1e-4)
    assert column.distances(query, found)[0] == pytest.approx(best, abs=1e-4)


@pytest.mark.parametrize("metric", METRICS)
def test_rows_without_a_vector_are_far_from_everything(metric):
    rows = np.ones((3, 4), np.float32)
    rows[1] = np.nan
    column = column_of(metric, rows)
    assert sorted(column.nearest(np.ones(4), 5, np.ones(3, bool), False)) == [0, 2]
    far, close = column.distances(np.ones(4), np.array([1]))
    assert far[0] == NO_DISTANCE and close[0] == least_closeness(metric)


@pytest.mark.parametrize("cell", ["float", "bfloat16"])
def test_vectors_come_back_as_they_were(cell):
    rows = RNG.normal(size=(20, 8)).astype(np.float32)
    column = column_of("angular", rows, cell=cell)
    expected = (
        rows
        if cell == "float"
        else Tensor.dense(FieldType.parse("tensor<bfloat16>(x[160])").tensor, rows.ravel()).array.reshape(20, 8)
    )
    back = column.gather(np.arange(20))
    assert np.array_equal(back, expected) if cell == "bfloat16" else np.allclose(back, expected, rtol=1e-6)


def test_a_graph_takes_over_and_stays_right_after_more_rows(monkeypatch):
    monkeypatch.setattr(vectors, "GRAPH_ROWS", 500)
    monkeypatch.setattr(vectors, "EXACT_ROWS", 100)
    rows = RNG.normal(size=(800, 8)).astype(np.float32)
    column = column_of("euclidean", rows[:600], hnsw=(16, 100))
    column._building = True
    column._build_graph()
    for row in rows[600:]:
        column.append(Tensor.dense(column.type, row))
    assert column._graph is not None
    allowed = np.ones(800, bool)
    allowed[::3] = False
    hits = 0
    for query in RNG.normal(size=(20, 8)).astype(np.float32):
        expected = np.flatnonzero(allowed)[np.argsort(distance("euclidean", query, rows[allowed]))[:10]]
        hits += len(np.intersect1d(column.nearest(query, 10, allowed, True), expected))
        assert set(column.nearest(query, 10, allowed, False)) == set(expected)
    assert hits >= 190
    assert np.allclose(column.gather(np.array([0, 700])), rows[[0, 700]])


def test_a_search_keeps_the_vectors_that_it_reads_when_the_graph_takes_over(monkeypatch):
    monkeypatch.setattr(vectors, "QUANTIZED_ROWS", 10)
    column = column_of("dotproduct", RNG.normal(size=(50, 8)).astype(np.float32), hnsw=(16, 100))
    view, old = column._stored(), weakref.ref(column._flat)
    kept = []

    class Slow(QuantizedIndex):
        def nearest(self, stored, *rest):
            nonlocal view
            del view
            column._build_graph()
            kept.append(old() is not None)
            return super().nearest(stored, *rest)

    column._quantized = Slow(8)
    assert len(column.nearest(np.ones(8), 3, np.ones(50, bool), True)) == 3
    assert kept == [True] and old() is None


def test_a_view_of_the_vectors_owns_them():
    rows = RNG.normal(size=(50, 8)).astype(np.float32)
    column = column_of("dotproduct", rows, hnsw=(16, 100))
    view, old = column._stored(), weakref.ref(column._flat)
    column._build_graph()
    assert old() is not None and np.array_equal(view, rows)
    del view
    assert old() is None and len(column_of("euclidean", rows[:0])._stored()) == 0


FAR = {
    "euclidean": 2 * np.sqrt(8 * 9),
    "angular": np.pi,
    "dotproduct": 72.0,
    "prenormalized-angular": 2.0,
    "hamming": 64,
}
AT_ZERO = {"dotproduct": -72.0}


@pytest.mark.parametrize("cell", ["float", "double", "bfloat16", "int8"])
@pytest.mark.parametrize("metric", METRICS)
def test_distances_are_precise_at_both_ends(metric, cell):
    if metric == "hamming":
        cell, rows = "int8", np.array([[-1] * 8, [0] * 8], np.float32)
    else:
        rows = np.array([[3.0] * 8, [-3.0] * 8], np.float32)
    distance, closeness = column_of(metric, rows, cell=cell).distances(rows[0], np.array([0, 1]))
    zero, far = AT_ZERO.get(metric, 0.0), FAR[metric]
    assert distance == pytest.approx([zero, far], abs=1e-7)
    expected = [-zero, -far] if metric == "dotproduct" else [1.0, 1 / (1 + far)]
    assert closeness == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("cell", ["float", "double", "bfloat16"])
def test_a_vector_is_at_no_distance_from_itself(metric, cell):
    if metric in ("hamming", "dotproduct"):
        pytest.skip("has no distance 0, or only whole ones")
    rows = RNG.normal(size=(50, 128))
    if metric == "prenormalized-angular":
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    column = column_of(metric, rows, cell=cell)
    for i in range(50):
        distance, closeness = column.distances(column.gather(np.array([i]))[0], np.array([i]))
        assert distance[0] == pytest.approx(0, abs=1e-6) and closeness[0] == pytest.approx(1, abs=1e-6)


def test_small_angles_are_told_apart():
    """In single precision a cosine of 1 - 1e-9 is 1."""
    angles = np.array([1e-5, 2e-5, 1e-4, np.pi - 1e-4])
    rows = np.stack([np.cos(angles), np.sin(angles)], 1)
    column = column_of("angular", rows)
    assert column.distances(np.array([1.0, 0.0]), np.arange(4))[0] == pytest.approx(angles, rel=1e-3)


def test_doubles_keep_their_digits():
    rows = np.array([[1e10], [1e10 + 1], [1e10 + 2]])
    column = column_of("euclidean", rows, cell="double")
    assert column.gather(np.arange(3)).tolist() == rows.tolist()
    assert column.distances(np.array([1e10 + 1]), np.arange(3))[0] == pytest.approx([1, 0, 1])
    assert column.nearest(np.array([1e10 + 2]), 1, np.ones(3, bool), True).tolist() == [2]


def test_whole_numbers_come_back_whole():
    rows = RNG.integers(-128, 128, (200, 8)).astype(np.float32)
    column = column_of("angular", rows, cell="int8")
    assert column.feature(np.arange(200)).cells.tolist() == rows.tolist()


def finite_neighbours(metric, query, rows, allowed):
    """The allowed rows whose distance is a finite number, by definition."""
    with np.errstate(all="ignore"):
        return set(np.flatnonzero(allowed & np.isfinite(distance(metric, query.astype(np.float64), rows))))


@pytest.mark.parametrize("metric", [m for m in METRICS if m != "hamming"])
@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("size", [30, 3000])
def test_cells_that_are_no_numbers_leave_the_others_right(metric, odd, size):
    rows = RNG.normal(size=(size, 4)).astype(np.float32)
    column = column_of(metric, rows[:0])
    bad, missing = np.zeros(size, bool), np.zeros(size, bool)
    bad[::7], missing[3::7] = True, True
    rows[bad, 1] = odd
    for row, gone in zip(rows, missing, strict=True):
        column.append(None if gone else Tensor.dense(column.type, row))
    for share in (1.0, 0.5, 0.004):
        allowed = RNG.random(size) < share
        allowed[[0, 1]] = True, True
        query = RNG.normal(size=4).astype(np.float32)
        found = column.nearest(query, size, allowed, False)
        wanted = finite_neighbours(metric, query, rows, allowed & ~missing & ~bad)
        if metric in ("dotproduct", "prenormalized-angular") and np.isinf(odd):  # the nearest, or infinitely far
            wanted |= set(np.flatnonzero(bad & allowed & ~missing)) if query[1] * odd > 0 else set()
        assert set(found.tolist()) == wanted and len(set(found.tolist())) == len(found)
        assert set(column.nearest(query, 3, allowed, True).tolist()) <= wanted
    shown, close = column.distances(query, np.flatnonzero(bad & ~missing)[:3])
    assert not np.isnan(shown).any() and not np.isnan(close).any()


@pytest.mark.parametrize("metric", [m for m in METRICS if m != "hamming"])
def test_a_query_that_is_no_number_finds_nothing(metric):
    rows = RNG.normal(size=(50, 4)).astype(np.float32)
    column = column_of(metric, rows)
    assert len(column.nearest(np.full(4, np.nan), 10, np.ones(50, bool), True)) == 0
    far, close = column.distances(np.full(4, np.nan), np.arange(3))
    assert (far == NO_DISTANCE).all() and (close == least_closeness(metric)).all()


def test_numbers_that_overflow_single_precision_are_still_ordered():
    rows = np.array([[1e20, 0], [1e25, 0], [0, 1e25], [1, 1]], np.float32)
    column = column_of("euclidean", rows)
    assert column.nearest(np.array([1e20, 0]), 1, np.ones(4, bool), False).tolist() == [0]
    found = column_of("angular", rows).nearest(np.array([1.0, 0]), 3, np.ones(4, bool), False).tolist()
    assert sorted(found[:2]) == [0, 1] and found[2] == 3  # the first two are one direction


def test_a_graph_is_built_over_vectors_that_are_no_numbers(monkeypatch):
    monkeypatch.setattr(vectors, "GRAPH_ROWS", 300)
    monkeypatch.setattr(vectors, "EXACT_ROWS", 100)
    rows = RNG.normal(size=(400, 8)).astype(np.float32)
    column = column_of("euclidean", rows[:0], hnsw=(16, 100))
    rows[::50] = np.nan
    for row in rows:
        column.append(Tensor.dense(column.type, row))
    column._building = True
    column._build_graph()
    found = column.nearest(rows[7], 400, np.ones(400, bool), True)
    assert set(found.tolist()).isdisjoint(range(0, 400, 50)) and found[0] == 7
