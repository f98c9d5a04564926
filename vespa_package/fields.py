"""Which Parquet column fits which Vespa field, and its values as JSON: `mrse validate` and `mrse feed` ask here.

| field | column | JSON |
| --- | --- | --- |
| `string` | string, also dictionary-encoded | the text |
| `bool` | bool | true, false |
| `byte`, `int`, `long` | any integers, in the field's range | the number |
| `long` | timestamp, date | whole seconds since 1970 UTC, rounded down |
| `float`, `double` | integers, floats, decimals; finite, in the field's range | the number |
| `array<T>` | a list of what fits T | a list, without null members |
| `tensor<T>(x[n])` | a list of n numbers | {"values": […]} |

A null, and a NaN in a number, is an absent field. A column of nothing but nulls fits every field.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.types as pt

from mrse_model.data.table import is_text
from mrse_model.errors import InputError
from vespa_package.schema import Schema, read_schema

VECTOR_FIELDS = ("embedding", "image_embedding", "text_feature")
INT8 = "_int8"  # embedding_int8, image_embedding_int8: the same vectors as whole numbers, where the schema has them
MODEL_FIELDS = (*VECTOR_FIELDS, *(name + INT8 for name in VECTOR_FIELDS[:2]), "model_version")  # what a model makes
INTEGER_BITS = {"byte": 8, "int": 32, "long": 64}
MAX_FLOAT = (2 - 2**-23) * 2.0**127  # what a float32 holds; a bfloat16 holds a little less
MAX_CELL = {"float": MAX_FLOAT, "bfloat16": (2 - 2**-7) * 2.0**127, "double": math.inf}
# What Vespa's Text.isTextCharacter (vespajlib) refuses: control characters, surrogates, U+FDD0-FDDF and the last two
# characters of the planes 1-16. It takes U+FFFE and U+FFFF.
ILLEGAL = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufdd0-\ufddf"
    + "".join(chr(plane + 0xFFFE) + chr(plane + 0xFFFF) for plane in range(0x10000, 0x110000, 0x10000))
    + "]"
)
TAKES = {
    "string": "string",
    "bool": "bool",
    "byte": "integers",
    "int": "integers",
    "long": "integers, a timestamp or a date",
    "float": "numbers",
    "double": "numbers",
}
LANGUAGE = "language"  # the field that says in which language an item's texts are
LANGUAGE_TAG = re.compile(r"[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*")
_ARRAY = re.compile(r"array<(\w+)>|(\w+)\[\]")
_VECTOR = re.compile(r"tensor(?:<(\w+)>)?\(\w+\[(\d+)\]\)")


def accepts(field: str, column: pa.DataType) -> bool:
    """Whether a Parquet column of this type can be fed to a field of this type (as written in the .sd)."""
    field = "".join(field.split())
    if pt.is_null(column):
        return True
    if pt.is_dictionary(column):
        return accepts(field, column.value_type)
    if (array := _ARRAY.fullmatch(field)) is not None:
        inner = array[1] or array[2]
        return inner in TAKES and _is_list(column) and accepts(inner, column.value_type)
    if _VECTOR.fullmatch(field):
        return _is_list(column) and accepts("double", column.value_type)
    if field == "string":
        return is_text(column)
    if field == "bool":
        return bool(pt.is_boolean(column))
    if field in INTEGER_BITS:
        return bool(pt.is_integer(column)) or (field == "long" and bool(pt.is_timestamp(column) or pt.is_date(column)))
    if field in ("float", "double"):
        return bool(pt.is_integer(column) or pt.is_floating(column) or pt.is_decimal(column))
    return False


def takes(field: str) -> str | None:
    """What columns a field of this type takes, in words; None for a type that no column can fill."""
    field = "".join(field.split())
    if (array := _ARRAY.fullmatch(field)) is not None:
        inner = TAKES.get(array[1] or array[2])
        return f"a list of {inner}" if inner else None
    if (vector := _VECTOR.fullmatch(field)) is not None:
        return f"a list of {vector[2]} numbers"
    return TAKES.get(field)


def field_for(column: pa.DataType) -> str | None:
    """The type of field that a column of this type fits best; None where none does."""
    if _is_list(column):
        inner = field_for(column.value_type)
        return f"array<{inner}>" if inner in TAKES else None
    return next((field for field in ("string", "bool", "long", "double") if accepts(field, column)), None)


def to_json(field: str, value: Any) -> Any:
    """A value of a column that fits, as `Table.values` reads it (times are seconds), as the document API takes it in a
    field of this type; None is an absent field.

    Raises ValueError for what the field cannot hold.
    """
    if value is None or value != value:
        return None
    if isinstance(value, str):
        return legal_text(value)
    if isinstance(value, list):
        if (vector := _VECTOR.fullmatch("".join(field.split()))) is not None:
            return {"values": _cells(vector[1] or "double", int(vector[2]), value)}
        inner = field.removeprefix("array<").removesuffix(">").removesuffix("[]")
        members = (to_json(inner, member) for member in value)
        return [member for member in members if member is not None]
    if isinstance(value, bool):
        return value
    if field in INTEGER_BITS:
        half = 1 << (INTEGER_BITS[field] - 1)
        if not -half <= value < half:
            raise ValueError(f"{value} is out of the range {-half} … {half - 1}")
        return int(value)
    return _finite(float(value), MAX_FLOAT if field == "float" else math.inf)


def language_tag(text: str) -> str:
    """The text, if it is the tag of a language. Raises ValueError."""
    if not LANGUAGE_TAG.fullmatch(text):
        raise ValueError(f"{text!r} is not a language tag like en or pt-BR")
    return text


def legal_text(text: str) -> str:
    """The text, if Vespa takes all its characters. Raises ValueError that names the one it refuses."""
    found = ILLEGAL.search(text)
    if found:
        raise ValueError(f"Vespa refuses the character U+{ord(found.group()):04X} at position {found.start()}")
    return text


def _is_list(kind: pa.DataType) -> bool:
    lists = (pt.is_list, pt.is_large_list, pt.is_fixed_size_list, pt.is_list_view, pt.is_large_list_view)
    return any(is_kind(kind) for is_kind in lists)


def _finite(number: float, largest: float) -> float:
    if math.isinf(number):
        raise ValueError("it is infinite")
    if abs(number) > largest:
        raise ValueError(f"{number:g} is out of range")
    return number


def _cells(cell: str, size: int, values: list[Any]) -> list[float]:
    """The cells of a vector: all there, finite, and whole numbers of a byte in a tensor<int8>."""
    if len(values) != size:
        raise ValueError(f"it has {len(values)} numbers, not {size}")
    cells = [math.nan if value is None else float(value) for value in values]
    for number in cells:
        if number != number:
            raise ValueError("a number of the vector is missing")
        if cell == "int8" and not (number.is_integer() and -128 <= number < 128):
            raise ValueError(f"{number:g} is not an integer of -128 … 127")
        _finite(number, MAX_CELL.get(cell, math.inf))
    return cells


@dataclass(frozen=True)
class DocumentType:
    """What a feeder knows of a schema. name: of the document type. fields: those that can be fed → type as written,
    without spaces. file: the .sd. texts: the fields whose words are indexed. language: that of an item's texts where
    the item does not say it.
    """

    name: str
    fields: dict[str, str]
    file: Path
    texts: tuple[str, ...] = ()
    language: str | None = None

    @classmethod
    def load(cls, app: str | Path, name: str = "item") -> DocumentType:
        """Reads `app`/schemas/`name`.sd. Raises InputError when it is missing or holds no document."""
        file = Path(app) / "schemas" / f"{name}.sd"
        if not file.is_file():
            fix = "Give the application package with --app, or run: mrse init, which writes one"
            raise InputError("no such schema", file=file, fix=fix)
        return cls.of(read_schema(file))

    @classmethod
    def of(cls, schema: Schema) -> DocumentType:
        """The fields of a schema that has been read."""
        fields = {f.name: f.type for f in schema.fields.values() if f.in_document}
        texts = tuple(f.name for f in schema.fields.values() if f.is_text and f.in_document)
        own = schema.fields.get(LANGUAGE)
        literal = re.search(r'\|\|\s*"([^"]*)"\s*\)?\s*\|\s*set_language', own.indexing) if own else None
        return cls(schema.name, fields, schema.file, texts, literal[1] if literal else None)

    def check_column(self, column: str, kind: pa.DataType, file: Path) -> None:
        """Raises InputError when a Parquet column of type `kind` cannot be fed to the field of its name."""
        field = self.fields[column]
        if accepts(field, kind):
            return
        words, better = takes(field), field_for(kind)
        fix = f"Write the column as {words}" if words else "Drop or rename the column: mrse feed fills no such field"
        if better:
            fix += f", or change the field to {better}"
        raise InputError(
            f"the column is {kind}, which does not fit {field} of {self.file.name}", file=file, field=column, fix=fix
        )

    def value(self, column: str, value: Any, file: Path, row: int) -> Any:
        """A Parquet value as the document API's JSON takes it; None is an absent field. Raises InputError."""
        try:
            return self.json(column, value)
        except ValueError as error:
            raise InputError(str(error), file=file, row=row, field=column) from None

    def json(self, column: str, value: Any) -> Any:
        """The same; raises ValueError."""
        field = self.fields[column]
        if column == LANGUAGE and value:
            language_tag(value)
        try:
            return to_json(field, value)
        except ValueError as error:
            raise ValueError(f"{error} ({self.file.name} has it as {field})") from None
