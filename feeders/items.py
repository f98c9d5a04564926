"""An items file to operations: checked as a whole first, then encoded batch by batch, unchanged items left out.

An item's digest is one of its plain columns, one of all that a model makes its vectors from, and which vectors it has.
So an item of which a search log or a model changes the vectors alone is not put anew: what came by `mrse feed --update`
stays.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from feeders.encoding import bfloat16_hex, int8_hex
from feeders.image_features import Images
from feeders.item_queries import ItemQueries
from feeders.journal import Journal
from feeders.operations import Operation
from mrse_model.data.contract import ItemBatch, ItemsFile
from mrse_model.errors import InputError, raise_all
from mrse_model.serving.exported_model import ExportedModel, ItemVectors
from vespa_package.checks.items import check_items, columns_not_fed, fed_columns
from vespa_package.fields import INT8, MODEL_FIELDS, DocumentType

BATCH = 128  # items a batch: the item tower's own, so memory is one batch
PART = 16  # bytes of a digest's first two parts; the third is one


@dataclass(frozen=True)
class Encoded:
    """One item. columns: the plain ones; made_of: title, category, model version; tensors: the vectors; all with None
    where it has no value. known: the digest in the journal.
    """

    id: str
    columns: dict[str, Any]
    made_of: dict[str, Any]
    tensors: dict[str, Any]
    digest: bytes
    known: bytes | None

    @property
    def lost(self) -> set[str]:
        """The vectors that it had and has no more."""
        return {name for name, cells in self.tensors.items() if cells is None} & set(self._had)

    @property
    def changed(self) -> dict[str, Any]:
        """The vectors without those that it neither has nor had."""
        return {name: cells for name, cells in self.tensors.items() if cells is not None or name in self._had}

    @property
    def _had(self) -> list[str]:
        return [name for name in self.tensors if self.known and self.known[-1] & _bit(name)]


@dataclass(frozen=True)
class ItemSource:
    """A checked items file and what turns it into documents. columns: further columns to feed; left_out: those not
    fed.
    """

    items: ItemsFile
    doctype: DocumentType
    model: ExportedModel
    images: Images
    item_queries: ItemQueries | None
    columns: tuple[str, ...]
    left_out: tuple[str, ...]

    @classmethod
    def open(
        cls,
        path: Path,
        doctype: DocumentType,
        model: ExportedModel,
        images: Images,
        *,
        item_queries: ItemQueries | None = None,
        columns: Sequence[str] | None = None,
        title: str = "title",
        check_images: bool = True,
    ) -> ItemSource:
        """Checks the whole file: contract, ids, column types and values against the `.sd`, images if they are to
        be encoded.

        columns: which further columns to feed; None for all that the document type has. Raises InputError.
        """
        for field in ("item_id", "title", "embedding", "model_version"):
            if field not in doctype.fields:
                raise InputError("the field is missing", file=doctype.file, field=field, fix="Run: mrse validate")
        raise_all(check_items(path, doctype, title, columns))
        items = ItemsFile(path, title=title)
        if images.needs_images:
            items.check(images=check_images)
        chosen, left_out = fed_columns(items, doctype, columns), columns_not_fed(items, doctype, columns)
        return cls(items, doctype, model, images, item_queries, tuple(chosen), tuple(left_out))

    def operations(self, journal: Journal, *, everything: bool = False) -> Iterator[Operation]:
        """What brings the index to the file: puts of items that the journal does not know (or of all), updates of those
        that it knows otherwise. Marks all ids present in the journal.
        """
        for item in self._encoded(journal, slice(0, 2 * PART), everything):
            fields = {"item_id": item.id} | item.made_of | item.columns
            if item.known is None or item.lost:  # what Vespa derives from a vector (compact) goes by a put alone
                present = {name: value for name, value in (fields | item.tensors).items() if value is not None}
                yield Operation("put", self.doctype.name, item.id, present, item.digest)
            elif item.known[:PART] == item.digest[:PART]:
                assigned = _assign(item.made_of | item.changed)
                yield Operation("update", self.doctype.name, item.id, assigned, item.digest)
            else:  # whole, and made if it is not there: it may have expired, and have another date now
                assigned = _assign(fields | item.changed)
                yield Operation("update", self.doctype.name, item.id, assigned, item.digest, create=True)

    def vector_updates(self, journal: Journal, suffix: str = "") -> Iterator[Operation]:
        """Partial updates of what the model makes alone, to the fields with this suffix. An item's columns stay as the
        journal knows them: if they have changed since, the next feed sends them.
        """
        for item in self._encoded(journal, slice(PART, 2 * PART)):
            if suffix:
                made = {"model_version": item.made_of["model_version"]} | item.changed
                assigned = _assign({name + suffix: value for name, value in made.items()})
                yield Operation("update", self.doctype.name, item.id, assigned, item.digest)
            elif item.known:
                digest = item.known[:PART] + item.digest[PART:]
                yield Operation("update", self.doctype.name, item.id, _assign(item.made_of | item.changed), digest)
            else:  # what the journal does not know may not be in the index: the next feed puts it
                yield Operation("update", self.doctype.name, item.id, _assign(item.made_of | item.tensors))

    def _encoded(self, journal: Journal, part: slice, everything: bool = False) -> Iterator[Encoded]:
        """Each item of which this part of the digest is not as the journal has it (or all)."""
        vector_fields = self._vector_fields()
        for batch in self.items.batches(BATCH, images=self.images.needs_images, columns=self.columns):
            journal.mark_present(batch.ids)
            fields = [self._fields(batch, row) for row in range(len(batch))]
            queries = self.item_queries.queries(batch.ids) if self.item_queries else [[] for _ in batch.ids]
            digests = [
                _digest(columns) + _digest([made_of, queries[row], vector_fields], self.images.identity(batch, row))
                for row, (columns, made_of) in enumerate(fields)
            ]
            known = [None if everything else _known(journal.digest(item_id)) for item_id in batch.ids]
            rows = [n for n, before in enumerate(known) if before is None or before[part] != digests[n][part]]
            if not rows:
                continue
            vectors = self.model.item_vectors(
                [batch.titles[row] for row in rows],
                [batch.categories[row] for row in rows],
                self.images.features(batch, rows),
                [queries[row] for row in rows] if self.item_queries else None,
            )
            for row, tensors in zip(rows, self._tensors(vectors), strict=True):
                has = sum(_bit(name) for name, cells in tensors.items() if cells is not None)
                yield Encoded(batch.ids[row], *fields[row], tensors, digests[row] + bytes([has]), known[row])

    def _fields(self, batch: ItemBatch, row: int) -> tuple[dict[str, Any], dict[str, Any]]:
        """The document's fields but its tensors: its columns, and what they are made of and by."""
        file, at = self.items.path, batch.first_row + row
        columns = {name: self.doctype.value(name, batch.extra[name][row], file, at) for name in self.columns}
        made_of: dict[str, Any] = {"title": batch.titles[row], "model_version": self.model.manifest.model_version}
        if "category" in self.doctype.fields:
            made_of["category"] = self.doctype.value("category", batch.categories[row] or None, file, at)
        return columns, made_of

    def _vector_fields(self) -> list[str]:
        """The vector fields that the document type has."""
        return [name for name in MODEL_FIELDS[:-1] if name in self.doctype.fields]

    def _tensors(self, vectors: ItemVectors) -> Iterator[dict[str, Any]]:
        columns = {name: getattr(vectors, name.removesuffix(INT8)) for name in self._vector_fields()}
        cells = {
            name: int8_hex(matrix) if name.endswith(INT8) else bfloat16_hex(matrix) for name, matrix in columns.items()
        }
        present = {name: ~np.isnan(matrix[:, 0]) for name, matrix in columns.items()}
        for row in range(len(vectors.embedding)):
            yield {name: {"values": cells[name][row]} if present[name][row] else None for name in columns}


def _assign(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields of a partial update; null clears one."""
    return {name: {"assign": value} for name, value in fields.items()}


def _bit(vector_field: str) -> int:
    """Its place in a digest's last byte."""
    return 1 << MODEL_FIELDS.index(vector_field)


def _digest(value: object, more: bytes = b"") -> bytes:
    digest = hashlib.blake2b(orjson.dumps(value), digest_size=PART)
    digest.update(more)
    return digest.digest()


def _known(digest: bytes | None) -> bytes | None:
    """None also for a digest as an earlier version wrote it."""
    return digest if digest is not None and len(digest) == 2 * PART + 1 else None
