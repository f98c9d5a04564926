"""A typed client of the service: the bodies that the service checks, and the answers that it promises.

with Client("http://localhost:8000", key="…") as client:
    found = client.search("red dress", filters=["price<=50"], hits=5)
    client.event(found.hits[0].item, session="0f8c2f4e9a7d4b1c", search_id=found.search_id)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar
from urllib.parse import quote

import httpx
from pydantic import BaseModel, TypeAdapter, ValidationError

from mrse_model.errors import InputError
from retrieval.service import bodies
from retrieval.service.settings import MAIN

T = TypeVar("T")
Body = TypeVar("Body", bound=BaseModel)


class ServiceError(Exception):
    """What the service answered in place of a result. status: HTTP. error: kind, message, field, fix, request id.
    retry_after: seconds, 0.0 where the service says none.
    """

    def __init__(self, status: int, error: bodies.ErrorBody, retry_after: float = 0.0) -> None:
        super().__init__(f"{error.message} ({error.kind}, request {error.request_id})")
        self.status, self.error, self.retry_after = status, error, retry_after


class Client:
    """Requests to one service. Thread-safe. Close it, or use it in `with`.

    key: an API key. user_token: of the user whose history is read and written (`access.sign_user`). http: a client of
    one's own, with proxies or certificates. Methods raise ServiceError for an answer that is none, InputError for a
    body that the service would refuse, and httpx.HTTPError where nothing answers.
    """

    def __init__(
        self,
        url: str,
        *,
        key: str | None = None,
        user_token: str | None = None,
        timeout: float = 5.0,
        http: httpx.Client | None = None,
    ) -> None:
        self._url = url.rstrip("/")
        self._http = http or httpx.Client(timeout=timeout)
        self._headers = {"authorization": f"Bearer {key}"} if key else {}
        if user_token:
            self._headers["x-user-token"] = user_token

    def search(self, query: str | bodies.SearchBody, **options: Any) -> bodies.SearchAnswer:
        """options: the other fields of `SearchBody`."""
        body = query if isinstance(query, bodies.SearchBody) else _body(bodies.SearchBody, query=query, **options)
        return self._ask(bodies.SearchAnswer, "POST", "/v1/search", body)

    def similar(
        self, item: str, *, filters: list[str] | None = None, hits: int = 10, offset: int = 0, model: str = MAIN
    ) -> bodies.SearchAnswer:
        """What is most like an item. filters: as "price<=50"."""
        parameters = {"hits": hits, "offset": offset, "filter": filters or [], "model": model}
        return self._ask(bodies.SearchAnswer, "GET", "/v1/similar/" + quote(item, safe=""), parameters=parameters)

    def explain(self, query: str, item: str, **options: Any) -> bodies.ExplainAnswer:
        """options: user, session, clicks, model of `ExplainBody`."""
        body = _body(bodies.ExplainBody, query=query, item=item, **options)
        return self._ask(bodies.ExplainAnswer, "POST", "/v1/explain", body)

    def models(self, items: Sequence[str] = ()) -> list[bodies.ModelAnswer]:
        """The models that searches can be made with. items: ids to look up, 100 at most: see `lacks`."""
        return self._ask(list[bodies.ModelAnswer], "GET", "/v1/models", parameters={"item": list(items)})

    def event(self, item: str, kind: str = "click", **options: Any) -> bodies.EventAnswer:
        """options: user or session, at, query, search_id, event_id of `EventBody`."""
        return self._ask(
            bodies.EventAnswer, "POST", "/v1/events", _body(bodies.EventBody, item=item, kind=kind, **options)
        )

    def suggest(self, prefix: str, limit: int = 8) -> list[bodies.Suggestion]:
        """Queries that users search for and that begin so."""
        return self._ask(list[bodies.Suggestion], "GET", "/v1/suggest", parameters={"q": prefix, "limit": limit})

    def user(self, user: str) -> bodies.UserAnswer:
        """The last events of a user, newest first."""
        return self._ask(bodies.UserAnswer, "GET", "/v1/users/" + quote(user, safe=""))

    def users(self, limit: int = 20) -> list[bodies.UserAnswer]:
        """Some users with their events: of a demo alone."""
        return self._ask(list[bodies.UserAnswer], "GET", "/v1/users", parameters={"limit": limit})

    def delete_user(self, user: str) -> bodies.DeletedAnswer:
        """Deletes a user's history."""
        return self._ask(bodies.DeletedAnswer, "DELETE", "/v1/users/" + quote(user, safe=""))

    def delete_session(self, session: str) -> bodies.DeletedAnswer:
        """Deletes a session's history."""
        return self._ask(bodies.DeletedAnswer, "DELETE", "/v1/sessions/" + quote(session, safe=""))

    def no_results(self, limit: int = 100) -> list[bodies.Suggestion]:
        """The queries that found nothing, the most frequent first. For the server's key."""
        return self._ask(list[bodies.Suggestion], "GET", "/v1/reports/no-results", parameters={"limit": limit})

    def interleaving(self) -> bodies.InterleavingAnswer:
        """How the two interleaved profiles compare. For the server's key."""
        return self._ask(bodies.InterleavingAnswer, "GET", "/v1/reports/interleaving")

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ask(
        self,
        kind: type[T],
        method: str,
        path: str,
        body: BaseModel | None = None,
        parameters: dict[str, Any] | None = None,
    ) -> T:
        content = body.model_dump(mode="json", exclude_unset=True) if body is not None else None
        found = self._http.request(method, self._url + path, json=content, params=parameters, headers=self._headers)
        if found.is_success:
            return TypeAdapter(kind).validate_json(found.content)
        try:
            error = bodies.ErrorAnswer.model_validate_json(found.content).error
        except ValidationError:  # of a proxy before the service
            error = bodies.ErrorBody(kind="unavailable", message=found.text[:200] or "no answer", request_id="")
        wait = found.headers.get("retry-after", "")
        raise ServiceError(found.status_code, error, float(wait) if wait.isdigit() else 0.0)


def _body(shape: type[Body], /, **fields: Any) -> Body:
    try:
        return shape(**fields)
    except ValidationError as error:
        first = error.errors()[0]
        raise InputError(first["msg"], field=".".join(map(str, first["loc"]))) from None
