"""Operations through a transport, with a journal, a dead-letter file and a report: what every feed shares."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

import orjson
from vespa.application import Vespa

from feeders import cli_transport
from feeders import transport as pyvespa_transport
from feeders.deployed import check_deployed, count, indexed
from feeders.items import ItemSource
from feeders.journal import Journal
from feeders.operations import DeliveryResult, Operation
from feeders.reconcile import forget_lost
from feeders.shoppers import ShopperSource
from feeders.updates import UpdateSource
from mrse_model.errors import InputError

Via = Literal["pyvespa", "cli"]
Progress = Callable[[int], None]  # called with the number of operations answered since the last call


@dataclass
class Report:
    """What a feed did. unchanged: items that the index already had as they are. missing: fed earlier, not in the
    file now.
    """

    ok: int = 0
    failed: int = 0
    removed: int = 0
    unchanged: int = 0
    missing: int = 0
    seconds: float = 0.0
    first_error: str = ""
    dead_letters: Path | None = None
    note: str = ""

    @property
    def per_second(self) -> float:
        return self.ok / self.seconds if self.seconds else 0.0


def send_all(
    app: Vespa,
    operations: Iterable[Operation],
    dead_letters: Path,
    *,
    via: Via = "pyvespa",
    journal: Journal | None = None,
    progress: Progress | None = None,
) -> Report:
    """Sends operations; what Vespa refuses goes to `dead_letters`, one JSON line each with `status` and `message`."""
    report = Report()
    begin = time.perf_counter()
    with DeadLetters(dead_letters) as refused:

        def on_result(result: DeliveryResult) -> None:
            if result.ok:
                report.ok += result.operation.kind != "remove"
                report.removed += result.operation.kind == "remove"
                if journal is not None:
                    journal.acknowledge(result)
            else:
                report.failed += 1
                report.first_error = report.first_error or f"status {result.status}: {result.message}"
                refused.add(result)
            if progress:
                progress(1)

        transport = cli_transport.send if via == "cli" else pyvespa_transport.send
        try:
            transport(app, operations, on_result)
        finally:
            report.seconds = time.perf_counter() - begin
            report.dead_letters = dead_letters if refused.count else None
    return report


def feed_items(
    app: Vespa,
    source: ItemSource,
    state: Path,
    *,
    queries: Vespa | None = None,
    via: Via = "pyvespa",
    full: bool = False,
    delete_missing: bool = False,
    progress: Progress | None = None,
) -> Report:
    """Feeds what changed since the last feed of this file to this endpoint (`full`: everything).

    The deployed model is held against the source's before anything is sent. state: the journal's file. queries: the
    container that answers queries, where it is another. delete_missing: remove from the index what was fed before and
    is not in the file now. Raises InputError.
    """
    queries = queries or app
    check_deployed(queries, source.model)
    ours, others = indexed(queries, source.model.manifest.model_version)
    with Journal(state, f"{app.end_point} {source.doctype.name}") as journal:
        note = ""
        # With others, vectors alone are sent, and an update of what is not there is no error.
        if lost := forget_lost(app, source.doctype.name, journal, ours + others, surely=others > 0):
            note = f"{lost} items of the journal were not in the index any more: those in the file are fed again"
        elif others:
            note = f"{others} items in the index were of another model version; those in the file were replaced"
        sent = 0
        missing: list[str] = []

        def operations() -> Iterator[Operation]:
            nonlocal sent
            for operation in source.operations(journal, everything=full):
                sent += 1
                yield operation
            missing.extend(journal.missing())
            if delete_missing:
                yield from (Operation("remove", source.doctype.name, item_id) for item_id in missing)

        report = send_all(app, operations(), refused_file(state), via=via, journal=journal, progress=progress)
        report.note, report.missing, report.unchanged = note, len(missing), source.items.rows - sent
    return report


def backfill(
    app: Vespa,
    source: ItemSource,
    state: Path,
    *,
    suffix: str = "",
    queries: Vespa | None = None,
    via: Via = "pyvespa",
    progress: Progress | None = None,
) -> Report:
    """Assigns the source's vectors to the fields with this suffix, in every item of the file (mrse migrate).

    The journal of the plain fields is that of `feed_items`, so a feed after the migration finds nothing changed. That
    of the others is forgotten where the index has none of this version: the fields went with an earlier migration.
    """
    version = source.model.manifest.model_version
    target = f"{app.end_point} {source.doctype.name}" + (f" {suffix} {version}" if suffix else "")
    with Journal(state, target) as journal:
        if suffix and indexed(queries or app, version, suffix)[0] == 0:
            journal.keep_only(())
        updates = source.vector_updates(journal, suffix)
        report = send_all(app, updates, refused_file(state), via=via, journal=journal, progress=progress)
    report.unchanged = source.items.rows - report.ok - report.failed
    return report


def feed_shoppers(
    app: Vespa,
    source: ShopperSource,
    state: Path,
    *,
    queries: Vespa | None = None,
    via: Via = "pyvespa",
    full: bool = False,
    progress: Progress | None = None,
) -> Report:
    """Feeds the people whose events changed since the last feed of this log to this endpoint (`full`: all of them)."""
    people = len(source)
    held = count(queries or app, "select user_id from shopper where true")
    with Journal(state, f"{app.end_point} shopper") as journal:
        forget_lost(app, "shopper", journal, held)
        report = send_all(
            app,
            source.operations(journal, everything=full),
            refused_file(state),
            via=via,
            journal=journal,
            progress=progress,
        )
    report.unchanged = people - report.ok - report.failed
    return report


def feed_updates(
    app: Vespa, source: UpdateSource, state: Path, *, via: Via = "pyvespa", progress: Progress | None = None
) -> Report:
    """Sends all partial updates of a file; sending them twice does no harm, so there is no journal."""
    return send_all(app, source.operations(), refused_file(state), via=via, progress=progress)


def refused_file(state: Path) -> Path:
    """Where the operations that Vespa refused are left, beside the journal."""
    return state.with_suffix(".refused.jsonl")


class DeadLetters:
    """The operations that Vespa refused; the file is made with the first of them."""

    def __init__(self, path: Path) -> None:
        self.path, self.count = path, 0
        self._file: BinaryIO | None = None
        path.unlink(missing_ok=True)

    def add(self, result: DeliveryResult) -> None:
        if self._file is None:
            try:
                self._file = self.path.open("wb")
            except OSError as error:
                raise InputError(f"cannot be written ({error})", file=self.path) from None
        self.count += 1
        operation = orjson.loads(result.operation.json_line())
        line = operation | {"status": result.status, "message": result.message}
        self._file.write(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))

    def __enter__(self) -> DeadLetters:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()
