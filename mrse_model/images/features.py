"""Feature files: Parquet with `item_id` and `feature`, one row an item; null where an item has no image.

Files written by `extract` name their encoder in the schema's metadata and have a third column, `image_digest`: that
of the item's image, by which the next extraction knows what is encoded already. A file that a user brings (any float
list, any order) is taken as it is: `FeatureFile("vectors.parquet", column="embedding")`. Needs no torch.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.types as pt
from numpy.typing import NDArray

from mrse_model.data.table import Table
from mrse_model.serving.manifest import EncoderInfo

ENCODER_KEY, WEIGHTS_KEY, FINGERPRINT_KEY = b"mrse.encoder", b"mrse.encoder.fingerprint", b"mrse.fingerprint"
DIGEST_BYTES = 16
BATCH = 4096


def feature_schema(encoder: EncoderInfo, weights: str, fingerprint: str) -> pa.Schema:
    """The schema of a feature file; its metadata says which encoder, of which weights, and of which items, made it."""
    fields = [
        pa.field("item_id", pa.string(), nullable=False),
        pa.field("feature", pa.list_(pa.float32(), encoder.dims)),
        pa.field("image_digest", pa.binary(DIGEST_BYTES)),
    ]
    metadata = {ENCODER_KEY: json.dumps(asdict(encoder)), WEIGHTS_KEY: weights, FINGERPRINT_KEY: fingerprint}
    return pa.schema(fields, metadata)


def feature_array(features: NDArray[np.float32]) -> pa.FixedSizeListArray:
    """float32 [n, F] → a fixed-size list array; a row that starts with NaN becomes null."""
    missing = pa.array(np.isnan(features[:, 0]))
    values = pa.array(np.nan_to_num(features).ravel())
    return pa.FixedSizeListArray.from_arrays(values, features.shape[1], mask=missing)


class FeatureFile:
    """An existing feature file. `encoder` says who made it (name `precomputed`, size 0, for a user's own vectors).

    Raises InputError for a missing column, a wrong type, rows of different widths, values that are not finite.
    """

    def __init__(self, path: str | Path, *, column: str = "feature") -> None:
        self.table = Table(path)
        self.path, self.rows, self.column = self.table.path, self.table.rows, column
        self.table.require("item_id", "string id")
        if column not in self.table.schema.names:
            names = ", ".join(self.table.schema.names)
            raise self.table.error(
                f"the column is missing; it has: {names}", field=column, fix="Name the vectors' by --feature-column"
            )
        kind = self.table.schema.field(column).type
        lists = pt.is_fixed_size_list(kind) or pt.is_list(kind) or pt.is_large_list(kind)
        if not lists or not pt.is_floating(kind.value_type):
            raise self.table.error(f"the column is {kind}, not a list of floats", field=column, fix="Write list<float>")
        metadata = self.table.schema.metadata or {}
        if ENCODER_KEY in metadata and "picture" in self.table.schema.names:  # its name of the digest
            raise self.table.error("an earlier version wrote this file", fix="Remove it and run mrse features again")
        self.fingerprint, self.weights = (metadata.get(key, b"").decode() for key in (FINGERPRINT_KEY, WEIGHTS_KEY))
        if ENCODER_KEY in metadata:
            self.encoder = EncoderInfo(**json.loads(metadata[ENCODER_KEY]))
        else:
            self.encoder = EncoderInfo("precomputed", self._first_width(), 0)

    @property
    def dims(self) -> int:
        """Width of a feature."""
        return self.encoder.dims

    def _first_width(self) -> int:
        for _, batch in self.table.batches([self.column], BATCH):
            for value in batch.column(0):
                if value.is_valid and len(value):
                    return len(value)
        raise self.table.error("every feature is null or empty", field=self.column, fix="Give vectors for some items")

    def batches(self, size: int = BATCH, start: int = 0) -> Iterator[tuple[list[str], NDArray[np.float32]]]:
        """Yields (item ids, float32 [n, F] with NaN rows for null), in the file's order from row `start` on; memory is
        one batch.
        """
        for first, batch in self.table.batches(["item_id", self.column], size, start):
            yield self.table.texts(batch, "item_id", first), self._matrix(batch.column(self.column), first)

    def images(self) -> Iterator[tuple[list[bytes | None], NDArray[np.float32]]]:
        """Yields (the digests of the items' images, float32 [n, F]), of a file that `extract` wrote."""
        for first, batch in self.table.batches(["image_digest", self.column], BATCH):
            yield batch.column("image_digest").to_pylist(), self._matrix(batch.column(self.column), first)

    def remember(self, ids: Sequence[str], seen: dict[str, int]) -> None:
        """Adds the rows of the next batch's ids to `seen`; raises InputError where an id is there already."""
        self.table.remember(ids, seen, first_row=len(seen))

    def _matrix(self, column: pa.Array, first_row: int) -> NDArray[np.float32]:
        valid = ~column.is_null().to_numpy(zero_copy_only=False)
        out = np.full((len(column), self.dims), np.nan, np.float32)
        lengths = column.value_lengths().to_numpy(zero_copy_only=False)
        for i in np.flatnonzero(valid & (lengths != self.dims))[:1]:
            problem = f"{int(lengths[i])} values instead of {self.dims}"
            raise self.table.error(problem, row=first_row + int(i), field=self.column, fix="All vectors need one width")
        values = column.drop_null().flatten().to_numpy(zero_copy_only=False).astype(np.float32).reshape(-1, self.dims)
        for i in np.flatnonzero(~np.isfinite(values).all(axis=1))[:1]:
            row = first_row + int(np.flatnonzero(valid)[i])
            raise self.table.error("a value is not finite", row=row, field=self.column, fix="Write null for no vector")
        out[valid] = values
        return out

    def matrix(self, item_ids: Sequence[str]) -> NDArray[np.float32]:
        """float32 [n, F] in the order of `item_ids`; NaN rows for items that the file lacks or has null for."""
        row_of = {item_id: row for row, item_id in enumerate(item_ids)}
        out = np.full((len(item_ids), self.dims), np.nan, np.float32)
        for ids, features in self.batches():
            rows = np.array([row_of.get(item_id, -1) for item_id in ids])
            out[rows[rows >= 0]] = features[rows >= 0]
        return out
