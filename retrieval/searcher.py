"""Search through pyvespa: a text, perhaps a user, perhaps filters, to hits; all recall queues in one YQL.

    searcher = Searcher(Vespa("http://localhost:8080"), model=ExportedModel.load("vespa_app/models"))
    searcher.search("red dress", user="u17", filters=[Filter("price", "<=", (50,))], facets=[Facet("colour")])

`AsyncSearcher` is the same with `await`. Without a model the query is embedded in Vespa, `embed(text, @query)`, and a
history cannot count. What can be gone without (history, image queue, embedder) is gone without when it fails, and
`SearchResult.fallbacks` says so; `strict=True` raises instead.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypedDict, Unpack

import numpy as np
from vespa.application import Vespa

from mrse_model.errors import InputError
from mrse_model.serving.exported_model import ExportedModel
from retrieval.backend import DEADLINE, Backend, Deadline, Plan, Retries
from retrieval.embed_producer import EmbedProducer
from retrieval.errors import Degraded, SearchError, Unavailable
from retrieval.filters import NAME, Facet, Filter, Sort, field_type, plain, tail, where
from retrieval.history.behaviour import ClickedItems, Event, image_queue, item_queue, tensor_hex
from retrieval.history.item_vectors import ItemVectorCache
from retrieval.history.users import KnownHistories, clicked_items, events_query, item_vectors, some_users, user_events
from retrieval.profiles import RankProfile, matching, profile_of
from retrieval.query_text import cleaned, has_words, key_of
from retrieval.results import (
    Explanation,
    Fallback,
    Hit,
    SearchResult,
    read_collapsed,
    read_coverage,
    read_facets,
    read_hits,
    read_total,
)

MAX_HITS, MAX_OFFSET = 1000, 10_000  # as the query profile default
MAX_TARGET_HITS = 10_000
MAX_PINNED = 100  # items pinned, or buried, for one query
USER_SHARE = 0.5  # of the time left that reading a user may take: hits without the history are better than none
VERSION_AGE = 10.0  # seconds that "the index holds this model" is believed, once a search found nothing


@dataclass(frozen=True)
class QueryVector:
    """A query vector that was made elsewhere, with the version of the model that made it. values: float32 [128]."""

    values: np.ndarray
    model_version: str


class Options(TypedDict, total=False):
    """Everything of a `SearchRequest` but the query."""

    user: str | None
    clicks: Sequence[Event]
    filters: Sequence[Filter]
    hits: int
    offset: int
    sort: Sequence[Sort]
    facets: Sequence[Facet]
    profile: str | RankProfile | None
    target_hits: int
    exact: bool
    inputs: Mapping[str, float]
    timeout: float | None
    ranks: bool
    language: str | None
    now: float | None
    min_coverage: float
    strict: bool
    collapse: str | None
    pinned: Sequence[str]
    buried: Sequence[str]


@dataclass(frozen=True)
class SearchRequest:
    """One search.

    user: whose `shopper` document gives the history. clicks: events beside those (a session's). sort: instead of rank.
    profile: None for the one that the model's training recommends, where the Searcher has the model, else ann.
    target_hits: candidates of each nearest-neighbour search; raised where hits need more, and where offset does and
    order is by closeness alone: pages of any other order end with these candidates. exact: no HNSW.
    inputs: of the rank profile, as alpha of hybrid_linear. timeout: seconds. ranks: each hit's rank in each queue, at
    the cost of a second call. language: of the text, as `model.language`. now: Unix seconds of the search.
    min_coverage: share of the documents below which `Degraded` is raised. strict: raise instead of going without.
    collapse: a string field, as the id of what is sold in several colours and sizes: of each of its values the best
    hit alone, and every item without a value. pinned: item ids that come first, in this order, where the filters let
    them through. buried: item ids that come behind everything else. Sorting ignores both, and facets do not count them.
    """

    query: str | QueryVector
    user: str | None = None
    clicks: Sequence[Event] = ()
    filters: Sequence[Filter] = ()
    hits: int = 10
    offset: int = 0
    sort: Sequence[Sort] = ()
    facets: Sequence[Facet] = ()
    profile: str | RankProfile | None = None
    target_hits: int = 200
    exact: bool = False
    inputs: Mapping[str, float] = field(default_factory=dict)
    timeout: float | None = None
    ranks: bool = False
    language: str | None = None
    now: float | None = None
    min_coverage: float = 0.0
    strict: bool = False
    collapse: str | None = None
    pinned: Sequence[str] = ()
    buried: Sequence[str] = ()

    def __post_init__(self) -> None:
        for name, low, high in (
            ("hits", 0, MAX_HITS),
            ("offset", 0, MAX_OFFSET),
            ("target_hits", 1, MAX_TARGET_HITS),
            ("min_coverage", 0, 1),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                raise InputError(f"{name} must be {low} to {high}, got {value}", field=name)
        if self.timeout is not None and not 0 < self.timeout <= 600:
            raise InputError(f"timeout must be above 0 and at most 600 s, got {self.timeout}", field="timeout")
        for name, value in self.inputs.items():
            if not NAME.fullmatch(name):
                raise InputError(f"not a rank input name: {name!r}", field="inputs")
            if isinstance(number := plain(value, f"inputs.{name}"), (str, bool)) or not math.isfinite(number):
                raise InputError(f"{value!r} is no number", field=f"inputs.{name}")
        for name in ("pinned", "buried"):
            if len(getattr(self, name)) > MAX_PINNED:
                raise InputError(f"{len(getattr(self, name))} items exceed {MAX_PINNED}", field=name)
        if self.collapse is not None:
            if not NAME.fullmatch(self.collapse):
                raise InputError(f"no field: {self.collapse!r}", field="collapse")
            if self.sort:
                raise InputError(
                    "collapse and sort exclude each other: the best hit of a group is chosen by rank", field="collapse"
                )
            if self.offset + self.hits > MAX_HITS:
                raise InputError(f"offset + hits must be at most {MAX_HITS} with collapse", field="offset")
        if self.language is not None and not self.language.replace("-", "").isalnum():
            raise InputError(
                f"not a language tag: {self.language!r}", field="language", fix="Write it like en or pt-BR"
            )


@dataclass
class _Search:
    """What is known of a search on its way."""

    request: SearchRequest
    profile: RankProfile
    deadline: Deadline
    text: str | None
    clicked: ClickedItems | None = None
    buried: list[Filter] = field(default_factory=list)
    fallbacks: list[Fallback] = field(default_factory=list)
    stages: dict[str, float] = field(default_factory=dict)

    @property
    def candidates(self) -> int:
        """Of each nearest-neighbour search. By closeness alone, further ones stand behind those of the pages before; in
        any other order they would stand among them, and pages repeat or lose items.
        """
        request = self.request
        by_closeness = self.profile.recall == ("query",) and not request.sort
        return max(request.target_hits, request.hits + request.offset * by_closeness)

    def without(self, step: str, error: Exception | str) -> None:
        """Goes on without a step, or raises what stopped it where the request is strict."""
        if self.request.strict and isinstance(error, Exception):
            raise error
        self.fallbacks.append(Fallback(step, str(error)))


class SearchPlans:
    """A search, similar items, a user's events: as plans, for either client. Thread-safe."""

    def __init__(
        self,
        app: Vespa,
        *,
        model: ExportedModel | None = None,
        producer: EmbedProducer | None = None,
        suffix: str = "",
        profiles: Sequence[RankProfile] = (),
        fields: Mapping[str, str] | None = None,
        deadline: float = DEADLINE,
        retries: Retries = Retries(),  # noqa: B008 (frozen)
        language: str | None = None,
        vectors: ItemVectorCache | None = None,
        known_seconds: float = 0.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """model or producer: for histories and vectors made here. suffix: of the second set of vectors (mrse
        migrate). profiles: of one's own. fields: name → type of the item's fields, to check filters against. deadline:
        seconds of a search that names none. known_seconds: how long a user's events are searched with while they are
        read again; 0 reads them first. clock: Unix seconds, for the ages of events.
        """
        self.backend = Backend(app, retries, suffix)
        self.producer = producer or (EmbedProducer(model) if model else None)
        self.vectors = vectors or ItemVectorCache()
        self.histories = KnownHistories(known_seconds)
        self.own, self.fields = tuple(profiles), fields
        self._suffix, self._deadline, self._language, self._clock = suffix, deadline, language, clock
        self._held: dict[str, float] = {}  # model version → when the index was last seen to hold it

    @property
    def profile(self) -> str:
        """The rank profile of a text search that names none."""
        return self.producer.model.manifest.profile if self.producer else "ann"

    def search_plan(self, request: SearchRequest) -> Plan[SearchResult]:
        begin = time.perf_counter()
        search = self._begin(request)
        pinned = yield from self._pinned(search)
        body, answer = yield from self._answered(search)
        hits, length, total = read_hits(answer), read_total(answer), read_total(answer)
        groups: list[Hit] = []
        if request.collapse is not None:
            groups, asked = read_collapsed(answer, request.collapse), search.request
            hits, length = groups[asked.offset : asked.offset + asked.hits], len(groups)
        if search.buried and search.request.offset + len(hits) >= length:
            last, found = yield from self._buried(search, body, length, [*pinned, *groups])
            hits, total = hits + last, total + found
        if request.ranks and search.profile.labelled and hits:
            hits = yield from self._with_ranks(search, body, hits)
        coverage = read_coverage(answer)
        if coverage.share < request.min_coverage:
            raise Degraded(f"{coverage.share:.0%} of the documents were searched ({coverage.reason})", coverage.share)
        first = pinned[request.offset : request.offset + request.hits]
        seconds = time.perf_counter() - begin
        return SearchResult(
            first + hits,
            total + len(pinned),
            seconds,
            len(search.clicked) if search.clicked else 0,
            profile=search.profile.name,
            query=search.text or "",
            offset=request.offset,
            facets=read_facets(answer, [facet.field for facet in request.facets]),
            coverage=coverage,
            fallbacks=search.fallbacks,
            stages=search.stages,
        )

    def _answered(self, search: _Search) -> Plan[tuple[dict[str, Any], dict[str, Any]]]:
        """The body asked and Vespa's answer. A user who is known is searched for as he was while his events are read
        again, and once more where they have changed: what was clicked counts in the next search.
        """
        known = self.histories.get(search.request.user) if search.request.user is not None else None
        if known is None or search.profile.user == "none":
            yield from self._read_user(search)
            body, conditions = self._query(search)
            return body, (yield from self._ask_stepwise(search, body, conditions))
        user, first = search.request.user, dataclasses.replace(search, fallbacks=[], stages={})
        assert user is not None
        begun = yield from self.backend.begin(events_query(user), search.deadline)
        yield from self._read_user(first, known.events)
        body, conditions = self._query(first)
        answer = yield from self._ask_stepwise(first, body, conditions)
        begin, stored = time.perf_counter(), known
        try:
            stored = yield from user_events(self.backend, user, search.deadline, begun, known)
            self.histories.put(user, stored)
        except (SearchError, InputError) as error:
            first.without("history", error)
        first.stages["history"] += time.perf_counter() - begin
        taken = first
        if stored is not known and set(stored.events) != set(known.events):  # cells may come in another order
            second = dataclasses.replace(search, fallbacks=[], stages={})
            try:
                yield from self._read_user(second, stored.events)
                again, conditions = self._query(second)
                answer = yield from self._ask_stepwise(second, again, conditions)
                taken, body = second, again
            except SearchError as error:
                if not stored.events:  # deleted: nothing is answered from it
                    raise
                first.without("history", error)
        search.profile, search.clicked = taken.profile, taken.clicked
        search.fallbacks += taken.fallbacks
        search.stages |= taken.stages
        return body, answer

    def _pinned(self, search: _Search) -> Plan[list[Hit]]:
        """The pinned items that the filters let through; and the search is of the others, from where these end."""
        request = search.request
        if request.sort or not (request.pinned or request.buried):
            return []
        found: list[Hit] = []
        if request.pinned:
            only = [Filter("item_id", "=", tuple(request.pinned)), *request.filters]
            condition, parameters = where([one.checked(self.fields) for one in only])
            body = parameters | {
                "yql": f"select * from item where {condition}",
                "hits": MAX_HITS,
                "ranking": "unranked",
            }
            try:
                answer = yield from self.backend.ask(body, search.deadline.share(USER_SHARE))
                hits = {hit.item_id: hit for hit in read_hits(answer)}
                kept = [hits[item_id] for item_id in request.pinned if item_id in hits]
                found = [dataclasses.replace(hit, score=0.0, pinned=True) for hit in kept]
            except SearchError as error:
                search.without("pinned", error)
        apart = [("item_id", {hit.item_id for hit in found} | set(request.buried))]
        if request.collapse is not None:  # a pinned item stands for its group
            values = {hit.fields.get(request.collapse, "") for hit in found}
            apart.append((request.collapse, {value for value in values if isinstance(value, str)} - {""}))
        if request.buried:
            search.buried = [*request.filters, Filter("item_id", "=", tuple(request.buried))]
        search.request = dataclasses.replace(
            request,
            filters=[*request.filters, *(Filter(name, "!=", tuple(values)) for name, values in apart if values)],
            offset=max(request.offset - len(found), 0),
            hits=request.hits - len(found[request.offset : request.offset + request.hits]),
        )
        return found

    def _buried(
        self, search: _Search, body: dict[str, Any], length: int, above: Sequence[Hit]
    ) -> Plan[tuple[list[Hit], int]]:
        """What of the page lies behind the `length` others, and how many buried items the query finds at all. above:
        hits, whose groups have no further hit where the request collapses.
        """
        request, begin = search.request, time.perf_counter()
        condition, parameters = where([one.checked(self.fields) for one in search.buried])
        ask = {k: v for k, v in body.items() if k not in ("offset", "yql") and not k.startswith("filter")}
        conditions = [condition] + (
            [f"model_version{self._suffix} contains @model_version"] if "model_version" in body else []
        )
        ask |= parameters | {"hits": MAX_PINNED}
        ask["yql"] = self._yql(search, ask, conditions)
        try:
            answer = yield from self.backend.ask(ask, search.deadline)
        except SearchError as error:
            search.without("buried", error)
            return [], 0
        found = [hit for hit in read_hits(answer) if hit.item_id in request.buried]
        total = len(found)
        if request.collapse is not None:
            values = {hit.fields.get(request.collapse) for hit in above} - {None, ""}
            firsts = {hit.fields.get(request.collapse) or hit.item_id: hit for hit in reversed(found)}
            found = [hit for hit in found if hit in firsts.values() and hit.fields.get(request.collapse) not in values]
        search.stages["buried"] = time.perf_counter() - begin
        start = max(request.offset - length, 0)
        room = max(request.offset + request.hits - max(request.offset, length), 0)
        return found[start : start + room], total

    def similar_plan(self, item_id: str, options: Options) -> Plan[SearchResult]:
        """The nearest neighbours of an item's vector, without the item. Raises InputError for an item that the index
        does not hold.
        """
        request = SearchRequest(QueryVector(np.zeros(0), ""), **options)
        if self.producer is None:
            raise InputError("similar items need the exported model here", fix="Give the package with --app")
        manifest = self.producer.model.manifest
        deadline = Deadline(request.timeout or self._deadline)
        found = yield from item_vectors(self.backend, [item_id], manifest, self.vectors, deadline, self._suffix)
        vector = found.get(item_id)
        if vector is None:
            raise InputError(f"the index holds no item {item_id!r} of model {manifest.model_version}", field="item")
        request = dataclasses.replace(
            request,
            query=QueryVector(vector.embedding, manifest.model_version),
            filters=[*request.filters, Filter("item_id", "!=", (item_id,))],
            timeout=max(deadline.left(), 0.001),
        )
        return (yield from self.search_plan(request))

    def events_plan(self, user: str, timeout: float | None = None) -> Plan[list[Event]]:
        return (yield from user_events(self.backend, user, Deadline(timeout or self._deadline))).events

    def explain_plan(self, query: str, item_id: str, options: Options) -> Plan[Explanation]:
        """Why an item stands where it does: the rank profile `explain` for it alone, and its ranks in the queues."""
        request = SearchRequest(query, **options)
        own = RankProfile("explain", user="inputs")
        search = self._begin(dataclasses.replace(request, profile=own))
        yield from self._read_user(search)
        body, conditions = self._query(search)
        body |= {"explained": item_id, "hits": 1}
        body["yql"] = " and ".join(["select * from item where item_id contains @explained", *conditions])
        answer = yield from self.backend.ask(body, search.deadline)
        found = [hit for hit in read_hits(answer) if hit.item_id == item_id]
        if not found:
            of_model = f" of model {body['model_version']}" if "model_version" in body else ""
            problem = f"the index holds no item {item_id!r}{of_model} that the filters let through"
            raise InputError(problem, field="item")
        queued = self._begin(dataclasses.replace(request, profile="three_queues"))
        queued.clicked, queued.deadline = search.clicked, search.deadline
        body, conditions = self._query(queued)
        body["yql"] = self._yql(queued, body, conditions)
        ranks = yield from self._queue_ranks(queued, body)
        shares = {name: share for name, share in found[0].features.items() if not name.startswith(("from_", "queue_"))}
        clicks = len(search.clicked) if search.clicked is not None else 0
        queues = {queue: by_item[item_id] for queue, by_item in ranks.items() if item_id in by_item}
        return Explanation(found[0], shares, queues, clicks, search.fallbacks)

    def users_plan(self, limit: int, timeout: float | None = None) -> Plan[dict[str, list[Event]]]:
        """Some users with their events, for a demo."""
        return (yield from some_users(self.backend, limit, Deadline(timeout or self._deadline)))

    def _begin(self, request: SearchRequest) -> _Search:
        """Checks what can be checked here."""
        text = cleaned(request.query) if isinstance(request.query, str) else None
        wanted = request.profile or ("ann" if text is None else self.profile)
        profile = profile_of(wanted, self.own)
        deadline = Deadline(request.timeout or self._deadline)
        search = _Search(request, profile, deadline, text)
        if text is None and "words" in profile.recall:
            raise InputError(f"{profile.name} needs a text, not a vector", field="profile", fix="Take ann")
        if text is not None and not profile.takes_vector and not has_words(text):
            search.profile = profile_of("ann")
            search.without("words", "the query has no words: answered by vectors")
        if self.fields is not None:
            for name in [s.field for s in request.sort] + [f.field for f in request.facets]:
                field_type(name, self.fields)
            if request.collapse is not None and (kind := field_type(request.collapse, self.fields)) != "string":
                raise InputError(f"it is {kind}: only a string collapses hits", field=request.collapse)
        return search

    def _read_user(self, search: _Search, known: list[Event] | None = None) -> Plan[None]:
        """The clicked items of the user and of the session, or none and a fallback that says why. known: the events of
        the user, where they need not be read.
        """
        request, begin = search.request, time.perf_counter()
        if request.user is None and not request.clicks:
            return
        if self.producer is None:
            raise InputError("a history needs the exported model here", fix="Give the package with --app")
        if search.profile.user == "none":
            return
        manifest, deadline = self.producer.model.manifest, search.deadline.share(USER_SHARE)
        events = [*request.clicks, *(known or ())]
        try:
            if request.user is not None and known is None:
                stored = yield from user_events(self.backend, request.user, deadline)
                self.histories.put(request.user, stored)
                events += stored.events
        except (SearchError, InputError) as error:
            search.without("history", error)
        try:
            search.clicked = yield from clicked_items(
                self.backend,
                events,
                manifest,
                self.vectors,
                deadline,
                now=request.now if request.now is not None else self._clock(),
                query=key_of(search.text) if search.text else None,
                suffix=self._suffix,
            )
        except SearchError as error:
            search.without("history", error)
        if events and search.clicked is not None and not len(search.clicked):
            search.without("history", "none of the user's events counts: too old, or of items that left the index")
        search.stages["history"] = time.perf_counter() - begin

    def _query(self, search: _Search) -> tuple[dict[str, Any], list[str]]:
        """The body without YQL, and the conditions."""
        request, begin = search.request, time.perf_counter()
        vector, conditions = self._vector(search)
        condition, parameters = where([one.checked(self.fields) for one in request.filters])
        body: dict[str, Any] = parameters | vector
        body |= {
            "ranking": ((request.sort and search.profile.sorted_by) or search.profile.name) + self._suffix,
            "hits": request.hits,
            "presentation.format.tensors": "short-value",
        }
        if request.collapse is not None:  # the plain hits are asked for their match-features, or collapsed here
            here = bool(search.profile.sorted_by) and request.hits
            body["hits"] = min(search.candidates, MAX_HITS) if here else request.offset + request.hits
        elif request.offset:
            body["offset"] = request.offset
        if search.text is not None:
            body["query"] = search.text
        if language := request.language or self._language:
            body["model.language"] = language
        for name, value in request.inputs.items():
            body[f"input.query({name})"] = float(value)
        search.stages["vector"] = time.perf_counter() - begin
        return body, conditions + ([condition] if condition else [])

    def _vector(self, search: _Search) -> tuple[dict[str, Any], list[str]]:
        """The query inputs, and the condition that keeps vectors of two versions apart."""
        request, profile, clicked = search.request, search.profile, search.clicked
        if not profile.takes_vector:
            return {}, []
        if isinstance(request.query, QueryVector):
            vector, version = np.asarray(request.query.values, np.float32).ravel(), request.query.model_version
            if not np.isfinite(vector).all():
                raise InputError("the query vector has values that are not finite", field="query")
        elif self.producer is None or search.text is None:
            return self._embedded(profile), []
        else:
            history = clicked.history() if clicked is not None and profile.user == "vector" else None
            try:
                vector, version = self.producer.vectors([search.text], [history])[0], self.producer.model_version
            except InputError:
                raise
            except Exception as error:  # onnxruntime raises pybind exceptions without a common base
                search.without("embedder", f"the model here fails ({error}): embedded by Vespa")
                search.clicked = None
                return self._embedded(profile), []
        body: dict[str, Any] = {"input.query(q)": tensor_hex(vector), "model_version": version}
        if profile.user == "inputs":
            body |= self._tokens()
        if clicked is not None and len(clicked):
            body |= self._behaviour(vector, clicked, profile)
        return body, [f"model_version{self._suffix} contains @model_version"]

    def _embedded(self, profile: RankProfile) -> dict[str, Any]:
        body = {"input.query(q)": f"embed(text{self._suffix}, @query)"}
        return body | (self._tokens() if profile.user == "inputs" else {})

    def _tokens(self) -> dict[str, str]:
        return {"input.query(tokens)": f"embed(tokenizer{self._suffix}, @query)"}

    def _behaviour(self, vector: np.ndarray, clicked: ClickedItems, profile: RankProfile) -> dict[str, Any]:
        assert self.producer is not None
        if profile.user == "inputs":
            inputs = clicked.tower_inputs(self.producer.model.manifest.history_length)
            return {f"input.query({name})": tensor_hex(tensor) for name, tensor in inputs.items()}
        if not profile.labelled:
            return {}
        seeds = clicked.seeds()
        queues = {
            "i2i": item_queue(vector, seeds) if "clicks" in profile.recall else None,
            "image": image_queue(vector, seeds) if "images" in profile.recall else None,
        }
        return {f"input.query({name})": tensor_hex(queue) for name, queue in queues.items() if queue is not None}

    def _yql(self, search: _Search, body: dict[str, Any], conditions: Sequence[str], select: str = "*") -> str:
        request = search.request
        vectors = {"clicks": "input.query(i2i)", "images": "input.query(image)"}
        found = matching(
            search.profile,
            words=search.text is not None and has_words(search.text),
            queues=[name for name, vector in vectors.items() if vector in body],
            target_hits=search.candidates,
            exact=request.exact,
            suffix=self._suffix,
        )
        return " and ".join([f"select {select} from item where {found}", *conditions])

    def _ask_stepwise(self, search: _Search, body: dict[str, Any], conditions: list[str]) -> Plan[dict[str, Any]]:
        """Asks, and where the answer says that a part cannot be had, asks without that part."""
        begin = time.perf_counter()
        request = search.request
        # a global phase ranks the hits, and not those of groups
        collapse = request.collapse if request.hits and not search.profile.sorted_by else None
        ends = tail(request.sort, request.facets, collapse, request.offset + request.hits)
        while True:
            body["yql"] = self._yql(search, body, conditions) + ends
            try:
                answer = yield from self.backend.ask(body, search.deadline)
            except InputError as error:
                backend_fault = isinstance(error, SearchError) and not _embedder(error)
                if backend_fault or not self._next_step(search, body, error):
                    raise
                if search.profile.user == "none":
                    conditions = [c for c in conditions if "@model_version" not in c]
                continue
            if not read_total(answer) and "model_version" in body:
                problem = yield from self._version_problem(search, str(body["model_version"]))
                if problem is not None:
                    if search.text is None or not has_words(search.text) or search.request.strict:
                        raise problem
                    search.without("model", f"{problem} Answered by words alone.")
                    self._by_words(search, body)
                    conditions = [c for c in conditions if "@model_version" not in c]
                    continue
            search.stages["search"] = time.perf_counter() - begin
            return answer

    def _next_step(self, search: _Search, body: dict[str, Any], error: InputError) -> bool:
        """Takes away the part that Vespa cannot do; False where the request itself is at fault."""
        words = str(error).lower()
        if "input.query(image)" in body and "image" in words:
            search.without("images", error)
            del body["input.query(image)"]
            return True
        embeds = str(body.get("input.query(q)", "")).startswith("embed(")
        if embeds and _embedder(error) and search.text and has_words(search.text):
            search.without("embedder", error)
            self._by_words(search, body)
            return True
        return False

    def _by_words(self, search: _Search, body: dict[str, Any]) -> None:
        """Turns a search into one of the profile bm25."""
        search.profile, search.clicked = profile_of("bm25"), None
        for name in [n for n in body if n.startswith("input.") or n == "model_version"]:
            del body[name]
        body["ranking"] = search.profile.name

    def _version_problem(self, search: _Search, version: str) -> Plan[InputError | None]:
        """Why a search for vectors of this version found nothing: the index may hold none of them, or no more."""
        now = time.monotonic()
        if now - self._held.get(version, -math.inf) < VERSION_AGE:
            return None
        body = {
            "yql": f"select item_id from item where model_version{self._suffix} contains @model_version",
            "model_version": version,
            "hits": 0,
            "ranking": "unranked",
        }
        if read_total((yield from self.backend.ask(body, search.deadline))):
            self._held[version] = now
            return None
        any_item = {"yql": "select * from item where true", "hits": 1, "ranking": "unranked"}
        answer = yield from self.backend.ask(any_item, search.deadline)
        children = answer["root"].get("children", [])
        held = children[0]["fields"].get("model_version" + self._suffix) if children else None
        problem = f"its items are of model {held}" if held else "it holds no items"
        ours = self.producer is not None and version == self.producer.model_version
        return (Unavailable if ours else InputError)(
            f"{self.backend.url} has no vectors of model {version}: {problem}",
            field="model_version",
            fix="Feed the items with this model (mrse feed), or query with the model that they were fed with",
        )

    def _with_ranks(self, search: _Search, body: dict[str, Any], hits: list[Hit]) -> Plan[list[Hit]]:
        """Each hit's rank in each queue that found it: by a second search for the queues' candidates, whose raw
        closenesses order each queue.
        """
        begin = time.perf_counter()
        try:
            ranks = yield from self._queue_ranks(search, body)
        except SearchError as error:
            search.without("ranks", error)
            return hits
        search.stages["ranks"] = time.perf_counter() - begin
        return [
            dataclasses.replace(hit, queues={queue: ranks[queue].get(hit.item_id) for queue in hit.queues})
            for hit in hits
        ]

    def _queue_ranks(self, search: _Search, body: dict[str, Any]) -> Plan[dict[str, dict[str, int]]]:
        """Queue → item id → rank from 1 on, of all the candidates of a search with this body."""
        most = min(2 * search.candidates, MAX_HITS)
        ask = {k: v for k, v in body.items() if k not in ("offset", "yql")} | {"hits": most}
        ask["yql"] = body["yql"].split(" order by ")[0].split(" | ")[0].replace("select *", "select item_id", 1)
        candidates = read_hits((yield from self.backend.ask(ask, search.deadline)))
        ranks: dict[str, dict[str, int]] = {}
        for feature, queue in (("from_query", "q2i"), ("from_clicks", "i2i"), ("from_images", "image")):
            scored = [(c.features[feature], c.item_id) for c in candidates if c.features.get(feature, 0.0) > 0]
            ordered = sorted(scored, key=lambda pair: (-pair[0], pair[1]))
            ranks[queue] = {item_id: rank for rank, (_, item_id) in enumerate(ordered, 1)}
        return ranks


def _embedder(error: Exception) -> bool:
    return any(word in str(error).lower() for word in ("embed", "onnx"))


def _request(query: str | QueryVector | SearchRequest, options: Options) -> SearchRequest:
    if isinstance(query, SearchRequest):
        return dataclasses.replace(query, **options)
    return SearchRequest(query, **options)


class Searcher(SearchPlans):
    """Queries against one endpoint, for programs that wait. Thread-safe."""

    def search(self, query: str | QueryVector | SearchRequest, **options: Unpack[Options]) -> SearchResult:
        """One query; see `SearchRequest` for the options.

        Raises InputError for what is wrong with the request, in Vespa's words where it is Vespa that refuses, and
        for a vector of a model version that the index does not hold; Unavailable, DeadlineExceeded, Degraded
        (`retrieval.errors`).
        """
        return self.backend.run(self.search_plan(_request(query, options)))

    def similar(self, item_id: str, **options: Unpack[Options]) -> SearchResult:
        """What is most like an item. Raises as `search`."""
        return self.backend.run(self.similar_plan(item_id, options))

    def explain(self, query: str, item_id: str, **options: Unpack[Options]) -> Explanation:
        """Why an item stands where it does for a query, and a user. Raises as `search`, and InputError for an item that
        is not there.
        """
        return self.backend.run(self.explain_plan(query, item_id, options))

    def events(self, user: str, timeout: float | None = None) -> list[Event]:
        """The last clicks, carts and orders of a user's `shopper` document; [] for one that Vespa does not know."""
        return self.backend.run(self.events_plan(user, timeout))

    def close(self) -> None:
        self.backend.close()

    def __enter__(self) -> Searcher:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncSearcher(SearchPlans):
    """The same for an event loop."""

    async def search(self, query: str | QueryVector | SearchRequest, **options: Unpack[Options]) -> SearchResult:
        """As `Searcher.search`."""
        return await self.backend.arun(self.search_plan(_request(query, options)))

    async def similar(self, item_id: str, **options: Unpack[Options]) -> SearchResult:
        """As `Searcher.similar`."""
        return await self.backend.arun(self.similar_plan(item_id, options))

    async def explain(self, query: str, item_id: str, **options: Unpack[Options]) -> Explanation:
        """As `Searcher.explain`."""
        return await self.backend.arun(self.explain_plan(query, item_id, options))

    async def users(self, limit: int = 20) -> dict[str, list[Event]]:
        """Some users with their events: for a demo."""
        return await self.backend.arun(self.users_plan(limit))

    async def events(self, user: str, timeout: float | None = None) -> list[Event]:
        """As `Searcher.events`."""
        return await self.backend.arun(self.events_plan(user, timeout))

    async def close(self) -> None:
        self.backend.close()

    async def __aenter__(self) -> AsyncSearcher:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
