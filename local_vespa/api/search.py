"""/search/: from the parameters of a request to a plan, its result, and Vespa's JSON."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from .. import grouping, yql
from ..application import Application
from ..deadline import Deadline, OutOfTime
from ..engine import Engine
from ..errors import ILLEGAL_QUERY, INVALID_PARAMETER, TIMEOUT, QueryError
from ..http import Request, Response, json_response
from ..search.executor import SearchResult, run
from ..search.parameters import Parameters, read
from ..search.plan import Plan
from ..search.planner import make_plan
from .rendering import render, root_json


class SearchApi:
    """Handles /search/ for one engine."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def handle(self, request: Request) -> Response:
        """Any search; a refusal is Vespa's JSON with `root.errors`. It sees one application and its tables from
        beginning to end, whatever is deployed meanwhile."""
        started = time.perf_counter()
        deadline = Deadline(math.inf, request.received, request.disconnected)
        self.engine.counts["query"] += 1
        deployed = self.engine.deployed
        try:
            if deployed is None:
                raise QueryError(ILLEGAL_QUERY, "No application is deployed; deploy one first")
            application = deployed.application
            deadline.check()
            plan = make_plan(application, Parameters(read(request), application.package.query_profiles))
            deadline.end = deadline.started + plan.timeout
            if not plan.types and not plan.refusals:
                return json_response(200, root_json(0, []))
            if deadline.over:
                waited = f"No time left after waiting for {deadline.passed * 1000:.0f}ms to execute query"
                raise QueryError(TIMEOUT, waited)
            with self._locked(deadline):
                result = run(application, deployed.tables, plan, deadline)
            reads_columns = plan.grouping or any(t.profile.summary_features for t in plan.types)
            with self._locked(deadline) if reads_columns else nullcontext():
                answer, filled = render(self.engine.store, application, plan, result)
            if plan.presentation.trace:
                answer = {"trace": _trace(application, plan, result, started), **answer}
            if plan.presentation.timing:
                seconds = round(time.perf_counter() - started, 6)
                answer = {"timing": {"querytime": seconds, "summaryfetchtime": 0.0, "searchtime": seconds}, **answer}
            return json_response(200 if filled or not answer["root"].get("errors") else 400, answer)
        except OutOfTime:
            source = deployed.application.cluster if deployed else None
            late = QueryError(TIMEOUT, f"Timeout while waiting for {source}", source)
            return json_response(late.status, root_json(0, [late]))
        except QueryError as e:
            return json_response(e.status, root_json(0, [e]))
        except (yql.YqlError, grouping.GroupingError) as e:
            return json_response(400, root_json(0, [QueryError(INVALID_PARAMETER, str(e))]))

    @contextmanager
    def _locked(self, deadline: Deadline) -> Iterator[None]:
        """A block that reads the tables. Raises OutOfTime where a write takes longer than the time that is left."""
        left = max(0.0, min(deadline.end - time.monotonic(), threading.TIMEOUT_MAX))
        with self.engine.lock.shared(left) as got:
            if not got:
                raise OutOfTime
            yield


def _trace(application: Application, plan: Plan, result: SearchResult, started: float) -> dict[str, Any]:
    """What was done, in the shape of Vespa's trace; of its content only that."""
    messages = [
        f"Using query profile '{plan.query_profile}'",
        f"{application.cluster} search: types {', '.join(t.schema for t in plan.types)}, rank profile "
        f"'{plan.profile}', offset={plan.offset} hits={plan.hits}: {plan.where}",
        f"{application.cluster} response: {len(result.hits)} of total {result.total} hits, "
        f"{(time.perf_counter() - started) * 1e3:.1f} ms",
    ]
    return {"children": [{"message": message} for message in messages]}
