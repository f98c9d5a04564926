"""Operations to Vespa over pyvespa's HTTP library, on plain threads: the one way in which a feed writes.

Up to `max_in_flight` requests are under way, as many as the server takes without complaint (additive increase,
multiplicative decrease; while nothing waits, more would not help). What fails for a while (429, 500, 502, 503, 504,
507, 599, a reset, silence) is tried again after a wait that doubles, is jittered and bounded, without holding a thread
meanwhile. Operations of one document are sent in their order. Two things end a feed early, each with its reason: no
success for `give_up_after` seconds, and `same_refusals` refusals of one kind in a row.

Not pyvespa's `feed_iterable`: it tries neither 503 nor 504 again, takes one kind of operation a call, and renders JSON
ten times slower. Not `vespa feed`: it tries 503 ten times without a pause, 504 and 507 never, and reports by log lines.
"""

from __future__ import annotations

import heapq
import random
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue

import orjson
from vespa.application import Vespa

from feeders.operations import METHOD, DeliveryResult, Operation

RETRIED = frozenset({0, 429, 500, 502, 503, 504, 507, 599})
OVERLOAD = frozenset({0, 429, 503, 504, 507})  # what fewer requests at a time may help
HEADERS = {"Content-Type": "application/json"}
ADJUST_SECONDS = 0.5  # between two decreases of the concurrency: one burst of failures counts once


@dataclass(frozen=True)
class Policy:
    """When the transport tries again, and when it gives up. All times in seconds.

    operation_seconds: after this, an operation that goes on failing while others succeed is refused (a 429 never is).
    request_timeout: of an operation's first try; each further one has twice as long, at most `longest_timeout`.
    """

    max_in_flight: int = 32
    give_up_after: float = 300.0
    same_refusals: int = 50
    operation_seconds: float = 60.0
    request_timeout: float = 10.0
    longest_timeout: float = 60.0
    first_wait: float = 0.1
    longest_wait: float = 5.0


@dataclass(slots=True)
class _Attempt:
    operation: Operation
    tries: int = 0
    failing_since: float = 0.0
    successes_then: int = 0


