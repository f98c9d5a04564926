"""Shards of vectors in place of a model's encoding: what a feed reads with `--vectors`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from feeders.encoding import from_bfloat16
from feeders.shards.encode import VECTORS, read_metadata, shards_in
from mrse_model.data.contract import ItemBatch
from mrse_model.errors import InputError
from mrse_model.serving.exported_model import ItemVectors
from mrse_model.serving.manifest import Manifest

BATCH = 1024


@dataclass(frozen=True)
class ShardRow:
    """One item's vectors: bfloat16 cells, None for no vector. source, inputs: hashes (feeders/shards/encode.py)."""

    id: str
    cells: dict[str, bytes | None]
    source: int
    inputs: int


class VectorShards:
    """The shards of a folder, read once in the order of the items that they were made of."""

    def __init__(self, folder: Path, manifest: Manifest, rows: int) -> None:
        """Raises InputError where they are of another model, or not of this many items."""
        self.folder, self._dims = folder, manifest.dims
        self._shards = list(shards_in(folder))
        if not self._shards:
            raise InputError("the folder has no shards", file=folder, fix="Run: mrse encode ITEMS --out FOLDER")
        for shard in self._shards:
            found = read_metadata(shard)["model_version"]
            if found != manifest.model_version:
                fix = f"Encode the items again: mrse encode ITEMS --out {folder}"
                raise InputError(
                    f"vectors of model {found}, and the package has {manifest.model_version}", file=shard, fix=fix
                )
        held = sum(pq.read_metadata(shard).num_rows for shard in self._shards)
        if held != rows:
            fix = f"Run again: mrse encode ITEMS --out {folder}"
            raise InputError(f"vectors of {held:,} items, and the file has {rows:,}", file=folder, fix=fix)

    def rows(self) -> Iterator[ShardRow]:
        """All items in order; memory is one batch."""
        for shard in self._shards:
            with pq.ParquetFile(shard) as file:
                for batch in file.iter_batches(BATCH):
                    columns = batch.to_pydict()
                    for n, item_id in enumerate(columns["item_id"]):
                        cells = {name: columns[name][n] for name in VECTORS}
                        yield ShardRow(item_id, cells, columns["source"][n], columns["inputs"][n])

    def vectors(self, rows: list[ShardRow]) -> ItemVectors:
        """These rows as a model gives them: float32 [n, d], NaN for no vector."""
        out = {name: np.full((len(rows), self._dims), np.nan, np.float32) for name in VECTORS}
        for n, row in enumerate(rows):
            for name, cells in row.cells.items():
                if cells is not None:
                    out[name][n] = from_bfloat16(cells)
        return ItemVectors(**out)

    def check(self, row: ShardRow, batch: ItemBatch, at: int, source: int, file: Path) -> None:
        """Raises InputError where a row is not of this item as it is now."""
        if row.id != batch.ids[at] or row.source != source:
            raise InputError(
                f"the vectors in {self.folder} were made before the item {row.id!r} changed",
                file=file,
                row=batch.first_row + at,
                fix=f"Run again: mrse encode ITEMS --out {self.folder}",
            )
