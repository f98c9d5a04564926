"""Rows to Parquet shards, a bounded number in memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

ROW_GROUP = 1 << 12  # rows gathered in memory


class ShardWriter:
    """Writes `stem-00000.parquet`, … of at most `shard_rows` rows each; with `single` one `stem.parquet`.

    A context manager. At least one file is written, so that a reader finds the schema even where there are no rows.
    """

    def __init__(
        self, folder: Path, stem: str, schema: pa.Schema, shard_rows: int = 1 << 16, *, single: bool = False
    ) -> None:
        self._folder, self._stem, self._schema = folder, stem, schema
        self._shard_rows, self._single = shard_rows, single
        self._rows: list[dict[str, Any]] = []
        self._file: pq.ParquetWriter | None = None
        self._written = self._shards = 0

    def __enter__(self) -> ShardWriter:
        return self

    def add(self, row: dict[str, Any]) -> None:
        """Adds one row."""
        self._rows.append(row)
        room = ROW_GROUP if self._single else self._shard_rows - self._written
        if len(self._rows) >= min(ROW_GROUP, room):
            self._flush()

    def _flush(self) -> None:
        if self._file is None:
            name = f"{self._stem}.parquet" if self._single else f"{self._stem}-{self._shards:05d}.parquet"
            self._file = pq.ParquetWriter(self._folder / name, self._schema, compression="zstd")
            self._shards += 1
        if self._rows:
            self._file.write_table(pa.Table.from_pylist(self._rows, self._schema))
            self._written += len(self._rows)
            self._rows.clear()
        if not self._single and self._written >= self._shard_rows:
            self._close()

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
        self._file, self._written = None, 0

    def __exit__(self, *_: object) -> None:
        if self._rows or not self._shards:
            self._flush()
        self._close()
