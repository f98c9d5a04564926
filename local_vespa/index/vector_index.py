"""Vectors of one field: distances as Vespa computes them, and the nearest neighbours by faiss.

Exact for as long as that is fast (a flat index, over inner products helped by 8-bit codes); with more rows than
GRAPH_ROWS a field with an HNSW index gets a graph, whose storage is the same flat index. A filter that leaves few rows
is always searched exactly: a graph with a strict filter loses recall (faiss HNSW + bitmap at 5 %: 0.61). So the engine
is never less exact than Vespa.
"""

from __future__ import annotations

import logging
import threading
from typing import Any

import faiss
import numpy as np

from ..expressions import Value
from ..package.schema import Field
from ..tensors import round_cells
from .attributes import Growing
from .quantized import CoarseIndex

GRAPH_ROWS = 100_000
EXACT_SHARE, EXACT_ROWS = 0.2, 25_000
GATHER_SHARE = 0.01  # below, gathering the rows beats a scan with a bitmap
COARSE_ROWS = 40_000  # fewer floats stay in the processor's cache, and a scan of them is as fast
PENDING_ROWS = 1024  # a row that waits costs more memory than one that is in the index
REACH = 2  # how much further than faiss would need the graph is explored where a filter is on

log = logging.getLogger("local_vespa")
_faiss: Any = faiss  # its type stubs lack keyword arguments and classes made by its loader
NO_DISTANCE = float(np.finfo(np.float64).max)


class _Cells:
    """The memory of a flat index for numpy. The array made of it owns it, and so the index: a search reads on in the
    old one after the graph took over."""

    def __init__(self, index: Any) -> None:
        self.index = index
        where, shape = int(index.get_xb() or 0), (index.ntotal, index.d)  # an empty index has no memory
        self.__array_interface__ = {"version": 3, "typestr": "<f4", "shape": shape, "data": (where, True)}


