"""The Parquet contract (docs/contracts.md): items, searches and judgments, checked while they stream.

Every reader raises InputError with file, row and field. Items and searches are read in batches; what is kept in
memory of a whole catalogue is its texts and ids (`Catalogue`), never an image.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.types as pt
from numpy.typing import NDArray

from mrse_model.data.images import decode_image
from mrse_model.data.table import Table
from mrse_model.errors import InputError

BATCH = 1024
POPULARITY = "popularity"  # the column, and the field of item.sd
MAX_POPULARITY = float(np.finfo(np.float32).max)  # of a field that is a float
CATEGORY_SEPARATOR = ">"  # of a category path in one string: "Men > Tops > Hoodies"


def required_texts(table: Table, batch: pa.RecordBatch, column: str, first_row: int, owner: str) -> list[str]:
    """A text column of a batch; raises InputError at the first that is null or blank. owner: whose each of them is."""
    values = table.texts(batch, column, first_row)
    for row, value in enumerate(values, start=first_row):
        if not value or value.isspace():
            raise table.error("it is empty", row=row, field=column, fix=f"Every {owner} needs one")
    return values


@dataclass(frozen=True)
class ItemBatch:
    """Consecutive items. All lists have one entry an item; row i of the batch is row `first_row + i` of the file."""

    first_row: int
    ids: list[str]
    titles: list[str]
    categories: list[list[str]]  # broad to narrow; [] where there is none
    images: list[bytes | None]  # encoded; all None unless images were asked for
    extra: dict[str, list[Any]]  # the other columns asked for, as Python values (None for null)

    def __len__(self) -> int:
        return len(self.ids)


class ItemsFile:
    """An `items` file whose columns have the right types, else InputError. Rows are checked as they are read.

    Args:
        path: the Parquet file, a folder of part files, or several files; `image_path` is taken relative to its folder.
        title: the column to take as the title (a catalogue may have several versions of it); None to read no titles.

    A `category` that is one string is split at ">" ("Men > Tops" is two levels). Null is the empty path; blank levels
    drop out.
    """

    def __init__(self, path: str | Path | Sequence[str | Path], *, title: str | None = "title") -> None:
        self.table = Table(path)
        self.path, self.rows, self.title = self.table.path, self.table.rows, title
        self.table.require("item_id", "string id")
        if title is not None:
            self.table.require(title, "string", other="--title")
        self._category = self.table.require("category", "list<string>", "string", optional=True)
        has_bytes = self.table.require("image", "binary", "struct", optional=True)
        if has_bytes == "struct":
            kind = self.table.schema.field("image").type
            if not {field.name for field in kind} & {"bytes", "path"}:
                fix = "Write bytes, or the struct {bytes, path} of datasets"
                raise self.table.error(f"the column is {kind}", field="image", fix=fix)
        has_path = self.table.require("image_path", "string", optional=True)
        self.image_column = "image" if has_bytes else "image_path" if has_path else None
        known = {"item_id", "title", title, "category", "image", "image_path"}
        self.extra_columns = [
            n for n in self.table.schema.names if n not in known and not n.startswith("__index_level_")
        ]
        if self.rows == 0:
            raise self.table.error("it has no rows", fix="Write at least one item")

    def check(self, *, images: bool = False, paths: bool = True) -> int:
        """Reads the file once; raises InputError at the first row that breaks the contract, else returns the rows.

        Memory is flat but for the ids. With `images` every image is decoded too, so that nothing is left to fail
        later; without it only the existence of `image_path` files is checked, and with paths False not even that.
        """
        first_seen: dict[str, int] = {}
        paths = paths and self.image_column == "image_path"
        for batch in self.batches(images=images, columns=["image_path"] if paths and not images else []):
            self.remember(batch, first_seen)
            for i, image in enumerate(batch.images):
                if image is not None:
                    row, field = batch.first_row + i, self.image_column or "image"
                    decode_image(image, file=self.path, row=row, field=field)
            for i, name in enumerate(batch.extra.get("image_path", [])):
                self.find_image(name, batch.first_row + i)
        return self.rows

    def remember(self, batch: ItemBatch, first_seen: dict[str, int]) -> None:
        """Adds the rows of the batch's ids to `first_seen`; raises InputError where an id is there already."""
        self.table.remember(batch.ids, first_seen, batch.first_row)

    def batches(
        self, size: int = BATCH, *, images: bool = False, columns: Sequence[str] | None = (), start: int = 0
    ) -> Iterator[ItemBatch]:
        """Yields the items in order, at most `size` at a time, from row `start` on.

        Args:
            images: read the images, of this batch only; without it the column is not touched.
            columns: further columns for `extra`; None for all of `extra_columns`.
        """
        extra = self.extra_columns if columns is None else list(columns)
        own = ["item_id"] if self.title is None else ["item_id", self.title]
        read = [*own, *(c for c in extra if c not in own)]
        if self._category and "category" not in read:
            read.append("category")
        if images and self.image_column and self.image_column not in read:
            read.append(self.image_column)
        for name in extra:
            if name not in self.table.schema.names:
                raise self.table.error("the column is missing", field=name, fix="Leave it out or add it")
        for first_row, batch in self.table.batches(read, size, start):
            yield ItemBatch(
                first_row=first_row,
                ids=required_texts(self.table, batch, "item_id", first_row, "item"),
                titles=self._titles(batch, first_row),
                categories=self._categories(batch, first_row),
                images=self._images(batch, first_row) if images else [None] * batch.num_rows,
                extra={name: self.table.values(batch, name, first_row) for name in extra},
            )

    def _titles(self, batch: pa.RecordBatch, first_row: int) -> list[str]:
        if self.title is None:
            return [""] * batch.num_rows
        return required_texts(self.table, batch, self.title, first_row, "item")

    def _categories(self, batch: pa.RecordBatch, first_row: int) -> list[list[str]]:
        if self._category is None:
            return [[] for _ in range(batch.num_rows)]
        if self._category == "string":
            texts = self.table.texts(batch, "category", first_row, null="")
            paths = [text.split(CATEGORY_SEPARATOR) for text in texts]
        else:
            paths = self.table.text_lists(batch, "category", first_row)
        return [[level.strip() for level in path if level.strip()] for path in paths]

    def _images(self, batch: pa.RecordBatch, first_row: int) -> list[bytes | None]:
        if self.image_column is None:
            return [None] * batch.num_rows
        values = self.table.values(batch, self.image_column, first_row)
        return [self.read_image(value, first_row + i) for i, value in enumerate(values)]

    @property
    def category_type(self) -> str | None:
        """`list<string>`, `string`, or None where there is no such column."""
        return self._category

    def read_image(self, value: bytes | str | dict[str, Any] | None, row: int) -> bytes | None:
        """The bytes of an image, None where there is none. value: of the image column, as Python has it: bytes, a
        path, or the struct {bytes, path} of Hugging Face's datasets. Raises InputError.
        """
        if isinstance(value, dict):
            value = value.get("bytes") or value.get("path")
        if not value or isinstance(value, bytes):
            return value or None
        try:
            return self._image_file(str(value)).read_bytes()
        except OSError as error:
            raise self._no_image(str(value), row) from error

    def find_image(self, value: bytes | str | dict[str, Any] | None, row: int) -> None:
        """Raises InputError where an image is named by a path at which there is no file."""
        if isinstance(value, dict):
            value = value.get("bytes") or value.get("path")
        if isinstance(value, str) and value and not self._image_file(value).is_file():
            raise self._no_image(value, row)

    def _image_file(self, name: str) -> Path:
        folder = self.path if self.path.is_dir() else self.path.parent
        return folder / name

    def _no_image(self, name: str, row: int) -> InputError:
        fix = "Paths are relative to the Parquet file; null is an item without an image"
        return self.table.error(f"there is no file {name!r}", row=row, field=self.image_column, fix=fix)


