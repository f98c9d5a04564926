"""The columns and values of items.parquet against the fields of item.sd: what `mrse validate --items` and `mrse feed`
both ask, so that the one accepts a file if and only if the other does. Images are the feeder's own check.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Literal

import pyarrow as pa

from mrse_model.data.contract import ItemsFile
from mrse_model.data.ids import Ids
from mrse_model.data.images import decode_image
from mrse_model.data.table import Table
from mrse_model.errors import InputError
from vespa_package.fields import LANGUAGE, MODEL_FIELDS, DocumentType, field_for, legal_text

BATCH = 4096
IMAGES = 64  # rows whose images are read at a time
MAX_SHOWN = 20  # bad values that are named; all are counted
DOTS = {".", ".."}  # ids that no URL's path can name
READ_BY_NAME = ("item_id", "title", "category", "image", "image_path")  # columns with a meaning of their own


def check_items(
    items: Path | Sequence[Path],
    item: DocumentType,
    title: str = "title",
    columns: Sequence[str] | None = None,
    *,
    ids: Ids | None = None,
    images: Literal["skip", "find", "decode"] = "skip",
) -> Iterator[InputError]:
    """Every problem of a file: columns that are missing, of the wrong type, or without a field by a slip of the pen;
    then its bad values, the first twenty and their number.

    title: the column to be read as the title. columns: which further columns are fed; None for all that have a field.
    ids: is given the ids of the file. images: whether files that are named must exist, or all images be decoded. The
    file is read once, and memory does not grow with it.
    """
    try:
        file = ItemsFile(items, title=title)
    except InputError as error:
        yield error
        return
    wrong = list(check_columns(file, item, columns))
    yield from wrong
    bad = {error.field for error in wrong}
    chosen = [name for name in fed_columns(file, item, columns) if name not in bad]
    texts = [name for name in (file.title, "category") if name and name in file.table.schema.names]
    values = bad_values(file.table, item, chosen, ["item_id", title], texts, ids, file if images != "skip" else None,
                        decode=images == "decode")  # fmt: skip
    yield from first_ones(values, file.path)


def first_ones(errors: Iterable[InputError], file: Path) -> Iterator[InputError]:
    """The first twenty of the bad values of a file, and how many there are."""
    count = 0
    for error in errors:
        count += 1
        if count <= MAX_SHOWN:
            yield error
    if count > MAX_SHOWN:
        problem = f"{count:,} bad values in all; the first {MAX_SHOWN} are named"
        yield InputError(problem, file=file, fix="Correct the file and run the command again")


def fed_columns(file: ItemsFile, item: DocumentType, columns: Sequence[str] | None = None) -> list[str]:
    """The further columns of a file that are fed, in the file's order (or in that of `columns`)."""
    asked = file.extra_columns if columns is None else [*columns]
    if LANGUAGE in file.extra_columns and LANGUAGE not in asked:  # it belongs to the title, which is always fed
        asked.append(LANGUAGE)
    return [name for name in asked if name in item.fields and name not in (*READ_BY_NAME, *MODEL_FIELDS)]


def columns_not_fed(file: ItemsFile, item: DocumentType, columns: Sequence[str] | None = None) -> list[str]:
    """The further columns of a file that are not fed: no field waits for them, or `columns` does not name them."""
    fed = fed_columns(file, item, columns)
    return [name for name in file.extra_columns if name not in fed]


def check_columns(file: ItemsFile, item: DocumentType, columns: Sequence[str] | None = None) -> Iterator[InputError]:
    """Every further column of a file that cannot be fed as it is."""
    schema = file.table.schema
    for name in columns or ():
        if name not in schema.names:
            fix = f"Take some of: {', '.join(file.extra_columns) or 'it has none'}"
            yield InputError("the column is missing", file=file.path, field=name, fix=fix)
        elif name not in item.fields:
            yield InputError(
                f"{item.file.name} has no such field", file=file.path, field=name, fix="Leave it out of --columns"
            )
    asked = file.extra_columns if columns is None else [*columns, LANGUAGE]
    for name in dict.fromkeys(name for name in asked if name in schema.names):
        if name in READ_BY_NAME:
            continue
        if name in MODEL_FIELDS:
            yield InputError(
                "the model fills this field", file=file.path, field=name, fix="Drop the column, or rename it"
            )
        elif name in item.fields:
            if len(schema.get_all_field_indices(name)) > 1:
                yield InputError("the column occurs twice", file=file.path, field=name, fix="Keep one of them")
                continue
            try:
                item.check_column(name, schema.field(name).type, file.path)
            except InputError as error:
                yield error
        elif columns is None:
            near = get_close_matches(name, item.fields.keys() - set(schema.names), n=1, cutoff=0.8)
            if near:
                kind = field_for(schema.field(name).type) or "of another type"
                yield InputError(
                    f"no field of that name in {item.file.name}, so it would not be fed",
                    file=file.path,
                    field=name,
                    fix=f"Rename the column {near[0]}, or add to {item.file}: field {name} type {kind}, or leave it "
                    "out with --columns",
                )


def bad_values(
    table: Table,
    item: DocumentType,
    columns: Sequence[str],
    required: Sequence[str] = ("item_id",),
    texts: Sequence[str] = (),
    ids: Ids | None = None,
    images: ItemsFile | None = None,
    decode: bool = False,
) -> Iterator[InputError]:
    """Each value that its field cannot hold, in the order of rows.

    columns: held against the fields of their names. required: columns of text that may not be null or blank. texts:
    further columns of text. ids: is given the ids; one that occurs twice is a bad value too. images: the file, where
    its images must be found, or decoded.
    """
    ids = Ids() if ids is None else ids
    names = list(dict.fromkeys([*required, *texts, *columns]))
    image = images.image_column if images else None
    if image == "image_path" and image not in names and not decode:
        names.append(image)
    read = [*names, image] if image and decode and image not in names else names
    for first, batch in table.batches(read, IMAGES if decode and image else BATCH):
        found: list[InputError] = []
        good: list[tuple[int, str]] = []
        for name in names:
            try:
                values = table.values(batch, name, first)
            except InputError as error:  # text that is not UTF-8: no more of this column can be read here
                found.append(error)
                continue
            for row, value in enumerate(values, start=first):
                try:
                    if name in required and (value is None or not value or value.isspace()):
                        raise ValueError("it is null" if value is None else "it is empty")
                    if name not in columns:
                        for text in value if isinstance(value, list) else [value]:
                            legal_text(text or "")
                    else:
                        item.json(name, value)
                    if name == "item_id":
                        if value in DOTS:
                            raise ValueError(f"no request can name the id {value!r}")
                        good.append((row, value))
                except ValueError as error:
                    found.append(table.error(str(error), row=row, field=name))
        for row, value, before in ids.add(good):
            found.append(table.error(f"{value!r} is also the id of row {before}", row=row, field="item_id"))
        if images and image:
            found += _bad_images(images, image, batch, first, decode)
        yield from sorted(found, key=lambda error: error.row or 0)


def _bad_images(file: ItemsFile, column: str, batch: pa.RecordBatch, first: int, decode: bool) -> Iterator[InputError]:
    if column not in batch.schema.names:
        return
    for row, value in enumerate(file.table.values(batch, column, first), start=first):
        try:
            if not decode:
                file.find_image(value, row)
            elif (data := file.read_image(value, row)) is not None:
                decode_image(data)
        except InputError as error:
            yield file.table.error(error.problem, row=row, field=column, fix=error.fix)
