"""What the routes answer."""

from __future__ import annotations


def test_a_search_by_body_and_by_address(client, vespa) -> None:
    body = {
        "query": "red dress",
        "filters": ["price<=50", {"field": "colour", "values": ["red", "blue"]}],
        "facets": ["brand", {"field": "price", "bounds": [20, 50]}],
        "sort": ["-price"],
        "hits": 3,
        "offset": 6,
        "inputs": {"alpha": 0.7},
        "language": "en",
    }
    answer = client.post("/v1/search", json=body)
    found = answer.json()
    assert answer.status_code == 200 and found["hits"][0]["title"] == "Red dress" and found["total"] == 7
    assert (found["coverage"], found["fallbacks"], found["offset"]) == (1.0, [], 6) and len(found["search_id"]) == 32
    sent = vespa.queries[-1]
    assert (
        "price <= 50 and (colour contains @filter0 or colour contains @filter1) order by price desc | all("
        in sent["yql"]
    )
    assert (sent["hits"], sent["offset"], sent["input.query(alpha)"], sent["model.language"]) == (3, 6, 0.7, "en")
    address = "/v1/search?q=red+dress&filter=price%3C%3D50&facet=colour&profile=hybrid&hits=3"
    assert client.get(address).json()["profile"] == "hybrid" and "price <= 50" in vespa.queries[-1]["yql"]
    assert client.get(address + "&search_id=search-1").json()["search_id"] == "search-1", "of the pages before"


def test_a_wrong_request_says_where(client) -> None:
    for body, status, field, words in (
        ({"query": "  "}, 400, "query", "blank"),
        ({}, 422, "query", "required"),
        ({"query": "x", "hits": 500}, 422, "hits", "400"),
        ({"query": "x", "profile": "nope"}, 400, "profile", "unknown profile 'nope'"),
        ({"query": "x", "filters": ["price==50"]}, 400, "price", "unknown operator =="),
        ({"query": "x", "filters": ["price=abc"]}, 400, "price", "must be a number"),
        ({"query": "x", "filters": ["prize<5"]}, 400, "prize", "no such field"),
        ({"query": "x", "facets": ["nope"]}, 400, "nope", "no such field"),
    ):
        answer = client.post("/v1/search", json=body)
        error = answer.json()["error"]
        assert (answer.status_code, error["field"], error["kind"]) == (status, field, "caller"), body
        assert words in error["message"], body
        assert error["request_id"] == answer.headers["x-request-id"]
    assert client.get("/v1/nothing").json()["error"]["message"] == "Not Found"


def test_similar_items_are_not_the_item_itself(client, vespa) -> None:
    found = client.get("/v1/similar/i7?hits=5")
    assert found.status_code == 200 and "!(item_id contains @filter0)" in vespa.queries[-1]["yql"]
    assert vespa.queries[-1]["filter0"] == "i7"
    vespa.answer = lambda body: {"root": {"fields": {"totalCount": 0}}}
    assert client.get("/v1/similar/other").status_code == 404


def test_health_readiness_and_metrics(client, vespa) -> None:
    assert client.get("/health").json() == {"status": "up", "models": {"main": "mrse-0123456789ab"}}
    assert client.get("/ready").json()["items"] == 7
    client.post("/v1/search", json={"query": "red dress"})
    client.post("/v1/search", json={"query": "red dress"})
    text = client.get("/metrics").text
    assert 'mrse_requests_total{route="/v1/search",status="200"} 2.0' in text
    assert (
        'mrse_query_vectors_total{model="main",source="memory"} 1.0' in text
        and 'mrse_stage_seconds_count{model="main",stage="search"} 2.0' in text
    )
    vespa.answer = lambda body: {"message": "no such handler"}
    assert client.get("/ready").status_code == 503 and client.get("/health").status_code == 200


def test_the_page_and_the_description_of_the_api_are_served(client) -> None:
    page = client.get("/")
    assert page.status_code == 200 and "script-src 'self'" in page.headers["content-security-policy"]
    described = client.get("/openapi.json").json()
    assert {"/v1/search", "/v1/similar/{item}", "/health", "/metrics"} <= described["paths"].keys()
    assert described["components"]["schemas"]["SearchBody"]["examples"][0]["query"] == "red dress"


def test_images_come_from_the_items_file(client_of, items, columns) -> None:
    client = client_of(items=str(items))
    found = client.get("/v1/images/i1")
    assert found.content == columns["image"][1] and found.headers["content-type"] == "image/png"
    assert client.get("/v1/images/i0").status_code == 404, "an item without an image"


def test_head_is_get_without_the_body(client) -> None:
    """A server of HTTP/2 sends the body that it is given."""
    for path in ("/health", "/ready", "/", "/nothing", "/v1/suggest?q=r"):
        got, head = client.get(path), client.head(path)
        assert head.status_code == got.status_code and head.content == b"" != got.content, path
        assert head.headers["content-length"] == str(len(got.content)), path
