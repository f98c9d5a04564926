"""A teacher with an image half (mrse_model.teacher.encoders.PairTeacher): where its images' vectors come from, and an
item's vector of both halves.

b = items in a block, D = the teacher's width.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mrse_model.data.contract import ItemsFile
from mrse_model.errors import InputError
from mrse_model.images.encoders import FrozenEncoder
from mrse_model.images.extract import extract
from mrse_model.images.features import FeatureFile

IMAGE_WEIGHT = 0.5  # of the image in an item's vector; the text has the rest
BLOCK = 65536


def image_file(encoder: FrozenEncoder, items: Path, made: Path, column: str, folder: Path) -> FeatureFile:
    """The features of the items' images by a teacher's image half: `made`, the run's own features, where the same
    encoder made them; else a file in `folder`, which is extracted once, resumably and a batch of images at a time.

    Raises InputError where there are no images.
    """
    if made.exists():
        own = FeatureFile(made, column=column)
        if own.weights == encoder.fingerprint:
            return own
    if ItemsFile(items, title=None).image_column is None:
        problem = f"--teacher {encoder.name} has an image half, and the items have no images"
        fix = "Add `image` or `image_path`, or give a sentence encoder as the teacher"
        raise InputError(problem, file=items, field="image", fix=fix)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{encoder.fingerprint}.parquet"
    extract(items, path, encoder)
    return FeatureFile(path)


def unit(vectors: NDArray) -> NDArray[np.float32]:
    """[b, D] → the same of unit norm; zeros stay."""
    found = vectors.astype(np.float32)
    return found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-6)


def mean_of(vectors: NDArray[np.float16]) -> NDArray[np.float32]:
    """The mean of vectors [n, D] → [D]."""
    total = np.zeros(vectors.shape[1])
    for start in range(0, len(vectors), BLOCK):
        total += vectors[start : start + BLOCK].astype(np.float32).sum(0)
    return (total / max(len(vectors), 1)).astype(np.float32)


def centre(vectors: NDArray[np.float16], mean: NDArray[np.float32]) -> NDArray[np.float16]:
    """Takes the mean [D] from vectors [n, D], in place, and brings them back to unit norm. Returns them.

    A pair's texts lie in one narrow cone and its images in another, so that any text is nearer to any other text than
    to its own image (Liang et al. 2022, "Mind the gap"): an item with an image would be found by what kind of vector it
    has, not by what it shows. Without each kind's mean over the catalogue both kinds lie around the origin.
    """
    for start in range(0, len(vectors), BLOCK):
        vectors[start : start + BLOCK] = unit(vectors[start : start + BLOCK].astype(np.float32) - mean)
    return vectors


def add_images(items: NDArray[np.float16], file: FeatureFile, row: Mapping[str, int]) -> None:
    """Makes of each item's centred text vector, [N, D], the unit-norm mean of it and its image's, in place; an item
    without an image keeps the text's alone. row: of each item id. Reads the file twice, a batch at a time.

    Raises InputError where no item of the file has an image.
    """
    total, count = np.zeros(items.shape[1]), 0
    for _, images in _images(file, row):
        total, count = total + images.sum(0), count + len(images)
    if not count:
        fix = "Check its item_id column, or give a sentence encoder as the teacher"
        raise InputError("no item of the catalogue has an image for the teacher", file=file.path, fix=fix)
    mean = (total / count).astype(np.float32)
    for rows, images in _images(file, row):
        items[rows] = unit((1 - IMAGE_WEIGHT) * items[rows].astype(np.float32) + IMAGE_WEIGHT * unit(images - mean))


def _images(file: FeatureFile, row: Mapping[str, int]) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
    """Rows of items [b] and their images, float32 [b, D] of unit norm, without the items that have none."""
    for ids, features in file.batches():
        rows = np.array([row.get(item_id, -1) for item_id in ids], np.int64)
        there = (rows >= 0) & ~np.isnan(features[:, 0])
        yield rows[there], unit(features[there])
