"""The engine's vector search against bare faiss, in one process, in turns: CPU time at equal recall."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import faiss
import numpy as np

from engine_parts.data import DIMS, Corpus, nearest, recall
from local_vespa.index import vector_index as vectors
from local_vespa.index.vector_index import VectorColumn
from local_vespa.package.schema import Field, FieldType
from local_vespa.tensors import Tensor

K = 100
SHARES = (1.0, 0.5, 0.05, 0.005)
Search = Callable[[np.ndarray], np.ndarray]
_faiss: Any = faiss


@dataclass(frozen=True)
class Comparison:
    """CPU milliseconds a query and recall of the top 100, for the rows that a filter leaves."""

    index: str
    share: float
    engine_ms: float
    faiss_ms: float
    ratio: float
    engine_recall: float
    faiss_recall: float


def column_of(corpus: Corpus) -> VectorColumn:
    """The engine's column with all vectors of a corpus; no graph yet."""
    kind = FieldType.parse(f"tensor<float>(x[{DIMS}])")
    field = Field("embedding", kind, attribute=True, index=True, metric="prenormalized-angular", hnsw=(16, 200))
    column = VectorColumn(field)
    assert kind.tensor is not None
    for row in corpus.vectors:
        column.append(Tensor.dense(kind.tensor, row))
    return column


def cpu_ms(search: Search, queries: np.ndarray) -> float:
    """CPU milliseconds a query of this process."""
    began = time.process_time()
    for query in queries:
        search(query)
    return (time.process_time() - began) / len(queries) * 1e3


def in_turns(first: Search, second: Search, queries: np.ndarray, rounds: int) -> tuple[float, float, float]:
    """The least CPU time of each and the median of their ratios over rounds of a block of queries each, in turns."""
    blocks = np.array_split(queries, rounds)
    first(queries[0])
    second(queries[0])
    pairs = [(cpu_ms(first, block), cpu_ms(second, block)) for block in blocks]
    return min(a for a, _ in pairs), min(b for _, b in pairs), statistics.median(a / b for a, b in pairs)


def compare(corpus: Corpus, queries: int, rounds: int) -> list[Comparison]:
    """Exact search of all rows and with filters: faiss searches a flat index, with a bitmap made beforehand; the
    engine gets the filter as it has it, a bool a row."""
    column = column_of(corpus)
    flat = faiss.IndexFlatIP(DIMS)
    _faiss.omp_set_num_threads(1)
    flat.add(corpus.vectors)
    found = []
    for share in SHARES:
        allowed = corpus.prices < share
        bits = np.packbits(allowed, bitorder="little")
        selector = faiss.IDSelectorBitmap(len(allowed), faiss.swig_ptr(bits))
        parameters = None if share == 1 else _faiss.SearchParameters(sel=selector)

        def ours(query: np.ndarray, allowed: np.ndarray = allowed) -> np.ndarray:
            return column.nearest(query, K, allowed, True)

        def theirs(query: np.ndarray, parameters: Any = parameters) -> np.ndarray:
            return flat.search(query.reshape(1, -1), K, params=parameters)[1][0]

        found.append(_compared("exact", share, ours, theirs, corpus, queries, rounds))
    return found


def compare_graphs(corpus: Corpus, queries: int, rounds: int) -> list[Comparison]:
    """The same where the engine searches its HNSW graph (all rows, half of them), against the bare graph at the least
    effort that finds as much."""
    column, kept = column_of(corpus), (vectors.GRAPH_ROWS, vectors.EXACT_ROWS)
    vectors.GRAPH_ROWS, vectors.EXACT_ROWS = len(corpus.vectors) // 2, len(corpus.vectors) // 4
    try:
        column.nearest(corpus.queries[0], 1, corpus.prices < 1, True)
        column._build_graph()
        graph: Any = column._graph
        found = []
        for share in SHARES[:2]:
            allowed = corpus.prices < share
            bits = np.packbits(allowed, bitorder="little")
            selector = faiss.IDSelectorBitmap(len(allowed), faiss.swig_ptr(bits)) if share < 1 else None

            def ours(query: np.ndarray, allowed: np.ndarray = allowed) -> np.ndarray:
                return column.nearest(query, K, allowed, True)

            some = corpus.queries[:100]
            truth = nearest(corpus, some, K, share)
            wanted = recall([ours(q) for q in some], truth)
            for effort in range(K, 2000, 20):
                parameters = _faiss.SearchParametersHNSW(sel=selector, efSearch=effort)

                def theirs(query: np.ndarray, parameters: Any = parameters) -> np.ndarray:
                    return graph.search(query.reshape(1, -1), K, params=parameters)[1][0]

                if recall([theirs(q) for q in some], truth) >= wanted:
                    break
            found.append(_compared(f"HNSW, ef {effort}", share, ours, theirs, corpus, queries, rounds))
        return found
    finally:
        vectors.GRAPH_ROWS, vectors.EXACT_ROWS = kept


def _compared(
    index: str, share: float, ours: Search, theirs: Search, corpus: Corpus, queries: int, rounds: int
) -> Comparison:
    engine_ms, faiss_ms, ratio = in_turns(ours, theirs, corpus.queries[:queries], rounds)
    some = corpus.queries[:50]
    truth = nearest(corpus, some, K, share)
    return Comparison(
        index, share, engine_ms, faiss_ms, ratio, recall([ours(q) for q in some], truth),
        recall([theirs(q) for q in some], truth),
    )  # fmt: skip
