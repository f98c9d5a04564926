"""Where the image features of items come from: a Parquet file of them, the encoder on the images, or nowhere."""

from __future__ import annotations

import pickle
import sqlite3
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from mrse_model.atomic_file import atomic_file
from mrse_model.data.contract import ItemBatch, ItemsFile
from mrse_model.data.ids import Ids, number
from mrse_model.errors import InputError
from mrse_model.images.features import FeatureFile, feature_array, feature_schema
from mrse_model.serving.images import ImageEncoder
from mrse_model.serving.manifest import EncoderInfo, Manifest

BLOCK = 512  # features read at a time


class Images(Protocol):
    """A source of image features for the items of a file."""

    needs_images: bool

    def join(self, items: ItemsFile, ids: Ids) -> int:
        """Finds the features of these items, whatever their order; returns how many items have none though others do.

        Raises InputError where the features are of other items.
        """

    def batches(self, items: ItemsFile, size: int, columns: Sequence[str]) -> Iterator[ItemBatch]:
        """The items, in the order in which their features are at hand. What follows is asked of the last batch."""

    def features(self, batch: ItemBatch, rows: list[int]) -> np.ndarray | None:
        """float32 [len(rows), F] for these rows of the batch, a NaN row where there is no image; None for none at
        all.
        """

    def identity(self, batch: ItemBatch, row: int) -> bytes:
        """What of an image counts for "has this item changed"."""


