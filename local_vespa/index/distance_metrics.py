"""Distance metrics as Vespa computes them (searchlib/tensor/*_distance.cpp, mips_distance_transform.cpp).

A metric has an internal distance, by which neighbours are ordered, and a closeness made of it; the rank feature
distance is made of the closeness. Angles and euclidean distances are computed in double precision: near 0 and near
opposite vectors a cosine in single precision has not enough digits (an angle of 0 came out as 0.00025).
"""

from __future__ import annotations

import numpy as np

NO_DISTANCE = float(np.finfo(np.float64).max)  # of a document without a vector
CHUNK_ROWS = 8192  # rows that are widened to doubles at a time


def internal_distances(metric: str, query: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """float64 [rows]: the distances by which `metric` orders vectors [rows, dims] seen from a query [dims]; NaN or
    infinite where cells are."""
    found = np.empty(len(vectors))
    with np.errstate(all="ignore"):
        for start in range(0, len(vectors), CHUNK_ROWS):
            part = slice(start, start + CHUNK_ROWS)
            found[part] = _internal(metric, query, vectors[part])
    return found


def _internal(metric: str, query: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    if metric == "hamming":
        bits = vectors.astype(np.int8).view(np.uint8) ^ query.astype(np.int8).view(np.uint8)
        return np.bitwise_count(bits).sum(1).astype(np.float64)
    if metric in ("dotproduct", "prenormalized-angular"):  # in the precision of the cells, as Vespa
        dots = np.einsum("ij,j->i", vectors, query).astype(np.float64)
        return -dots if metric == "dotproduct" else _squared_length(query) - dots
    x, q = vectors.astype(np.float64), query.astype(np.float64)
    if metric == "euclidean":
        apart = x - q
        return np.einsum("ij,ij->i", apart, apart)
    dots = np.einsum("ij,j->i", x, q)
    squares = np.einsum("ij,ij->i", x, x) * float(q @ q)
    return 1 - dots / np.where(squares > 0, np.sqrt(squares), 1.0)


def _squared_length(query: np.ndarray) -> float:
    return float(np.einsum("i,i->", query, query)) or 1.0


def closenesses(metric: str, query: np.ndarray, internal: np.ndarray) -> np.ndarray:
    """float64 [rows]: the closeness of internal distances; what is not a number is as far as can be."""
    with np.errstate(all="ignore"):
        if metric == "dotproduct":
            closeness = -internal
        elif metric == "euclidean":
            closeness = 1 / (1 + np.sqrt(internal))
        elif metric == "angular":
            closeness = 1 / (1 + np.arccos(np.clip(1 - internal, -1, 1)))
        elif metric == "prenormalized-angular":
            length = _squared_length(query)
            closeness = 1 / (2 - np.clip((length - internal) / length, -1, 1))
        else:
            closeness = 1 / (1 + internal)
    return np.where(np.isnan(closeness), least_closeness(metric), closeness)


def least_closeness(metric: str) -> float:
    """The closeness of a document without a vector."""
    return -NO_DISTANCE if metric == "dotproduct" else 0.0


def distances(metric: str, closeness: np.ndarray) -> np.ndarray:
    """float64 [rows]: the rank feature distance of closenesses."""
    with np.errstate(all="ignore"):
        found = -closeness if metric == "dotproduct" else 1 / closeness - 1
    return np.minimum(found, NO_DISTANCE)