@dataclass
class Transport:
    """Sends operations; each outcome goes to `on_result`, one at a time, in the order of arrival.

    on_wait: is told, some times a second, why nothing has succeeded for longer than the longest wait. stopped: why it
    gave up, "" while it has not. retries: how many requests were repeats.
    """

    app: Vespa
    on_result: Callable[[DeliveryResult], None]
    policy: Policy = field(default_factory=Policy)
    on_wait: Callable[[str], object] = lambda why: None

    def __post_init__(self) -> None:
        self.stopped, self.retries = "", 0
        self._url = self.app.end_point.rstrip("/")
        self._lock = threading.Lock()  # of all that follows
        self._changed = threading.Condition(self._lock)
        self._queue: SimpleQueue[_Attempt] = SimpleQueue()
        self._later: list[tuple[float, int, _Attempt]] = []  # a heap: what waits for its next try
        self._busy: dict[str, deque[Operation]] = {}  # documents under way, and what waits behind each
        self._open = 0  # operations taken and without an outcome
        self._limit = min(8.0, self.policy.max_in_flight)  # how many requests at a time now
        self._last_decrease = 0.0
        self._successes, self._last_success = 0, time.monotonic()
        self._recovered = 0.0  # when an outage ended: what failed before is no document's fault
        self._last_failure = ""
        self._row_kind, self._row = "", 0
        self._closing = self._closed = False
        self._failure: BaseException | None = None
        self._threads: list[threading.Thread] = []

    # What the caller does

    def send(self, operations: Iterable[Operation]) -> None:
        """Sends them all and returns when each has its outcome, or when it gave up (`stopped` says why).

        Raises whatever `operations` or `on_result` raise; before that, and before KeyboardInterrupt goes on, the
        requests under way are waited for and reported.
        """
        try:
            for operation in operations:
                if not self.submit(operation):
                    break
            self.drain()
        finally:
            self.close()

    def submit(self, operation: Operation) -> bool:
        """Takes one operation, waiting while too many are open. False: it gave up, and this one was not taken."""
        self._start()
        room = 4 * self.policy.max_in_flight
        with self._lock:
            while self._open >= room and not self._over():
                self._check_breaker()
                self._changed.wait(0.2)
            if self._over():
                return False
            if not self._open:
                self._last_success = time.monotonic()  # the clock of giving up runs while something is open
            self._open += 1
            behind = self._busy.get(operation.document_id)
            if behind is not None:
                behind.append(operation)
                return True
            self._busy[operation.document_id] = deque()
        self._queue.put(_Attempt(operation))
        return True

    def drain(self) -> None:
        """Returns when nothing is open any more, or when it gave up. Raises what `on_result` raised."""
        with self._lock:
            while self._open and not self._over():
                self._check_breaker()
                self._changed.wait(0.2)
        if self._failure is not None:
            raise self._failure

    def stop(self, reason: str) -> None:
        """Gives up, for a reason of the caller's; may be called from `on_result`."""
        self.stopped = self.stopped or reason

    def close(self) -> None:
        """Ends the threads after the requests that are under way, or after `request_timeout`; what was only waiting is
        left. No outcome is reported afterwards.
        """
        with self._lock:
            self._closing = True
            self._changed.notify_all()
        until = time.monotonic() + self.policy.request_timeout
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))
        with self._lock:
            self._closed = True
        self._threads.clear()

    @property
    def in_flight_limit(self) -> int:
        """How many requests at a time the server takes now."""
        return int(self._limit)

    def _over(self) -> bool:
        return bool(self.stopped) or self._failure is not None

    def _start(self) -> None:
        """Sees that there is a thread for each request that the limit allows."""
        if not self._threads and not self._closing:
            self._client = self.app.get_sync_session(compress=False)
            self._last_success = time.monotonic()
        while len(self._threads) < int(self._limit) and not self._closing:
            n = len(self._threads)
            self._threads.append(threading.Thread(target=self._work, args=(n,), name=f"feed-{n}", daemon=True))
            self._threads[n].start()

    # What the threads do

    def _work(self, n: int) -> None:
        while (attempt := self._next(n)) is not None:
            attempt.tries += 1
            status, message = self._request(attempt)
            try:
                self._answered(attempt, status, message)
            except BaseException as error:  # the caller's report failed: it ends the feed, in the caller's thread
                with self._lock:
                    self._failure = self._failure or error
                    self._changed.notify_all()

    def _next(self, n: int) -> _Attempt | None:
        """The next operation for thread n; None at the end."""
        while True:
            wait = 0.2
            with self._lock:
                while n >= int(self._limit) and not (self._closing or self._over()):
                    self._changed.wait(0.2)
                if self._closing or self._over():
                    return None
                if self._later:
                    wait = self._later[0][0] - time.monotonic()
                    if wait <= 0:
                        self.retries += 1
                        return heapq.heappop(self._later)[2]
            try:
                return self._queue.get(timeout=min(wait, 0.1))
            except Empty:
                pass

    def _request(self, attempt: _Attempt) -> tuple[int, str]:
        operation = attempt.operation
        timeout = min(self.policy.request_timeout * 2 ** (attempt.tries - 1), self.policy.longest_timeout)
        try:
            response = self._client.request(
                METHOD[operation.kind],
                self._url + operation.path,
                content=operation.body,
                headers=HEADERS,
                timeout=timeout,
            )
            status, content = response.status_code, response.content
        except Exception as error:  # httpr's exceptions share no base class with the network's own
            return 0, str(error) or type(error).__name__
        if status == 200:
            # A gateway's page with status 200 is no acknowledgement; Vespa's has the document's id.
            return (200, "") if content.startswith(b"{") else (599, f"not Vespa's answer: {_text(content)}")
        return status, message_of(content)

    def _answered(self, attempt: _Attempt, status: int, message: str) -> None:
        now, operation = time.monotonic(), attempt.operation
        with self._lock:
            if self._closed:
                return
            if status == 200:
                if now - self._last_success > self.policy.longest_wait:
                    self._recovered = now
                self._successes, self._last_success, self._row = self._successes + 1, now, 0
                if self._limit < self.policy.max_in_flight and not self._queue.empty():
                    self._limit = min(self._limit + 1 / self._limit, self.policy.max_in_flight)
            elif status in RETRIED and self._try_again(attempt, status, now):
                self._last_failure = said(status, message)
                if status in OVERLOAD and now - self._last_decrease > ADJUST_SECONDS:
                    self._limit, self._last_decrease = max(1.0, self._limit * 0.7), now
                return
            else:
                self._count_refusal(status, message, operation)
            try:
                self.on_result(DeliveryResult(operation, status, message))
            finally:
                self._open -= 1
                following = self._busy[operation.document_id]
                if following:
                    self._queue.put(_Attempt(following.popleft()))
                else:
                    del self._busy[operation.document_id]
                if self._open == 0 or self._open % 16 == 0:
                    self._changed.notify_all()

    def _try_again(self, attempt: _Attempt, status: int, now: float) -> bool:
        """Puts it among those that wait; False where it has failed long enough while others succeeded."""
        if not attempt.failing_since:
            attempt.failing_since, attempt.successes_then = now, self._successes
        long = now - max(attempt.failing_since, self._recovered) > self.policy.operation_seconds
        # More successes than were under way when it failed first: Vespa takes others, so the fault is this one's.
        others = self._successes - attempt.successes_then
        if status != 429 and long and others > self.policy.max_in_flight:
            return False
        wait = min(self.policy.first_wait * 2 ** min(attempt.tries - 1, 16), self.policy.longest_wait)
        heapq.heappush(self._later, (now + random.uniform(0.5, 1.0) * wait, id(attempt), attempt))
        return True

    def _count_refusal(self, status: int, message: str, operation: Operation) -> None:
        kind = f"{status} {re.sub(r'[0-9]+', '#', message.replace(operation.id, '…'))}"
        self._row = self._row + 1 if kind == self._row_kind else 1
        self._row_kind = kind
        if self._row >= self.policy.same_refusals and not self.stopped:
            self.stopped = f"{self._row} refusals of one kind in a row, the last: {said(status, message)}"
            self._changed.notify_all()

    def _check_breaker(self) -> None:
        silent = time.monotonic() - self._last_success
        why = f"no success for {silent:.0f} s, the last failure: {self._last_failure or 'no answer yet'}"
        if silent > self.policy.give_up_after and not self.stopped:
            self.stopped = why
            self._changed.notify_all()
        elif silent > self.policy.longest_wait:
            self.on_wait(why)


def said(status: int, message: str) -> str:
    """Status and words of a refusal, for messages."""
    return f"{f'status {status}' if status else 'no answer'}: {message or 'without a word'}"


def message_of(content: bytes) -> str:
    """The words of a refusal: Vespa's JSON, a gateway's page, or nothing."""
    try:
        body = orjson.loads(content)
    except orjson.JSONDecodeError:
        return _text(content)
    return str(body.get("message", "")) if isinstance(body, dict) else str(body)[:200]


def _text(content: bytes) -> str:
    text = re.sub(r"<[^>]*>", " ", content[:2000].decode("utf-8", "replace"))
    return " ".join(text.split())[:200]