@dataclass(frozen=True)
class Catalogue:
    """The texts of all items; row i is row i of the file. `row` finds an item by its id."""

    path: Path
    ids: list[str]
    titles: list[str]
    categories: list[list[str]]
    row: dict[str, int]
    notices: tuple[str, ...] = ()  # what of the file was taken as something else

    def __len__(self) -> int:
        return len(self.ids)


def read_catalogue(path: str | Path, *, title: str = "title") -> Catalogue:
    """Reads and checks all items of a file, without their images."""
    items = ItemsFile(path, title=title)
    ids: list[str] = []
    titles: list[str] = []
    categories: list[list[str]] = []
    row: dict[str, int] = {}
    for batch in items.batches(8 * BATCH):
        items.remember(batch, row)
        ids += batch.ids
        titles += batch.titles
        categories += batch.categories
    return Catalogue(items.path, ids, titles, categories, row, tuple(items.table.notices))


def descriptions(path: str | Path) -> Iterator[str]:
    """Yields the description of every item of a file, in its order; "" where there is none."""
    table = Table(path)
    if not table.require("description", "string", optional=True):
        yield from repeat("", table.rows)
        return
    for first, batch in table.batches(["description"], 8 * BATCH):
        yield from table.texts(batch, "description", first, null="")


def own_popularity(path: str | Path) -> NDArray[np.float64] | None:
    """The column `popularity` of a catalogue, [N], NaN for an item that has none; None without such a column. Raises
    InputError where it is not of numbers.
    """
    items = ItemsFile(path, title=None)
    if POPULARITY not in items.table.schema.names:
        return None
    kind = items.table.schema.field(POPULARITY).type
    if not (pt.is_integer(kind) or pt.is_floating(kind) or pt.is_decimal(kind) or pt.is_null(kind)):
        fix = "Write any number that grows with sales, or rename the column"
        raise items.table.error(f"the column is {kind}, and a popularity is a number", field=POPULARITY, fix=fix)
    values: list[float] = []
    for batch in items.batches(8192, columns=[POPULARITY]):
        for row, value in enumerate(batch.extra[POPULARITY], start=batch.first_row):
            number = float("nan") if value is None else float(value)
            if abs(number) > MAX_POPULARITY:
                fix = f"Write a number below {MAX_POPULARITY:.2g}: Vespa holds it in 32 bits"
                raise items.table.error(f"{number:.6g} is out of range", row=row, field=POPULARITY, fix=fix)
            values.append(number)
    return np.array(values)


