"""The columns of items.parquet against the fields of item.sd, from the file's footer alone."""

from __future__ import annotations

from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from mrse_model.errors import InputError
from vespa_package.schema import Schema

IMAGE = {"image", "image_path"}
MADE = {
    "embedding", "image_embedding", "text_feature", "embedding_int8", "image_embedding_int8", "model_version",
}  # fmt: skip


def check_items(items: Path, item: Schema, title: str = "title") -> Iterator[InputError]:
    """Required columns are there (`title`: the one to be read as the title), and a column that has a field, or misses
    one by a slip of the pen, fits it.
    """
    if not items.is_file():
        yield InputError("the file is missing", file=items, fix="Name an items.parquet, or run: mrse sample")
        return
    try:
        columns = {field.name: field.type for field in pq.read_schema(items)}
    except pa.ArrowInvalid as error:
        yield InputError(f"not a Parquet file: {error}", file=items, fix="Write it with pyarrow, pandas or DuckDB")
        return
    for name, fix in (("item_id", ""), (title, "; --title names another column")):
        if name not in columns:
            yield InputError("the column is missing", file=items, field=name, fix=f"Every item needs it: string{fix}")
    for name, kind in columns.items():
        if name in IMAGE or (name == title and name not in item.fields):
            continue
        field = item.fields.get(name)
        if field is None:
            near = get_close_matches(name, item.fields, n=1, cutoff=0.8)
            if near:
                yield InputError(
                    f"no field of that name in {item.file.name}, so it would not be fed",
                    file=items,
                    field=name,
                    fix=f"Rename the column {near[0]}, or add to {item.file}: field {name} type {_suggest(kind)}",
                )
        elif name in MADE:
            yield InputError("the model makes this field", file=items, field=name, fix="Drop the column, or rename it")
        elif not _fits(kind, field.type):
            yield InputError(
                f"{kind} does not fit {field.type} of {item.file.name}", file=items, field=name,
                fix=f"Cast the column, or change the field to {_suggest(kind)}",
            )  # fmt: skip


def columns_not_fed(items: Path, item: Schema) -> list[str]:
    """Columns of a readable file that no field waits for."""
    return [name for name in pq.read_schema(items).names if name not in IMAGE and name not in item.fields]


def _is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def _fits(kind: pa.DataType, field: str) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if field.startswith("array<"):
        inner = field.removeprefix("array<").removesuffix(">")
        return _fits(kind.value_type if _is_list(kind) else kind, inner)
    if field == "string":
        return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))
    if field in ("float", "double"):
        return bool(pa.types.is_floating(kind) or pa.types.is_integer(kind))
    if field in ("int", "long", "byte"):
        return bool(pa.types.is_integer(kind))
    if field == "bool":
        return bool(pa.types.is_boolean(kind))
    return field.startswith("tensor<") and _is_list(kind)


def _suggest(kind: pa.DataType) -> str:
    if _is_list(kind):
        return f"array<{_suggest(kind.value_type)}>"
    for field in ("string", "bool", "long", "double"):
        if _fits(kind, field):
            return field
    return "string"
