"""`mrse watch`: takes batches of changes and brings them into the index, at least once and in the order of their keys.

A batch is checked, encoded, sent, and committed at its source when every change in it has Vespa's answer; the next one
is taken then, so a source is never read faster than Vespa writes. All writes are idempotent. What Vespa or the checks
refuse is written down and does not hold up the rest.
"""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import asdict, replace
from itertools import groupby, islice, takewhile
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
from vespa.application import Vespa

from feeders.events import EventWriter, ShopperUnavailable, UserEvent
from feeders.feed import DeadLetters
from feeders.image_features import EncodedImages, NoImages
from feeders.index.deployed import (
    check_deployed,
    check_fields,
    check_metrics,
    check_no_migration,
    migration_under_way,
    second_set,
)
from feeders.index.journal import Journal, index_name
from feeders.items import ItemSource
from feeders.live.changes import Batch, Change, Kind, change_of, records_of
from feeders.live.images import image_of
from feeders.live.metrics import Metrics
from feeders.live.sources import MAX_CHANGES, Source
from feeders.operations import DeliveryResult, Operation
from feeders.report import Report
from feeders.transport import Policy, Transport
from feeders.updates import UpdateSource
from mrse_model.errors import InputError
from mrse_model.serving.exported_model import ExportedModel
from mrse_model.serving.images import ImageEncoder
from vespa_package.fields import DocumentType

MERGE_EVERY = 2000  # acknowledgements, of a journal that is open for days
WRITERS = 8  # users at a time