class NoImages:
    """Items are encoded from their words alone."""

    needs_images = False

    def join(self, items: ItemsFile, ids: Ids) -> int:
        return 0

    def batches(self, items: ItemsFile, size: int, columns: Sequence[str]) -> Iterator[ItemBatch]:
        return items.batches(size, columns=columns)

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

    def join(self, items: ItemsFile, ids: Ids) -> int:
        return 0

    def batches(self, items: ItemsFile, size: int, columns: Sequence[str]) -> Iterator[ItemBatch]:
        return items.batches(size, images=True, columns=columns)

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

    The features are read once, in their order, since they are what is large. In another order than theirs, the items'
    texts go through a file on disk instead. Memory is one block of features.
    """

    needs_images = False

    def __init__(self, path: str | Path, manifest: Manifest, *, column: str = "feature") -> None:
        self._file = FeatureFile(path, column=column)
        _check_encoder(self._file.encoder, self._file.path, manifest)
        self._ids, row = Ids(), 0
        for ids, _ in self._file.batches(BLOCK):  # reads all of it: a bad vector must show before the first put
            for again, item_id, before in self._ids.add(list(enumerate(ids, start=row))):
                problem = f"{item_id!r} is also the id of row {before}"
                raise self._file.table.error(problem, row=again, field="item_id", fix="Keep one of them")
            row += len(ids)
        self._matrix = np.empty((0, self._file.dims), np.float32)  # of the last batch of items
        self._pairs = _disk("CREATE TABLE pair(row INTEGER PRIMARY KEY, feature INTEGER)")

    @property
    def path(self) -> Path:
        """The file."""
        return self._file.path

    def __contains__(self, item_id: str) -> bool:
        return item_id in self._ids

    def join(self, items: ItemsFile, ids: Ids) -> int:
        self._pairs.execute("DELETE FROM pair")
        self._pairs.executemany("INSERT INTO pair VALUES (?, ?)", ids.matched(self._ids))
        (found,) = self._pairs.execute("SELECT count(*) FROM pair").fetchone()
        if not found:
            raise InputError(
                "no item has an image feature in this file",
                file=self.path,
                field="item_id",
                fix=f"Extract those of {items.path}",
            )
        return items.rows - found

    def in_order_of(self, items: ItemsFile, file: Path) -> Path:
        """A feature file with a row for each of these (joined) items, in their order: this one, or `file`, which is
        written if this one is not.
        """
        moved = "SELECT count(*), count(nullif(row, feature)) FROM pair"
        if self._pairs.execute(moved).fetchone() == (items.rows, 0) and self._file.rows == items.rows:
            return self.path
        made_of = [[str(path), path.stat().st_mtime_ns] for path in (*self._file.table.parts, *items.table.parts)]
        fingerprint = str(number(orjson.dumps([made_of, self._file.column])))
        if file.is_file() and FeatureFile(file, column=self._file.column).fingerprint == fingerprint:
            return file
        width = 4 * self._file.dims
        with tempfile.TemporaryFile(dir=file.parent) as spool:
            reader = _Vectors(self._file)
            for row, feature in self._pairs.execute("SELECT row, feature FROM pair ORDER BY feature"):
                spool.seek(row * width)
                spool.write(reader.vector(feature).tobytes())
            schema = feature_schema(self._file.encoder, self._file.weights, fingerprint)
            schema = schema.set(1, schema.field("feature").with_name(self._file.column))
            with atomic_file(file) as part, pq.ParquetWriter(part, schema) as out:
                for first, batch in items.table.batches(["item_id"], BLOCK):
                    matrix = np.full((batch.num_rows, self._file.dims), np.nan, np.float32)
                    for n in range(batch.num_rows):
                        if self._has(first + n):
                            spool.seek((first + n) * width)
                            matrix[n] = np.frombuffer(spool.read(width), np.float32)
                    ids = items.table.texts(batch, "item_id", first)
                    digests = pa.nulls(len(ids), schema.field("image_digest").type)
                    out.write_table(pa.table([ids, feature_array(matrix), digests], schema=schema))
        return file

    def batches(self, items: ItemsFile, size: int, columns: Sequence[str]) -> Iterator[ItemBatch]:
        if self._in_order():
            pairs = self._pairs.execute("SELECT row, feature FROM pair ORDER BY row")
            source, following = items.batches(size, columns=columns), next(pairs, None)
            reader = _Vectors(self._file)
            for batch in source:
                self._matrix = np.full((len(batch), self._file.dims), np.nan, np.float32)
                while following is not None and following[0] < batch.first_row + len(batch):
                    self._matrix[following[0] - batch.first_row] = reader.vector(following[1])
                    following = next(pairs, None)
                yield batch
        else:
            yield from self._in_their_order(items, size, columns)

    def features(self, batch: ItemBatch, rows: list[int]) -> np.ndarray | None:
        return self._matrix[rows] if rows else None

    def identity(self, batch: ItemBatch, row: int) -> bytes:
        return self._matrix[row].tobytes()

    def _in_order(self) -> bool:
        last = -1
        for (feature,) in self._pairs.execute("SELECT feature FROM pair ORDER BY row"):
            if feature < last:
                return False
            last = feature
        return True

    def _in_their_order(self, items: ItemsFile, size: int, columns: Sequence[str]) -> Iterator[ItemBatch]:
        spool = _disk("CREATE TABLE item(row INTEGER PRIMARY KEY, item BLOB)")
        for batch in items.batches(columns=columns):
            spool.executemany(
                "INSERT INTO item VALUES (?, ?)",
                (
                    (batch.first_row + i, pickle.dumps((batch.ids[i], batch.titles[i], batch.categories[i],
                                                        [batch.extra[name][i] for name in batch.extra])))
                    for i in range(len(batch))
                ),
            )  # fmt: skip
        reader = _Vectors(self._file)
        with_feature = "SELECT row, feature FROM pair ORDER BY feature"
        without = ((row, None) for (row,) in spool.execute("SELECT row FROM item ORDER BY row") if not self._has(row))
        for pairs in (self._pairs.execute(with_feature), without):
            while some := [pair for _, pair in zip(range(size), pairs, strict=False)]:
                rows = [pickle.loads(spool.execute("SELECT item FROM item WHERE row = ?", (row,)).fetchone()[0])
                        for row, _ in some]  # fmt: skip
                self._matrix = np.full((len(some), self._file.dims), np.nan, np.float32)
                for n, (_, feature) in enumerate(some):
                    if feature is not None:
                        self._matrix[n] = reader.vector(feature)
                extra = {name: [row[3][n] for row in rows] for n, name in enumerate(columns)}
                ids, titles, categories = ([row[n] for row in rows] for n in range(3))
                yield ItemBatch(some[0][0], ids, titles, categories, [None] * len(rows), extra)

    def _has(self, row: int) -> bool:
        return self._pairs.execute("SELECT 1 FROM pair WHERE row = ?", (row,)).fetchone() is not None


class _Vectors:
    """The vectors of a feature file by row, asked for in ascending order."""

    def __init__(self, file: FeatureFile) -> None:
        self._batches, self._first = file.batches(BLOCK), 0
        self._block = np.empty((0, file.dims), np.float32)

    def vector(self, row: int) -> np.ndarray:
        """float32 [F], NaN where there is no image."""
        while row >= self._first + len(self._block):
            self._first += len(self._block)
            _, self._block = next(self._batches)
        return self._block[row - self._first]


def _disk(table: str) -> sqlite3.Connection:
    """A table in a file that is gone at the end."""
    db = sqlite3.connect("", isolation_level=None, check_same_thread=False)
    db.execute("PRAGMA journal_mode = OFF")
    db.execute("PRAGMA synchronous = OFF")
    db.execute(table)
    db.execute("BEGIN")
    return db


def _check_encoder(found: EncoderInfo, file: Path, manifest: Manifest) -> None:
    wanted = manifest.image_encoder
    if wanted is None:
        raise InputError(
            "the model was trained without images", file=file, fix="Leave --features and --image-encoder out"
        )
    if (found.name, found.dims) != (wanted.name, wanted.dims):
        raise InputError(
            f"features of {found.name} ({found.dims} dims), and the model was trained on {wanted.name} ({wanted.dims})",
            file=file,
            fix=f"Run: mrse features --encoder {wanted.name}",
        )
    if found.size != wanted.size:
        raise InputError(
            f"features of images of {found.size} pixels, and the model was trained on {wanted.size}",
            file=file,
            fix=f"Run: mrse features --size {wanted.size}",
        )
