"""One shard of vectors for each row group of an items file, by as many processes as there are cores.

A shard is a pure function of its row group, the features and the model: it appears whole or not at all, and one that is
there already, of the same row group and model, is not made again. Rows are encoded in the order of their length, so
that little is padded, and written in the order of the items, a part of the row group after the other: memory does not
grow with it. Features and item queries lie in files that have the items' rows in the items' order.

| column | type | |
| --- | --- | --- |
| `item_id` | string | as in the items file |
| `embedding`, `image_embedding`, `text_feature` | fixed_size_binary(2 × dims) | bfloat16, big-endian as Vespa's hex |
| `source` | int64 | hash of title and category, by which a feed sees that the item has changed since |
| `inputs` | int64 | hash of all that the vectors are made of, by which it sees whether the index has them |

The schema's metadata has `model_version`, `dims` and `group`, a hash of what the shard was made from.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from feeders.encoding import bfloat16_bytes
from mrse_model.atomic_file import atomic_file
from mrse_model.data.contract import ItemBatch, ItemsFile
from mrse_model.data.ids import number
from mrse_model.data.table import Table
from mrse_model.errors import InputError
from mrse_model.images.features import FeatureFile
from mrse_model.serving.exported_model import ExportedModel, ItemVectors

VECTORS = ("embedding", "image_embedding", "text_feature")
VERSION, DIMS, GROUP = b"mrse.model_version", b"mrse.dims", b"mrse.group"
PART = 1024  # rows of a shard that are in memory


@dataclass(frozen=True)
class Group:
    """A row group of one file: what one shard is made of. first: its first row among all items."""

    file: Path
    group: int
    first: int
    rows: int
    shard: Path


@dataclass(frozen=True)
class Job:
    """What every process needs to make shards. features, item_queries: files with a row for each item, in their order
    (`ExtractedFeatures.in_order_of`, `write_item_queries`), or None. threads: of ONNX Runtime.
    """

    models: Path
    title: str = "title"
    features: Path | None = None
    feature_column: str = "feature"
    item_queries: Path | None = None
    threads: int = 1


def groups_of(items: ItemsFile, out: Path) -> list[Group]:
    """The row groups of all part files that have rows (Spark writes parts without), each with its shard in `out`.
    Paths are absolute: other machines read them.
    """
    found: list[Group] = []
    out, first = out.resolve(), 0
    for part in items.table.parts:
        part = part.resolve()
        with pq.ParquetFile(part) as file:
            for group in range(file.num_row_groups):
                if rows := file.metadata.row_group(group).num_rows:
                    found.append(Group(part, group, first, rows, out / f"shard-{len(found):05}.parquet"))
                    first += rows
    return found


def encode_groups(
    groups: Sequence[Group], job: Job, *, processes: int = 1, progress: Callable[[int], object] = lambda rows: None
) -> int:
    """Makes the shards that are not there, and returns how many were. progress: is given how many rows are done.

    Raises InputError, with the shards that were finished left in place: the same call makes the others.
    """
    for folder in {group.shard.parent for group in groups}:
        folder.mkdir(parents=True, exist_ok=True)
    made = 0
    if processes == 1:
        encoder = Encoder(job)
        for group in groups:
            made += encoder.shard(group)
            progress(group.rows)
        return made
    with multiprocessing.get_context("spawn").Pool(processes, _start, (job,)) as pool:
        for group, new in zip(groups, pool.imap(_shard, groups), strict=True):
            made += new
            progress(group.rows)
    return made


class Encoder:
    """Makes shards: the function that processes here and tasks of Ray share."""

    def __init__(self, job: Job) -> None:
        self.job, self.model = job, ExportedModel.load(job.models, threads=job.threads)
        self._features = FeatureFile(job.features, column=job.feature_column) if job.features else None
        self._queries = Table(job.item_queries) if job.item_queries else None

    def shard(self, group: Group) -> bool:
        """Makes one shard; False where it was there already."""
        made_from = self._fingerprint(group)
        if group.shard.is_file() and pq.read_schema(group.shard).metadata.get(GROUP) == made_from:
            return False
        version, dims = self.model.manifest.model_version, self.model.manifest.dims
        schema = pa.schema(
            [("item_id", pa.string()), *((name, pa.binary(2 * dims)) for name in VECTORS),
             ("source", pa.int64()), ("inputs", pa.int64())],
            {VERSION: version.encode(), DIMS: str(dims).encode(), GROUP: made_from},
        )  # fmt: skip
        with atomic_file(group.shard) as part, pq.ParquetWriter(part, schema, compression="none") as out:
            for columns in self._parts(group):
                out.write_table(pa.table(columns, schema=schema))
        return True

    def _parts(self, group: Group) -> Iterator[dict[str, Any]]:
        """The columns of the shard, some rows at a time."""
        version = self.model.manifest.model_version
        features = _by_row(self._features.batches(PART, group.first)) if self._features else None
        queries = _by_row(self._query_batches(self._queries, group.first)) if self._queries else None
        for batch in self._items(group):
            found = _matching(batch, features, self.job.features) if features else None
            few = _matching(batch, queries, self.job.item_queries) if queries else None
            matrix = None if found is None else np.stack(found)
            vectors = by_length(self.model, batch.titles, batch.categories, matrix, few)
            columns: dict[str, Any] = {"item_id": batch.ids}
            columns |= {name: _binary(getattr(vectors, name)) for name in VECTORS}
            texts = list(zip(batch.titles, batch.categories, strict=True))
            columns["source"] = [source_hash(title, category) for title, category in texts]
            columns["inputs"] = [
                inputs_hash(title, category, version, few[n] if few else [], found[n].tobytes() if found else b"")
                for n, (title, category) in enumerate(texts)
            ]
            yield columns

    def _items(self, group: Group) -> Iterator[ItemBatch]:
        items, left = ItemsFile(group.file, title=self.job.title), group.rows
        with pq.ParquetFile(group.file) as file:
            first = sum(file.metadata.row_group(n).num_rows for n in range(group.group))
        for batch in items.batches(PART, start=first):
            n = min(left, len(batch))
            yield ItemBatch(
                batch.first_row, batch.ids[:n], batch.titles[:n], batch.categories[:n], batch.images[:n], {}
            )
            left -= n
            if not left:
                return

    @staticmethod
    def _query_batches(table: Table, start: int) -> Iterator[tuple[list[str], list[list[str]]]]:
        for first, batch in table.batches(["item_id", "queries"], PART, start):
            yield table.texts(batch, "item_id", first), table.text_lists(batch, "queries", first)

    def _fingerprint(self, group: Group) -> bytes:
        tables = [table for table in (self._features and self._features.table, self._queries) if table]
        files = [group.file, *(part for table in tables for part in table.parts)]
        when = [[str(path), path.stat().st_mtime_ns, path.stat().st_size] for path in files]
        named = [when, group.group, self.job.title, self.job.feature_column, self.model.manifest.model_version]
        return str(number(orjson.dumps(named))).encode()


def by_length(
    model: ExportedModel,
    titles: Sequence[str],
    categories: Sequence[Sequence[str]],
    features: np.ndarray | None,
    queries: Sequence[Sequence[str]] | None,
) -> ItemVectors:
    """`model.item_vectors`, the rows in batches of about one length: a batch is padded to its longest text."""
    order = np.argsort([len(t) + sum(map(len, c)) for t, c in zip(titles, categories, strict=True)], kind="stable")
    made = model.item_vectors(
        [titles[row] for row in order],
        [categories[row] for row in order],
        None if features is None else features[order],
        None if queries is None else [queries[row] for row in order],
    )
    back = np.empty_like(order)
    back[order] = np.arange(len(order))
    return ItemVectors(made.embedding[back], made.image_embedding[back], made.text_feature[back])


def _by_row(batches: Iterable[tuple[list[str], Any]]) -> Iterator[tuple[str, Any]]:
    return (pair for ids, values in batches for pair in zip(ids, values, strict=True))


def _matching(batch: ItemBatch, rows: Iterator[tuple[str, Any]], file: Path | None) -> list[Any]:
    """The next values, which are of the items of the batch. Raises InputError where they are of others."""
    found = list(islice(rows, len(batch)))
    if [item_id for item_id, _ in found] != batch.ids:
        problem = "its rows are not those of the items: one was written meanwhile"
        raise InputError(problem, file=file, fix="Run the command again")
    return [value for _, value in found]


def source_hash(title: str, category: Sequence[str]) -> int:
    """Stands for the item's own text."""
    return number(orjson.dumps([title, list(category)]))


