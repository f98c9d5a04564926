"""Nearest neighbours against computing every distance."""

import weakref

import numpy as np
import pytest

from local_vespa.index import vector_index as vectors
from local_vespa.index.quantized import CoarseIndex
from local_vespa.index.vector_index import NO_DISTANCE, VectorColumn
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
    assert far[0] == NO_DISTANCE and close[0] == 0


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
    monkeypatch.setattr(vectors, "COARSE_ROWS", 10)
    column = column_of("dotproduct", RNG.normal(size=(50, 8)).astype(np.float32), hnsw=(16, 100))
    view, old = column._stored(), weakref.ref(column._flat)
    kept = []

    class Slow(CoarseIndex):
        def nearest(self, stored, *rest):
            nonlocal view
            del view
            column._build_graph()
            kept.append(old() is not None)
            return super().nearest(stored, *rest)

    column._coarse = Slow(8)
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
