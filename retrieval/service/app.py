"""The API: routes, and how an error becomes an answer. `create_app(settings)` is what granian serves."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import orjson
from fastapi import Depends, FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.staticfiles import StaticFiles
from starlette.convertors import PathConvertor, register_url_convertor
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from vespa.application import Vespa

from feeders.events import EventWriter, ShopperUnavailable
from mrse_model.errors import InputError
from mrse_model.serving.exported_model import QueryHistory
from retrieval.backend import THREADS, Deadline
from retrieval.errors import SearchError, Unavailable, kind_of
from retrieval.history.behaviour import Event
from retrieval.interleave import of_team, team_draft
from retrieval.query_text import cleaned, key_of
from retrieval.results import Fallback, Hit, SearchResult
from retrieval.rules import Rules
from retrieval.searcher import MAX_HITS, USER_SHARE, Options, SearchRequest
from retrieval.service import bodies
from retrieval.service.access import SESSION_PREFIX, Access, Caller, Refused
from retrieval.service.bots import BotGuard
from retrieval.service.images import Images
from retrieval.service.metrics import Metrics
from retrieval.service.models import MAX_ITEMS, Held, ServedModel, open_models
from retrieval.service.page import page_settings
from retrieval.service.served import ServedLog, interleaved_wins, without_results
from retrieval.service.settings import MAIN, Settings, Stopping
from retrieval.service.suggestions import Suggestions
from retrieval.service.wrapping import Wrapping

STATIC = Path(__file__).with_name("static")
EXAMPLES = 8  # on the empty page
STATUS = {"caller": 400, "unavailable": 503, "timeout": 504, "degraded": 503}
KEYS = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "An API key"},
    "key": {"type": "apiKey", "in": "header", "name": "x-api-key", "description": "The same"},
    "user": {"type": "apiKey", "in": "header", "name": "x-user-token", "description": "Beside a key: opens one user"},
}
ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": bodies.ErrorAnswer, "description": text}
    for status, text in (
        (400, "The request is wrong"),
        (401, "No key, or one that is not known"),
        (403, "No right to this user"),
        (404, "There is no such item or user"),
        (413, "The body is too large"),
        (422, "The request has another shape"),
        (429, "Too many requests: try again after Retry-After seconds"),
        (503, "Vespa is unavailable, or answered in part: try again after Retry-After seconds"),
        (504, "No answer within the deadline"),
    )
}


class IdConvertor(PathConvertor):
    """An id in a path: any text, slashes and newlines too (`/v1/similar/a%2Fb`)."""

    regex = r"[\s\S]+"


register_url_convertor("id", IdConvertor())


class Service:
    """What the routes share: one a worker."""

    def __init__(self, settings: Settings) -> None:
        """Raises InputError for what cannot be loaded."""
        self.settings, self.metrics, self.stopping = settings, Metrics(), Stopping()
        self.access = Access(settings)
        self.models = open_models(settings)
        self.own = self.models[MAIN]
        self.searcher = self.own.searcher
        vespa = Vespa(settings.endpoint.rstrip("/"), cert=settings.cert, key=settings.key)
        # a service answers soon: an event that Vespa does not take by then is the caller's to send again
        self.wait = wait = 2 * settings.deadline
        self.writer = EventWriter(vespa, keep_days=settings.user_days, retry_seconds=wait, timeout=wait)
        self.sessions = EventWriter(vespa, keep_days=settings.session_days, retry_seconds=wait, timeout=wait)
        self.writing = ThreadPoolExecutor(THREADS, thread_name_prefix="events")
        self.bots = BotGuard()
        self.log = ServedLog(settings.log) if settings.log else None
        self.images = Images(settings.items)
        self.rules = Rules.read(settings.rules) if settings.rules else Rules()
        ahead = self.own.producer.ahead if self.own.producer is not None else None
        self.suggestions = Suggestions(ahead.queries() if ahead is not None else ())

    def warm_up(self) -> None:
        """Opens the models' graphs: the first search need not wait for them."""
        for served in self.models.values():
            if served.producer is not None:
                model = served.producer.model
                none = np.zeros((1, model.manifest.dims), np.float32)
                model.query_vectors(["warm"])
                model.query_vectors(["warm"], [QueryHistory(none, none, np.ones(1, np.float32))])

    async def close(self) -> None:
        self.stopping.yes = True
        for model in self.models.values():
            await model.searcher.close()
        self.writing.shutdown(wait=False, cancel_futures=True)
        self.writer.close()
        self.sessions.close()
        if self.log is not None:
            self.log.close()

    def model(self, name: str) -> ServedModel:
        """Raises InputError that lists the names."""
        if name not in self.models:
            raise InputError(f"unknown model {name!r}", field="model", fix="One of " + ", ".join(self.models))
        return self.models[name]

    async def search(self, request: SearchRequest, search_id: str, model: ServedModel) -> SearchResult:
        """A search after the rules; by both profiles where two are interleaved and the first is asked for."""
        request = self.rules.applied(request)
        if model is not self.own:
            deadline = Deadline(request.timeout or self.settings.deadline)
            clicks, unread = await self.history(request.user, request.clicks, deadline)
            rest = max(deadline.left(), 0.001)
            found = await model.searcher.search(request, user=None, clicks=clicks, timeout=rest)
            return dataclasses.replace(found, fallbacks=[*unread, *found.fallbacks])
        profiles = self.settings.interleave
        if not profiles or (request.profile or self.searcher.profile) != profiles[0] or request.sort:
            return await self.searcher.search(request)
        # both from their first hit on: a later page goes on with the list that the first page began, and so with its
        # candidates
        end, most = request.offset + request.hits, min(max(request.target_hits, request.hits), MAX_HITS)
        whole = dataclasses.replace(request, offset=0, hits=min(end, most))
        one, two = await asyncio.gather(
            self.searcher.search(whole),
            self.searcher.search(whole, profile=profiles[1]),
            return_exceptions=True,
        )
        if isinstance(one, BaseException):
            raise one
        if isinstance(two, BaseException):
            lost = Fallback("interleaving", str(two))
            page = one.hits[request.offset :]
            return dataclasses.replace(one, hits=page, offset=request.offset, fallbacks=[*one.fallbacks, lost])
        teams = of_team(one.hits, profiles[0]), of_team(two.hits, profiles[1])
        drafted = team_draft(*teams, end, search_id, set(request.buried))
        return dataclasses.replace(
            one,
            hits=drafted[request.offset :],
            offset=request.offset,
            total=max(one.total, two.total),
            seconds=max(one.seconds, two.seconds),
            fallbacks=[*one.fallbacks, *(fallback for fallback in two.fallbacks if fallback not in one.fallbacks)],
        )

    async def history(
        self, user: str | None, clicks: Sequence[Event], deadline: Deadline
    ) -> tuple[list[Event], list[Fallback]]:
        """What a compared model is told of a user: the service's own index alone knows what was clicked here."""
        if user is None:
            return list(clicks), []
        try:
            return [*clicks, *await self.searcher.events(user, deadline.share(USER_SHARE).left())], []
        except SearchError as error:
            return list(clicks), [Fallback("history", str(error))]

    async def held(self, model: ServedModel, items: Sequence[str] = ()) -> dict[str, Any]:
        """`bodies.ModelAnswer`."""
        try:
            held = await model.held(self.settings.deadline, items)
        except InputError as error:
            held = Held(problem=str(error))
        return {"name": model.name, "model_version": model.version, **asdict(held)}

    async def write(self, change: Callable[..., bool], *what: Any) -> bool:
        """Changes a `shopper` document, in a thread. Raises ShopperUnavailable, at the latest after `wait` seconds."""
        try:
            future = asyncio.get_running_loop().run_in_executor(self.writing, change, *what)
            return await asyncio.wait_for(future, self.wait)
        except TimeoutError:
            problem = f"{self.settings.endpoint} does not take changes of users within {self.wait:.3g} s"
            raise ShopperUnavailable(problem, fix="Send it again: an event is counted once") from None

    async def forget(self, user: str, writer: EventWriter) -> bool:
        """Deletes a history, read back to be sure; whether there was one. Raises ShopperUnavailable."""
        if self.log is not None:
            self.log.forget(user, self.now())
        there = await self.write(writer.forget, user)
        self.searcher.histories.forget(user)
        return there

    def now(self) -> float:
        return self.settings.now if self.settings.now is not None else time.time()