@dataclass(frozen=True)
class SearchBatch:
    """Consecutive searches. Row i of the batch is row `first_row + i` of the file."""

    first_row: int
    search_ids: list[str]  # never blank: events of one id are of one search
    user_ids: list[str]  # "" for an unknown user
    timestamps: np.ndarray  # int64 [n], seconds since 1970
    queries: list[str]  # as typed; may be blank
    shown: list[list[str]]  # item ids in the order shown
    clicked: list[list[str]]
    carted: list[list[str]]
    ordered: list[list[str]]

    def __len__(self) -> int:
        return len(self.search_ids)


class SearchesFile:
    """A `searches` file whose columns have the right types. Raises InputError otherwise.

    `timestamp` may be a timestamp of any unit (without a zone: UTC) or whole seconds since 1970. Item ids are not
    looked up here: a log names items that have left the catalogue, and whoever reads it counts them.
    """

    def __init__(self, path: str | Path) -> None:
        self.table = Table(path, made_by="mrse convert clicks, events or ubi")
        self.path, self.rows = self.table.path, self.table.rows
        for column in ("search_id", "user_id"):
            self.table.require(column, "string id")
        self.table.require("query", "string")
        self.table.require("timestamp", "timestamp or integer seconds")
        self._lists = ["shown", "clicked"]
        for column in self._lists:
            self.table.require(column, "list<string> ids")
        self._lists += [c for c in ("carted", "ordered") if self.table.require(c, "list<string> ids", optional=True)]

    def batches(self, size: int = 4 * BATCH, *, start: int = 0) -> Iterator[SearchBatch]:
        """Yields the searches in the file's order, at most `size` at a time, from row `start` on."""
        table = self.table
        columns = ["search_id", "user_id", "timestamp", "query", *self._lists]
        for first, batch in table.batches(columns, size, start):
            lists = {c: table.text_lists(batch, c, first) for c in self._lists}
            none: list[list[str]] = [[] for _ in range(batch.num_rows)]
            yield SearchBatch(
                first_row=first,
                search_ids=required_texts(table, batch, "search_id", first, "search"),
                user_ids=table.texts(batch, "user_id", first, null=""),
                timestamps=table.seconds(batch, "timestamp", first),
                queries=table.texts(batch, "query", first, null=""),
                shown=lists["shown"],
                clicked=lists["clicked"],
                carted=lists.get("carted", none),
                ordered=lists.get("ordered", none),
            )

    def last_timestamp(self) -> int:
        """Unix seconds of the last search: a log of the past is searched as of then. Reads the file."""
        return max(int(batch.timestamps.max()) for batch in self.batches() if len(batch))


@dataclass(frozen=True)
class Judgments:
    """Relevance judgments as arrays; pair i is (`queries[query[i]]`, item `item[i]`, `grade[i]`), grouped by query."""

    path: Path
    queries: list[str]  # distinct, in the order of their first row
    query: np.ndarray  # int32 [n], ascending
    item: np.ndarray  # int32 [n], rows in the catalogue
    grade: np.ndarray  # int16 [n]
    skipped: int  # rows left out because their item is not in the catalogue

    def __len__(self) -> int:
        return len(self.item)

    def check(self) -> None:
        """Raises InputError where rows were left out and none is left: it is another catalogue that was judged."""
        if self.skipped and not len(self):
            problem = f"none of the {self.skipped:,} judged items is in the catalogue"
            raise InputError(problem, file=self.path, field="item_id", fix="Give the catalogue that was judged")

    def groups(self) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
        """Yields (query, item rows, grades) for each query."""
        ends = np.searchsorted(self.query, np.arange(len(self.queries)), side="right")
        start = 0
        for query, end in zip(self.queries, ends, strict=True):
            yield query, self.item[start:end], self.grade[start:end]
            start = end


