"""Partial updates from Parquet: price, stock and the like, without touching texts or vectors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from feeders.items import check_language
from feeders.operations import Operation
from feeders.report import Report
from mrse_model.data.table import Table
from mrse_model.errors import InputError, raise_all
from vespa_package.checks.items import READ_BY_NAME, bad_values, first_ones
from vespa_package.fields import LANGUAGE, MODEL_FIELDS, DocumentType

BATCH = 4096


@dataclass(frozen=True)
class UpdateSource:
    """A checked Parquet file of `item_id` and the columns to assign. A null leaves the field as it is. language: sent
    with texts whose row has none; None where the file assigns no text.
    """

    table: Table
    doctype: DocumentType
    columns: tuple[str, ...]
    language: str | None = None

    @classmethod
    def open(cls, path: Path | Sequence[Path], doctype: DocumentType, *, language: str | None = None) -> UpdateSource:
        """Checks the whole file: ids, column types and values against the `.sd`. Raises InputError.

        language: of the texts, where the file has no column `language`; None for the schema's. It goes with each text:
        of an update's text without it Vespa guesses the language.
        """
        check_language(doctype, language)
        table = Table(path)
        table.require("item_id", "string id")
        columns = [name for name in table.schema.names if name != "item_id"]
        if not columns:
            raise InputError("there is no column besides item_id", file=table.path, fix="Add the columns to update")
        for column in columns:
            if column in (*READ_BY_NAME, *MODEL_FIELDS):
                fix = "It changes the vectors: run mrse feed items on the items file"
                raise InputError("the column cannot be updated alone", file=table.path, field=column, fix=fix)
            if column not in doctype.fields:
                raise InputError(
                    f"{doctype.file.name} has no such field", file=table.path, field=column, fix="Leave it out"
                )
            doctype.check_column(column, table.schema.field(column).type, table.path)
        raise_all(first_ones(bad_values(table, doctype, columns), table.path))
        assigns_text = LANGUAGE in doctype.fields and not set(columns).isdisjoint(doctype.texts)
        return cls(table, doctype, tuple(columns), (language or doctype.language) if assigns_text else None)

    def operations(self, report: Report) -> Iterator[Operation]:
        """One update an item that has a value; an update of an item that is not in the index does nothing, as in
        Vespa. Rows without a value are counted as unchanged.
        """
        for first, batch in self.table.batches(["item_id", *self.columns], BATCH):
            ids = self.table.texts(batch, "item_id", first)
            values = {column: self.table.values(batch, column, first) for column in self.columns}
            for row, item_id in enumerate(ids):
                fields = {
                    column: {"assign": value}
                    for column in self.columns
                    if (value := self.doctype.value(column, values[column][row], self.table.path, first + row))
                    is not None
                }
                if self.language and not fields.keys().isdisjoint(self.doctype.texts):
                    fields.setdefault(LANGUAGE, {"assign": self.language})
                if fields:
                    yield Operation("update", self.doctype.name, item_id, fields)
                else:
                    report.unchanged += 1
