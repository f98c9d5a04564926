"""One way to Vespa for the synchronous and the asynchronous client: plans, a deadline, few retries.

A plan is a generator: it yields what it needs done (`Send`, `Sleep`) and is sent the outcome, so the logic of a search
is written once. `Backend.run` drives a plan in this thread, `Backend.arun` on an event loop. The HTTP client is
pyvespa's own (certificates, token, user agent); retries and deadline are ours: pyvespa waits up to 120 s an attempt and
sleeps between eleven of them, which a page that waits for hits cannot.
"""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass
from typing import Any, TypeVar

import orjson
from vespa.application import Vespa

from mrse_model.errors import InputError
from retrieval.errors import DeadlineExceeded, SearchError, Unavailable

T = TypeVar("T")
DEADLINE = 1.0  # seconds
THREADS = 64  # requests under way at once
TRY_AGAIN = {0, 429, 500, 502, 503, 507}  # 0: no answer; 500 and 502 are what gateways say while a backend restarts
SOFT = 0.9  # share of the time left that Vespa itself may use, so that it can still say what it found


@dataclass(frozen=True)
class Send:
    """A request. body: JSON of a POST; None for a GET. timeout: seconds."""

    path: str
    body: dict[str, Any] | None
    timeout: float


@dataclass(frozen=True)
class Sleep:
    seconds: float


@dataclass(frozen=True)
class Begin:
    """A request whose answer is not waited for here: `Backend.ask` takes what is sent back."""

    send: Send


@dataclass(frozen=True)
class Wait:
    """For a request under way. timeout: seconds."""

    reply: Future[Reply]
    timeout: float


@dataclass(frozen=True)
class Reply:
    """status 0: no answer; then `words` says why."""

    status: int
    content: bytes = b""
    words: str = ""


Step = Send | Sleep | Begin | Wait
Plan = Generator[Step, Any, T]


@dataclass(frozen=True)
class Retries:
    """attempts: tries in all, within the deadline. wait: seconds before the second, doubled before each further one."""

    attempts: int = 3
    wait: float = 0.02


