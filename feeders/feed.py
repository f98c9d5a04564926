"""Operations through the transport, with a journal, a dead-letter file and a report: what every feed shares."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import orjson
from vespa.application import Vespa

from feeders.index.deployed import (
    check_deployed,
    check_fields,
    check_metrics,
    check_no_migration,
    indexed,
    second_set,
)
from feeders.index.journal import Journal, Known, index_name
from feeders.index.reconcile import document_ids, reconcile
from feeders.items import ItemSource
from feeders.operations import DeliveryResult, Operation
from feeders.report import Progress, Report
from feeders.transport import Policy, Transport, said
from feeders.updates import UpdateSource
from mrse_model.atomic_file import atomic_file
from mrse_model.data.ids import Ids
from mrse_model.errors import InputError

FIRST = 512  # documents, after which the metric of an index that was empty must show
FREE_REMOVALS, FREE_SHARE = 100, 0.05  # of the index: as many items go without --max-removals


def send_all(
    app: Vespa,
    operations: Iterable[Operation],
    dead_letters: Path,
    *,
    journal: Journal | None = None,
    report: Report | None = None,
    progress: Progress | None = None,
    policy: Policy | None = None,
    max_errors: int | None = None,
) -> Report:
    """Sends operations; what Vespa refuses goes to `dead_letters` as `vespa feed` and `mrse feed retry` read it, the
    reasons to a file beside it.

    report: filled as things happen, so that its counts are true also when this raises (Ctrl-C). max_errors: gives up
    after as many refusals.
    """
    report = Report() if report is None else report
    begin = time.perf_counter()
    refused = DeadLetters(dead_letters)

    def on_result(result: DeliveryResult) -> None:
        removal = result.operation.kind == "remove"
        if result.ok:
            report.removed += removal
            report.ok += not removal
            if journal is not None:
                journal.acknowledge(result)
        else:
            report.not_removed += removal
            report.failed += not removal
            report.first_error = report.first_error or said(result.status, result.message)
            refused.add(result)
            if max_errors is not None and refused.count >= max_errors:
                transport.stop(f"{refused.count} documents were refused (--max-errors)")
        report.retries, report.waiting = transport.retries, ""
        report.seconds = time.perf_counter() - begin
        if progress:
            progress(report)

    def on_wait(why: str) -> None:
        report.retries, report.waiting = transport.retries, why
        report.seconds = time.perf_counter() - begin
        if progress:
            progress(report)

    transport = Transport(app, on_result, policy or Policy(), on_wait)
    try:
        transport.send(operations)
    finally:
        report.stopped, report.retries = transport.stopped, transport.retries
        report.seconds = time.perf_counter() - begin
        report.dead_letters = dead_letters if refused.count else None
    return report


def feed_items(
    app: Vespa,
    source: ItemSource,
    state: Path,
    *,
    queries: Vespa | None = None,
    full: bool = False,
    delete_missing: bool = False,
    max_removals: int | None = None,
    report: Report | None = None,
    progress: Progress | None = None,
    policy: Policy | None = None,
    max_errors: int | None = None,
    limit: int | None = None,
) -> Report:
    """Feeds what the index does not have as the file has it (`full`: everything).

    The deployed model, schema and distance metric are held against the source's before anything is sent (the metric of
    an empty index after its first documents, by which alone it shows). state: the journal's file, one for an index.
    queries: the container that answers queries, where it is another. delete_missing: remove from the index what is not
    in the file, and did not come from one that was written later (`full`: all). max_removals: how many may go; None for
    at most 100 or a twentieth of the index. limit: at most so many documents are sent. Raises InputError.
    """
    queries, report = queries or app, Report() if report is None else report
    report.rows = source.items.rows
    check_deployed(queries, source.model)
    check_fields(app, source.doctype, source.model.manifest)
    shown = check_metrics(queries, source.doctype, source.model)
    if source.next_model is None:
        check_no_migration(app, source.model.manifest)
    elif not second_set(app, source.model.manifest):
        problem = f"{app.end_point}: no migration is under way: there is no second set of vectors"
        raise InputError(problem, fix="Leave --next-models out")
    ours, others = indexed(queries, source.model.manifest.model_version)
    name = source.doctype.name
    with Journal(state, index_name(app.end_point, name)) as journal, tempfile.TemporaryFile() as spool:
        # With others, vectors alone are sent, and an update of what is not there is no error.
        if lost := reconcile(app, name, journal, ours + others, source.ids.sample, surely=others > 0):
            report.note = f"{lost} items of the journal were not in the index any more: those in the file are fed again"
        elif others:
            report.note = f"{others} items in the index were of another model version; those in the file were replaced"
        if delete_missing:
            for item_id, known in _missing(app, name, source.ids, journal):
                if known and known.written > source.written and not full:
                    report.kept += 1
                else:
                    spool.write(orjson.dumps(item_id, option=orjson.OPT_APPEND_NEWLINE))
                    report.missing += 1
            check_removals(report.missing, ours + others, max_removals, "--delete-missing")
        else:
            report.missing = journal.missing(source.ids)
        unknown = ours + others > len(journal)

        def operations() -> Iterator[Operation]:
            changed = source.operations(journal, report, everything=full, index_holds_others=unknown)
            for n, operation in enumerate(changed):
                if n == FIRST and not shown:
                    check_metrics(queries, source.doctype, source.model)
                yield operation
            spool.seek(0)
            for line in spool:
                yield Operation("remove", name, orjson.loads(line))

        try:
            send_all(
                app,
                limited(limit, operations(), report),
                refused_file(state),
                journal=journal,
                report=report,
                progress=progress,
                policy=policy,
                max_errors=max_errors,
            )
        finally:
            if delete_missing:
                report.not_removed = report.missing - report.removed
        if report.ok and not shown:
            check_metrics(queries, source.doctype, source.model)
    return report


def limited(limit: int | None, operations: Iterable[Operation], report: Report) -> Iterator[Operation]:
    """So many of the operations, or all; what comes after was not asked for, so that the report has nothing of it."""
    removals = 0
    for n, operation in enumerate(operations):
        if n == limit:
            report.rows, report.missing = min(report.rows, n + report.unchanged), removals
            return
        removals += operation.kind == "remove"
        yield operation


def _missing(app: Vespa, doctype: str, ids: Ids, journal: Journal) -> Iterator[tuple[str, Known | None]]:
    """The ids of the index that are not among these, each with what the journal has of it."""
    for item_id in document_ids(app, doctype):
        if item_id not in ids:
            yield item_id, journal.known([item_id])[0]


def check_removals(missing: int, held: int, allowed: int | None, option: str) -> None:
    """Raises InputError where more would go than is allowed; None: 100, or a twentieth of what the index holds."""
    free = max(FREE_REMOVALS, int(FREE_SHARE * held)) if allowed is None else allowed
    if missing > free:
        raise InputError(
            f"{missing:,} of the {held:,} items of the index are not in the file, and would be removed",
            field=option,
            fix=f"Give all files of the catalogue, or, if they are to go, --max-removals {missing}",
        )


def feed_updates(
    app: Vespa,
    source: UpdateSource,
    state: Path,
    *,
    report: Report | None = None,
    progress: Progress | None = None,
    policy: Policy | None = None,
    max_errors: int | None = None,
    limit: int | None = None,
) -> Report:
    """Sends all partial updates of a file, or at most `limit`; sending them twice does no harm, so there is no journal.
    A row without a value is counted as unchanged.
    """
    report = Report() if report is None else report
    report.rows = source.table.rows
    return send_all(
        app,
        limited(limit, source.operations(report), report),
        refused_file(state),
        report=report,
        progress=progress,
        policy=policy,
        max_errors=max_errors,
    )


def feed_again(
    app: Vespa,
    letters: Path,
    *,
    report: Report | None = None,
    progress: Progress | None = None,
    policy: Policy | None = None,
) -> Report:
    """Sends the operations of a dead-letter file (or any file as `vespa feed` reads it) once more; those that are
    refused again are left in it. Raises InputError for a line that is no operation, before anything is sent.
    """
    operations, again = list(read_operations(letters)), letters.with_suffix(".again.jsonl")
    files = [(file, len(_content(file))) for file in (letters, reasons_file(letters))]
    report = Report() if report is None else report
    report.rows = sum(operation.kind != "remove" for operation in operations)
    send_all(app, operations, again, report=report, progress=progress, policy=policy)
    for (file, read), refused in zip(files, (again, reasons_file(again)), strict=True):
        if not (report.not_reached or report.stopped):  # else all letters stay: to send one twice does no harm
            with atomic_file(file) as part:
                part.write_bytes(_content(refused) + _content(file)[read:])  # what `mrse watch` added meanwhile stays
            if not _content(file):
                file.unlink()
        refused.unlink(missing_ok=True)
    report.dead_letters = letters if letters.exists() else None
    return report


def read_operations(file: Path) -> Iterator[Operation]:
    """The operations of a file in Vespa's document JSON format, one a line. Raises InputError with the row."""
    fix = 'A line is as in FILE.refused.jsonl: {"put": "id:item:item::B01", "fields": {…}}'
    with file.open("rb") as lines:
        for row, line in enumerate(lines):
            if not line.strip():
                continue
            try:
                yield Operation.from_json(orjson.loads(line))
            except (orjson.JSONDecodeError, ValueError) as error:
                raise InputError(f"no document operation ({error})", file=file, row=row, fix=fix) from None