def create_app(settings: Settings | None = None) -> FastAPI:
    """The application. settings: None takes those that the parent process left (`Settings.environment`)."""
    settings = settings or Settings.from_environment()
    service = Service(settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await asyncio.to_thread(service.warm_up)
        yield
        await service.close()

    app = FastAPI(
        title="MRSE search",
        version="1",
        description="Personal, multimodal product search on Vespa. docs/serving.md has the whole.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
    )
    app.state.service = service
    _errors(app, service)
    _routes(app, service)
    if settings.keys:
        _describe_keys(app)
    app.add_middleware(Wrapping, metrics=service.metrics, max_in_flight=settings.max_in_flight)
    app.add_middleware(  # around all: a page must be able to read that the service is full
        CORSMiddleware,
        allow_origins=list(settings.origins),
        allow_methods=["GET", "POST", "DELETE"],
        allow_headers=["authorization", "content-type", "x-api-key", "x-user-token", "x-request-id"],
        expose_headers=["x-request-id", "retry-after"],
        max_age=600,
    )
    if STATIC.is_dir():
        app.mount("/", StaticFiles(directory=STATIC, html=True))
    return app


def _describe_keys(app: FastAPI) -> None:
    """Says in OpenAPI how callers prove who they are."""
    described = app.openapi()
    described["components"]["securitySchemes"] = KEYS
    for path, methods in described["paths"].items():
        for method in methods.values() if path.startswith("/v1/") and "/images/" not in path else ():
            method["security"] = [{"bearer": []}, {"key": []}]


def _answer(body: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(orjson.dumps(body), status, headers, "application/json")


def _errors(app: FastAPI, service: Service) -> None:
    def answer(
        request: Request, status: int, kind: str, message: str, field: str | None = None, fix: str | None = None,
        wait: float = 0.0,
    ) -> Response:  # fmt: skip
        state = request.scope.get("state", {})
        service.metrics.errors.labels(kind, state.get("log", {}).get("model", MAIN)).inc()
        state.get("log", {}).update(kind=kind, error=message[:500])
        error = {
            "kind": kind,
            "message": message,
            "field": field,
            "fix": fix,
            "request_id": state.get("request_id", ""),
        }
        headers = {"retry-after": str(max(1, round(wait)))} if wait else {}
        if status == 401:
            headers["www-authenticate"] = "Bearer"
        return _answer({"error": error}, status, headers)

    @app.exception_handler(InputError)
    async def input_error(request: Request, error: InputError) -> Response:
        kind = kind_of(error)
        status = 404 if isinstance(error, NotThere) else STATUS[kind]
        wait = 1.0 if status == 503 else 0.0
        return answer(request, status, kind, error.problem, error.field, error.fix, wait)

    @app.exception_handler(ShopperUnavailable)
    async def not_written(request: Request, error: ShopperUnavailable) -> Response:
        return answer(request, 503, "unavailable", error.problem, error.field, error.fix, 1.0)

    @app.exception_handler(Refused)
    async def refused(request: Request, error: Refused) -> Response:
        kind = "limited" if error.status == 429 else "access"
        return answer(request, error.status, kind, error.problem, fix=error.fix or None, wait=error.wait)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"][1:])  # the first is body, query or path
        return answer(request, 422, "caller", first["msg"], field or None)

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> Response:
        found = answer(request, error.status_code, "caller", str(error.detail))
        found.headers.update(error.headers or {})
        return found

    @app.exception_handler(Exception)
    async def bug(request: Request, error: Exception) -> Response:
        logging.getLogger("mrse.serve").error("bug", exc_info=error)
        return answer(request, 500, "bug", "an error of the service itself: its log has the traceback")


class NotThere(InputError):
    """An item or user that does not exist."""


def _hit(hit: Hit) -> dict[str, Any]:
    return {
        "item": hit.item_id,
        "title": hit.title,
        "category": hit.category,
        "score": hit.score,
        "fields": hit.fields,
        "features": hit.features,
        "queues": hit.queues,
        "pinned": hit.pinned,
        "team": hit.team,
    }


def _search_answer(result: SearchResult, search_id: str, model: str) -> dict[str, Any]:
    return {
        "search_id": search_id,
        "query": result.query,
        "profile": result.profile,
        "model": model,
        "hits": [_hit(hit) for hit in result.hits],
        "total": result.total,
        "offset": result.offset,
        "clicks": result.clicks,
        "facets": {name: [asdict(bucket) for bucket in buckets] for name, buckets in result.facets.items()},
        "coverage": result.coverage.share,
        "fallbacks": [asdict(fallback) for fallback in result.fallbacks],
        "seconds": result.seconds,
        "stages": result.stages,
    }


def _events(events: Iterable[Event]) -> list[dict[str, Any]]:
    """Newest first; an event whose query is known is not listed without it too."""
    asked = {(e.item_id, e.at) for e in events if e.query is not None}
    kept = {e for e in events if e.query is not None or (e.item_id, e.at) not in asked}
    newest = sorted(kept, key=lambda e: (-e.at, e.item_id, e.kind, e.query or ""))
    return [{"item": e.item_id, "kind": e.kind, "at": e.at, "query": e.query} for e in newest]


async def _caller(request: Request) -> Caller:
    host = request.client.host if request.client else "unknown"
    found = request.app.state.service.access.caller(request.headers, host)
    request.state.log["caller"] = found.name
    return found


Who = Annotated[Caller, Depends(_caller)]


def _routes(app: FastAPI, service: Service) -> None:
    settings = service.settings

    def chosen(request: Request, name: str) -> ServedModel:
        model = service.model(name)
        request.state.log["model"] = name
        return model

    async def searched(request: Request, body: bodies.SearchBody, who: Caller) -> Response:
        user = service.access.user(who, body.user, body.session)
        search_id = body.search_id or uuid.uuid4().hex
        model = chosen(request, body.model)
        result = await service.search(body.request(user, settings.now), search_id, model)
        service.metrics.searched(result, model.name)
        request.state.log.update(
            profile=result.profile,
            hits=len(result.hits),
            fallbacks=[f.step for f in result.fallbacks],
            stages={k: round(v, 6) for k, v in result.stages.items()},
        )
        shown = [hit.item_id for hit in result.hits]
        further = bool(body.offset and body.search_id)  # a page of a search that was counted
        if user is not None and body.hits:
            service.bots.searched(user, len(shown), service.now(), further)
        if service.log is not None and body.hits and (shown or not body.offset):
            more: dict[str, Any] = {"profile": result.profile, "offset": body.offset}
            if model is not service.own:
                more["model"] = model.name
            if any(hit.team for hit in result.hits):
                more["teams"] = [hit.team for hit in result.hits]
            service.log.search(search_id, user or "", service.now(), result.query, shown, **more)
        return _answer(_search_answer(result, search_id, model.name))

    @app.post("/v1/search", response_model=bodies.SearchAnswer, responses=ERRORS, tags=["search"])
    async def search(request: Request, body: bodies.SearchBody, who: Who) -> Response:
        """Search for a text, perhaps for a user, with filters, facets and sorting."""
        return await searched(request, body, who)

    @app.get("/v1/search", response_model=bodies.SearchAnswer, responses=ERRORS, tags=["search"])
    async def search_get(
        request: Request,
        who: Who,
        q: Annotated[str, Query(max_length=4096, examples=["red dress"])],
        user: bodies.Id | None = None,
        session: bodies.Id | None = None,
        filter: Annotated[list[str] | None, Query(max_length=50, examples=[["price<=50"]])] = None,
        facet: Annotated[list[bodies.FieldName] | None, Query(max_length=20)] = None,
        sort: Annotated[list[str] | None, Query(max_length=5)] = None,
        hits: Annotated[int, Query(ge=0, le=400)] = 10,
        offset: Annotated[int, Query(ge=0, le=1000)] = 0,
        profile: bodies.FieldName | None = None,
        ranks: bool = False,
        collapse: bodies.FieldName | None = None,
        model: bodies.ModelName = MAIN,
        search_id: bodies.SearchId | None = None,
    ) -> Response:
        """The same by an address, for browsers and curl."""
        body = bodies.SearchBody(
            query=q, user=user, session=session, filters=list(filter or []), facets=list(facet or []),
            sort=list(sort or []), hits=hits, offset=offset, profile=profile, ranks=ranks,
            collapse=collapse, model=model, search_id=search_id,
        )  # fmt: skip
        return await searched(request, body, who)

    @app.get("/v1/similar/{item:id}", response_model=bodies.SearchAnswer, responses=ERRORS, tags=["search"])
    async def similar(
        request: Request,
        who: Who,
        item: bodies.Id,
        filter: Annotated[list[str] | None, Query(max_length=50)] = None,
        hits: Annotated[int, Query(ge=0, le=400)] = 10,
        offset: Annotated[int, Query(ge=0, le=1000)] = 0,
        model: bodies.ModelName = MAIN,
    ) -> Response:
        """What is most like an item."""
        from retrieval.filters import Filter

        served, filters = chosen(request, model), [Filter.parse(f) for f in filter or []]
        try:
            found = await served.searcher.similar(item, filters=filters, hits=hits, offset=offset)
        except SearchError:
            raise
        except InputError as error:
            raise NotThere(error.problem, field=error.field) if error.field == "item" else error from None
        service.metrics.searched(found, model)
        return _answer(_search_answer(found, uuid.uuid4().hex, model))

    @app.post("/v1/explain", response_model=bodies.ExplainAnswer, responses=ERRORS, tags=["search"])
    async def explain(request: Request, body: bodies.ExplainBody, who: Who) -> Response:
        """Why an item stands where it does for a query, and a user."""
        user = service.access.user(who, body.user, body.session)
        clicks, model = [click.event() for click in body.clicks], chosen(request, body.model)
        deadline = Deadline(settings.deadline)
        query = service.rules.rewritten(cleaned(body.query))
        if model is not service.own:
            (clicks, _), user = await service.history(user, clicks, deadline), None
        asked: Options = {"user": user, "clicks": clicks, "now": settings.now, "timeout": max(deadline.left(), 0.001)}
        try:
            found = await model.searcher.explain(query, body.item, **asked)
        except SearchError:
            raise
        except InputError as error:
            raise NotThere(error.problem, field=error.field) if error.field == "item" else error from None
        answer = {
            "query": body.query,
            "item": body.item,
            "score": found.hit.score,
            "shares": found.shares,
            "queues": found.queues,
            "clicks": found.clicks,
        }
        return _answer(answer)

    @app.post("/v1/events", response_model=bodies.EventAnswer, responses=ERRORS, tags=["users"])
    async def event(request: Request, body: bodies.EventBody, who: Who) -> Response:
        """A click, cart or order. The next search of that user or session knows it."""
        user = service.access.user(who, body.user, body.session)
        if user is None:
            raise InputError("the event names no user and no session", field="user", fix="Send user, or session")
        now = service.now()
        at = now if body.at is None else min(body.at, now)  # by a clock that is fast it would lead for ever
        bot = service.bots.acted(user, body.kind)
        if service.log is not None and body.search_id:
            service.log.event(body.search_id, body.item, body.kind, at)
        recorded, reason = False, "a bot's: kept in the log alone"
        if not bot:
            writer = service.sessions if user.startswith(SESSION_PREFIX) else service.writer
            query = key_of(service.rules.rewritten(cleaned(body.query))) if body.query and body.query.strip() else ""
            name = body.event_id or ""
            recorded = await service.write(writer.record, user, body.item, body.kind, at, name, query)
            service.searcher.histories.forget(user)
            reason = "" if recorded else "known, or older than what is kept"
        service.metrics.events.labels(body.kind, str(recorded).lower()).inc()
        return _answer({"recorded": recorded, "reason": reason})

    @app.get("/v1/models", response_model=list[bodies.ModelAnswer], responses=ERRORS, tags=["search"])
    async def models(
        who: Who,
        item: Annotated[list[bodies.Id] | None, Query(max_length=MAX_ITEMS, description="Ids to look up")] = None,
    ) -> Response:
        """The models that `model` can name, the service's own first, and what their indexes hold."""
        return _answer(await asyncio.gather(*(service.held(one, item or ()) for one in service.models.values())))

    @app.get("/v1/suggest", response_model=list[bodies.Suggestion], responses=ERRORS, tags=["search"])
    async def suggest(
        who: Who,
        q: Annotated[str, Query(max_length=256, examples=["red"])] = "",
        limit: Annotated[int, Query(ge=1, le=50)] = 8,
    ) -> Response:
        """Queries that users search for and that begin so."""
        return _answer([{"query": query, "searches": n} for query, n in service.suggestions.of(q, limit)])

    @app.get("/v1/users/{user:id}", response_model=bodies.UserAnswer, responses=ERRORS, tags=["users"])
    async def user_get(who: Who, user: bodies.Id) -> Response:
        """The last events of a user, newest first."""
        allowed = service.access.user(who, user, None)
        events = await service.searcher.events(allowed or "")
        return _answer({"user": user, "events": _events(events)})

    @app.delete("/v1/users/{user:id}", response_model=bodies.DeletedAnswer, responses=ERRORS, tags=["users"])
    async def user_delete(who: Who, user: bodies.Id) -> Response:
        """Deletes a user's history, read back to be sure; what he searched for until now trains no model."""
        allowed = service.access.user(who, user, None)
        assert allowed is not None
        there = await service.forget(allowed, service.writer)
        return _answer({"user": user, "deleted": there})

    @app.delete("/v1/sessions/{session:id}", response_model=bodies.DeletedAnswer, responses=ERRORS, tags=["users"])
    async def session_delete(who: Who, session: bodies.Id) -> Response:
        """Deletes a session's history."""
        allowed = service.access.user(who, None, session)
        assert allowed is not None
        there = await service.forget(allowed, service.sessions)
        return _answer({"user": session, "deleted": there})

    if settings.demo:

        @app.get("/v1/users", response_model=list[bodies.UserAnswer], responses=ERRORS, tags=["users"])
        async def users(who: Who, limit: Annotated[int, Query(ge=1, le=100)] = 20) -> Response:
            """Some users with their events: of a demo alone."""
            found = await service.searcher.users(limit)
            rows = {user: events for user, events in sorted(found.items()) if not user.startswith(SESSION_PREFIX)}
            return _answer([{"user": user, "events": _events(events)} for user, events in rows.items()])

    @app.get("/v1/page", tags=["page"])
    async def page(who: Who) -> Response:
        """What can be chosen on the page: profiles, facets, sorting, examples."""
        more = {
            "demo": settings.demo,
            "images": settings.items is not None,
            "examples": service.suggestions.top(EXAMPLES),
            "models": list(service.models),
        }
        return _answer(page_settings(service.own.fields, service.searcher.profile, settings.profiles, **more))

    @app.get("/v1/images/{item:id}", responses={200: {"content": {"image/*": {}}}, 404: ERRORS[404]}, tags=["page"])
    async def image(item: bodies.Id) -> Response:
        """An item's image, where the service was started with an items file."""
        found = service.images.get(item)
        if found is None:
            raise NotThere("no image of this item", field="item")
        return Response(found[1], 200, {"cache-control": "max-age=86400"}, found[0])

    @app.get("/health", tags=["operation"])
    async def health() -> Response:
        """The process runs."""
        return _answer({"status": "up", "models": {one.name: one.version for one in service.models.values()}})

    @app.get("/ready", responses={503: ERRORS[503]}, tags=["operation"])
    async def ready() -> Response:
        """Vespa answers, and the service does not end. A compared model that is down is no reason to say no."""
        if service.stopping.yes:
            raise Unavailable("the service is stopping")
        own = await service.own.held(settings.deadline)
        compared = await asyncio.gather(
            *(service.held(one) for one in service.models.values() if one is not service.own)
        )
        return _answer({"status": "ready", "items": own.items + own.without, "compared": compared})

    @app.get("/metrics", tags=["operation"], responses={200: {"content": {"text/plain": {}}}})
    async def metrics() -> Response:
        """Prometheus."""
        for model in service.models.values():
            if model.producer is not None:
                s, v = model.producer.stats, model.searcher.vectors.count
                service.metrics.caches(
                    model.name,
                    {"memory": s.memory, "precomputed": s.precomputed, "computed": s.computed, "personal": s.personal},
                    {"hit": v.hits, "miss": v.misses},
                )
        return Response(service.metrics.text(), 200, media_type="text/plain; version=0.0.4")

    if service.log is not None:

        @app.get("/v1/reports/no-results", response_model=list[bodies.Suggestion], responses=ERRORS, tags=["operation"])
        async def no_results(who: Who, limit: Annotated[int, Query(ge=1, le=1000)] = 100) -> Response:
            """The queries that found nothing, the most frequent first. For the server's key."""
            if not (who.server or settings.demo):
                raise Refused(403, "for the server's key")
            rows = await asyncio.to_thread(without_results, service.log.folder, limit)  # type: ignore[union-attr]
            return _answer([{"query": query, "searches": n} for query, n in rows])

        if settings.interleave:

            @app.get(
                "/v1/reports/interleaving", response_model=bodies.InterleavingAnswer, responses=ERRORS,
                tags=["operation"],
            )  # fmt: skip
            async def interleaving(who: Who) -> Response:
                """How often the hits of each of the two interleaved profiles got more clicks. For the server's key."""
                if not (who.server or settings.demo):
                    raise Refused(403, "for the server's key")
                folder, (one, two) = service.log.folder, settings.interleave  # type: ignore[union-attr]
                return _answer(await asyncio.to_thread(interleaved_wins, folder, one, two))