class Deadline:
    """A moment that must not be passed.

    >>> Deadline(2).left() <= 2
    True
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._end = time.monotonic() + seconds

    def left(self) -> float:
        """Seconds left, negative once it is over."""
        return self._end - time.monotonic()

    def share(self, part: float) -> Deadline:
        """A deadline within this one, after a part of what is left: for a step that can be gone without."""
        return Deadline(max(self.left() * part, 0.0))


class Backend:
    """Requests to one endpoint. Safe for several threads and for one event loop at a time."""

    def __init__(self, app: Vespa, retries: Retries = Retries(), suffix: str = "") -> None:
        """suffix: of the second set of vectors that the requests are for (mrse migrate)."""
        self.url, self.retries, self._suffix = str(app.end_point), retries, suffix
        self._client = app.get_sync_session()
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="vespa")

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._client.close()

    def run(self, plan: Plan[T]) -> T:
        """Drives a plan in this thread. Raises what it raises."""
        outcome: Reply | Future[Reply] | None = None
        try:
            while True:
                outcome = self._perform(plan.send(outcome))
        except StopIteration as end:
            return end.value

    async def arun(self, plan: Plan[T]) -> T:
        """Drives a plan on the running event loop."""
        outcome: Reply | Future[Reply] | None = None
        try:
            while True:
                outcome = await self._aperform(plan.send(outcome))
        except StopIteration as end:
            return end.value

    def _perform(self, step: Step) -> Reply | Future[Reply] | None:
        if isinstance(step, Sleep):
            time.sleep(step.seconds)
            return None
        if isinstance(step, Begin):
            return self._begun(step.send)
        future = step.reply if isinstance(step, Wait) else self._pool.submit(self._request, step)
        try:  # the client's own timeout is for each part of an answer: one that trickles in would never end
            return future.result(step.timeout)
        except FutureTimeout:
            future.cancel()
            return Reply(0, words="timeout")

    async def _aperform(self, step: Step) -> Reply | Future[Reply] | None:
        if isinstance(step, Sleep):
            await asyncio.sleep(step.seconds)
            return None
        if isinstance(step, Begin):
            return self._pool.submit(self._request, step.send)
        future = step.reply if isinstance(step, Wait) else self._pool.submit(self._request, step)
        try:
            return await asyncio.wait_for(asyncio.wrap_future(future), step.timeout)
        except TimeoutError:
            return Reply(0, words="timeout")

    def _begun(self, send: Send) -> Future[Reply]:
        """Returns once the request's thread runs, or after a millisecond where all are taken: this thread would not let
        go of the GIL before its next wait, and the request would run beside the one after it.
        """
        runs = threading.Event()

        def request() -> Reply:
            runs.set()
            return self._request(send)

        reply = self._pool.submit(request)
        runs.wait(0.001)
        return reply

    def _request(self, step: Send) -> Reply:
        try:
            if step.body is None:
                answer = self._client.get(self.url + step.path, timeout=step.timeout)
            else:
                answer = self._client.post(
                    self.url + step.path,
                    content=orjson.dumps(step.body, option=orjson.OPT_SERIALIZE_NUMPY),
                    headers={"content-type": "application/json"},
                    timeout=step.timeout,
                )
            return Reply(answer.status_code, answer.content)
        except Exception as error:  # httpr's exceptions share no base class
            late = "timeout" in type(error).__name__.lower() or "timed out" in str(error).lower()
            return Reply(0, words="timeout" if late else str(error) or type(error).__name__)

    def begin(self, body: dict[str, Any], deadline: Deadline) -> Plan[Future[Reply]]:
        """Sends a query that `ask` waits for later."""
        reply: Future[Reply] = yield Begin(self._send(body, max(deadline.left(), 0.001)))
        return reply

    def _send(self, body: dict[str, Any], seconds: float) -> Send:
        return Send("/search/", body | {"timeout": f"{max(1, int(seconds * SOFT * 1000))}ms"}, seconds)

    def ask(self, body: dict[str, Any], deadline: Deadline, begun: Future[Reply] | None = None) -> Plan[dict[str, Any]]:
        """A query → Vespa's answer: `root`, perhaps in part (`root.errors`, `root.coverage`) but never empty-handed.
        begun: the first try, where it is under way already.

        Raises InputError for what Vespa refuses, in its words; Unavailable; DeadlineExceeded.
        """
        tries = 0
        while True:
            left = deadline.left()
            if left <= 0.001:
                raise self._late(deadline)
            reply: Reply = yield Wait(begun, left) if begun is not None else self._send(body, left)
            begun, tries = None, tries + 1
            try:
                return self._read(reply, deadline)
            except Unavailable:
                wait = self.retries.wait * 2 ** (tries - 1) * random.uniform(0.5, 1)
                again = reply.status in TRY_AGAIN and tries < self.retries.attempts
                if not again or wait + 0.001 >= deadline.left():
                    raise
            yield Sleep(wait)

    def _read(self, reply: Reply, deadline: Deadline) -> dict[str, Any]:
        if reply.status == 0:
            if reply.words == "timeout":
                raise self._late(deadline)
            raise Unavailable(f"nothing answers at {self.url} ({reply.words})", fix="Start it")
        try:
            answer = orjson.loads(reply.content)
        except ValueError:
            answer = None
        root = answer.get("root") if isinstance(answer, dict) else None
        if reply.status in (408, 504):
            raise self._late(deadline, _words(answer))
        if reply.status == 400 and isinstance(root, dict):
            words = _words(answer)
            if self._suffix and f"{self._suffix}'" in words:  # of a field or a rank profile
                fix = "Search with the first set: the migration has ended, or not begun"
                raise Unavailable(f"{self.url} has no second set of vectors ({words})", fix=fix)
            raise InputError(f"Vespa refuses the query: {words}")
        if reply.status in (401, 403):
            raise Unavailable(f"{self.url} refuses these credentials (status {reply.status})", fix="Give others")
        if reply.status != 200:
            raise Unavailable(f"{self.url} answers status {reply.status}: {_words(answer) or _text(reply.content)}")
        if not isinstance(root, dict):
            problem = f"{self.url} does not serve searches: {_words(answer) or _text(reply.content)}"
            raise Unavailable(problem, fix="Give another --endpoint")
        errors = root.get("errors")
        if errors and not root.get("children"):
            raise self._of_code(errors[0], deadline)
        return answer

    def _of_code(self, error: dict[str, Any], deadline: Deadline) -> SearchError | InputError:
        """An error of Vespa's (com.yahoo.container.protect.Error) under status 200."""
        words = str(error.get("message") or error.get("summary"))
        if error.get("code") == 12:
            return self._late(deadline, words)
        if error.get("code") in (3, 4):
            return InputError(f"Vespa refuses the query: {words}")
        return Unavailable(f"{self.url}: {words}")

    def _late(self, deadline: Deadline, words: str = "") -> DeadlineExceeded:
        return DeadlineExceeded(
            f"no answer from {self.url} within {deadline.seconds:.3g} s" + (words and f" ({words})")
        )


def _words(answer: Any) -> str:
    """What Vespa, or what stands before it, says."""
    if not isinstance(answer, dict):
        return ""
    root = answer.get("root")
    errors = root.get("errors") if isinstance(root, dict) else None
    if isinstance(errors, list) and errors:
        return str(errors[0].get("message") or errors[0].get("summary"))
    return str(answer.get("message") or "")


def _text(content: bytes) -> str:
    return content[:200].decode("utf-8", "replace") or "nothing"