class Watch:
    """Brings the changes of a source into one index.

    encoder: of the items' images; without it items are encoded from their words alone. folder: to which image paths are
    relative. state: the index's journal. on_batch: is given the metrics after each batch; on_wait: why it waits, when a
    feed runs.
    """

    def __init__(
        self,
        app: Vespa,
        package: Path,
        model: ExportedModel,
        state: Path,
        *,
        encoder: ImageEncoder | None = None,
        folder: Path = Path(),
        policy: Policy | None = None,
        on_batch: Callable[[Metrics], object] = lambda metrics: None,
        on_wait: Callable[[str], object] = lambda why: None,
    ) -> None:
        self._app, self._model, self._encoder = app, model, encoder
        self._on_batch, self._on_wait = on_batch, on_wait
        self._folder = folder
        self._policy, self._state, self.metrics = policy or Policy(), state, Metrics()
        self._item, self._lock = DocumentType.load(package), threading.Lock()

    @classmethod
    def open(
        cls,
        app: Vespa,
        package: Path,
        state: Path,
        *,
        queries: Vespa | None = None,
        image_encoder: Path | None = None,
        threads: int = 1,
        **options: Any,
    ) -> Watch:
        """A watch with the model of the package, held against what is deployed. queries: the container that answers
        queries, where it is another. image_encoder: image_encoder.onnx. threads: of the item tower. options: as above.

        Raises InputError where the deployed model or schema is another.
        """
        model = ExportedModel.load(package / "models", threads=threads)
        check_deployed(queries or app, model)
        item = DocumentType.load(package)
        check_fields(app, item, model.manifest)
        check_metrics(queries or app, item, model)
        check_no_migration(app, model.manifest)
        model.item_vectors([""], [[]])  # opens the graph, which the first change would wait for
        encoder = ImageEncoder.load(image_encoder) if image_encoder else None
        return cls(app, package, model, state, encoder=encoder, **options)

    def run(self, source: Source, stop: threading.Event) -> Metrics:
        """Takes batches until `stop` is set or the source ends, or until Vespa takes nothing any more (`stopped`).
        Raises InputError when a migration to another model begins.
        """
        self._transport, self._stop = Transport(self._app, self._on_result, self._policy), stop
        self._refused = DeadLetters(letters_file(self._state), keep=True)
        with (
            EventWriter(self._app, retry_seconds=self._policy.give_up_after) as self._events,
            ThreadPoolExecutor(WRITERS) as self._pool,
        ):
            try:
                for batch in source.batches(stop):
                    before = self.metrics.refused
                    journal = self._free_journal() if batch.of_items else nullcontext()
                    if journal is None:
                        break
                    with journal as self._journal:
                        if batch.of_items:
                            self._check_migration()
                        self._take(batch)
                        self._transport.drain()
                        self.metrics.stopped = self.metrics.stopped or self._transport.stopped
                        if self.metrics.stopped:
                            self._transport.close()  # what is under way is noted
                    if self.metrics.stopped or (batch.file is not None and stop.is_set()):
                        break  # the file may be in part: it is read again at the next start
                    batch.commit(self.metrics.refused == before)
                    self._count(batch)
            finally:
                self._transport.close()
        return self.metrics

    def _free_journal(self) -> Journal | None:
        """The journal, as soon as no feed has it; None if it is to stop first. It is open while a batch of items is
        taken, so that a feed of the catalogue can run between two; events and updates do not wait for it.
        """
        name = index_name(self._app.end_point, "item")
        return Journal.when_free(self._state, name, self._on_wait, self._stop, keep_recent=MERGE_EVERY)

    def _check_migration(self) -> None:
        try:
            under_way = second_set(self._app, self._model.manifest)
        except InputError:  # no answer: the transport waits for one
            return
        if under_way:
            raise migration_under_way(self._app)

    def _count(self, batch: Batch) -> None:
        self.metrics.batches += 1
        self.metrics.retries = self._transport.retries
        self.metrics.lag = max(0.0, time.time() - batch.since)
        self.metrics.largest_lag = max(self.metrics.largest_lag, self.metrics.lag)
        self._on_batch(self.metrics)

    def _take(self, batch: Batch) -> None:
        for what, why in batch.unreadable:
            self._refuse({"change": what}, why)
        if batch.file is not None:
            self._take_file(*batch.file)
        for kind, some in groupby(batch.changes, key=lambda change: change.kind):
            self._take_run(kind, list(some))

    def _take_file(self, kind: Kind, file: Path) -> None:
        try:
            if kind in ("item", "update"):
                self._submit(takewhile(lambda _: not self._stop.is_set(), self._operations(kind, file)))
                return
            records = records_of(file)
            while not self._stop.is_set() and (some := list(islice(records, MAX_CHANGES))):
                changes = []
                for record in some:
                    try:
                        changes.append(change_of(kind, record, str(file)))
                    except InputError as error:
                        self._refuse({"change": {"op": kind, **record}}, str(error))
                self._take_run(kind, changes)
        except InputError as error:
            self._refuse({"drop": str(file)}, str(error))

    def _take_run(self, kind: Kind, changes: list[Change]) -> None:
        """Changes of one kind that follow each other; of one item the last counts."""
        if kind == "event":
            self._take_events(changes)
        elif kind == "remove":
            self._submit(Operation("remove", "item", change.key) for change in changes)
        else:
            last = {change.key: change for change in changes} if kind == "item" else None
            self._take_rows(kind, self._with_images(last.values()) if last is not None else changes)

    def _take_rows(self, kind: Kind, changes: list[Change]) -> None:
        """Items and updates go the way of a file of them; where one is bad, each goes alone."""
        if len({change.key for change in changes}) < len(changes):
            for change in changes:
                self._take_rows(kind, [change])
            return
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "changes.parquet"
            try:
                pq.write_table(_table(map(self._record, changes)), file)
                self._submit(self._operations(kind, file))
            except (InputError, pa.ArrowException, OverflowError) as error:
                if len(changes) > 1:
                    for change in changes:
                        self._take_rows(kind, [change])
                else:
                    problem = error.problem if isinstance(error, InputError) else str(error)
                    self._refuse({"change": {"op": kind, **changes[0].record}}, problem)

    def _with_images(self, changes: Iterable[Change]) -> list[Change]:
        """The items with their images, some fetched at a time; those whose image cannot be read are refused."""
        if self._encoder is None:
            return list(changes)

        def fetched(change: Change) -> Change | None:
            try:
                return replace(change, image=image_of(change.record, self._folder))
            except InputError as error:
                self._refuse({"change": {"op": "item", **change.record}}, error.problem)
                return None

        return [change for change in self._pool.map(fetched, changes) if change is not None]

    def _record(self, change: Change) -> dict[str, Any]:
        """The columns of a change; of an item, the bytes of its image or none."""
        if change.kind != "item":
            return change.record
        rest = {name: value for name, value in change.record.items() if name not in ("image", "image_path")}
        return rest | ({"image": change.image} if self._encoder else {})

    def _operations(self, kind: Kind, file: Path) -> Iterator[Operation]:
        """What a file of items or updates is in the index; checked as a whole before the first."""
        if kind == "update":
            return UpdateSource.open(file, self._item).operations(Report())
        self._transport.drain()  # what the journal knows of an item must be what comes before this change
        images = EncodedImages(self._encoder, self._model.manifest, file) if self._encoder else NoImages()
        source = ItemSource.open(file, self._item, self._model, images)
        assert self._journal is not None  # of a batch of items
        return source.operations(self._journal, Report(), index_holds_others=True)

    def _submit(self, operations: Iterable[Operation]) -> None:
        for operation in operations:
            if not self._transport.submit(operation):
                return
            self.metrics.changes += 1

    def _take_events(self, changes: list[Change]) -> None:
        of_user: dict[str, list[UserEvent]] = {}
        for change in changes:
            try:
                of_user.setdefault(change.key, []).append(UserEvent.of(change.record))
            except InputError as error:
                self._refuse({"change": {"op": "event", **change.record}}, str(error))
        for _ in self._pool.map(self._write_events, of_user, of_user.values()):
            pass

    def _write_events(self, user: str, events: list[UserEvent]) -> None:
        try:
            self._events.record_all(user, events)
            with self._lock:
                self.metrics.changes += len(events)
        except ShopperUnavailable as error:
            self.metrics.stopped = error.problem
        except InputError as error:
            for event in events:
                self._refuse({"change": {"op": "event", **asdict(event)}}, error.problem)

    def _on_result(self, result: DeliveryResult) -> None:
        if result.ok:
            if self._journal is not None:
                self._journal.acknowledge(result)
        else:
            with self._lock:
                self.metrics.refused += 1
                self._refused.add(result)

    def _refuse(self, what: dict[str, Any], why: str) -> None:
        """Writes down what never became an operation."""
        with self._lock:
            self.metrics.refused += 1
            with unreadable_file(self._state).open("ab") as file:
                file.write(orjson.dumps(what | {"message": why}, default=str, option=orjson.OPT_APPEND_NEWLINE))


def letters_file(state: Path) -> Path:
    """Where the operations that Vespa refused are left. Not a feed's file, which each feed begins anew."""
    return state.with_suffix(".watch.refused.jsonl")


def unreadable_file(state: Path) -> Path:
    """Where changes are left that could not be read or that the checks refused, with the reason."""
    return state.with_suffix(".unreadable.jsonl")


def _table(found: Iterable[dict[str, Any]]) -> pa.Table:
    """Records as a table of all their columns; what one lacks is null."""
    records = list(found)
    names = dict.fromkeys(name for record in records for name in record)
    return pa.table({name: [record.get(name) for record in records] for name in names})
