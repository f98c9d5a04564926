"""An items file to operations: checked as a whole first, then encoded batch by batch, unchanged items left out.

An item's digest is one of its plain columns, one of all that a model makes its vectors from, and which vectors it has.
So an item of which a search log or a model changes the vectors alone is not put anew: what came by `mrse feed updates`
stays.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import orjson

from feeders.encoding import bfloat16_hex, int8_hex
from feeders.image_features import Images
from feeders.index.journal import Journal, Known
from feeders.item_queries import ItemQueries, counted_by
from feeders.operations import ItemDigest, Operation
from feeders.report import Report
from feeders.shards.encode import by_length, inputs_hash, source_hash
from feeders.shards.read import ShardRow, VectorShards
from mrse_model.data.contract import POPULARITY, ItemBatch, ItemsFile
from mrse_model.data.ids import Ids, number
from mrse_model.errors import InputError, raise_all
from mrse_model.serving.exported_model import ExportedModel, ItemVectors
from vespa_package.checks.items import check_items, columns_not_fed, fed_columns
from vespa_package.fields import INT8, LANGUAGE, MODEL_FIELDS, DocumentType, accepts, language_tag
from vespa_package.second_set import SUFFIX as NEXT

BATCH = 512  # items at a time: enough to sort by length, few enough to hold


@dataclass(frozen=True)
class Encoded:
    """One item. columns: the plain ones; inputs: title, category, model version; tensors: the vectors; all with None
    where it has no value. known: what the journal has of it.
    """

    id: str
    columns: dict[str, Any]
    inputs: dict[str, Any]
    tensors: dict[str, Any]
    digest: ItemDigest
    known: Known | None

    @property
    def lost(self) -> set[str]:
        """The vectors that it had and has no more."""
        return {name for name, cells in self.tensors.items() if cells is None} & set(self._had)

    @property
    def changed(self) -> dict[str, Any]:
        """The vectors without those that it neither has nor had."""
        return {name: cells for name, cells in self.tensors.items() if cells is not None or name in self._had}

    @property
    def document(self) -> dict[str, Any]:
        """All fields that have a value."""
        fields = {"item_id": self.id} | self.inputs | self.columns | self.tensors
        return {name: value for name, value in fields.items() if value is not None}

    @property
    def _had(self) -> list[str]:
        return [name for name in self.tensors if self.known and self.known.digest.vectors & _bit(name)]


@dataclass(frozen=True)
class ItemSource:
    """A checked items file and what turns it into documents. columns: further columns to feed; left_out: those not
    fed; ids: of all items; without_features: how many of them a file of image features lacks. popularity: what counts
    it by clicks, where it is no column. next_model: of a
    migration that is under way, whose vectors go to a second set of fields. vectors: shards to take instead of
    encoding. since: a column of times and Unix seconds, before which an item is left as it is.
    """

    items: ItemsFile
    doctype: DocumentType
    model: ExportedModel
    images: Images
    item_queries: ItemQueries | None
    columns: tuple[str, ...]
    left_out: tuple[str, ...]
    ids: Ids
    without_features: int = 0
    popularity: ItemQueries | None = None
    next_model: ExportedModel | None = None
    language: str | None = None
    vectors: VectorShards | None = None
    since: tuple[str, int] | None = None

    @classmethod
    def open(
        cls,
        path: Path | Sequence[Path],
        doctype: DocumentType,
        model: ExportedModel,
        images: Images,
        *,
        item_queries: ItemQueries | None = None,
        columns: Sequence[str] | None = None,
        title: str = "title",
        check_images: bool = True,
        next_model: ExportedModel | None = None,
        language: str | None = None,
        vectors: Path | None = None,
    ) -> ItemSource:
        """Checks the whole file (or folder, or files): contract, ids, column types and values against the `.sd`,
        images if they are to be encoded. The file is read once.

        columns: which further columns to feed; None for all that the document type has. language: of items that do
        not say theirs in a column `language`; None for the schema's. Raises InputError with all that is wrong.
        """
        check_language(doctype, language)
        for field in ("item_id", "title", "embedding", "model_version"):
            if field not in doctype.fields:
                raise InputError("the field is missing", file=doctype.file, field=field, fix="Run: mrse validate")
        seen: Literal["skip", "find", "decode"] = "decode" if check_images else "find"
        ids = Ids()
        raise_all(check_items(path, doctype, title, columns, ids=ids, images=seen if images.needs_images else "skip"))
        items = ItemsFile(path, title=title)
        chosen, left_out = fed_columns(items, doctype, columns), columns_not_fed(items, doctype, columns)
        without = images.join(items, ids)
        shards = VectorShards(vectors, model.manifest, items.rows) if vectors else None
        if shards:
            rows = shards.rows()
            for batch in items.batches(BATCH):  # an item that changed since must show before the first put
                for row in range(len(batch)):
                    source = source_hash(batch.titles[row], batch.categories[row])
                    shards.check(next(rows), batch, row, source, items.path)
        manifests = [some.manifest for some in (model, next_model) if some is not None]
        return cls(
            items,
            doctype,
            model,
            images,
            item_queries,
            tuple(chosen),
            tuple(left_out),
            ids,
            without,
            counted_by(manifests, items, doctype.fields, item_queries),
            next_model,
            language,
            shards,
        )

    def changed_since(self, column: str, seconds: int) -> ItemSource:
        """This source without the items whose time in `column` is before `seconds` (Unix); one without a time stays.
        Raises InputError where the file has no such column, or not of times.
        """
        schema = self.items.table.schema
        if column not in schema.names or not accepts("long", schema.field(column).type):
            have = ", ".join(field.name for field in schema if accepts("long", field.type)) or "none"
            raise InputError(
                "--since needs a column of times",
                file=self.items.path,
                field=column,
                fix=f"Name one with --since-column; columns of times or whole numbers: {have}",
            )
        return replace(self, since=(column, seconds))

    @property
    def written(self) -> int:
        """When the file was written, nanoseconds since 1970."""
        return self.items.table.written

    def operations(
        self, journal: Journal, report: Report, *, everything: bool = False, index_holds_others: bool = False
    ) -> Iterator[Operation]:
        """What brings the index to the file: puts of items that the journal does not know (or of all), updates of those
        that it knows otherwise; what needs none is counted in the report.

        index_holds_others: the index has items that the journal does not know. What is not known is then updated, and
        made if it is not there: a put would take away what other feeds brought.
        """
        for item in self._encoded(journal, report, ("columns", "inputs"), everything):
            if item.known is None and index_holds_others and not everything:
                yield Operation("update", self.doctype.name, item.id, _assign(item.document), item.digest, create=True)
            elif item.known is None or item.lost:  # what Vespa derives from a vector (compact) goes by a put alone
                yield Operation("put", self.doctype.name, item.id, item.document, item.digest)
            elif item.known.digest.columns == item.digest.columns:
                assigned = _assign(item.inputs | item.changed)
                yield Operation("update", self.doctype.name, item.id, assigned, item.digest)
            else:  # whole, and made if it is not there: it may have expired, and have another date now
                assigned = _assign({"item_id": item.id} | item.inputs | item.columns | item.changed)
                yield Operation("update", self.doctype.name, item.id, assigned, item.digest, create=True)

    def vector_updates(self, journal: Journal, report: Report, suffix: str = "") -> Iterator[Operation]:
        """Partial updates of what the model makes alone, to the fields with this suffix. An item's columns stay as the
        journal knows them: if they have changed since, the next feed sends them.
        """
        for item in self._encoded(journal, report, ("inputs",), vectors_alone=True):
            if suffix:
                made = {"model_version": item.inputs["model_version"]} | item.changed
                assigned = _assign({name + suffix: value for name, value in made.items()})
                yield Operation("update", self.doctype.name, item.id, assigned, item.digest)
            elif item.known:
                digest = ItemDigest(item.known.digest.columns, item.digest.inputs, item.digest.vectors)
                yield Operation("update", self.doctype.name, item.id, _assign(item.inputs | item.changed), digest)
            else:  # what the journal does not know may not be in the index: the next feed puts it
                yield Operation("update", self.doctype.name, item.id, _assign(item.inputs | item.tensors))

    def documents(self) -> Iterator[Encoded]:
        """All items as the index should have them (mrse verify, --dry-run, --to-jsonl)."""
        return self._encoded(None, Report(), (), everything=True)

    def _encoded(
        self,
        journal: Journal | None,
        report: Report,
        parts: Sequence[str],
        everything: bool = False,
        vectors_alone: bool = False,
    ) -> Iterator[Encoded]:
        """Each item of which one of these parts of the digest is not as the journal has it (or all)."""
        vector_fields = self.vector_fields
        shard_rows = self.vectors.rows() if self.vectors else iter(())
        if journal is not None:
            journal.read_from(str(self.items.path), self.written)
        read = self.columns if self.since is None else [*self.columns, self.since[0]]
        for batch in self.images.batches(self.items, BATCH, read):
            encoded, asked = list(islice(shard_rows, len(batch))), self._since(batch)
            report.unchanged += len(batch) - len(asked)
            report.earlier += len(batch) - len(asked)
            ids = [batch.ids[row] for row in asked]
            fields = {row: self._fields(batch, row) for row in asked}
            if self.popularity is not None:
                for row, popularity in zip(asked, self.popularity.popularity(ids), strict=True):
                    fields[row][0][POPULARITY] = popularity
            few = self.item_queries.queries(ids) if self.item_queries else [[] for _ in ids]
            queries = dict(zip(asked, few, strict=True))
            digests = {
                row: ItemDigest(
                    number(orjson.dumps(columns)),
                    self._inputs(batch, row, queries[row], encoded, [*vector_fields, inputs.get(LANGUAGE)]),
                )
                for row, (columns, inputs) in fields.items()
            }
            held = [None] * len(ids) if journal is None or everything else journal.known(ids)
            known = dict(zip(asked, held, strict=True))
            rows, now = [], time.time()
            for row, before in known.items():
                if before is not None and all(getattr(before.digest, p) == getattr(digests[row], p) for p in parts):
                    report.unchanged += 1
                elif not vectors_alone and (fields[row][0].get("expires") or now + 1) <= now:
                    report.unchanged += 1
                    report.expired += 1
                elif before is not None and not vectors_alone and before.written > self.written:
                    report.unchanged += 1
                    report.older += 1
                    report.newer_source = report.newer_source or before.source
                else:
                    rows.append(row)
            if not rows:
                continue
            if self.vectors:
                made = self._tensors(self.vectors.vectors([encoded[row] for row in rows]))
            else:
                made = self._tensors(self._encode(self.model, batch, rows, queries))
            if self.next_model is not None:
                later = self._tensors(self._encode(self.next_model, batch, rows, queries), NEXT)
                made = (first | second for first, second in zip(made, later, strict=True))
            for row, tensors in zip(rows, made, strict=True):
                bits = sum(_bit(name) for name, cells in tensors.items() if cells is not None)
                digest = ItemDigest(digests[row].columns, digests[row].inputs, bits)
                yield Encoded(batch.ids[row], *fields[row], tensors, digest, known[row])

    def _since(self, batch: ItemBatch) -> list[int]:
        """The rows of a batch that `since` does not leave out."""
        if self.since is None:
            return list(range(len(batch)))
        column, seconds = self.since
        return [row for row, at in enumerate(batch.extra[column]) if not at or at >= seconds]

    def _encode(
        self, model: ExportedModel, batch: ItemBatch, rows: list[int], queries: Mapping[int, list[str]]
    ) -> ItemVectors:
        return by_length(
            model,
            [batch.titles[row] for row in rows],
            [batch.categories[row] for row in rows],
            self.images.features(batch, rows),
            [queries[row] for row in rows] if self.item_queries else None,
        )

    def _inputs(
        self, batch: ItemBatch, row: int, queries: list[str], encoded: list[ShardRow], goes_to: list[Any]
    ) -> int:
        """Stands for all that an item's vectors are made of, the fields that they go to, and its language."""
        if self.vectors:
            inputs = encoded[row].inputs
        else:
            version, image = self.model.manifest.model_version, self.images.identity(batch, row)
            inputs = inputs_hash(batch.titles[row], batch.categories[row], version, queries, image)
        later = self.next_model.manifest.model_version if self.next_model else ""
        return number(orjson.dumps([inputs, goes_to, later]))

    def _fields(self, batch: ItemBatch, row: int) -> tuple[dict[str, Any], dict[str, Any]]:
        """The document's fields but its tensors: its columns, and what its vectors are made of and by."""
        file, at = self.items.path, batch.first_row + row
        columns = {name: self.doctype.value(name, batch.extra[name][row], file, at) for name in self.columns}
        inputs: dict[str, Any] = {"title": batch.titles[row], "model_version": self.model.manifest.model_version}
        if self.next_model is not None:
            inputs["model_version" + NEXT] = self.next_model.manifest.model_version
        if "category" in self.doctype.fields:
            inputs["category"] = self.doctype.value("category", batch.categories[row] or None, file, at)
        if LANGUAGE in self.doctype.fields:  # with each title: Vespa guesses it of an update without
            inputs[LANGUAGE] = columns.pop(LANGUAGE, None) or self.language or self.doctype.language
        return columns, inputs

    @property
    def vector_fields(self) -> list[str]:
        """The vector fields that the document type has."""
        return [name for name in MODEL_FIELDS[:-1] if name in self.doctype.fields]

    def _tensors(self, vectors: ItemVectors, suffix: str = "") -> Iterator[dict[str, Any]]:
        columns = {name: getattr(vectors, name.removesuffix(INT8)) for name in self.vector_fields}
        cells = {
            name: int8_hex(matrix) if name.endswith(INT8) else bfloat16_hex(matrix) for name, matrix in columns.items()
        }
        present = {name: ~np.isnan(matrix[:, 0]) for name, matrix in columns.items()}
        for row in range(len(vectors.embedding)):
            yield {name + suffix: {"values": cells[name][row]} if present[name][row] else None for name in columns}


def check_language(doctype: DocumentType, language: str | None) -> None:
    """Raises InputError for a language that is none, or that the schema has no field for."""
    if language is None:
        return
    try:
        language_tag(language)
    except ValueError as error:
        raise InputError(str(error), field="--language", fix="Write it like sv or pt-BR") from None
    if LANGUAGE not in doctype.fields:
        fix = 'Add: field language type string { indexing: (input language || "en") | set_language }'
        raise InputError("the schema has no field language", file=doctype.file, field="--language", fix=fix)


def _assign(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields of a partial update; null clears one."""
    return {name: {"assign": value} for name, value in fields.items()}


def _bit(vector_field: str) -> int:
    """Its place among a digest's vectors."""
    plain = vector_field.removesuffix(NEXT)
    return 1 << MODEL_FIELDS.index(plain) + (len(MODEL_FIELDS) if plain != vector_field else 0)
