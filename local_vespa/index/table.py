"""All documents of one type in memory: rows, attribute columns and text indexes. Disposable; the truth is the store."""

from __future__ import annotations

import copy
from collections.abc import Iterable

import numpy as np

from ..documents.values import Fields
from ..package.schema import Field, Schema
from ..yql.languages import ENGLISH
from .attributes import Growing, MultiColumn, NumberColumn, StringColumn, TensorColumn
from .text_index import TextIndex
from .vector_index import VectorColumn

Column = NumberColumn | StringColumn | MultiColumn | TensorColumn | VectorColumn
DEAD_SHARE, DEAD_ROWS = 0.25, 10_000  # with more dead rows than both the table is worth rebuilding


class Table:
    """Rows of documents. An update appends a row and kills the old one; rows of one search never move under it because
    the engine's lock is held while it runs."""

    def __init__(self, schema: Schema, documents: Iterable[tuple[str, Fields]] = ()) -> None:
        self.schema = schema
        self.ids: list[str] = []
        self.rows: dict[str, int] = {}
        self._live = Growing(bool)
        self.columns: dict[str, Column] = {}
        self.texts: dict[str, TextIndex] = {}
        for field in schema.fields.values():
            if field.text:
                self.texts[field.name] = TextIndex(field.stemming, field.normalizing)
            if field.attribute:
                self.columns[field.name] = _column(field)
        for id, fields in documents:
            self.put(id, fields)

    def under(self, schema: Schema) -> Table:
        """The same rows under a schema with the same fields; what is put into one is in both."""
        other = copy.copy(self)
        other.schema = schema
        return other

    @property
    def live(self) -> np.ndarray:
        """bool [rows]"""
        return self._live.view

    @property
    def count(self) -> int:
        """Live documents."""
        return len(self.rows)

    def put(self, id: str, fields: Fields) -> None:
        """Makes the newest row of a document."""
        self.remove(id)
        self.rows[id] = len(self.ids)
        self.ids.append(id)
        self._live.append(True)
        for name, column in self.columns.items():
            column.append(fields.get(name))
        for name, index in self.texts.items():
            field = self.schema.fields[name]
            rule, made = field.language, field.made_of
            kept = fields.get(name)
            if kept is None and made is not None:  # of a document from before the field was in the schema
                kept = made.text(fields)
            index.append(kept, rule.language(fields) if rule else ENGLISH)

    def remove(self, id: str) -> None:
        """Forgets a document, if it is there."""
        row = self.rows.pop(id, None)
        if row is not None:
            self._live.view[row] = False

    @property
    def wasteful(self) -> bool:
        """Whether rebuilding would free much."""
        dead = len(self.ids) - len(self.rows)
        return dead > DEAD_ROWS and dead > DEAD_SHARE * len(self.ids)

    def vectors(self) -> list[VectorColumn]:
        return [c for c in self.columns.values() if isinstance(c, VectorColumn)]


def _column(field: Field) -> Column:
    kind = field.type
    if kind.tensor is not None:
        flat = not kind.tensor.mapped and len(kind.tensor.indexed) == 1
        return VectorColumn(field) if flat else TensorColumn(kind.tensor)
    if kind.collection:
        return MultiColumn(field)
    return StringColumn(field) if kind.scalar == "string" else NumberColumn(field)