class VectorColumn:
    """A dense vector a row; rows without one are zeros and never found."""

    def __init__(self, field: Field) -> None:
        assert field.type.tensor is not None
        self.field, self.type, self.metric = field, field.type.tensor, field.metric
        self.dims = self.type.block_size
        kind = faiss.METRIC_L2 if self.metric in ("euclidean", "hamming") else faiss.METRIC_INNER_PRODUCT
        self._flat = faiss.IndexFlat(self.dims, kind)
        self._coarse = CoarseIndex(self.dims) if kind == faiss.METRIC_INNER_PRODUCT else None
        self._graph: faiss.IndexHNSWFlat | None = None
        self._building = False
        self._pending: list[np.ndarray] = []
        self._present = Growing(bool)
        self._norms = Growing(np.float32)
        self._lock = threading.Lock()

    def append(self, value: object) -> None:
        cells = np.zeros(self.dims, np.float32) if value is None else value.array.reshape(-1).astype(np.float32)  # type: ignore[attr-defined]
        norm = 1.0
        if self.metric == "angular":  # a scan then is an inner product; `gather` undoes it
            norm = float(np.linalg.norm(cells)) or 1.0
            cells = cells / np.float32(norm)
        self._pending.append(cells)
        self._present.append(value is not None)
        self._norms.append(norm)
        if len(self._pending) >= PENDING_ROWS:
            self._flush()

    def _flush(self) -> None:
        """Adds the pending rows; faiss is slow at one at a time."""
        with self._lock:
            if self._pending:
                (self._graph or self._flat).add(np.stack(self._pending))
                self._pending = []

    @property
    def present(self) -> np.ndarray:
        return self._present.view

    def _stored(self) -> np.ndarray:
        """[rows, dims] as faiss holds them, without a copy; not to be kept over an append."""
        self._flush()
        return np.asarray(_Cells(self._flat))

    def gather(self, rows: np.ndarray) -> np.ndarray:
        """float32 [len(rows), dims]: the vectors as they were given."""
        found = self._stored()[rows]
        if self.metric == "angular":
            found = found * self._norms.view[rows][:, None]
            if self.type.cell == "bfloat16":
                bits = found.view(np.uint32)
                found = ((bits + 0x8000) & 0xFFFF0000).view(np.float32)
        return found

    def feature(self, rows: np.ndarray) -> Value:
        """attribute(name)."""
        return Value.dense(self.type, self.gather(rows).reshape(len(rows), *self.type.shape).astype(self.type.dtype))

    def _rounded(self, query: np.ndarray) -> np.ndarray:
        """A query's vector in the precision of the field, as Vespa compares them."""
        return round_cells(self.type.cell, query).astype(np.float32).reshape(-1)

    def distances(self, query: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The rank features distance and closeness of rows, float64; no vector: the greatest distance and 0."""
        query = self._rounded(query)
        stored = self._stored()[rows]
        if self.metric in ("euclidean", "hamming"):
            if self.metric == "hamming":
                bits = stored.astype(np.int8).view(np.uint8) ^ query.astype(np.int8).view(np.uint8)
                distance = np.bitwise_count(bits).sum(1).astype(np.float64)
            else:
                distance = np.sqrt(np.square(stored - query).sum(1, dtype=np.float64))
            closeness = 1 / (1 + distance)
        else:
            dots = np.einsum("ij,j->i", stored, query).astype(np.float64)
            if self.metric == "dotproduct":
                distance, closeness = -dots, dots
            else:
                length = float(query @ query)
                if self.metric == "angular":
                    distance = np.arccos(np.clip(dots / (np.sqrt(length) or 1.0), -1, 1))
                else:
                    distance = 1 - np.clip(dots / (length or 1.0), -1, 1)
                closeness = 1 / (1 + distance)
        missing = ~self._present.view[rows]
        distance[missing], closeness[missing] = NO_DISTANCE, 0.0
        return distance, closeness

    def nearest(self, query: np.ndarray, k: int, allowed: np.ndarray, approximate: bool) -> np.ndarray:
        """The rows of the k nearest vectors among the allowed ones (bool [rows]), nearest first."""
        self._flush()
        _faiss.omp_set_num_threads(1)  # for this thread: OpenMP's own threads would spin against the other searches
        query = self._rounded(query).reshape(1, -1)
        allowed = allowed & self._present.view
        left, total = int(np.count_nonzero(allowed)), len(allowed)
        k = min(k, left)
        if k == 0:
            return np.empty(0, np.int64)
        if self.metric == "hamming" or left <= GATHER_SHARE * total:
            rows = np.flatnonzero(allowed)
            distance, _ = self.distances(query, rows)
            best = np.argpartition(distance, k - 1)[:k]
            return rows[best[np.argsort(distance[best], kind="stable")]]
        bits = np.packbits(allowed, bitorder="little")
        selector = None if left == total else faiss.IDSelectorBitmap(total, faiss.swig_ptr(bits))
        if self._graph is not None and approximate and left > max(EXACT_SHARE * total, EXACT_ROWS):
            assert self.field.hnsw is not None
            effort = max(k, 64) * (1 if selector is None else REACH)
            parameters = _faiss.SearchParametersHNSW(sel=selector, efSearch=effort)
            found = self._graph.search(query, k, params=parameters)[1][0]
            if (found >= 0).all():
                return found
        if self._coarse is not None and left >= COARSE_ROWS:
            with self._lock:
                stored = np.asarray(_Cells(self._flat))
                self._coarse.follow(stored)
            found = self._coarse.nearest(stored, query[0], k, left, selector)
            if found is not None:
                return found
        params = None if selector is None else _faiss.SearchParameters(sel=selector)
        return self._flat.search(query, k, params=params)[1][0]

    def maybe_build_graph(self) -> None:
        """Starts building the graph where there are enough rows for one; until it is done, search stays exact."""
        if self.field.hnsw is None or self._graph or self._building or len(self._present.view) <= GRAPH_ROWS:
            return
        if self.metric == "hamming":
            return
        self._building = True
        threading.Thread(target=self._build_graph, name=f"hnsw-{self.field.name}", daemon=True).start()

    def _build_graph(self) -> None:
        assert self.field.hnsw is not None
        links, explored = self.field.hnsw
        graph = faiss.IndexHNSWFlat(self.dims, links, self._flat.metric_type)
        graph.hnsw.efConstruction = explored
        log.info(
            "building an HNSW graph for %s over %d vectors; searches are exact meanwhile",
            self.field.name,
            self._flat.ntotal,
        )
        while True:
            with self._lock:
                done, total = graph.ntotal, self._flat.ntotal
                part = np.asarray(_Cells(self._flat))[done : done + 4096].copy()
                if done == total and not self._pending:
                    self._graph, self._flat = graph, _faiss.downcast_index(graph.storage)
                    log.info("the HNSW graph for %s is ready", self.field.name)
                    return
                if self._pending:
                    self._flat.add(np.stack(self._pending))
                    self._pending = []
            if len(part):
                graph.add(part)
