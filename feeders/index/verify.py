"""Does the index hold what the file says? Every document is visited and compared; the counts are exact.

Each item of the file is rendered as a feed would send it. A document is missing (in the file alone), orphaned (in the
index alone), of another model, wrong in a vector (beyond the rounding of bfloat16), stale in a field, or right.
Columns that are not in the file are not looked at: what `mrse feed updates` brings is the index's own.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import orjson
from vespa.application import Vespa

from feeders.encoding import from_hex
from feeders.feed import check_removals, refused_file, send_all
from feeders.index.journal import Journal, index_name
from feeders.index.reconcile import visit
from feeders.items import ItemSource
from feeders.operations import DeliveryResult, Operation
from feeders.report import Report
from mrse_model.data.contract import POPULARITY
from mrse_model.data.ids import Ids, key_of
from vespa_package.fields import INT8, LANGUAGE

Verdict = Literal["right", "missing", "orphaned", "other model", "wrong vector", "stale"]
NAMED = 10  # ids of each kind that are named
CLOSE = 2.0**-6  # between two cells of unit vectors: rounding to bfloat16, and batches of other sizes
CLOSE_INT8 = 2.0  # between two cells of −127 … 127


@dataclass
class Findings:
    """How many documents there are of each kind, and the first ids of those that are not right; fields: which fields
    are stale, and in how many documents. fixed: what a repair did.
    """

    counts: Counter[Verdict] = field(default_factory=Counter)
    ids: dict[Verdict, list[str]] = field(default_factory=dict)
    fields: Counter[str] = field(default_factory=Counter)
    fixed: Report | None = None

    def add(self, verdict: Verdict, item_id: str) -> None:
        self.counts[verdict] += 1
        if verdict != "right" and len(named := self.ids.setdefault(verdict, [])) < NAMED:
            named.append(item_id)

    @property
    def wrong(self) -> int:
        """How many documents are not as the file has them."""
        return sum(self.counts.values()) - self.counts["right"]


def verify(
    app: Vespa, source: ItemSource, state: Path, *, fix: bool = False, max_removals: int | None = None
) -> Findings:
    """Compares the index with a file. fix: bring what is missing or wrong, remove what is orphaned (at most
    `max_removals`, as `feed_items` has it), and let the journal know. Memory does not grow: the index's documents lie
    in a file meanwhile. Raises InputError.
    """
    found, report = Findings(), Report()
    with _Held(app, source) as held:
        if not fix:
            for _ in _repairs(source, held, found):
                pass
            return found
        check_removals(held.missing(source.ids), len(held), max_removals, "--fix")
        with Journal(state, index_name(app.end_point, source.doctype.name)) as journal:
            journal.read_from(str(source.items.path), source.written)
            repairs = _repairs(source, held, found, journal)
            found.fixed = send_all(app, repairs, refused_file(state), journal=journal, report=report)
            report.rows = found.wrong - found.counts["orphaned"]
    return found


def _repairs(source: ItemSource, held: _Held, found: Findings, journal: Journal | None = None) -> Iterator[Operation]:
    """Compares, and yields what would make each document right."""
    version = source.model.manifest.model_version
    for item in source.documents():
        document = held.pop(item.id)
        wanted = {"item_id": item.id} | item.inputs | item.columns
        if document is None:
            found.add("missing", item.id)
            yield Operation("put", source.doctype.name, item.id, item.document, item.digest)
            continue
        stale = [name for name, value in wanted.items() if not _same(value, document.get(name))]
        vectors = [name for name, cells in item.tensors.items() if not _close(name, cells, document.get(name))]
        if document.get("model_version") != version:
            found.add("other model", item.id)
        elif vectors:
            found.add("wrong vector", item.id)
        elif stale:
            found.add("stale", item.id)
        else:
            found.add("right", item.id)
            if journal is not None:  # what is there as it should be need not be sent by the next feed
                journal.acknowledge(
                    DeliveryResult(Operation("put", source.doctype.name, item.id, {}, item.digest), 200)
                )
            continue
        found.fields.update(stale + vectors)
        changed = {name: wanted.get(name, item.tensors.get(name)) for name in (*stale, *vectors)}
        fields = {name: {"assign": value} for name, value in changed.items()}
        yield Operation("update", source.doctype.name, item.id, fields, item.digest, create=True)
    for item_id in held.rest():
        found.add("orphaned", item_id)
        yield Operation("remove", source.doctype.name, item_id)


class _Held:
    """The documents of an index, by id, in a file that is gone at the end."""

    def __init__(self, app: Vespa, source: ItemSource) -> None:
        names = ["item_id", "title", "category", "model_version", LANGUAGE]
        names += [*source.columns, *source.vector_fields, *([POPULARITY] if source.popularity else [])]
        fields = [name for name in dict.fromkeys(names) if name in source.doctype.fields]
        doctype = source.doctype.name
        self._db = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._db.execute("PRAGMA journal_mode = OFF")
        self._db.execute("CREATE TABLE held(key INTEGER PRIMARY KEY, id TEXT, fields BLOB)")
        self._db.execute("BEGIN")
        parameters = {"format.tensors": "hex-value", "concurrency": "4"}
        for document in visit(app, doctype, f"{doctype}:{','.join(fields)}", **parameters):
            item_id = document["id"].split("::", 1)[1]
            row = (key_of(item_id), item_id, orjson.dumps(document["fields"]))
            self._db.execute("INSERT OR REPLACE INTO held VALUES (?, ?, ?)", row)

    def pop(self, item_id: str) -> dict[str, Any] | None:
        """The fields of a document, which is then out of `rest`; None where there is none."""
        key = (key_of(item_id),)
        row = self._db.execute("SELECT fields FROM held WHERE key = ?", key).fetchone()
        if row is None:
            return None
        self._db.execute("DELETE FROM held WHERE key = ?", key)
        return orjson.loads(row[0])

    def missing(self, ids: Ids) -> int:
        """How many of them are not among these."""
        return sum(item_id not in ids for item_id in self.rest())

    def __len__(self) -> int:
        return self._db.execute("SELECT count(*) FROM held").fetchone()[0]

    def rest(self) -> Iterator[str]:
        """The ids that were not asked for."""
        return (item_id for (item_id,) in self._db.execute("SELECT id FROM held"))

    def __enter__(self) -> _Held:
        return self

    def __exit__(self, *_: object) -> None:
        self._db.close()


def _same(wanted: Any, held: Any) -> bool:
    """Whether a field holds a value: an absent one may be null, empty, zero or false; floats are of 32 bits."""
    if isinstance(wanted, float) and isinstance(held, int | float):
        return bool(np.float32(wanted) == np.float32(held))
    return wanted == held or (not wanted and not held)


def _close(name: str, wanted: dict[str, str] | None, held: Any) -> bool:
    if wanted is None or held is None:
        return wanted is None and held is None
    ours, theirs = (_cells(name, some["values"] if isinstance(some, dict) else some) for some in (wanted, held))
    limit = CLOSE_INT8 if name.endswith(INT8) else CLOSE
    return ours.shape == theirs.shape and bool(np.abs(ours - theirs).max() <= limit)


def _cells(name: str, value: Any) -> np.ndarray:
    """The cells of a vector, as hex or as a list."""
    if isinstance(value, list):
        return np.array(value, np.float32)
    return from_hex(value, "int8" if name.endswith(INT8) else "bfloat16").astype(np.float32)
