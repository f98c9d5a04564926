"""An items file to puts: checked as a whole first, then encoded batch by batch, unchanged items left out."""

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
        """Puts of the items that the journal does not know as they are now (or of all); marks all ids present in it."""
        for item_id, fields, tensors, digest in self._encoded(journal, everything):
            yield Operation("put", self.doctype.name, item_id, fields | tensors, digest)

    def vector_updates(self, journal: Journal, suffix: str = "") -> Iterator[Operation]:
        """Partial updates that assign the vectors and the model version alone, to the fields with this suffix."""
        for item_id, fields, tensors, digest in self._encoded(journal, everything=False):
            values = {name: tensors.get(name) for name in self._vector_fields()}
            values["model_version"] = fields["model_version"]
            assigned = {name + suffix: {"assign": value} for name, value in values.items()}
            yield Operation("update", self.doctype.name, item_id, assigned, digest)

    def _encoded(
        self, journal: Journal, everything: bool
    ) -> Iterator[tuple[str, dict[str, Any], dict[str, Any], bytes]]:
        """Id, plain fields, tensors and digest of each item to send."""
        for batch in self.items.batches(BATCH, images=self.pictures.needs_images, columns=self.columns):
            journal.mark_present(batch.ids)
            fields = [self._fields(batch, row) for row in range(len(batch))]
            queries = self.led_by.queries(batch.ids) if self.led_by else None
            digests = [
                self._digest(fields[row], self.pictures.identity(batch, row), queries[row] if queries else [])
                for row in range(len(batch))
            ]
            rows = [row for row in range(len(batch)) if everything or journal.digest(batch.ids[row]) != digests[row]]
            if not rows:
                continue
            vectors = self.model.item_vectors(
                [batch.titles[row] for row in rows],
                [batch.categories[row] for row in rows],
                self.pictures.features(batch, rows),
                [queries[row] for row in rows] if queries else None,
            )
            for row, tensors in zip(rows, self._tensors(vectors), strict=True):
                yield batch.ids[row], fields[row], tensors, digests[row]

    def _fields(self, batch: ItemBatch, row: int) -> dict[str, Any]:
        """The document's fields but its tensors."""
        file, at = self.items.path, batch.first_row + row
        for field, text in (("item_id", batch.ids[row]), (self.items.title, batch.titles[row])):
            try:
                legal_text(text)
            except ValueError as error:
                raise InputError(str(error), file=file, row=at, field=field, fix="Remove it") from None
        fields: dict[str, Any] = {"item_id": batch.ids[row], "title": batch.titles[row]}
        if batch.categories[row] and "category" in self.doctype.fields:
            fields["category"] = self.doctype.value("category", batch.categories[row], file, at)
        for column in self.columns:
            value = self.doctype.value(column, batch.extra[column][row], file, at)
            if value is not None:
                fields[column] = value
        fields["model_version"] = self.model.manifest.model_version
        return fields

    def _digest(self, fields: dict[str, Any], picture: bytes, queries: list[str]) -> bytes:
        digest = hashlib.blake2b(orjson.dumps([fields, queries]), digest_size=16)
        digest.update(picture)
        return digest.digest()

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
            yield {name: {"values": cells[name][row]} for name in columns if present[name][row]}
