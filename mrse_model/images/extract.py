"""Images of a whole catalogue → a feature file, once; resumable after a kill; identical images encoded once, and
those that the file has of an earlier catalogue not again.

While it runs, `OUT.partial/` holds `features.f32` (one row a distinct image, append only) and `state-3.sqlite`
(which images and items are done). A batch of items is committed after its features are on disk, so whatever is cut
off is at most one batch; where the items have changed since, the images that are done still are, those of a finished
OUT among them. At the end the Parquet file is written beside and renamed. Memory does not grow with the items, but for
their ids.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from rich.console import Console

from mrse_model.data.contract import ItemBatch, ItemsFile
from mrse_model.errors import InputError
from mrse_model.images.encoders import FrozenEncoder
from mrse_model.images.features import DIGEST_BYTES, FeatureFile, feature_array, feature_schema
from mrse_model.progress import progress_bar

NO_IMAGE = -1
ROW_GROUP = 4096
_TABLES = """
create table source (key text, encoder text);
create table image (digest blob primary key, number integer) without rowid;
create table item (row integer primary key, item_id text unique, image integer);
"""


@dataclass(frozen=True)
class Extraction:
    """What `extract` did. resumed: items an earlier run had done; encoded: distinct images encoded by this run.

    Where the file was there already, all items are resumed, and without_image and distinct are not counted (None).
    """

    path: Path
    items: int
    without_image: int | None
    distinct: int | None
    encoded: int
    resumed: int


def extract(
    items_path: str | Path,
    out_path: str | Path,
    encoder: FrozenEncoder,
    *,
    batch: int = 64,
    threads: int | None = None,
    progress: bool = True,
) -> Extraction:
    """Encodes the images of `items_path` into the feature file `out_path`; call it again after a kill to resume.

    Args:
        batch: images encoded, and items committed, at a time.
        threads: for torch and for decoding; by default as many as torch takes.
        progress: show a bar on stderr.

    Raises:
        InputError: bad items, an image that does not decode (with its row), two runs at once into one file.
    """
    items, out = ItemsFile(items_path, title=None), Path(out_path)
    if items.image_column is None:
        raise InputError(
            "the items file has no images",
            file=items.path,
            field="image",
            fix="Add `image` (bytes) or `image_path`, or train without",
        )
    key, there = _source_key(items, encoder), None
    if out.exists():
        try:
            there = FeatureFile(out)
        except InputError:
            raise InputError(
                "the file exists and holds no image features", file=out, fix="Give another --out"
            ) from None
        if not there.fingerprint:
            raise InputError("the file exists and was not written by mrse features", file=out, fix="Give another --out")
        if there.fingerprint == key:
            return Extraction(out, there.rows, None, None, 0, resumed=there.rows)
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    items.check()  # ids, and that every image file is there
    work = _Work(out, key, encoder)
    try:
        work.begin(there if there and there.weights == encoder.fingerprint else None)
        with ThreadPoolExecutor(threads or before) as pool, progress_bar(Console(stderr=True), progress) as bar:
            resumed, encoded = work.items_done(), 0
            task = bar.add_task(encoder.name, total=items.rows, completed=resumed)
            for some in items.batches(batch, images=True, start=resumed):
                encoded += work.add(some, encoder, pool, items)
                bar.advance(task, len(some))
        result = work.write(encoder, encoded, resumed)
    finally:
        work.close()
        torch.set_num_threads(before)
    shutil.rmtree(work.folder)
    return result


def _source_key(items: ItemsFile, encoder: FrozenEncoder) -> str:
    """Changes with the encoder, the items file and the image files. Of a partial or finished file of another key
    single images are reused alone.
    """
    parts = f"{encoder.fingerprint} {items.rows} {_version(items.path)} {image_files(items)}"
    return hashlib.sha256(parts.encode()).hexdigest()[:16]


def image_files(items: ItemsFile) -> str:
    """Changes with the files that `image_path` names; empty where the images are in the items file."""
    if items.image_column != "image_path":
        return ""
    digest = hashlib.sha256()
    for batch in items.batches(columns=["image_path"]):
        for name in filter(None, batch.extra["image_path"]):
            digest.update(f"{name} {_version(items.path.parent / name)}\n".encode())
    return digest.hexdigest()[:16]


def _version(path: Path) -> str:
    try:
        stat = path.stat()
    except OSError:  # is said with its row when the image is read
        return ""
    return f"{stat.st_size} {stat.st_mtime_ns}"


class _Work:
    """The `.partial` folder. Invariant: a committed image's features are on disk."""

    def __init__(self, out: Path, key: str, encoder: FrozenEncoder) -> None:
        self.out, self.key, self.dims = out, key, encoder.dims
        self.folder = out.with_name(out.name + ".partial")
        self.folder.mkdir(parents=True, exist_ok=True)
        self.db = self._open()
        before = self.db.execute("select key, encoder from source").fetchone() or ("", "")
        if before[0] != key:  # new, or left by another encoder or catalogue; what that encoder has seen it knows
            with self.db:
                for table in ("source", "item", *(["image"] if before[1] != encoder.fingerprint else [])):
                    self.db.execute(f"delete from {table}")
                self.db.execute("insert into source values ('', ?)", (encoder.fingerprint,))
        self.images: int = self.db.execute("select count(*) from image").fetchone()[0]
        path = self.folder / "features.f32"
        self.file = open(path, "r+b" if path.exists() else "w+b")  # noqa: SIM115 - closed by close()
        self.file.truncate(self.images * self.dims * 4)  # what a killed run wrote and did not commit
        self.begun = before[0] == key

    def begin(self, there: FeatureFile | None) -> None:
        """Takes over the images of a finished file of this encoder, of other items; resumable after a kill."""
        if self.begun:
            return
        for digests, features in there.images() if there is not None else ():
            new: dict[bytes, int] = {}  # → its row
            for row, digest in enumerate(digests):
                if digest is not None and digest not in new and self._number(digest) is None:
                    new[digest] = row
            self._append(features[list(new.values())])
            with self.db:
                self._commit(list(new))
        with self.db:
            self.db.execute("update source set key = ?", (self.key,))

    def _number(self, digest: bytes) -> int | None:
        found = self.db.execute("select number from image where digest = ?", (digest,)).fetchone()
        return int(found[0]) if found else None

    def _append(self, features: np.ndarray) -> None:
        """Puts the features of the next images on disk."""
        self.file.seek(0, os.SEEK_END)
        self.file.write(features.astype("<f4").tobytes())
        self.file.flush()
        os.fsync(self.file.fileno())

    def _commit(self, digests: list[bytes]) -> None:
        """Numbers the images whose features were appended; within a transaction."""
        self.db.executemany("insert into image values (?, ?)", zip(digests, count(self.images)))
        self.images += len(digests)

    def _open(self) -> sqlite3.Connection:
        db = sqlite3.connect(self.folder / "state-3.sqlite", timeout=0)
        try:
            db.execute("pragma locking_mode = exclusive")  # the lock lives as long as the process: a kill frees it
            db.execute("begin exclusive")
            if not db.execute("select 1 from sqlite_master").fetchone():
                for statement in _TABLES.strip().split(";"):
                    db.execute(statement)
            db.commit()
        except sqlite3.OperationalError as error:
            db.close()
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY:  # a full disk, for one
                raise
            raise InputError(
                "another mrse features is writing this file",
                file=self.out,
                fix="Wait for it, or give another output file",
            ) from None
        return db

    def items_done(self) -> int:
        return int(self.db.execute("select count(*) from item").fetchone()[0])

    def add(self, some: ItemBatch, encoder: FrozenEncoder, pool: ThreadPoolExecutor, items: ItemsFile) -> int:
        """Encodes the new images of a batch and commits it. Returns how many they were."""
        numbers: dict[bytes, int] = {}
        new: dict[bytes, bytes] = {}  # digest → image
        indices: list[int] = []
        for image in some.images:
            if image is None:
                indices.append(NO_IMAGE)
                continue
            digest = hashlib.blake2b(image, digest_size=DIGEST_BYTES).digest()
            if digest not in numbers:
                found = self._number(digest)
                numbers[digest] = self.images + len(new) if found is None else found
                if found is None:
                    new[digest] = image
            indices.append(numbers[digest])
        try:
            features = encoder.features(list(new.values()), pool)
        except InputError as error:
            raise self._with_row(error, some, list(new.values()), items) from None
        self._append(features)
        try:
            with self.db:
                rows = range(some.first_row, some.first_row + len(some))
                self.db.executemany("insert into item values (?, ?, ?)", zip(rows, some.ids, indices, strict=True))
                self._commit(list(new))
        except sqlite3.IntegrityError:
            items.check()  # names the row
            raise
        return len(new)

    @staticmethod
    def _with_row(error: InputError, some: ItemBatch, new: list[bytes], items: ItemsFile) -> InputError:
        """The same error with the row of the image that does not decode."""
        from mrse_model.data.images import decode_image

        for i, image in enumerate(some.images):
            if image is not None:
                try:
                    decode_image(image, file=items.path, row=some.first_row + i, field=items.image_column or "image")
                except InputError as found:
                    return found
        return error

    def write(self, encoder: FrozenEncoder, encoded: int, resumed: int) -> Extraction:
        """Writes the Parquet file a row group at a time and renames it into place."""
        rows = self.items_done()
        empty = np.empty((0, self.dims), np.float32)
        vectors = np.memmap(self.file, "<f4", "r", shape=(self.images, self.dims)) if self.images else empty
        schema = feature_schema(encoder.info, encoder.fingerprint, self.key)
        temporary, missing = self.folder / "features.parquet", 0
        with pq.ParquetWriter(temporary, schema, compression="zstd", use_dictionary=False) as writer:
            self.db.execute("create index if not exists by_number on image (number)")
            cursor = self.db.execute(
                "select item_id, image, digest from item left join image on item.image = number order by row"
            )
            while some := cursor.fetchmany(ROW_GROUP):
                ids, indices, digests = [i for i, *_ in some], np.array([p for _, p, _ in some]), [d for *_, d in some]
                features = np.full((len(some), self.dims), np.nan, np.float32)
                features[indices >= 0] = vectors[indices[indices >= 0]]
                missing += int((indices < 0).sum())
                images = pa.array(digests, pa.binary(DIGEST_BYTES))
                columns = [pa.array(ids, pa.string()), feature_array(features), images]
                writer.write_table(pa.table(columns, schema=schema))
        os.replace(temporary, self.out)
        distinct = self.db.execute("select count(distinct image) from item where image >= 0").fetchone()[0]
        return Extraction(self.out, rows, missing, distinct, encoded, resumed)

    def close(self) -> None:
        self.file.close()
        self.db.close()
