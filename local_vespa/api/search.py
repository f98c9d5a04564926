"""/search/: from the parameters of a request to a plan, its result, and Vespa's JSON."""

from __future__ import annotations

import time
from contextlib import nullcontext
from typing import Any

from .. import grouping, yql
from ..application import Application
from ..engine import Engine
from ..errors import ILLEGAL_QUERY, INVALID_PARAMETER, QueryError
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
        self.engine.counts["query"] += 1
        try:
            deployed = self.engine.deployed
            if deployed is None:
                raise QueryError(ILLEGAL_QUERY, "No application is deployed; deploy one first")
            application = deployed.application
            plan = make_plan(application, Parameters(read(request), application.package.query_profiles))
            if not plan.types and not plan.refusals:
                return json_response(200, root_json(0, []))
            with self.engine.lock:
                result = run(application, deployed.tables, plan)
            reads_columns = plan.grouping or any(t.profile.summary_features for t in plan.types)
            with self.engine.lock if reads_columns else nullcontext():
                answer, filled = render(self.engine.store, application, plan, result)
            if plan.presentation.trace:
                answer = {"trace": _trace(application, plan, result, started), **answer}
            if plan.presentation.timing:
                seconds = round(time.perf_counter() - started, 6)
                answer = {"timing": {"querytime": seconds, "summaryfetchtime": 0.0, "searchtime": seconds}, **answer}
            return json_response(200 if filled or not answer["root"].get("errors") else 400, answer)
        except QueryError as e:
            return json_response(400, root_json(0, [e]))
        except (yql.YqlError, grouping.GroupingError) as e:
            return json_response(400, root_json(0, [QueryError(INVALID_PARAMETER, str(e))]))


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
