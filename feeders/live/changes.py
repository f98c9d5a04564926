"""One change, as a line of JSON or a Kafka message has it, and the files of a drop.

    {"op": "item", "item_id": "B01", "title": "Red dress", "category": ["women", "dress"], "price": 9.5}
    {"op": "update", "item_id": "B01", "price": 8.5}
    {"op": "remove", "item_id": "B01"}
    {"op": "event", "user": "u17", "item": "B01", "event": "click", "timestamp": 1790000000, "event_id": "e1"}

An item is whole: what it has is brought into the index, and made if it is not there. Its image is `image` (base64),
`image_path` or `image_url` (feeders/live/images.py). A Parquet drop is of one kind,
which its columns tell: `user` and `event` (events), `title` (items), `item_id` alone (removals), else updates.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import orjson

from mrse_model.data.table import Table
from mrse_model.errors import InputError

Kind = Literal["item", "update", "remove", "event"]
IDS = {"item_id", "user", "item", "event_id"}


@dataclass(frozen=True)
class Change:
    """One change. record: its fields without `op`. source: where it came from, for messages. image: of an item, as it
    was read.
    """

    kind: Kind
    record: dict[str, Any]
    source: str = ""
    image: bytes | None = None

    @property
    def key(self) -> str:
        """What must keep its order: the item, or the user of an event."""
        return str(self.record["user" if self.kind == "event" else "item_id"])


@dataclass
class Batch:
    """Changes that are taken, acknowledged and committed together. file: a Parquet drop instead of changes, all of one
    kind. unreadable: (what it was, why) of what is no change. commit: called when all have an answer. since: when the
    oldest of them was there to be taken, Unix seconds.
    """

    changes: list[Change] = field(default_factory=list)
    file: tuple[Kind, Path] | None = None
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    commit: Callable[[bool], object] = lambda all_well: None
    since: float = 0.0

    @property
    def of_items(self) -> bool:
        """Whether it changes what the journal knows: items that come or go."""
        kinds = {change.kind for change in self.changes} | ({self.file[0]} if self.file else set())
        return bool(kinds & {"item", "remove"})

    def add_line(self, line: bytes, source: str) -> None:
        """Reads a line and adds what it says."""
        try:
            self.changes.append(read_change(line, source))
        except InputError as error:
            self.unreadable.append((line.decode("utf-8", "replace").rstrip("\n"), str(error)))


def read_change(line: bytes, source: str = "") -> Change:
    """A change from its JSON. Raises InputError."""
    try:
        record = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise InputError(f"not JSON ({error})", file=source or None) from None
    if not isinstance(record, dict):
        raise InputError("must be a JSON object", file=source or None, fix='Write {"op": "item", …}')
    kind = record.pop("op", None)
    if kind not in get_args(Kind):
        fix = f"Write one of: {', '.join(get_args(Kind))}"
        raise InputError(f"unknown operation: {kind!r}", file=source or None, field="op", fix=fix)
    return change_of(kind, record, source)


def change_of(kind: Kind, record: dict[str, Any], source: str = "") -> Change:
    """A change from its record; ids that are integers become text. Raises InputError where that does not name its item
    or user.
    """
    for name in IDS & record.keys():
        if isinstance(record[name], int) and not isinstance(record[name], bool):
            record[name] = str(record[name])
    key = "user" if kind == "event" else "item_id"
    if not isinstance(record.get(key), str) or not record[key].strip():
        raise InputError(f"must be a non-blank string, got {record.get(key)!r}", file=source or None, field=key)
    return Change(kind, record, source)


def kind_of(file: Path) -> Kind:
    """Of which kind the rows of a Parquet drop are. Raises InputError."""
    names = set(Table(file).schema.names)
    if {"user", "event"} <= names:
        return "event"
    if "item_id" not in names:
        fix = "Give item_id, or user, item and event"
        raise InputError("the columns are those of no kind of change: " + ", ".join(sorted(names)), file=file, fix=fix)
    return "item" if "title" in names else "remove" if names == {"item_id"} else "update"


def records_of(file: Path) -> Iterator[dict[str, Any]]:
    """The rows of a Parquet drop, as Python values: times as seconds."""
    table = Table(file)
    for first, batch in table.batches(table.schema.names, 1024):
        columns = {name: table.values(batch, name, first) for name in table.schema.names}
        for row in range(batch.num_rows):
            yield {name: values[row] for name, values in columns.items()}