def positive_grade(highest: int, wanted: int = 2) -> int:
    """The grade from which on a judged item is a positive: `wanted`, or the highest where no judgment is that high."""
    return min(wanted, max(highest, 1))


def judged_positives(path: str | Path, wanted: int = 2) -> Iterator[list[tuple[str, str]]]:
    """Yields the (query, item id) pairs of a `judgments` file that are positives, a batch at a time; reads it twice.

    wanted: as of `positive_grade`.
    """
    table = _judgments_table(path)
    highest = max((grade for rows in _judgment_batches(table) for *_, grade in rows), default=0)
    least = positive_grade(highest, wanted)
    for rows in _judgment_batches(table):
        yield [(text, item_id) for _, text, item_id, grade in rows if grade >= least]


def _judgments_table(path: str | Path) -> Table:
    return Table(path, made_by="mrse convert judgments")


def _judgment_batches(table: Table) -> Iterator[list[tuple[int, str, str, int]]]:
    """Checked batches of (row, query, item id, grade)."""
    table.require("query", "string")
    table.require("item_id", "string id")
    table.require("grade", "integer")
    for first, batch in table.batches(["query", "item_id", "grade"], 16 * BATCH):
        texts, ids, grades = (
            table.texts(batch, "query", first),
            table.texts(batch, "item_id", first),
            table.values(batch, "grade", first),
        )
        for row, (text, grade) in enumerate(zip(texts, grades, strict=True), start=first):
            if grade is None or not 0 <= grade < 2**15:
                raise table.error(f"{grade} is not a grade", row=row, field="grade", fix="Give 0, 1, 2, …")
            if not text or text.isspace():
                raise table.error("it is empty", row=row, field="query", fix="Every judgment needs a query")
        yield list(zip(range(first, first + len(texts)), texts, ids, grades, strict=True))


def read_judgments(path: str | Path, catalogue: Catalogue, *, unknown: Literal["error", "skip"] = "error") -> Judgments:
    """Reads and checks a `judgments` file.

    A pair that occurs twice with one grade counts once; with two grades it is an error. `unknown` says what happens to
    an item that is not in the catalogue: an InputError that names it, or it is left out and counted in `skipped`.
    """
    table = _judgments_table(path)
    index: dict[str, int] = {}
    parts: list[np.ndarray] = []  # int64 [4, n]: row, query, item, grade
    for rows in _judgment_batches(table):
        part: list[tuple[int, int, int, int]] = []
        for row, text, item_id, grade in rows:
            item = catalogue.row.get(item_id, -1)
            if item < 0 and unknown == "error":
                problem = f"{item_id!r} is not an item of {catalogue.path}"
                raise table.error(problem, row=row, field="item_id", fix="Remove the row or add the item")
            part.append((row, index.setdefault(text, len(index)) if item >= 0 else -1, item, grade))
        parts.append(np.array(part, dtype=np.int64).reshape(-1, 4).T)
    pairs = np.concatenate(parts, axis=1) if parts else np.zeros((4, 0), np.int64)
    known = pairs[:, pairs[2] >= 0]
    skipped = pairs.shape[1] - known.shape[1]
    known = known[:, np.lexsort((known[0], known[2], known[1]))]  # by query, item, row: equal pairs are neighbours
    again = np.flatnonzero((known[1:3, 1:] == known[1:3, :-1]).all(axis=0)) + 1
    for i in again:
        row, grade, before_row, before = known[0, i], known[3, i], known[0, i - 1], known[3, i - 1]
        if grade != before:
            problem = f"row {before_row} gives the same query and item the grade {before}, this one {grade}"
            raise table.error(problem, row=int(row), field="grade", fix="Keep one of them")
    distinct = np.delete(known, again, axis=1)
    distinct = distinct[:, np.lexsort((distinct[0], distinct[1]))]  # back to the file's order within a query
    return Judgments(
        path=table.path,
        queries=list(index),
        query=distinct[1].astype(np.int32),
        item=distinct[2].astype(np.int32),
        grade=distinct[3].astype(np.int16),
        skipped=skipped,
    )
