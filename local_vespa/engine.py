"""The engine: store, deployed application and tables, with one thread that writes.

A write is committed in a group with others that wait, then applied in memory, then acknowledged; so what was
acknowledged is on the disk and visible to the next query.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from .application import Application, Changes, changes
from .documents.operations import Operation, apply_update
from .documents.values import Fields, decode, encode
from .errors import DeployError, DocumentError, StorageFull
from .index.shared_lock import SharedLock
from .index.table import Table
from .package.schema import Schema
from .store import Row, Store, is_full, readable

GROUP = 256
WARN_DOCUMENTS, WARN_VECTOR_BYTES = 500_000, 1 << 30

log = logging.getLogger("local_vespa")
Written = tuple[Operation, Fields | None]
Result = TypeVar("Result")


@dataclass(frozen=True)
class Deployed:
    """What runs: an application and its tables by document type. A deployment makes a new pair, so a request that
    holds this one goes on with what belongs together."""

    application: Application
    tables: dict[str, Table]


class Engine:
    """One data folder. `lock` is shared by whoever reads the tables, as searches do, and held alone by the writer."""

    def __init__(self, folder: Path) -> None:
        with readable(folder):
            self.store = Store(folder)
        self.lock = SharedLock()
        self.deployed: Deployed | None = None
        self.deployed_at = time.time()
        self.counts = {"put": 0, "update": 0, "remove": 0, "get": 0, "visit": 0, "query": 0, "failed": 0}
        self._prepared: dict[int, Application] = {}
        self._queue: queue.Queue[tuple[Any, Any] | None] = queue.Queue()
        self._warned = False
        try:
            with readable(folder):
                self._load()
        except BaseException:
            self.store.close()
            raise
        self._writer = threading.Thread(target=self._write_forever, name="writer", daemon=True)
        self._writer.start()
        self._closing = threading.Event()
        self._collector = threading.Thread(target=self._collect_forever, name="collector", daemon=True)
        self._collector.start()

    @property
    def application(self) -> Application | None:
        """The running application."""
        return self.deployed.application if self.deployed else None

    @property
    def tables(self) -> dict[str, Table]:
        """The tables of the running application."""
        return self.deployed.tables if self.deployed else {}

    def _load(self) -> None:
        """Builds every index from the store."""
        active = self.store.package()
        if active is None:
            return
        generation, zipped, self.deployed_at = active
        started = time.monotonic()
        application = Application(zipped, generation)
        tables = {name: self._table(schema) for name, schema in application.schemas.items()}
        self.deployed = Deployed(application, tables)
        total, seconds = sum(t.count for t in self.tables.values()), time.monotonic() - started
        log.info("%d documents of generation %d are in memory after %.1f s", total, generation, seconds)
        self._watch_size()

    def close(self) -> None:
        """Finishes the writes that wait and closes the store."""
        self._closing.set()
        self._collector.join()
        self._queue.put(None)
        self._writer.join()
        self.store.close()

    # Deploying

    def deploy(self, zipped: bytes) -> Application:
        """Makes a package the running application. Raises DeployError, and then nothing has changed."""
        return self.activate(self.prepare(zipped))

    def prepare(self, zipped: bytes) -> int:
        """Checks a package and stores it; its session, which is its generation."""
        application = Application(zipped)
        if self.application is not None:
            changes(self.application, application)
        session = self._in_writer(lambda: self._transaction(lambda: self.store.add_generation(zipped, time.time())))
        application.generation = session
        self._prepared = {session: application}  # an older session that is still activated is read again
        return session

    def activate(self, session: int) -> Application:
        """Makes a prepared session the running application."""
        found = self.store.package(session)
        if found is None:
            raise DeployError(f"Session {session} does not exist")
        application = self._prepared.pop(session, None) or Application(found[1], session)
        return self._in_writer(lambda: self._activate(application, found[2]))

    def _activate(self, new: Application, when: float) -> Application:
        old = self.application
        done = changes(old, new) if old else Changes(frozenset(), {}, frozenset(new.schemas))

        def stored() -> None:
            for name in done.removed:
                self.store.remove_schema(name)
            for name, lost in done.dropped.items():
                assert old is not None
                self._drop(old.schemas[name], lost)
            self.store.activate(new.generation)

        with self.lock.alone():
            self._transaction(stored)
            tables = {
                name: self._table(schema) if name in done.rebuilt else self.tables[name].under(schema)
                for name, schema in new.schemas.items()
            }
            self.deployed, self.deployed_at = Deployed(new, tables), when
        for warning in new.warnings:
            log.warning("%s", warning)
        return new

    def _drop(self, schema: Schema, lost: frozenset[str]) -> None:
        """Takes fields out of all stored documents of a type, in the open transaction."""
        for id, name, plain, cells in self.store.documents(schema.name):
            fields = decode(schema, plain, cells)
            if lost & fields.keys():
                self.store.put(id, name, *encode({k: v for k, v in fields.items() if k not in lost}))

    def _table(self, schema: Schema) -> Table:
        with closing(self.store.documents(schema.name)) as rows:
            table = Table(schema, ((id, decode(schema, plain, cells)) for id, _, plain, cells in rows))
        for column in table.vectors():
            column.maybe_build_graph()
        return table

    # Reading

    def schema(self, name: str) -> Schema:
        """The document type. Raises DocumentError 400."""
        if self.application is None or name not in self.application.schemas:
            raise DocumentError(400, f"Document type {name} does not exist")
        return self.application.schemas[name]

    def get(self, id: str) -> Fields | None:
        """A document's fields as last committed."""
        row = self.store.get(id)
        return None if row is None else self._decoded(row)

    def _decoded(self, row: Row) -> Fields:
        return decode(self.schema(row[1]), row[2], row[3])

    def page(self, after: int, limit: int, schema: str | None) -> Iterator[tuple[int, str, str, Fields]]:
        """Documents after a position of a visit: position, id, type, fields."""
        for position, row in self.store.page(after, limit, schema):
            if self.application is not None and row[1] in self.application.schemas:
                yield position, row[0], row[1], self._decoded(row)

    # Writing

    def submit(self, operation: Operation) -> asyncio.Future[None]:
        """Queues a write, in an event loop. The future is done when it is durable and searchable; it raises
        DocumentError."""
        future = asyncio.get_running_loop().create_future()
        self._queue.put((operation, future))
        return future

    def _in_writer(self, work: Callable[[], Any]) -> Any:
        """Runs something in the writer thread, between two groups; its result."""
        future: Future[Any] = Future()
        self._queue.put((work, future))
        return future.result()

    def _write_forever(self) -> None:
        while True:
            group = [self._queue.get()]
            while len(group) < GROUP:
                try:
                    group.append(self._queue.get_nowait())
                except queue.Empty:
                    break
            writes: list[tuple[Operation, asyncio.Future[None]]] = []
            for item in group:
                if item is not None and isinstance(item[0], Operation):
                    writes.append(item)
                    continue
                self._write(writes)
                writes = []
                if item is None:
                    return
                work, future = item
                try:
                    future.set_result(work())
                except BaseException as e:
                    future.set_exception(e)
            self._write(writes)

    def _write(self, writes: list[tuple[Operation, asyncio.Future[None]]]) -> None:
        """One group commit."""
        if not writes:
            return
        outcome: list[tuple[asyncio.Future[None], Exception | None]] = []
        done: list[Written] = []

        def all_of_them() -> None:
            for operation, future in writes:
                try:
                    done.extend(self._execute(operation))
                    outcome.append((future, None))
                except DocumentError as e:
                    outcome.append((future, e))

        try:
            self._transaction(all_of_them)
            with self.lock.alone():
                self._apply(done)
                for name, table in self.tables.items():
                    if table.wasteful:
                        self.tables[name] = self._table(table.schema)
                    for column in table.vectors():
                        column.maybe_build_graph()
        except StorageFull as e:
            log.error("%d writes refused: %s", len(writes), e)
            message = f"ReturnCode(NO_SPACE, External feed is blocked due to resource exhaustion: {e})"
            outcome = [(future, DocumentError(507, message, operation.id)) for operation, future in writes]
        except Exception as e:
            log.exception("a group of %d writes failed", len(writes))
            outcome = [(future, DocumentError(500, f"The write failed: {e}")) for _, future in writes]
        for (operation, _), (_, problem) in zip(writes, outcome, strict=True):
            self.counts["failed" if problem else operation.kind] += 1
        for loop in {future.get_loop() for future, _ in outcome}:
            if not loop.is_closed():  # one call for the group: waking a loop costs more than a write
                loop.call_soon_threadsafe(_settle, [o for o in outcome if o[0].get_loop() is loop])
        self._watch_size()

    def _apply(self, done: list[Written]) -> None:
        """Brings the tables to what was committed. A table that fails at it may have half a row: it is built anew."""
        try:
            for operation, fields in done:
                table = self.tables[operation.schema.name]
                if fields is None:
                    table.remove(operation.id)
                else:
                    table.put(operation.id, fields)
        except Exception:
            log.exception("a committed write did not get into memory; the tables are built anew")
            for name in {operation.schema.name for operation, _ in done}:
                self.tables[name] = self._table(self.application.schemas[name])  # type: ignore[union-attr]

    def _transaction(self, work: Callable[[], Result]) -> Result:
        """Does something and commits it, or nothing of it. Raises StorageFull where there is no room for it."""
        self.store.writer.execute("BEGIN IMMEDIATE")
        try:
            result = work()
            self.store.writer.execute("COMMIT")
            return result
        except BaseException as e:
            if self.store.writer.in_transaction:
                self.store.writer.execute("ROLLBACK")
            if is_full(e):
                raise StorageFull(f"no room in {self.store.path.parent}: {e}") from e
            raise

    def _execute(self, operation: Operation) -> list[Written]:
        """Does a write in the open transaction; what changed in memory. Raises DocumentError."""
        schema = self.schema(operation.schema.name)
        if schema is not operation.schema and schema.fields != operation.schema.fields:
            raise DocumentError(503, "The schema was changed by a deployment meanwhile; try again")
        needs_old = operation.kind == "update" or operation.condition is not None
        row = self.store.get(operation.id, writer=True) if needs_old else None
        old = None if row is None else decode(schema, row[2], row[3])
        if operation.condition is not None:
            if old is None:
                if not operation.create:
                    raise DocumentError(412, _failed("Document does not exist"), operation.id)
            elif not operation.condition.matches(operation.id, old):
                raise DocumentError(412, _failed("Condition did not match document"), operation.id)
        if operation.kind == "remove":
            return [(operation, None)] if self.store.remove(operation.id) else []
        if operation.kind == "put":
            fields = operation.fields
            assert self.application is not None
            if not self.application.retention.accepts(schema.name, operation.id, fields):
                return []
        elif old is None and not operation.create:
            return []
        else:
            fields = apply_update(operation.fields, schema, old or {})
        self.store.put(operation.id, schema.name, *encode(fields))
        return [(operation, fields)]

    # Garbage collection

    def collect(self) -> int:
        """Removes the documents that the selections of services.xml no longer keep; how many."""
        return self._in_writer(self._collect)

    def _collect(self) -> int:
        assert self.application is not None
        retention = self.application.retention
        expired = [
            (name, id)
            for name in retention.collects
            for id, _, plain, cells in self.store.documents(name)
            if retention.expired(name, id, decode(self.application.schemas[name], plain, cells))
        ]
        self._transaction(lambda: [self.store.remove(id) for _, id in expired])
        with self.lock.alone():
            for name, id in expired:
                self.tables[name].remove(id)
        return len(expired)

    def _collect_forever(self) -> None:
        last = time.monotonic()
        while not self._closing.wait(1):
            application = self.application
            if application is None or not application.retention.collects:
                continue
            if time.monotonic() - last >= application.retention.every:
                last = time.monotonic()
                try:
                    removed = self.collect()
                except Exception:
                    log.exception("garbage collection failed; it is tried again in %d s", application.retention.every)
                else:
                    if removed:
                        log.info("garbage collection removed %d documents", removed)

    def _watch_size(self) -> None:
        if self._warned:
            return
        total = sum(t.count for t in self.tables.values())
        size = sum(4 * c.dims * len(c.present) for t in self.tables.values() for c in t.vectors())
        if total > WARN_DOCUMENTS or size > WARN_VECTOR_BYTES:
            self._warned = True
            log.warning(
                "%d documents with %.1f GB of vectors are more than this engine is made for: use Vespa",
                total,
                size / 1e9,
            )


def _settle(outcome: list[tuple[asyncio.Future[None], Exception | None]]) -> None:
    for future, problem in outcome:
        if future.done():  # the waiting client has disconnected
            continue
        if problem is None:
            future.set_result(None)
        else:
            future.set_exception(problem)


def _failed(problem: str) -> str:
    return f"ReturnCode(TEST_AND_SET_CONDITION_FAILED, {problem})"
