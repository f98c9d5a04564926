"""The JSON of the API, with examples: what OpenAPI shows and what a request is checked against."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from retrieval.filters import Facet, Filter, Sort
from retrieval.history.behaviour import Event
from retrieval.query_text import key_of
from retrieval.searcher import SearchRequest
from retrieval.service.settings import MAIN, MODEL_NAME
from vespa_package.fields import legal_text


def identifier(text: str) -> str:
    """An id, if Vespa takes its characters and an address can hold it. Raises ValueError."""
    if text in (".", ".."):
        raise ValueError(f"{text} is a folder in an address, and no id")
    return legal_text(text)


Text = Annotated[str, Field(max_length=4096)]
Id = Annotated[str, Field(min_length=1, max_length=512), AfterValidator(identifier)]
FieldName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", max_length=128)]
ModelName = Annotated[
    str,
    Field(pattern=MODEL_NAME, description=f"{MAIN}, or one of `mrse serve --compare`: GET /v1/models", examples=[MAIN]),
]
SearchId = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{8,64}$", description="Of the first page's answer")]
Number = Annotated[float, Field(allow_inf_nan=False)]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class FilterBody(Strict):
    """`values`: any of them with =, none of them with !=."""

    field: FieldName
    operator: Literal["=", "!=", "<", "<=", ">", ">="] = "="
    values: Annotated[list[str | bool | int | Number], Field(min_length=1, max_length=1000)]

    def filter(self) -> Filter:
        return Filter(self.field, self.operator, tuple(self.values))


class FacetBody(Strict):
    """The most frequent values of a field; with `bounds`, counts between numbers."""

    field: FieldName
    limit: Annotated[int, Field(ge=1, le=1000)] = 20
    bounds: Annotated[list[Number], Field(max_length=100)] = []

    def facet(self) -> Facet:
        return Facet(self.field, self.limit, tuple(self.bounds))


class ClickBody(Strict):
    """An event that the caller knows of, beside the stored history."""

    item: Id
    kind: Literal["click", "cart", "order"] = "click"
    at: Annotated[Number, Field(ge=0, le=4e9, description="Unix seconds")]
    query: Text | None = None

    def event(self) -> Event:
        return Event(self.item, self.kind, self.at, key_of(self.query) if self.query else None)


class SearchBody(Strict):
    """A search. `filters` and `facets` may be written short: "price<=50", "colour"."""

    query: Text
    user: Id | None = None
    session: Id | None = None
    clicks: Annotated[list[ClickBody], Field(max_length=100)] = []
    filters: Annotated[list[FilterBody | Text], Field(max_length=50)] = []
    hits: Annotated[int, Field(ge=0, le=400)] = 10
    offset: Annotated[int, Field(ge=0, le=1000)] = 0
    sort: Annotated[list[Text], Field(max_length=5, description="price, -price")] = []
    facets: Annotated[list[FacetBody | FieldName], Field(max_length=20)] = []
    profile: Annotated[FieldName | None, Field(description="Default: what the model's training recommends")] = None
    model: ModelName = MAIN
    target_hits: Annotated[int, Field(ge=1, le=10_000)] = 200
    exact: bool = False
    inputs: Annotated[dict[FieldName, Number], Field(max_length=20)] = {}
    timeout: Annotated[float, Field(gt=0, le=10, allow_inf_nan=False)] | None = None
    ranks: bool = False
    language: Annotated[str, Field(pattern=r"^[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*$", max_length=35)] | None = None
    min_coverage: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 0.0
    collapse: Annotated[FieldName | None, Field(description="The best hit of each value of this field alone")] = None
    search_id: SearchId | None = None

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {"query": "red dress", "hits": 5},
                {
                    "query": "red dress",
                    "filters": ["price<=50", {"field": "colour", "values": ["red", "pink"]}],
                    "facets": ["colour", {"field": "price", "bounds": [20, 50, 100]}],
                    "sort": ["-price"],
                },
                {"query": "red dress", "profile": "hybrid", "model": MAIN},
            ]
        },
    )

    def request(self, user: str | None, now: float | None) -> SearchRequest:
        """The search of the library. Raises InputError."""
        return SearchRequest(
            self.query,
            user=user,
            clicks=[click.event() for click in self.clicks],
            filters=[f.filter() if isinstance(f, FilterBody) else Filter.parse(f) for f in self.filters],
            hits=self.hits,
            offset=self.offset,
            sort=[Sort.parse(s) for s in self.sort],
            facets=[f.facet() if isinstance(f, FacetBody) else Facet(f) for f in self.facets],
            profile=self.profile,
            target_hits=self.target_hits,
            exact=self.exact,
            inputs=self.inputs,
            timeout=self.timeout,
            ranks=self.ranks,
            language=self.language,
            now=now,
            min_coverage=self.min_coverage,
            collapse=self.collapse,
        )


class EventBody(Strict):
    """A click, cart or order. `event_id` makes it idempotent: the same event twice counts once."""

    item: Id
    kind: Literal["click", "cart", "order"] = "click"
    user: Id | None = None
    session: Id | None = None
    at: Annotated[Number, Field(ge=0, le=4e9, description="Unix seconds; now by default and at most")] | None = None
    query: Text | None = None
    search_id: SearchId | None = None
    event_id: Id | None = None

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [{"item": "B01", "kind": "click", "session": "0f8c2f4e9a7d4b1c", "query": "red dress"}]
        },
    )


class ExplainBody(Strict):
    """Why an item stands where it does, for a query and perhaps a user."""

    query: Text
    item: Id
    user: Id | None = None
    session: Id | None = None
    clicks: Annotated[list[ClickBody], Field(max_length=100)] = []
    model: ModelName = MAIN

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"query": "red dress", "item": "B01"}]})


class HitAnswer(BaseModel):
    """pinned: by a rule. team: the profile that picked it, where two are interleaved."""

    item: str
    title: str
    category: list[str]
    score: float
    fields: dict[str, Any]
    features: dict[str, float]
    queues: dict[str, int | None]
    pinned: bool = False
    team: str = ""


class BucketAnswer(BaseModel):
    value: str | float | bool | None
    count: int
    low: float | None = None
    high: float | None = None


class FallbackAnswer(BaseModel):
    step: str
    reason: str


class SearchAnswer(BaseModel):
    """`total`: matches; of nearest neighbours these are the candidates, not all that are alike. `clicks`: events of the
    user that counted. `fallbacks`: what could not be done as asked. Send `search_id` with the events of this search.
    """

    search_id: str
    query: str
    profile: str
    model: str
    hits: list[HitAnswer]
    total: int
    offset: int
    clicks: int
    facets: dict[str, list[BucketAnswer]]
    coverage: float
    fallbacks: list[FallbackAnswer]
    seconds: float
    stages: dict[str, float]


class EventAnswer(BaseModel):
    """recorded: False for an event that was known, or older than what is kept."""

    recorded: bool
    reason: str = ""


class UserEvent(BaseModel):
    item: str
    kind: str
    at: float
    query: str | None = None


class UserAnswer(BaseModel):
    user: str
    events: list[UserEvent]


class DeletedAnswer(BaseModel):
    """deleted: the history is gone, read back to be sure."""

    user: str
    deleted: bool


class ExplainAnswer(BaseModel):
    """shares: what the score loses without each part (docs/rank-profiles.md)."""

    query: str
    item: str
    score: float
    shares: dict[str, float]
    queues: dict[str, int | None]
    clicks: int


class ModelAnswer(BaseModel):
    """A model that searches can be made with. model_version: "" where Vespa alone embeds. items: of its index, with its
    vectors. without: the other items of its index. lacks: of the items asked for, those without its vectors. problem:
    why the counts are not known.
    """

    name: str
    model_version: str
    items: int
    without: int
    lacks: list[str]
    problem: str


class Suggestion(BaseModel):
    query: str
    searches: int


class InterleavingAnswer(BaseModel):
    """wins: searches in which a profile's hits got more clicks. ties: as many. p: of a two-sided sign test."""

    profiles: list[str]
    wins: list[int]
    ties: int
    p: float


class ErrorBody(BaseModel):
    """kind: caller, unavailable, timeout, degraded, access, limited."""

    kind: str
    message: str
    field: str | None = None
    fix: str | None = None
    request_id: str


class ErrorAnswer(BaseModel):
    error: ErrorBody
