"""What a feed would send, without sending it: a JSONL file for `vespa feed`, or three documents to look at."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from itertools import islice
from pathlib import Path

import orjson

from feeders.items import ItemSource
from feeders.operations import Operation
from feeders.report import Progress, Report

SHOWN = 3
SHORT = 16  # hex digits of a vector that are shown


def puts(source: ItemSource) -> Iterator[Operation]:
    """All items of a source as puts."""
    return (Operation("put", source.doctype.name, item.id, item.document) for item in source.documents())


def write_jsonl(
    source: ItemSource, file: Path, report: Report, progress: Progress | None = None, limit: int | None = None
) -> Report:
    """Writes all items as puts in Vespa's document JSON format, one a line (`vespa feed FILE`); `-` is stdout."""
    begin = time.perf_counter()
    with nullcontext(sys.stdout.buffer) if str(file) == "-" else file.open("wb") as out:
        for operation in islice(puts(source), limit):
            out.write(operation.json_line())
            report.ok += 1
            report.seconds = time.perf_counter() - begin
            if progress:
                progress(report)
    report.rows = report.ok
    report.note = f"written for vespa feed, not sent: {file}"
    return report


def show_documents(
    operations: Iterable[Operation],
    report: Report,
    progress: Progress | None = None,
    show: Callable[[str], object] = print,
    limit: int | None = None,
) -> Report:
    """Renders all documents, and shows the first three, their vectors cut short."""
    for operation in islice(operations, limit):
        if report.unchanged < SHOWN:
            fields = {name: _shortened(value) for name, value in (operation.fields or {}).items()}
            show(orjson.dumps({operation.kind: operation.document_id, "fields": fields}).decode())
        operation.json_line()
        report.unchanged += 1
        if progress:
            progress(report)
    report.rows = report.unchanged
    report.note = f"{report.unchanged} documents are right; nothing was sent"
    return report


def _shortened(value: object) -> object:
    cells = value.get("values") if isinstance(value, dict) else None
    return {"values": f"{cells[:SHORT]}…"} if isinstance(cells, str) and len(cells) > SHORT else value
