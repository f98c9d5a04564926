"""Operations to Vespa through pyvespa's asynchronous session (HTTP/2), with retries of our own.

Not `feed_async_iterable`: that one waits for its whole queue before it goes on (a single throttled document stalls
a thousand), reads its iterator on the event loop, so that encoding stops the network, takes one kind of operation a
call, and gives up at once on 504 and 507. Here `workers` requests are always under way, and operations are made in
another thread meanwhile.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

from vespa.application import Vespa, VespaAsync
from vespa.io import VespaResponse
from vespa.retries import NO_RETRY

from feeders.operations import NAMESPACE, DeliveryResult, Operation
from mrse_model.errors import InputError

WORKERS = 32
ATTEMPTS = 8  # for a server that answers 503, 504 or 507 or not at all; throttling (429) is waited out
RETRY = {0, 429, 503, 504, 507}
LONGEST_WAIT = 8.0  # seconds between attempts
CHUNK = 64  # operations that are made at a time, off the event loop


def send(
    app: Vespa,
    operations: Iterable[Operation],
    on_result: Callable[[DeliveryResult], None],
    *,
    workers: int = WORKERS,
    attempts: int = ATTEMPTS,
) -> None:
    """Sends all operations, `workers` at a time, and reports each result in the order of arrival.

    Raises InputError when the server does not answer at all any more, and whatever `operations` raises, after what was
    under way has been reported.
    """
    job = _send(app, iter(operations), on_result, workers, attempts)
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        asyncio.run(job)
    else:  # a notebook has a loop of its own
        with ThreadPoolExecutor(1) as other:
            other.submit(asyncio.run, job).result()


async def _send(
    app: Vespa,
    operations: Iterator[Operation],
    on_result: Callable[[DeliveryResult], None],
    workers: int,
    attempts: int,
) -> None:
    waiting: asyncio.Queue[Operation | None] = asyncio.Queue(maxsize=max(2 * workers, CHUNK))
    silent = 0  # operations given up without an answer since the last answer

    failure: list[Exception] = []

    async def produce() -> None:
        while silent < workers and (chunk := await asyncio.to_thread(_take, operations, failure)):
            for operation in chunk:
                await waiting.put(operation)
        for _ in range(workers):
            await waiting.put(None)

    async def work(session: VespaAsync) -> None:
        nonlocal silent
        while (operation := await waiting.get()) is not None:
            if silent >= workers:
                continue  # nobody is there: leave the rest for the next run
            result = await _deliver(session, operation, attempts)
            silent = silent + 1 if result.status == 0 else 0
            on_result(result)

    # httpr runs each request on a thread of its own. Bodies are hex tensors on a fast network: gzip would cost more
    # than it saves.
    async with app.asyncio(docv1_retry_policy=NO_RETRY, max_concurrency=workers, compress=False) as session:
        try:
            async with asyncio.TaskGroup() as group:  # one that fails, or Ctrl-C, cancels the others
                group.create_task(produce())
                for _ in range(workers):
                    group.create_task(work(session))
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None
    if failure:
        raise failure[0]
    if silent >= workers:
        raise InputError(f"{app.end_point} stopped answering", fix="Start it and run the same command again")


def _take(operations: Iterator[Operation], failure: list[Exception]) -> list[Operation]:
    """The next operations; what their source raises goes to `failure`, after those that it made before."""
    taken: list[Operation] = []
    try:
        taken.extend(itertools.islice(operations, CHUNK))
    except Exception as error:
        failure.append(error)
    return taken


async def _deliver(session: VespaAsync, operation: Operation, attempts: int) -> DeliveryResult:
    failures = waits = 0
    while True:
        try:
            response = await _request(session, operation)
            result = DeliveryResult(operation, response.status_code, _message(response))
        except Exception as error:  # httpr has no common base class for what the network can do
            result = DeliveryResult(operation, 0, str(error) or type(error).__name__)
        if result.status not in RETRY:
            return result
        failures += result.status != 429
        if failures >= attempts:
            return result
        waits += 1
        await asyncio.sleep(random.uniform(0.5, 1) * min(LONGEST_WAIT, 0.1 * 2 ** min(waits, 10)))


async def _request(session: VespaAsync, operation: Operation) -> VespaResponse:
    doctype, name, fields = operation.doctype, operation.id, operation.fields or {}
    if operation.kind == "put":
        return await session.feed_data_point(doctype, name, fields, namespace=NAMESPACE)
    if operation.kind == "remove":
        return await session.delete_data(doctype, name, namespace=NAMESPACE)
    return await session.update_data(
        doctype, name, fields, create=operation.create, namespace=NAMESPACE, auto_assign=False
    )


def _message(response: VespaResponse) -> str:
    body = response.json
    return str(body.get("message", "")) if isinstance(body, dict) else str(body)
