"""Exact inner-product search by a scan of 8-bit codes: a quarter of the memory traffic of a scan of floats.

The scan gives the best rows by rounded vectors; their true scores are then computed. With q, x the true and q', x' the
rounded vectors, |q.x - q'.x'| <= |q - q'||x| + |q'||x - x'| (Cauchy-Schwarz), so a row that the scan left out cannot
beat the k-th best true score if the last rounded score plus this bound does not. Where that fails there is no answer,
and the caller scans the floats. All vectors are rotated at random first: that keeps inner products and evens out the
cells, so that the greatest of them, which sets the step of the codes, is half as great and the bound half as wide.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import faiss
import numpy as np

MAX_CODE = 127  # the greatest code
CANDIDATES_PER_HIT, MIN_CANDIDATES = 4, 128  # rows to score for each hit wanted, and at least
CELL_HEADROOM = 1.1  # cells may grow by so much before all codes are made anew
CHUNK = 1024
SLACK = 1.001  # over the rounding of the float arithmetic itself

_faiss: Any = faiss


@cache
def _rotation(dims: int) -> np.ndarray:
    """float32 [dims, dims]: an orthogonal matrix, always the same."""
    return np.linalg.qr(np.random.default_rng(0).standard_normal((dims, dims)))[0].astype(np.float32)


class QuantizedIndex:
    """8-bit codes of the rows of a flat index of inner products, in the same order."""

    def __init__(self, dims: int) -> None:
        self.dims = dims
        self._codes = self._empty()
        self._cell = 0.0  # the greatest absolute value that a code stands for
        self._error = self._length = 0.0  # the greatest |x - x'| and |x| of all rows

    def _empty(self) -> Any:
        return faiss.IndexScalarQuantizer(
            self.dims, faiss.ScalarQuantizer.QT_8bit_direct_signed, faiss.METRIC_INNER_PRODUCT
        )

    def follow(self, stored: np.ndarray) -> None:
        """Adds the rows of float32 [rows, dims] that it lacks."""
        for start in range(self._codes.ntotal, len(stored), CHUNK):
            self._add(stored, start)

    def _add(self, stored: np.ndarray, start: int) -> None:
        rows = stored[start : start + CHUNK] @ _rotation(self.dims)
        greatest = float(np.abs(rows).max(initial=0.0))
        if not np.isfinite(greatest):  # no bound holds from now on
            rows, greatest, self._length = np.zeros_like(rows), 0.0, np.nan
        if greatest > self._cell:
            self._codes, self._cell, self._error = self._empty(), greatest * CELL_HEADROOM, 0.0
            self.follow(stored[: start + len(rows)])
            return
        codes = np.rint(rows * np.float32(MAX_CODE / (self._cell or 1.0)))
        lost = codes * np.float32(self._cell / MAX_CODE) - rows
        self._error = max(self._error, math.sqrt(float(np.einsum("ij,ij->i", lost, lost).max())))
        self._length = max(self._length, math.sqrt(float(np.einsum("ij,ij->i", rows, rows).max())))
        self._codes.add(codes)

    def nearest(self, stored: np.ndarray, query: np.ndarray, k: int, left: int, selector: Any) -> np.ndarray | None:
        """int64 [k]: the rows of `stored` (float32 [rows, dims]) with the greatest inner products with a query (float32
        [dims]), greatest first; None where the codes cannot tell. `left` is how many rows the selector (None: all)
        leaves, at least k."""
        rotated = query @ _rotation(self.dims)
        greatest = float(np.abs(rotated).max())
        if not 0 < greatest < np.inf or not np.isfinite(self._length):
            return None

        # Scan the codes: `wide` candidates by the rounded query. One unit of a rounded score is step · cell / 127.
        wide = min(left, max(MIN_CANDIDATES, CANDIDATES_PER_HIT * k))
        step = greatest / MAX_CODE
        codes = np.rint(rotated / np.float32(step))
        parameters = None if selector is None else _faiss.SearchParameters(sel=selector)
        rounded, rows = self._codes.search(codes.reshape(1, -1), wide, params=parameters)  # both [1, wide]

        # Score the candidates by their floats: scores [wide], best [k] are indices of candidates.
        scores = np.einsum("ij,j->i", stored[rows[0]], query)
        best = np.argsort(-scores, kind="stable")[:k]

        # A row that is no candidate has at most the last candidate's rounded score, and its true score exceeds its
        # rounded one by no more than the bound. If that cannot reach the k-th best, the candidates were enough.
        if wide < left:
            near = codes * np.float32(step)
            bound = np.linalg.norm(rotated - near) * self._length + np.linalg.norm(near) * self._error
            last = float(rounded[0, -1]) * step * self._cell / MAX_CODE
            if not last + SLACK * float(bound) <= scores[best[-1]]:
                return None
        return rows[0][best]
