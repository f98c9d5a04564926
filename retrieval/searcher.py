"""Search through pyvespa: a text, perhaps a user, perhaps filters, to hits; all recall queues in one YQL.

    searcher = Searcher(Vespa("http://localhost:8080"), model=ExportedModel.load("vespa_app/models"))
    searcher.search("red dress", user="u17", filters=[Filter("price", "<=", (50,))], profile="three_queues")

Without a model the query is embedded in Vespa, `embed(text, @query)`, and a history cannot count.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

import numpy as np
from vespa.application import Vespa, VespaSync
from vespa.exceptions import VespaError
from vespa.io import VespaQueryResponse

from mrse_model.errors import InputError
from mrse_model.serving.exported_model import ExportedModel
from retrieval.behaviour import ClickedItems, Event, image_queue, item_queue
from retrieval.embed_producer import EmbedProducer
from retrieval.filters import Filter, where
from retrieval.users import clicked_items, events_of

Profile = Literal["ann", "exact", "bm25", "hybrid", "hybrid_linear", "personal", "three_queues", "query_tower"]
PROFILES: tuple[str, ...] = get_args(Profile)
OWN_HISTORY = ("personal", "query_tower")  # their rank profiles bring the history in: the query vector must not as well


@dataclass(frozen=True)
class Hit:
    """An item found. score: the rank profile's. features: its match-features, such as each queue's share."""

    item_id: str
    title: str
    category: list[str]
    score: float
    fields: dict[str, Any]
    features: dict[str, float]


@dataclass(frozen=True)
class SearchResult:
    """total: items that matched. seconds: query vector, Vespa and network together. clicks: events that counted."""

    hits: list[Hit]
    total: int
    seconds: float
    clicks: int


@dataclass(frozen=True)
class QueryVector:
    """A query vector that was made elsewhere, with the version of the model that made it. values: float32 [128]."""

    values: np.ndarray
    model_version: str


class Searcher:
    """Queries against one endpoint, over one connection."""

    def __init__(
        self,
        app: Vespa,
        *,
        model: ExportedModel | None = None,
        producer: EmbedProducer | None = None,
        suffix: str = "",
    ) -> None:
        """model or producer: for histories and vectors made here. suffix: of the second set of vectors (mrse
        migrate).
        """
        self._app, self._suffix = app, suffix
        self.producer = producer or (EmbedProducer(model) if model else None)
        self._client = app.get_sync_session()
        self._session = VespaSync(app, session=self._client, num_retries_429=2)
        self._checked: set[str] = set()

    def close(self) -> None:
        self._client.close()

    def search(
        self,
        query: str | QueryVector,
        *,
        user: str | None = None,
        clicks: Sequence[Event] | None = None,
        filters: Sequence[Filter] = (),
        hits: int = 10,
        profile: Profile = "ann",
        target_hits: int = 200,
        exact: bool = False,
    ) -> SearchResult:
        """One query.

        user: whose `shopper` document gives the history. clicks: the history itself, instead. exact: no HNSW.
        Raises InputError for a blank text, a profile that does not exist, a vector of another model version than
        the index holds, and for whatever Vespa refuses, in Vespa's words.
        """
        begin = time.perf_counter()
        if profile not in PROFILES:
            raise InputError(f"no profile {profile!r}", field="profile", fix="Take one of " + ", ".join(PROFILES))
        if isinstance(query, str) and not query.strip():
            raise InputError("the query is blank", field="query")
        clicked = self._clicked(user, clicks)
        body, conditions = self._vector(query, clicked, profile)
        condition, parameters = where(filters)
        conditions += [condition] if condition else []
        matching = self._matching(profile, target_hits, exact or profile == "exact", body)
        body |= parameters | {
            "yql": " and ".join([f"select * from item where {matching}", *conditions]),
            "ranking": profile + self._suffix,
            "hits": hits,
            "presentation.format.tensors": "short-value",
        }
        if isinstance(query, str):
            body["query"] = query
        answer = self._ask(body)
        found = [_hit(raw) for raw in answer["root"].get("children", [])]
        total = int(answer["root"].get("fields", {}).get("totalCount", 0))
        return SearchResult(found, total, time.perf_counter() - begin, len(clicked) if clicked else 0)

    def events(self, user: str) -> list[Event]:
        """The last clicks, carts and orders of a user's `shopper` document; [] for one that Vespa does not know."""
        return events_of(self._ask, user)

    def _clicked(self, user: str | None, clicks: Sequence[Event] | None) -> ClickedItems | None:
        if user is None and clicks is None:
            return None
        if self.producer is None:
            raise InputError("a history needs the exported model here", fix="Give the package with --app")
        events = clicks if clicks is not None else self.events(user or "")
        return clicked_items(self._ask, events, self.producer.model.manifest, suffix=self._suffix)

    def _vector(
        self, query: str | QueryVector, clicked: ClickedItems | None, profile: Profile
    ) -> tuple[dict[str, Any], list[str]]:
        """The query inputs, and the condition that keeps vectors of two versions apart."""
        if profile == "bm25":
            return {}, []
        if isinstance(query, QueryVector):
            vector, version = np.asarray(query.values, np.float32), query.model_version
        elif self.producer is None:
            return {"input.query(q)": f"embed(text{self._suffix}, @query)"} | self._tokens(profile), []
        else:
            history = clicked.history() if clicked and profile not in OWN_HISTORY else None
            vector, version = self.producer.vectors([query], [history])[0], self.producer.model_version
        self._require(version)
        body: dict[str, Any] = {"input.query(q)": vector.tolist(), "model_version": version} | self._tokens(profile)
        if clicked:
            body |= self._behaviour(vector, clicked, profile)
        return body, [f"model_version{self._suffix} contains @model_version"]

    def _behaviour(self, vector: np.ndarray, clicked: ClickedItems, profile: Profile) -> dict[str, Any]:
        if not len(clicked) or self.producer is None:
            return {}
        if profile == "personal":
            # The labels are positions: item ids would have to be quoted, and the profile does not look at them.
            cells = ",".join(f"i{n}:{row.tolist()}" for n, row in enumerate(clicked.embedding))
            weights = ",".join(f"i{n}:{weight}" for n, weight in enumerate(clicked.weight))
            return {"input.query(clicked)": f"{{{cells}}}", "input.query(clicked_weight)": f"{{{weights}}}"}
        if profile == "three_queues":
            queues = {"i2i": item_queue(vector, clicked), "image": image_queue(vector, clicked)}
            return {f"input.query({name})": queue.tolist() for name, queue in queues.items() if queue is not None}
        if profile == "query_tower":
            inputs = clicked.tower_inputs(self.producer.model.manifest.history_length)
            return {f"input.query({name})": tensor.tolist() for name, tensor in inputs.items()}
        return {}

    def _matching(self, profile: Profile, target_hits: int, exact: bool, body: dict[str, Any]) -> str:
        approximate = ", approximate: false" if exact else ""

        def nearest(field: str, vector: str, hits: int = target_hits, label: str = "") -> str:
            name = f'label: "{label}", ' if label else ""
            return f"({{{name}targetHits: {hits}{approximate}}}nearestNeighbor({field}{self._suffix}, {vector}))"

        if profile == "bm25":
            return "userInput(@query)"
        if profile in ("hybrid", "hybrid_linear"):
            return f"({nearest('embedding', 'q')} or userInput(@query))"
        if profile == "three_queues":
            queues = [nearest("embedding", "q", label="q2i")]
            if "input.query(i2i)" in body:
                queues.append(nearest("embedding", "i2i", target_hits // 2, "i2i"))
            if "input.query(image)" in body:
                queues.append(nearest("image_embedding", "image", target_hits // 2, "image"))
            return f"({' or '.join(queues)})"
        return nearest("embedding", "q")

    def _tokens(self, profile: Profile) -> dict[str, str]:
        tokens = f"embed(tokenizer{self._suffix}, @query)"
        return {"input.query(tokens)": tokens} if profile == "query_tower" else {}

    def _require(self, version: str) -> None:
        """The index must hold items of this model version: asked once a version."""
        if version in self._checked:
            return
        yql = f"select item_id from item where model_version{self._suffix} contains @model_version"
        answer = self._ask({"yql": yql, "model_version": version, "hits": 0, "ranking": "unranked"})
        if not answer["root"].get("fields", {}).get("totalCount"):
            any_item = self._ask({"yql": "select * from item where true", "hits": 1, "ranking": "unranked"})
            children = any_item["root"].get("children", [])
            held = children[0]["fields"].get("model_version" + self._suffix) if children else None
            problem = f"its items are of model {held}" if held else "it holds no items"
            raise InputError(
                f"{self._app.end_point} has no vectors of model {version}: {problem}",
                field="model_version",
                fix="Feed the items with this model (mrse feed), or query with the model that they were fed with",
            )
        self._checked.add(version)

    def _ask(self, body: dict[str, Any]) -> dict[str, Any]:
        try:
            answer = cast(VespaQueryResponse, self._session.query(body=body)).json
        except VespaError as error:
            raise InputError(f"Vespa refuses the query: {_words(error)}") from None
        except Exception as error:  # httpr's exceptions share no base class
            raise InputError(f"nothing answers at {self._app.end_point} ({error})", fix="Start it") from None
        if "root" not in answer:
            raise InputError(f"{self._app.end_point} does not serve searches: {answer}", fix="Give another --endpoint")
        errors = answer["root"].get("errors")
        if errors:
            raise InputError(f"Vespa answers in part: {errors[0].get('message') or errors[0].get('summary')}")
        return answer


def _words(error: VespaError) -> str:
    first = error.args[0] if error.args else ""
    if isinstance(first, list) and first:
        return str(first[0].get("message") or first[0].get("summary"))
    return str(first)


def _hit(raw: dict[str, Any]) -> Hit:
    fields = raw.get("fields", {})
    features = {k: v for k, v in fields.get("matchfeatures", {}).items() if isinstance(v, (int, float))}
    return Hit(
        item_id=fields.get("item_id", raw.get("id", "")),
        title=fields.get("title", ""),
        category=fields.get("category", []),
        score=float(raw.get("relevance", 0.0)),
        fields={k: v for k, v in fields.items() if k not in ("matchfeatures", "sddocname", "documentid")},
        features=features,
    )
