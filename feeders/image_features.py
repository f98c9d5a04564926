"""Where the image features of items come from: a Parquet file of them, the encoder on the images, or nowhere."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np

from mrse_model.data.contract import ItemBatch
from mrse_model.errors import InputError
from mrse_model.images.features import FeatureFile
from mrse_model.serving.exported_model import ImageEncoder
from mrse_model.serving.manifest import EncoderInfo, Manifest

BLOCK = 4096  # features read at a time


class Images(Protocol):
    """A source of image features."""

    needs_images: bool

    def features(self, batch: ItemBatch, rows: list[int]) -> np.ndarray | None:
        """float32 [len(rows), F] for these rows of the batch, a NaN row where there is no image; None for none at
        all.
        """

    def identity(self, batch: ItemBatch, row: int) -> bytes:
        """What of an image counts for "has this item changed"."""


class NoImages:
    """Items are encoded from their words alone."""

    needs_images = False

    def features(self, batch: ItemBatch, rows: list[int]) -> np.ndarray | None:
        return None

    def identity(self, batch: ItemBatch, row: int) -> bytes:
        return b""


class EncodedImages:
    """The exported image encoder on the images of the items file."""

    needs_images = True

    def __init__(self, encoder: ImageEncoder, manifest: Manifest, items: Path) -> None:
        self._encoder, self._items = encoder, items
        _check_encoder(EncoderInfo(encoder.name, encoder.dims, encoder.size), encoder.path, manifest)

    def features(self, batch: ItemBatch, rows: list[int]) -> np.ndarray | None:
        try:
            return self._encoder.features([batch.images[row] for row in rows])
        except InputError as error:  # it counts rows from the first image that it was given
            row = None if error.row is None else batch.first_row + rows[error.row]
            raise InputError(error.problem, file=self._items, row=row, field="image", fix=error.fix) from None

    def identity(self, batch: ItemBatch, row: int) -> bytes:
        return batch.images[row] or b""


class ExtractedFeatures:
    """Features that were extracted before: Parquet with `item_id` and the vectors (in `feature`, by mrse features), in
    any order.

    Memory: the ids and one block of features. In the order of the items file, as `mrse features` writes it, each
    block is read once; in another order it is right and slower.
    """

    needs_images = False

    def __init__(self, path: str | Path, manifest: Manifest, *, column: str = "feature") -> None:
        self._file = FeatureFile(path, column=column)
        _check_encoder(self._file.encoder, self._file.path, manifest)
        self._row: dict[str, int] = {}
        for ids, _ in self._file.batches():  # reads all of it: a bad vector must show before the first put
            self._file.remember(ids, self._row)
        self._first, self._block = 0, np.empty((0, self._file.dims), np.float32)

    @property
    def path(self) -> Path:
        """The file."""
        return self._file.path

    def __contains__(self, item_id: str) -> bool:
        return item_id in self._row

    def features(self, batch: ItemBatch, rows: list[int]) -> np.ndarray | None:
        return np.stack([self._feature(batch.ids[row]) for row in rows]) if rows else None

    def identity(self, batch: ItemBatch, row: int) -> bytes:
        return self._feature(batch.ids[row]).tobytes()

    def _feature(self, item_id: str) -> np.ndarray:
        row = self._row.get(item_id)
        if row is None:
            return np.full(self._file.dims, np.nan, np.float32)
        if not self._first <= row < self._first + len(self._block):
            self._first, records = next(self._file.table.batches([self._file.column], BLOCK, start=row))
            lists = records.column(0)
            self._block = np.full((len(lists), self._file.dims), np.nan, np.float32)
            present = lists.is_valid().to_numpy(zero_copy_only=False)
            values = lists.drop_null().flatten().to_numpy(zero_copy_only=False)
            self._block[present] = values.reshape(-1, self._file.dims)
        return self._block[row - self._first]


def _check_encoder(found: EncoderInfo, file: Path, manifest: Manifest) -> None:
    wanted = manifest.image_encoder
    if wanted is None:
        raise InputError("the model was trained without images", file=file, fix="Leave its features out")
    if (found.name, found.dims) != (wanted.name, wanted.dims):
        raise InputError(
            f"features of {found.name} ({found.dims} wide), and the model knows {wanted.name} ({wanted.dims} wide)",
            file=file,
            fix=f"Extract them with {wanted.name}",
        )
    if found.size != wanted.size:
        raise InputError(
            f"features of images of {found.size} pixels, and the model knows {wanted.size}",
            file=file,
            fix=f"Extract them anew: mrse features --size {wanted.size}",
        )
