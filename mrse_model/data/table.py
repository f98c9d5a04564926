"""One Parquet file, or several as one, read as a stream, with errors that name file, row and field.

A batch at a time and only the columns asked for: memory depends on the batch and not on the number of rows.
Rows count from 0 over the whole table; an error about a part of a folder names that part and its own row.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pyarrow.types as pt

from mrse_model.errors import InputError

# A column chunk is read through a buffer of this size, not as a whole: a gigabyte of images stays on disk.
READ_BUFFER = 1 << 20
# Seconds since 1970 stay below this until the year 5138; milliseconds of any day since 1973 lie above it.
LARGEST_SECOND = 100_000_000_000


def is_text(kind: pa.DataType) -> bool:
    """Whether a column of this type holds strings (plain, large, view, or dictionary-encoded)."""
    if pt.is_dictionary(kind):
        kind = kind.value_type
    return pt.is_string(kind) or pt.is_large_string(kind) or pt.is_string_view(kind)


def is_text_list(kind: pa.DataType) -> bool:
    """Whether a column of this type holds lists of strings."""
    return _is_list(kind) and (is_text(kind.value_type) or pt.is_null(kind.value_type))


def is_bytes(kind: pa.DataType) -> bool:
    """Whether a column of this type holds bytes."""
    return pt.is_binary(kind) or pt.is_large_binary(kind) or pt.is_fixed_size_binary(kind) or pt.is_binary_view(kind)


def is_time(kind: pa.DataType) -> bool:
    """Whether a column of this type holds points in time: a timestamp, or whole seconds since 1970."""
    return pt.is_timestamp(kind) or pt.is_integer(kind)


def is_integer_list(kind: pa.DataType) -> bool:
    """Whether a column of this type holds lists of integers."""
    return _is_list(kind) and pt.is_integer(kind.value_type)


def _is_list(kind: pa.DataType) -> bool:
    return pt.is_list(kind) or pt.is_large_list(kind) or pt.is_fixed_size_list(kind) or pt.is_list_view(kind)


def _holds_nothing(kind: pa.DataType) -> bool:
    """Whether a column was written without a type: it has nulls alone, or lists without members."""
    return pt.is_null(kind.value_type if _is_list(kind) else kind)


def _fits(kind: pa.DataType, wanted: pa.DataType) -> bool:
    """Whether a part may have a column of this type where another part has the type wanted: they read alike."""
    if _holds_nothing(kind):
        return pt.is_null(kind) or _is_list(wanted)
    return kind == wanted or (is_text(kind) and is_text(wanted)) or (is_text_list(kind) and is_text_list(wanted))


# "string id" and "list<string> ids": of items and users; integers are taken as text
TYPE_TESTS = {
    "string": is_text,
    "string id": lambda kind: is_text(kind) or pt.is_integer(kind),
    "list<string> ids": lambda kind: is_text_list(kind) or is_integer_list(kind),
    "number": pt.is_floating,
    "list<string>": is_text_list,
    "binary": is_bytes,
    "timestamp or integer seconds": is_time,
    "integer": pt.is_integer,
    "struct": pt.is_struct,
}
WORDS = {"string id": "string or integer", "list<string> ids": "list<string> or list<integer>"}  # in messages


class Table:
    """A Parquet file that exists and can be opened, a folder of part files (as Spark, Hive or datasets write it), or
    several files. Raises InputError otherwise, also where the parts have different columns.

    path: of the file or folder; of several files, the first. parts: the files, in the order of their names. written:
    when the last of them was, nanoseconds since 1970. made_by: the command that makes such a file, for messages.
    """

    def __init__(self, path: str | Path | Sequence[str | Path], *, made_by: str = "") -> None:
        paths = [Path(path)] if isinstance(path, str | Path) else [Path(one) for one in path]
        if not paths:
            raise InputError("no file is given", fix="Give the path of a Parquet file, or of a folder of them")
        self.path, self._made_by = paths[0], made_by
        self.parts: list[Path] = [part for one in paths for part in self._parts_of(one)]
        self.written = 0
        self.notices: list[str] = []  # what is taken as something else
        self._integer_ids: set[str] = set()  # columns of integers that were required as ids: their values are text
        self._starts: list[int] = []  # the first row of each part
        self.rows = 0
        schemas: list[pa.Schema] = []
        for part in self.parts:
            try:
                with pq.ParquetFile(part) as file:
                    schemas.append(file.schema_arrow)
                    self._starts.append(self.rows)
                    self.rows += file.metadata.num_rows
                self.written = max(self.written, part.stat().st_mtime_ns)
            except (pa.ArrowException, OSError) as error:
                problem = f"it is not a readable Parquet file ({_first_line(error)})"
                raise InputError(problem, file=part, fix="Write it as Parquet") from error
        self.schema = schemas[0]
        for part, schema in zip(self.parts, schemas, strict=True):
            for name in sorted({*schema.names} ^ {*self.schema.names}):
                where = self.parts[0] if name in schema.names else part
                raise InputError("the column is missing here, and other parts have it", file=where, field=name,
                                 fix="Give all parts the same columns")  # fmt: skip
        if len(schemas) > 1:
            self.schema = self._common_schema(schemas)

    def _parts_of(self, path: Path) -> list[Path]:
        if not path.exists():
            raise InputError("the file does not exist", file=path, fix="Give the path of a Parquet file")
        if not path.is_dir():
            return [path]
        found = [
            part
            for part in sorted(path.rglob("*"))
            if part.suffix in (".parquet", ".pq")
            and part.is_file()
            and not any(name.startswith((".", "_")) for name in part.relative_to(path).parts)
        ]
        if not found:
            raise InputError("the folder has no Parquet file", file=path, fix="Give a file, or a folder of part files")
        return found

    def _common_schema(self, schemas: Sequence[pa.Schema]) -> pa.Schema:
        """The type of each column over all parts: one that holds nothing in some parts takes the others' type."""
        fields = []
        for name in self.schema.names:
            kinds = [schema.field(name).type for schema in schemas]
            wanted = next((kind for kind in kinds if not _holds_nothing(kind)), kinds[0])
            for part, kind in zip(self.parts, kinds, strict=True):
                if not _fits(kind, wanted):
                    raise InputError(f"the column is {kind} here and {wanted} in another part", file=part, field=name,
                                     fix="Give all parts the same types")  # fmt: skip
            fields.append(pa.field(name, wanted))
        return pa.schema(fields, schemas[0].metadata)

    def error(
        self, problem: str, *, row: int | None = None, field: str | None = None, fix: str | None = None
    ) -> InputError:
        """An InputError about this file; about a row, about the part that it is in."""
        file = self.path
        if row is not None and len(self.parts) > 1:
            part = bisect_right(self._starts, row) - 1
            file, row = self.parts[part], row - self._starts[part]
        return InputError(problem, file=file, row=row, field=field, fix=fix)

    def require(self, column: str, *types: str, optional: bool = False, other: str = "") -> str | None:
        """The one of `types` (keys of TYPE_TESTS) that the column has; None for an optional column that is absent.

        A column of nothing but nulls that was written without a type (as pandas does) counts as absent if it is
        optional; else it has the first of `types`, and who reads it says which row may not be null.
        other: the option that names another column.
        """
        expected = " or ".join(WORDS.get(name, name) for name in types)
        indices = self.schema.get_all_field_indices(column)
        if not indices:
            if optional:
                return None
            names = ", ".join(self.schema.names) or "none"
            fix = f"Add it as {expected}" + (f", or name another by {other}" if other else "") + self._or_make_it()
            raise self.error(f"the column is missing; it has: {names}", field=column, fix=fix)
        if len(indices) > 1:
            raise self.error(f"the column occurs {len(indices)} times", field=column, fix="Keep one of them")
        kind = self.schema.field(indices[0]).type
        if pt.is_null(kind):
            return None if optional else types[0]
        for name in types:
            if TYPE_TESTS[name](kind):
                if name in ("string id", "list<string> ids") and (pt.is_integer(kind) or is_integer_list(kind)):
                    self.notices.append(f"{self.path}: {column} holds integers, which are taken as text")
                    self._integer_ids.add(column)
                return name
        fix = f"Write it as {expected}{self._or_make_it()}"
        if pt.is_floating(kind.value_type if _is_list(kind) else kind) and "integer" in expected:
            fix += '; pandas makes floats of integers beside nulls, astype("Int64") makes them integers again'
        raise self.error(f"the column is {kind}, not {expected}", field=column, fix=fix)

    def check_output(self, path: str | Path) -> None:
        """Raises InputError where a file that is to be written is what is read here, or a folder."""
        if Path(path).resolve() in {one.resolve() for one in (self.path, *self.parts)}:
            raise InputError("it is the file that is read, and would be lost", file=path, fix="Write to another path")
        if Path(path).is_dir():
            raise InputError("it is a folder", file=path, fix="Give the path of the file to write")

    def _or_make_it(self) -> str:
        return f", or make the file with {self._made_by} (docs/your-data.md)" if self._made_by else ""

    def remember(self, ids: Sequence[str], first_seen: dict[str, int], first_row: int) -> None:
        """Adds the rows of these ids, the first of them `first_row`, to `first_seen`; raises InputError where an id is
        there already.
        """
        for row, item_id in enumerate(ids, start=first_row):
            before = first_seen.setdefault(item_id, row)
            if before != row:
                problem = f"{item_id!r} is also the id of row {before}"
                raise self.error(problem, row=row, field="item_id", fix="Keep one of them")

    def batches(self, columns: Sequence[str], size: int, start: int = 0) -> Iterator[tuple[int, pa.RecordBatch]]:
        """Yields (row number of the first row, record batch of at most `size` rows), from row `start` on."""
        if size < 1:
            raise ValueError(f"a batch has at least one row, not {size}")
        for part, first in zip(self.parts, self._starts, strict=True):
            for row, batch in self._batches_of(part, columns, size, max(start - first, 0)):
                yield first + row, batch

    def _batches_of(
        self, part: Path, columns: Sequence[str], size: int, start: int
    ) -> Iterator[tuple[int, pa.RecordBatch]]:
        """The batches of one file, whose rows count from 0."""
        try:
            with pq.ParquetFile(part, buffer_size=READ_BUFFER, pre_buffer=False) as file:
                groups, row = list(range(file.num_row_groups)), 0
                while groups and row + file.metadata.row_group(groups[0]).num_rows <= start:
                    row += file.metadata.row_group(groups.pop(0)).num_rows
                if not groups:
                    return
                # a thread for each column is slower at these sizes, and keeps 30 MB
                for batch in file.iter_batches(size, row_groups=groups, columns=list(columns), use_threads=False):
                    skip = min(max(start - row, 0), batch.num_rows)
                    if skip < batch.num_rows:
                        yield row + skip, batch.slice(skip)
                    row += batch.num_rows
        except (pa.ArrowException, OSError) as error:
            raise InputError(
                f"reading it failed ({_first_line(error)})", file=part, fix="Write the file again"
            ) from error

    def values(self, batch: pa.RecordBatch, column: str, first_row: int) -> list[Any]:
        """A column of a batch as Python values; points in time, also in lists, as whole seconds since 1970. Integers in
        a column that was required as one of ids are text.
        """
        try:
            values = _python_values(batch.column(column))
            return [_id_text(value) for value in values] if column in self._integer_ids else values
        except UnicodeDecodeError as error:
            for i, value in enumerate(batch.column(column)):
                try:
                    value.as_py()
                except UnicodeDecodeError:
                    raise self.error(
                        "it is not UTF-8", row=first_row + i, field=column, fix="Encode it as UTF-8"
                    ) from error
            raise

    def texts(self, batch: pa.RecordBatch, column: str, first_row: int, *, null: str | None = None) -> list[str]:
        """A text column of a batch; a null becomes `null`, or is an error where that is None."""
        values = self.values(batch, column, first_row)
        if batch.column(column).null_count:
            if null is None:
                raise self.error(
                    "it is null", row=first_row + values.index(None), field=column, fix="Every row needs one"
                )
            values = [null if value is None else value for value in values]
        return values

    def text_lists(self, batch: pa.RecordBatch, column: str, first_row: int) -> list[list[str]]:
        """A column of lists of strings, or of ids; a null list is an empty one and null members are left out."""
        lists = self.values(batch, column, first_row)
        return [[v for v in value if v is not None] if value else [] for value in lists]

    def seconds(self, batch: pa.RecordBatch, column: str, first_row: int) -> np.ndarray:
        """A column of points in time as int64 seconds since 1970, rounded down; no time zone means UTC.

        Takes timestamps, whole seconds, and (where `require` let it pass) ISO 8601 text.
        """
        array = batch.column(column)
        if array.null_count:
            row = first_row + int(np.flatnonzero(array.is_null().to_numpy(zero_copy_only=False))[0])
            raise self.error("it is null", row=row, field=column, fix="Every row needs a time")
        if is_text(array.type):
            texts = enumerate(self.texts(batch, column, first_row), start=first_row)
            return np.array([self._iso_seconds(text, column, row) for row, text in texts], dtype=np.int64)
        if pt.is_timestamp(array.type):
            ticks = pc.cast(array, pa.int64()).to_numpy(zero_copy_only=False)
            return np.floor_divide(ticks, {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[array.type.unit])
        try:
            seconds = pc.cast(array, pa.int64()).to_numpy(zero_copy_only=False)
            bad = np.flatnonzero(np.abs(seconds) >= LARGEST_SECOND)
        except pa.ArrowInvalid:  # uint64 beyond int64
            seconds = array.to_numpy(zero_copy_only=False)
            bad = np.flatnonzero(seconds >= LARGEST_SECOND)
        if bad.size:
            raise self.error(
                f"{seconds[bad[0]]} is not in seconds since 1970",
                row=first_row + int(bad[0]),
                field=column,
                fix="Divide milliseconds by 1000, or write the column as a timestamp",
            )
        return seconds

    def _iso_seconds(self, text: str, column: str, row: int) -> int:
        try:
            moment = datetime.fromisoformat(text)
        except ValueError as error:
            fix = "Write it like 2026-03-01T12:00:00Z"
            raise self.error(f"{text!r} is not a time", row=row, field=column, fix=fix) from error
        return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() // 1)


class RenamedTable(Table):
    """A table whose columns have other names. columns: our name → the file's. known: our names, all that are read."""

    def __init__(
        self, path: str | Path | Sequence[str | Path], columns: Mapping[str, str], known: Sequence[str]
    ) -> None:
        super().__init__(path)
        for ours, theirs in columns.items():
            if ours not in known:
                fix = f"Name one of: {', '.join(known)}"
                raise InputError(f"no column {ours!r} is read, so none stands for it", field="--column", fix=fix)
            if theirs not in self.schema.names:
                fix = "It has: " + ", ".join(self.schema.names)
                raise self.error("the column is missing", field=theirs, fix=fix)
            if ours in self.schema.names and ours != theirs:
                self.schema = self.schema.remove(self.schema.get_field_index(ours))
        self._theirs = dict(columns)
        ours_of = {theirs: ours for ours, theirs in columns.items()}
        self.schema = pa.schema([field.with_name(ours_of.get(field.name, field.name)) for field in self.schema])

    def require(self, column: str, *types: str, optional: bool = False, other: str = "--column") -> str | None:
        return super().require(column, *types, optional=optional, other=other)

    def batches(self, columns: Sequence[str], size: int, start: int = 0) -> Iterator[tuple[int, pa.RecordBatch]]:
        theirs = [self._theirs.get(name, name) for name in columns]
        for row, batch in super().batches(theirs, size, start):
            yield row, batch.select(theirs).rename_columns(list(columns))


def _id_text(value: int | list[int | None] | None) -> str | list[str | None] | None:
    """An id, or the ids of a list, as text; a null stays."""
    if isinstance(value, list):
        return [None if one is None else str(one) for one in value]
    return None if value is None else str(value)


def _python_values(array: pa.Array) -> list[Any]:
    """`to_pylist`, but with seconds since 1970 (UTC, rounded down) for timestamps and dates: Python's own types end at
    the year 9999, and want to know the zone by its name.
    """
    kind = array.type
    if pt.is_dictionary(kind):
        array, kind = array.dictionary_decode(), kind.value_type
    time = kind.value_type if _is_list(kind) else kind
    if pt.is_timestamp(time):
        ticks, per_second = pa.int64(), {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[time.unit]
    elif pt.is_date64(time):
        ticks, per_second = pa.int64(), 10**3
    elif pt.is_date32(time):
        ticks, per_second = pa.int32(), None
    else:
        return array.to_pylist()

    def seconds(tick: int | None) -> int | None:
        return None if tick is None else tick * 86_400 if per_second is None else tick // per_second

    if _is_list(kind):
        lists = array.cast(pa.large_list(ticks)).to_pylist()
        return [None if members is None else [seconds(tick) for tick in members] for members in lists]
    return [seconds(tick) for tick in array.cast(ticks).to_pylist()]


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
