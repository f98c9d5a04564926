"""The events of a search log into `shopper` documents: each user's last clicks, carts and orders.

A click is kept by the query that it was made for too (`asked`, the paper's H_q): searches for that query take it first.
What is written is what is new (feeders/events.py): a click that came live since the log was written stays. Weights and
vectors are the reader's business (vespa_app/schemas/shopper.sd says why).
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import groupby, islice
from pathlib import Path

from vespa.application import Vespa

from feeders.events import ASKED, FIELDS, KEEP_DAYS, KEPT, KEPT_ASKED, EventWriter, ShopperUnavailable, UserEvent
from feeders.feed import DeadLetters, refused_file
from feeders.operations import DeliveryResult, Operation
from feeders.report import Progress, Report
from feeders.transport import Policy
from mrse_model.data.contract import SearchesFile
from mrse_model.errors import InputError
from mrse_model.serving.query_key import cleaned, key_of

WRITERS = 16  # users at a time


class ShopperSource:
    """The last events of every user of a log, gathered on disk: memory does not grow with the log."""

    def __init__(self, searches: str | Path, kept: int = KEPT, *, since: int | None = None) -> None:
        """Reads and checks the whole log. since: Unix seconds; earlier searches are left out. Raises InputError."""
        self._db = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._db.execute("PRAGMA journal_mode = OFF")
        self._db.execute(
            "CREATE TABLE event(user TEXT, kind TEXT, item TEXT, at INTEGER, "
            "PRIMARY KEY(user, kind, item)) WITHOUT ROWID"
        )
        self._db.execute(
            "CREATE TABLE asked(user TEXT, query TEXT, item TEXT, at INTEGER, "
            "PRIMARY KEY(user, query, item)) WITHOUT ROWID"
        )
        self._kept = kept
        for batch in SearchesFile(searches).batches():
            self._db.execute("BEGIN")
            for i, user in enumerate(batch.user_ids):
                if not user.strip() or (since is not None and batch.timestamps[i] < since):
                    continue
                events = (("click", batch.clicked[i]), ("cart", batch.carted[i]), ("order", batch.ordered[i]))
                rows = [(user, kind, item, int(batch.timestamps[i])) for kind, items in events for item in items]
                self._db.executemany(
                    "INSERT INTO event VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET at = max(at, excluded.at)",
                    rows,
                )
                if batch.clicked[i] and (query := _key(batch.queries[i])):
                    self._db.executemany(
                        "INSERT INTO asked VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET at = max(at, excluded.at)",
                        [(user, query, item, int(batch.timestamps[i])) for item in batch.clicked[i]],
                    )
            self._db.execute("COMMIT")

    def __len__(self) -> int:
        return self._db.execute("SELECT count(DISTINCT user) FROM event").fetchone()[0]

    def users(self) -> Iterator[tuple[str, list[UserEvent]]]:
        """Each user with the last events of each kind, and the last clicks by query."""
        rows = self._db.execute("SELECT user, kind, item, at FROM event ORDER BY user, kind, at DESC, item")
        for user, of_user in groupby(rows, key=lambda row: row[0]):
            events: list[UserEvent] = []
            for kind, some in groupby(of_user, key=lambda row: row[1]):
                events += [UserEvent(user, item, kind, float(at)) for _, _, item, at in list(some)[: self._kept]]
            kept = {event.item for event in events if event.event == "click"}
            asked = self._db.execute(
                "SELECT query, item, at FROM asked WHERE user = ? ORDER BY at DESC, query, item", (user,)
            )
            pairs = [row for row in asked if row[1] in kept][:KEPT_ASKED]  # of an item that is no click, none is read
            events += [UserEvent(user, item, "click", float(at), query=query) for query, item, at in pairs]
            yield user, events


def _key(query: str) -> str:
    """The key of a query, "" for a blank one."""
    try:
        return key_of(cleaned(query))
    except InputError:
        return ""


def feed_shoppers(
    app: Vespa,
    source: ShopperSource,
    state: Path,
    *,
    report: Report | None = None,
    progress: Progress | None = None,
    policy: Policy | None = None,
    keep_days: float = KEEP_DAYS,
    max_errors: int | None = None,
    limit: int | None = None,
) -> Report:
    """Brings the events of a log into the index; users whose document has them all are counted as unchanged.

    state: names the dead-letter file. keep_days: after the last write a user is forgotten. limit: at most so many
    users. max_errors: gives up after as many refusals. Raises what EventWriter does not know as a refusal.
    """
    report, policy = Report() if report is None else report, policy or Policy()
    report.rows = len(source) if limit is None else min(limit, len(source))
    begin, row, lock = time.perf_counter(), list[str](), threading.Lock()
    refused = DeadLetters(refused_file(state))
    with (
        EventWriter(app, keep_days=keep_days, retry_seconds=policy.give_up_after) as writer,
        ThreadPoolExecutor(WRITERS) as pool,
    ):

        def write(user: str, events: list[UserEvent]) -> None:
            if report.stopped:
                return
            try:
                changed, problem = writer.record_all(user, events), ""
            except ShopperUnavailable as error:
                report.stopped = report.stopped or error.problem
                return
            except InputError as error:
                changed, problem = False, error.problem
            with lock:
                if not problem:
                    report.ok += changed
                    report.unchanged += not changed
                    row.clear()
                else:
                    report.failed += 1
                    report.first_error = report.first_error or problem
                    refused.add(DeliveryResult(_added(user, events), 400, problem))
                    row.append(problem)
                    if len(row) >= policy.same_refusals:
                        report.stopped = f"{len(row)} refusals in a row, the last: {problem}"
                    if max_errors is not None and report.failed >= max_errors:
                        report.stopped = f"{report.failed} users were refused (--max-errors)"
                report.seconds = time.perf_counter() - begin
                if progress:
                    progress(report)

        under_way: set[Future[None]] = set()
        try:
            for user, events in islice(source.users(), limit):
                if report.stopped:
                    break
                under_way.add(pool.submit(write, user, events))
                if len(under_way) >= 4 * WRITERS:
                    done, under_way = wait(under_way, return_when=FIRST_COMPLETED)
                    for future in done:
                        future.result()
            for future in under_way:
                future.result()
        finally:
            pool.shutdown(cancel_futures=True)
            report.seconds = time.perf_counter() - begin
            report.dead_letters = refused.path if refused.count else None
    return report


def additions(source: ShopperSource) -> Iterator[Operation]:
    """What a log adds to each user's document, whatever it holds already (--dry-run)."""
    return (_added(user, events) for user, events in source.users())


def _added(user: str, events: list[UserEvent]) -> Operation:
    """The events as an update that only adds."""
    fields: dict[str, dict[str, object]] = {"user_id": {"assign": user}}
    for kind, name in FIELDS.items():
        if cells := {event.item: event.timestamp for event in events if event.event == kind and not event.query}:
            fields[name] = {"add": {"cells": cells}}
    if asked := [
        {"address": {"query": event.query, "item": event.item}, "value": event.timestamp}
        for event in events
        if event.query
    ]:
        fields[ASKED] = {"add": {"cells": asked}}
    return Operation("update", "shopper", user, fields, create=True)
