"""An items file to operations: checked as a whole first, then encoded batch by batch, unchanged items left out.

Of an item's digest the first half is of its plain columns, the second of all that a model makes of it and what it makes
that from. So an item of which a search log or a model changes the vectors alone is not put anew: what came by
`mrse feed --update` stays.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from feeders.journal import Journal
from feeders.led_by import LedBy
from feeders.operations import Operation
from feeders.pictures import Pictures
from feeders.schema import DocumentType, legal_text
from feeders.tensors import bfloat16_hex, int8_hex
from mrse_model.data.contract import ItemBatch, ItemsFile
from mrse_model.errors import InputError
from mrse_model.serving import ExportedModel, ItemVectors

BATCH = 128  # items a batch: the item tower's own, so memory is one batch
VECTOR_FIELDS = ("embedding", "image_embedding", "text_feature")
INT8 = (
    "_int8"  # embedding_int8, image_embedding_int8: the same vectors as whole numbers, where the schema has the fields
)
MODEL_FIELDS = (*VECTOR_FIELDS, *(name + INT8 for name in VECTOR_FIELDS[:2]), "model_version")
OWN_FIELDS = ("item_id", "title", "category", *MODEL_FIELDS)
HALF = 16  # bytes of each half of a digest


@dataclass(frozen=True)
class Encoded:
    """One item. columns: the plain ones, None where it has no value; made: title, category, tensors, model version,
    likewise; known: the digest in the journal.
    """

    id: str
    columns: dict[str, Any]
    made: dict[str, Any]
    digest: bytes
    known: bytes | None


@dataclass(frozen=True)
class ItemSource:
    """A checked items file and what turns it into documents. columns: further columns to feed; left_out: those not
    fed.
    """

    items: ItemsFile
    doctype: DocumentType
    model: ExportedModel
    pictures: Pictures
    led_by: LedBy | None
    columns: tuple[str, ...]
    left_out: tuple[str, ...]

    @classmethod
    def open(
        cls,
        path: Path,
        doctype: DocumentType,
        model: ExportedModel,
        pictures: Pictures,
        *,
        led_by: LedBy | None = None,
        columns: Sequence[str] | None = None,
        title: str = "title",
        check_pictures: bool = True,
    ) -> ItemSource:
        """Checks the whole file: contract, ids, column types and values against the `.sd`, pictures if they are to
        be encoded.

        columns: which further columns to feed; None for all that the document type has. Raises InputError.
        """
        items = ItemsFile(path, title=title)
        for field in ("item_id", "title", "embedding", "model_version"):
            if field not in doctype.fields:
                raise InputError("the field is missing", file=doctype.file, field=field)
        available = [c for c in items.extra_columns if c not in OWN_FIELDS]
        if columns is None:
            chosen = [c for c in available if c in doctype.fields]
        else:
            chosen = [c for c in columns if c not in OWN_FIELDS]
            for column in chosen:
                if column not in available:
                    raise InputError("the column is missing", file=path, field=column)
                if column not in doctype.fields:
                    raise InputError(f"{doctype.file.name} has no such field", file=path, field=column)
        for column in chosen:
            doctype.check_column(column, items.table.schema.field(column).type, path)
        source = cls(
            items, doctype, model, pictures, led_by, tuple(chosen), tuple(c for c in available if c not in chosen)
        )
        items.check(pictures=pictures.needs_images and check_pictures, paths=pictures.needs_images)
        for batch in items.batches(columns=chosen):
            for row in range(len(batch)):
                source._fields(batch, row)
        return source

    def operations(self, journal: Journal, *, everything: bool = False) -> Iterator[Operation]:
        """What brings the index to the file: puts of items that the journal does not know (or of all), updates of those
        that it knows otherwise. Marks all ids present in the journal.
        """
        for item in self._encoded(journal, everything):
            if item.known is None:
                fields = {"item_id": item.id} | item.made | item.columns
                present = {name: value for name, value in fields.items() if value is not None}
                yield Operation("put", self.doctype.name, item.id, present, item.digest)
            elif item.known[:HALF] == item.digest[:HALF]:
                yield Operation("update", self.doctype.name, item.id, _assign(item.made), item.digest)
            else:  # whole, and made if it is not there: it may have expired, and have another date now
                fields = {"item_id": item.id} | item.made | item.columns
                yield Operation("update", self.doctype.name, item.id, _assign(fields), item.digest, create=True)

    def vector_updates(self, journal: Journal, suffix: str = "") -> Iterator[Operation]:
        """Partial updates of what the model makes alone, to the fields with this suffix. An item's columns stay as the
        journal knows them: if they have changed since, the next feed sends them.
        """
        for item in self._encoded(journal, everything=False):
            if suffix:
                names = [*self._vector_fields(), "model_version"]
                assigned = _assign({name + suffix: item.made[name] for name in names})
                yield Operation("update", self.doctype.name, item.id, assigned, item.digest)
            else:  # what the journal does not know may not be in the index: the next feed puts it
                digest = item.known[:HALF] + item.digest[HALF:] if item.known else b""
                if digest != item.known:
                    yield Operation("update", self.doctype.name, item.id, _assign(item.made), digest)

    def _encoded(self, journal: Journal, everything: bool) -> Iterator[Encoded]:
        """Each item to send."""
        vector_fields = self._vector_fields()
        for batch in self.items.batches(BATCH, images=self.pictures.needs_images, columns=self.columns):
            journal.mark_present(batch.ids)
            fields = [self._fields(batch, row) for row in range(len(batch))]
            queries = self.led_by.queries(batch.ids) if self.led_by else [[] for _ in batch.ids]
            digests = [
                _digest(columns) + _digest([made, queries[row], vector_fields], self.pictures.identity(batch, row))
                for row, (columns, made) in enumerate(fields)
            ]
            known = [None if everything else _known(journal.digest(item_id)) for item_id in batch.ids]
            rows = [row for row in range(len(batch)) if known[row] != digests[row]]
            if not rows:
                continue
            vectors = self.model.item_vectors(
                [batch.titles[row] for row in rows],
                [batch.categories[row] for row in rows],
                self.pictures.features(batch, rows),
                [queries[row] for row in rows] if self.led_by else None,
            )
            for row, tensors in zip(rows, self._tensors(vectors), strict=True):
                columns, made = fields[row]
                yield Encoded(batch.ids[row], columns, made | tensors, digests[row], known[row])

    def _fields(self, batch: ItemBatch, row: int) -> tuple[dict[str, Any], dict[str, Any]]:
        """The document's fields but its tensors: its columns, and what vectors are made of and by."""
        file, at = self.items.path, batch.first_row + row
        for field, text in (("item_id", batch.ids[row]), (self.items.title, batch.titles[row])):
            try:
                legal_text(text)
            except ValueError as error:
                raise InputError(str(error), file=file, row=at, field=field, fix="Remove it") from None
        columns = {name: self.doctype.value(name, batch.extra[name][row], file, at) for name in self.columns}
        made: dict[str, Any] = {"title": batch.titles[row], "model_version": self.model.manifest.model_version}
        if "category" in self.doctype.fields:
            made["category"] = self.doctype.value("category", batch.categories[row] or None, file, at)
        return columns, made

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


def _digest(value: object, more: bytes = b"") -> bytes:
    digest = hashlib.blake2b(orjson.dumps(value), digest_size=HALF)
    digest.update(more)
    return digest.digest()


def _known(digest: bytes | None) -> bytes | None:
    """None also for a digest of one half, as an earlier version wrote it."""
    return digest if digest is not None and len(digest) == 2 * HALF else None
