"""Search by 8-bit codes gives the true best or says that it cannot."""

import faiss
import numpy as np
import pytest

from local_vespa.index import vector_index as vectors
from local_vespa.index.quantized import MIN_CANDIDATES, QuantizedIndex
from local_vespa.package.schema import Field, FieldType
from local_vespa.tensors import Tensor

RNG = np.random.default_rng(11)


def clustered(rows, dims):
    centres = RNG.normal(size=(40, dims))
    found = centres[RNG.integers(40, size=rows)] + 0.5 * RNG.normal(size=(rows, dims))
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)


def index_of(rows):
    index = QuantizedIndex(rows.shape[1])
    index.follow(rows)
    return index


def best_scores(rows, query, k):
    return np.sort(rows.astype(np.float64) @ query)[::-1][:k]


@pytest.mark.parametrize("k", [1, 10, 100])
@pytest.mark.parametrize("scale", [1.0, 1e-4, 3e5])
def test_an_answer_is_exact(k, scale):
    rows = clustered(3000, 32) * np.float32(scale)
    index, answers = index_of(rows), 0
    for query in clustered(30, 32):
        found = index.nearest(rows, query, k, len(rows), None)
        if found is not None:
            answers += 1
            assert len(set(found)) == k
            assert rows[found].astype(np.float64) @ query == pytest.approx(best_scores(rows, query, k), rel=1e-5)
    assert answers >= 15


def test_a_filter_is_kept():
    rows = clustered(3000, 16)
    index, allowed = index_of(rows), RNG.random(3000) < 0.5
    bits = np.packbits(allowed, bitorder="little")
    selector = faiss.IDSelectorBitmap(len(rows), faiss.swig_ptr(bits))
    query = rows[5]
    found = index.nearest(rows, query, 10, int(allowed.sum()), selector)
    assert found is not None and allowed[found].all()
    assert rows[found] @ query == pytest.approx(best_scores(rows[allowed], query, 10), rel=1e-5)


def test_rows_that_codes_cannot_tell_apart_have_no_answer():
    rows = np.tile(np.float32([1, 1, 0, 0]), (4 * MIN_CANDIDATES, 1))
    rows[:, 2] = np.linspace(0, 1e-4, len(rows))
    assert index_of(rows).nearest(rows, np.float32([0, 0, 1, 0]), 5, len(rows), None) is None
    assert index_of(rows).nearest(rows, np.zeros(4, np.float32), 5, len(rows), None) is None


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_numbers_that_are_none_end_its_answers(bad):
    rows = clustered(1000, 16)
    rows[700, 3] = bad
    assert index_of(rows).nearest(rows, rows[0], 5, len(rows), None) is None


def test_greater_cells_later_make_the_codes_anew():
    rows = clustered(2000, 16)
    rows[1500:] *= 50
    index = index_of(rows[:1200])
    index.follow(rows)
    whole = index_of(rows)
    query = clustered(1, 16)[0]
    found, same = (i.nearest(rows, query, 10, len(rows), None) for i in (index, whole))
    assert found is not None and same is not None
    assert rows[found] @ query == pytest.approx(best_scores(rows, query, 10), rel=1e-5)


@pytest.mark.parametrize("metric", ["angular", "dotproduct", "prenormalized-angular"])
def test_a_column_uses_it_and_stays_exact_while_rows_come(monkeypatch, metric):
    monkeypatch.setattr(vectors, "QUANTIZED_ROWS", 300)
    monkeypatch.setattr(vectors, "PENDING_ROWS", 100)
    used = []
    real = QuantizedIndex.nearest

    def watched(self, *arguments):
        used.append(real(self, *arguments))
        return used[-1]

    monkeypatch.setattr(QuantizedIndex, "nearest", watched)
    rows = clustered(1500, 16) * RNG.uniform(0.5, 2, (1500, 1)).astype(np.float32)
    kind = FieldType.parse("tensor<float>(x[16])")
    column = vectors.VectorColumn(Field("v", kind, attribute=True, index=True, metric=metric))
    compared = rows / np.linalg.norm(rows, axis=1, keepdims=True) if metric == "angular" else rows
    for count, row in enumerate(rows, 1):
        column.append(Tensor.dense(kind.tensor, row))
        if count % 250 == 0:
            query, allowed = rows[count - 1], np.arange(count) % 3 > 0
            found = column.nearest(query, 7, allowed, False)
            assert compared[found] @ query == pytest.approx(best_scores(compared[:count][allowed], query, 7), rel=1e-5)
    assert any(found is not None for found in used)
