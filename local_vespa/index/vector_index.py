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
from .distance_metrics import closenesses, distances, internal_distances, least_closeness
from .quantized import QuantizedIndex

GRAPH_ROWS = 100_000
EXACT_SHARE, EXACT_ROWS = 0.2, 25_000
GATHER_SHARE = 0.01  # below, gathering the rows beats a scan with a bitmap
QUANTIZED_ROWS = 40_000  # fewer floats stay in the processor's cache, and a scan of them is as fast
PENDING_ROWS = 1024  # a row that waits costs more memory than one that is in the index
REACH = 2  # how much further than faiss would need the graph is explored where a filter is on

log = logging.getLogger("local_vespa")
_faiss: Any = faiss  # its type stubs lack keyword arguments and classes made by its loader


class _Cells:
    """The memory of a flat index for numpy. The array made of it owns it, and so the index: a search reads on in the
    old one after the graph took over."""

    def __init__(self, index: Any) -> None:
        self.index = index
        where, shape = int(index.get_xb() or 0), (index.ntotal, index.d)  # an empty index has no memory
        self.__array_interface__ = {"version": 3, "typestr": "<f4", "shape": shape, "data": (where, True)}


class VectorColumn:
    """A dense vector a row; rows without one are zeros and never found.

    faiss holds float32 and orders numbers: vectors of doubles, and those with a cell that is NaN or infinite, are kept
    beside it (the latter are zeros in the index) and compared by `distance_metrics`."""

    def __init__(self, field: Field) -> None:
        assert field.type.tensor is not None
        self.field, self.type, self.metric = field, field.type.tensor, field.metric
        self.dims = self.type.block_size
        kind = faiss.METRIC_L2 if self.metric in ("euclidean", "hamming") else faiss.METRIC_INNER_PRODUCT
        self._flat = faiss.IndexFlat(self.dims, kind)
        self._quantized = QuantizedIndex(self.dims) if kind == faiss.METRIC_INNER_PRODUCT else None
        self._graph: faiss.IndexHNSWFlat | None = None
        self._building = False
        self._pending: list[np.ndarray] = []
        self._present = Growing(bool)
        self._norms = Growing(np.float64)  # of angular alone
        self._doubles = Growing(np.float64, (self.dims,)) if self.type.cell == "double" else None
        self._not_finite: dict[int, np.ndarray] = {}
        self._lock = threading.Lock()

    def append(self, value: object) -> None:
        cells = np.zeros(self.dims, np.float32) if value is None else value.array.reshape(-1)  # type: ignore[attr-defined]
        self._present.append(value is not None)
        if self._doubles is not None:
            self._doubles.append(cells)
            return
        cells = cells.astype(np.float32)
        if not np.isfinite(cells).all():
            self._not_finite[self._present.n - 1] = cells
            cells = np.zeros_like(cells)
        if self.metric == "angular":  # a scan then is an inner product; `gather` undoes it
            norm = float(np.linalg.norm(cells.astype(np.float64))) or 1.0
            cells = (cells / norm).astype(np.float32)
            self._norms.append(norm)
        self._pending.append(cells)
        if len(self._pending) >= PENDING_ROWS:
            self._flush()

    def _flush(self) -> None:
        """Adds the pending rows; faiss is slow at one at a time."""
        if not self._pending:
            return
        with self._lock:
            if self._pending:
                (self._graph or self._flat).add(np.stack(self._pending))
                self._pending = []

    @property
    def present(self) -> np.ndarray:
        return self._present.view

    def _stored(self) -> np.ndarray:
        """[rows, dims] as they are held, without a copy; not to be kept over an append."""
        if self._doubles is not None:
            return self._doubles.view
        self._flush()
        return np.asarray(_Cells(self._flat))

    def _vectors(self, rows: np.ndarray) -> np.ndarray:
        """[len(rows), dims]: what distances are computed from; of angular the direction alone."""
        found = self._stored()[rows]
        if self._not_finite:
            for i, row in enumerate(rows.tolist()):
                if row in self._not_finite:
                    found[i] = self._not_finite[row]
        return found

    def gather(self, rows: np.ndarray) -> np.ndarray:
        """[len(rows), dims]: the vectors as they were given."""
        found = self._vectors(rows)
        if self.metric == "angular" and self._doubles is None:
            found = (found * self._norms.view[rows][:, None]).astype(np.float32)
            if self.type.cell == "bfloat16":
                bits = found.view(np.uint32)
                found = ((bits + 0x8000) & 0xFFFF0000).view(np.float32)
            elif self.type.cell == "int8":
                found = np.rint(found)
        return found

    def feature(self, rows: np.ndarray) -> Value:
        """attribute(name)."""
        return Value.dense(self.type, self.gather(rows).reshape(len(rows), *self.type.shape).astype(self.type.dtype))

    def _rounded(self, query: np.ndarray) -> np.ndarray:
        """A query's vector in the precision of the field, as Vespa compares them."""
        cells = round_cells(self.type.cell, query).reshape(-1)
        return cells.astype(np.float64 if self._doubles is not None else np.float32)

    def distances(self, query: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The rank features distance and closeness of rows, float64; no vector: the greatest distance and the least
        closeness."""
        query = self._rounded(query)
        closeness = closenesses(self.metric, query, internal_distances(self.metric, query, self._vectors(rows)))
        closeness[~self._present.view[rows]] = least_closeness(self.metric)
        return distances(self.metric, closeness), closeness

    def nearest(self, query: np.ndarray, k: int, allowed: np.ndarray, approximate: bool) -> np.ndarray:
        """int64 [at most k]: the rows of the nearest vectors among the allowed ones (bool [rows]), nearest first. A
        vector whose distance is no finite number is never found, as in Vespa's exact search."""
        self._flush()
        query = self._rounded(query)
        allowed = allowed & self._present.view
        left, total = int(np.count_nonzero(allowed)), len(allowed)
        if min(k, left) == 0:
            return np.empty(0, np.int64)

        # Few rows, or numbers that faiss cannot order: every distance is computed.
        alone = self.metric == "hamming" or self._doubles is not None or not np.isfinite(query).all()
        if alone or left <= GATHER_SHARE * total:
            return self._scan(query, k, np.flatnonzero(allowed))

        # faiss finds the best of the finite vectors; the others that are allowed then compete with those.
        beside = np.array([row for row in self._not_finite if allowed[row]], np.int64)
        allowed[beside] = False
        found = self._indexed(query, min(k, left - len(beside)), allowed, left - len(beside), approximate)
        return self._scan(query, k, np.concatenate([found, beside])) if len(beside) else found

    def _scan(self, query: np.ndarray, k: int, rows: np.ndarray) -> np.ndarray:
        """The nearest of some rows, by computing all their distances."""
        internal = internal_distances(self.metric, query, self._vectors(rows))
        near = internal <= np.finfo(np.float64).max  # neither NaN nor infinite
        rows, internal = rows[near], internal[near]
        return rows[np.argsort(internal, kind="stable")[:k]]

    def _indexed(self, query: np.ndarray, k: int, allowed: np.ndarray, left: int, approximate: bool) -> np.ndarray:
        """The k nearest of the `left` allowed rows, k ≤ left, by the graph, the 8-bit codes or a scan of the floats,
        whichever comes first of those that can answer. A row of faiss is a row of the table."""
        if k == 0:
            return np.empty(0, np.int64)
        _faiss.omp_set_num_threads(1)  # for this thread: OpenMP's own threads would spin against the other searches
        total = len(allowed)
        selector = None
        if left < total:
            bits = np.packbits(allowed, bitorder="little")  # read by the selector, which does not own it
            selector = faiss.IDSelectorBitmap(total, faiss.swig_ptr(bits))

        # The graph: for many rows, and a filter that leaves enough of them for it to find its way.
        if self._graph is not None and approximate and left > max(EXACT_SHARE * total, EXACT_ROWS):
            assert self.field.hnsw is not None
            effort = max(k, 64) * (1 if selector is None else REACH)
            parameters = _faiss.SearchParametersHNSW(sel=selector, efSearch=effort)
            found = self._graph.search(query.reshape(1, -1), k, params=parameters)[1][0]
            if (found >= 0).all():
                return found

        # The codes: exact, where their bound can tell.
        if self._quantized is not None and left >= QUANTIZED_ROWS:
            with self._lock:
                stored = np.asarray(_Cells(self._flat))
                self._quantized.follow(stored)
            found_by_codes = self._quantized.nearest(stored, query, k, left, selector)
            if found_by_codes is not None:
                return found_by_codes

        # The floats. Where sums overflow faiss gives -1 for a row.
        params = None if selector is None else _faiss.SearchParameters(sel=selector)
        found = self._flat.search(query.reshape(1, -1), k, params=params)[1][0]
        return found if (found >= 0).all() else self._scan(query, k, np.flatnonzero(allowed))

    def maybe_build_graph(self) -> None:
        """Starts building the graph where there are enough rows for one; until it is done, search stays exact."""
        if self.field.hnsw is None or self._graph or self._building or len(self._present.view) <= GRAPH_ROWS:
            return
        if self.metric == "hamming" or self._doubles is not None:
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
