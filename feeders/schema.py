"""The fields of a document type, read from its `.sd`, and Parquet values turned into what they take.

Only what a feeder must know: name and type of each field inside `document`. The whole package is judged by `mrse
validate`.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.types as pt

from mrse_model.data.table import is_text, is_text_list
from mrse_model.errors import InputError

FIELD = re.compile(r"^\s*field\s+(\w+)\s+type\s+(tensor\s*<\w+>\s*\([^)]*\)|[\w<>, ]+?)\s*\{", re.MULTILINE)
INT_LIMITS = {"byte": 2**7, "int": 2**31, "long": 2**63}
# What Vespa's Text.validateTextString refuses: control characters, surrogates and non-characters.
ILLEGAL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufdd0-\ufddf\ufffe\uffff]")


@dataclass(frozen=True)
class DocumentType:
    """name: of the document type. fields: field name → type as written, without spaces."""

    name: str
    fields: dict[str, str]
    file: Path

    @classmethod
    def load(cls, app: str | Path, name: str = "item") -> DocumentType:
        """Reads `app`/schemas/`name`.sd. Raises InputError when it is missing or holds no document of that name."""
        file = Path(app) / "schemas" / f"{name}.sd"
        if not file.is_file():
            raise InputError("no such schema", file=file, fix="Give the application package with --app")
        text = re.sub(r"#.*", "", file.read_text("utf-8"))
        start = re.search(rf"\bdocument\s+{re.escape(name)}\b[^{{]*{{", text)
        if start is None:
            raise InputError(f"it declares no document {name!r}", file=file)
        body = text[start.end() : _closing_brace(text, start.end())]
        return cls(name, {field: re.sub(r"\s", "", kind) for field, kind in FIELD.findall(body)}, file)

    def check_column(self, column: str, kind: pa.DataType, file: Path) -> None:
        """Raises InputError when a Parquet column of type `kind` cannot be fed to the field of its name."""
        wanted = self.fields[column]
        if not _accepts(wanted, kind):
            raise InputError(
                f"the column is {kind}, and {self.file.name} has {column} as {wanted}",
                file=file,
                field=column,
                fix=f"Write the column as {wanted}, or leave it out with --columns",
            )

    def value(self, column: str, value: Any, file: Path, row: int) -> Any:
        """A Parquet value as the document API's JSON takes it; None is an absent field. Raises InputError."""
        kind = self.fields[column]
        try:
            return _value(kind, value)
        except ValueError as error:
            raise InputError(f"{error} ({self.file.name} has it as {kind})", file=file, row=row, field=column) from None


def _closing_brace(text: str, start: int) -> int:
    depth = 1
    for match in re.compile("[{}]").finditer(text, start):
        depth += 1 if match.group() == "{" else -1
        if depth == 0:
            return match.start()
    return len(text)


def _accepts(wanted: str, kind: pa.DataType) -> bool:
    if pt.is_null(kind):
        return True
    if wanted == "string":
        return is_text(kind)
    if wanted == "bool":
        return pt.is_boolean(kind)
    if wanted in INT_LIMITS:
        return pt.is_integer(kind) or (wanted == "long" and (pt.is_timestamp(kind) or pt.is_date(kind)))
    if wanted in ("float", "double"):
        return pt.is_integer(kind) or pt.is_floating(kind) or pt.is_decimal(kind)
    inner = re.fullmatch(r"array<(\w+)>", wanted)
    if inner and inner[1] == "string":
        return is_text_list(kind)
    if inner and (pt.is_list(kind) or pt.is_large_list(kind) or pt.is_fixed_size_list(kind)):
        return _accepts(inner[1], kind.value_type)
    return False


def _value(kind: str, value: Any) -> Any:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, str):
        return legal_text(value)
    if isinstance(value, list):
        inner = kind.removeprefix("array<").removesuffix(">")
        return [_value(inner, member) for member in value if member is not None]
    if isinstance(value, (datetime, date)):
        return _seconds(value)
    if kind in INT_LIMITS and not -INT_LIMITS[kind] <= value < INT_LIMITS[kind]:
        raise ValueError(f"{value} is out of range")
    if kind in ("float", "double") and not isinstance(value, bool):
        number = float(value)
        if math.isinf(number):
            raise ValueError("it is infinite")
        return number
    return value


def _seconds(value: datetime | date) -> int:
    moment = value if isinstance(value, datetime) else datetime(value.year, value.month, value.day)
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())


def legal_text(text: str) -> str:
    """The text, if Vespa takes all its characters. Raises ValueError that names the one it refuses."""
    found = ILLEGAL.search(text)
    if found:
        raise ValueError(f"Vespa refuses the character U+{ord(found.group()):04X} at position {found.start()}")
    return text
