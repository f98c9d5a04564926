"""The typed client against the service, and against what OpenAPI says of it."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from vespa.application import Vespa

from local_vespa.testing import free_port
from mrse_model.errors import InputError
from retrieval.service import bodies
from retrieval.service.client import Client, ServiceError
from retrieval.service.run import start
from retrieval.service.settings import Settings

SESSION = "0123456789abcdef"
METHODS = {  # what each route of the API is in the client
    "post /v1/search": (Client.search, "SearchBody"),
    "get /v1/similar/{item}": (Client.similar, None),
    "post /v1/explain": (Client.explain, "ExplainBody"),
    "post /v1/events": (Client.event, "EventBody"),
    "get /v1/models": (Client.models, None),
    "get /v1/suggest": (Client.suggest, None),
    "get /v1/users/{user}": (Client.user, None),
    "get /v1/users": (Client.users, None),
    "delete /v1/users/{user}": (Client.delete_user, None),
    "delete /v1/sessions/{session}": (Client.delete_session, None),
    "get /v1/reports/no-results": (Client.no_results, None),
    "get /v1/reports/interleaving": (Client.interleaving, None),
}
ELSEWHERE = {"get /v1/search", "get /v1/page", "get /v1/images/{item}"}  # for browsers


@pytest.fixture
def connect(client_of, engine, tmp_path):
    """A client whose requests go to a service in this process."""

    def make(key: str | None = None, **given) -> Client:
        inner = client_of(endpoint=engine, log=str(tmp_path / "served"), **given)

        def answer(request: httpx.Request) -> httpx.Response:
            found = inner.request(
                request.method, str(request.url), content=request.read(), headers=dict(request.headers)
            )
            return httpx.Response(found.status_code, content=found.content, headers=dict(found.headers))

        client = Client("http://testserver", key=key, http=httpx.Client(transport=httpx.MockTransport(answer)))
        client.openapi = inner.get("/openapi.json").json()  # type: ignore[attr-defined]
        return client

    return make


def test_each_route_of_the_api_has_a_method_of_its_type(connect) -> None:
    paths = connect(demo=True, interleave=("ann", "bm25")).openapi["paths"]
    routes = {f"{verb} {path}": told for path, verbs in paths.items() for verb, told in verbs.items()}
    assert {route for route in routes if " /v1/" in route} == METHODS.keys() | ELSEWHERE
    for route, (method, body) in METHODS.items():
        promised = routes[route]["responses"]["200"]["content"]["application/json"]["schema"]
        named = promised.get("$ref") or promised["items"]["$ref"]
        returns = method.__annotations__["return"]
        assert named.rpartition("/")[2] in returns and returns.startswith("list") == ("items" in promised), route
        taken = routes[route].get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
        assert taken.get("$ref", "").rpartition("/")[2] == (body or ""), route


def test_a_search_an_event_and_what_becomes_of_them(connect) -> None:
    client = connect(demo=True)
    found = client.search("red dress", filters=["colour=red"], facets=["colour"], hits=3)
    assert isinstance(found, bodies.SearchAnswer) and len(found.hits) == 3
    assert [bucket.value for bucket in found.facets["colour"]] == ["red"]
    item = found.hits[0].item
    assert client.search(bodies.SearchBody(query="red dress", hits=1, filters=["colour=red"])).hits[0].item == item
    assert client.event(item, session=SESSION, at=900, search_id=found.search_id, query="red dress").recorded
    assert not client.event(item, session=SESSION, at=900).recorded, "known"
    assert client.search("red dress", session=SESSION).clicks == 1
    assert client.event(item, "order", user="u?1 ü", at=900).recorded
    assert [(event.item, event.kind) for event in client.user("u?1 ü").events] == [(item, "order")]
    assert [one.user for one in client.users()] == ["u?1 ü"]
    assert client.delete_user("u?1 ü").deleted and client.delete_session(SESSION).deleted
    assert client.user("u?1 ü").events == []
    assert item not in {hit.item for hit in client.similar(item, hits=5, filters=["colour=red"]).hits}
    assert client.explain("red dress", item).shares["similarity"] > 0
    assert client.suggest("re") == [] and client.no_results() == []


HOSTILE = ["a/b", "/", "a//b/", "a/../b", "?q=1#x", "100%", "%2F", "a;b=c&d+e", " x ", "ü 漢", "a\nb", "a:b@c"]


@pytest.fixture(scope="module")
def served(engine, package, tmp_path_factory) -> Iterator[str]:
    """A service of its own process: paths are decoded by its server, once."""
    settings = Settings(endpoint=engine, app=str(package), port=free_port(), demo=True, deadline=10)
    process = start(settings, tmp_path_factory.mktemp("served") / "log")
    yield f"http://127.0.0.1:{settings.port}"
    process.terminate()
    process.wait(30)


@pytest.mark.parametrize("item", HOSTILE)
def test_an_id_may_hold_any_character(served, engine, item) -> None:
    vespa, client = Vespa(engine), Client(served, timeout=20)
    fields = vespa.get_data("item", "i0", namespace="item").json["fields"] | {"item_id": item}
    assert vespa.feed_data_point("item", "hostile", fields, namespace="item").is_successful()
    found = client.search("red dress", filters=[bodies.FilterBody(field="item_id", values=[item])])
    assert [hit.item for hit in found.hits] == [item]
    assert "i0" in {hit.item for hit in client.similar(item, hits=3).hits}, "of the same vector"
    assert client.event(item, user=item, at=900).recorded
    assert [event.item for event in client.user(item).events] == [item]
    assert client.delete_user(item).deleted and client.user(item).events == []
    session = item * 16
    assert client.event(item, session=session, at=900).recorded and client.delete_session(session).deleted


@pytest.mark.parametrize("item", [".", ".."])
def test_what_no_address_can_hold_is_no_id(connect, item) -> None:
    with pytest.raises(InputError, match="no id"):
        connect(demo=True).event(item, user="u1")


def test_errors_are_typed(connect) -> None:
    client = connect()
    with pytest.raises(ServiceError) as found:
        client.search("dress", filters=["colr=red"])
    assert (found.value.status, found.value.error.kind, found.value.error.fix) == (
        400,
        "caller",
        "Did you mean colour?",
    )
    with pytest.raises(ServiceError) as found:
        client.similar("nothing like it")
    assert found.value.status == 404 and found.value.error.request_id in str(found.value)
    with pytest.raises(InputError, match="hits"):
        client.search("dress", hits=401)
    locked = connect(keys=())
    with pytest.raises(ServiceError) as found:
        locked.user("u1")
    assert found.value.status == 403


def test_an_answer_that_is_no_service_s_is_an_error() -> None:
    told = httpx.MockTransport(lambda _: httpx.Response(503, text="<html>", headers={"retry-after": "7"}))
    with pytest.raises(ServiceError) as found:
        Client("http://shop", http=httpx.Client(transport=told)).search("dress")
    assert (found.value.status, found.value.error.kind, found.value.retry_after) == (503, "unavailable", 7.0)