def _content(file: Path) -> bytes:
    return file.read_bytes() if file.exists() else b""


def refused_file(state: Path) -> Path:
    """Where the operations that Vespa refused are left, beside the journal."""
    return state.with_suffix(".refused.jsonl")


def reasons_file(letters: Path) -> Path:
    """Where it says why, a line an operation, in the same order."""
    return letters.with_suffix(".reasons.jsonl")


class DeadLetters:
    """The operations that Vespa refused; the files are made with the first of them. keep: those of earlier runs stay
    (`mrse watch`, which does not read a change again).
    """

    def __init__(self, path: Path, *, keep: bool = False) -> None:
        self.path, self.count = path, 0
        for file in () if keep else (path, reasons_file(path)):
            file.unlink(missing_ok=True)

    def add(self, result: DeliveryResult) -> None:
        """Writes one down, at once. Raises InputError where it cannot be written."""
        self.count += 1
        reason = {"id": result.operation.document_id, "status": result.status, "message": result.message}
        try:  # opened each time: mrse feed retry may have replaced the file meanwhile
            with self.path.open("ab") as letters, reasons_file(self.path).open("ab") as reasons:
                letters.write(result.operation.json_line())
                reasons.write(orjson.dumps(reason, option=orjson.OPT_APPEND_NEWLINE))
        except OSError as error:
            raise InputError(f"cannot be written ({error})", file=self.path) from None