def inputs_hash(title: str, category: Sequence[str], version: str, queries: Sequence[str], image: bytes) -> int:
    """Stands for all that the vectors of an item are made of and by."""
    return number(orjson.dumps([title, list(category), version, list(queries)]) + image)


def _binary(vectors: np.ndarray) -> pa.Array:
    """float32 [n, d] → fixed_size_binary(2 d) of big-endian bfloat16; a NaN row is null."""
    rows = bfloat16_bytes(vectors)
    values = [None if np.isnan(vectors[n, 0]) else row for n, row in enumerate(rows)]
    return pa.array(values, pa.binary(2 * vectors.shape[1]))


_encoder: Encoder | None = None  # of a process of the pool


def _start(job: Job) -> None:
    global _encoder
    _encoder = Encoder(job)


def _shard(group: Group) -> bool:
    assert _encoder is not None
    return _encoder.shard(group)


def read_metadata(shard: Path) -> dict[str, Any]:
    """model_version and dims of a shard. Raises InputError for a file that is none."""
    metadata = pq.read_schema(shard).metadata or {}
    if VERSION not in metadata:
        raise InputError("not a shard of vectors", file=shard, fix="Give the folder that mrse encode wrote")
    return {"model_version": metadata[VERSION].decode(), "dims": int(metadata[DIMS])}


def shards_in(folder: Path) -> Iterator[Path]:
    """The shards of a folder, in the order of the items."""
    return iter(sorted(folder.glob("shard-*.parquet"), key=lambda file: (len(file.name), file.name)))
