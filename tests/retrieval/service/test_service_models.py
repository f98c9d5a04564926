"""A service with further models to compare with: the second set of a migration, and one that is down."""

from __future__ import annotations

import asyncio

import httpx
import pytest
from starlette.testclient import TestClient
from vespa.application import Vespa

from feeders.encoding import bfloat16_hex
from local_vespa.testing import deploy, free_port, running_engine
from mrse_model.errors import InputError
from mrse_model.serving.exported_model import ExportedModel
from retrieval.service.client import Client, ServiceError
from retrieval.service.models import open_models
from retrieval.service.settings import Compared, Settings
from tests.helpers.make_models import make_models
from vespa_package.second_set import double_package

OLD, NEW = "mrse-0123456789ab", "mrse-ffffffffffff"
TITLES = [f"{colour} {thing}" for colour in ("red", "blue", "green") for thing in ("dress", "shoe", "coat", "bag")]


@pytest.fixture(scope="module")
def new_models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("new") / "models"
    make_models(folder, version=NEW, seed=11)
    return folder


@pytest.fixture(scope="module")
def migrating(package, new_models, tmp_path_factory):
    """An index with two sets of vectors; the new one lacks the items from i8 on."""
    folder = tmp_path_factory.mktemp("migrating")
    both = double_package(package, package / "models", new_models, folder / "both", serve_next=False)
    with running_engine(folder / "engine") as url:
        deploy(url, both)
        vespa, vectors = Vespa(url), {}
        for suffix, models in (("", package / "models"), ("_next", new_models)):
            vectors[suffix] = ExportedModel.load(models).item_vectors(TITLES, [[]] * len(TITLES))
        for n, title in enumerate(TITLES):
            fields = {"item_id": f"i{n}", "title": title}
            for suffix, version in (("", OLD), ("_next", NEW)) if n < 8 else (("", OLD),):
                fields["model_version" + suffix] = version
                for name in ("embedding", "text_feature"):
                    values = bfloat16_hex(getattr(vectors[suffix], name)[n : n + 1])[0]
                    fields[name + suffix] = {"values": values}
            assert vespa.feed_data_point("item", f"i{n}", fields, namespace="item").status_code == 200
        yield url


@pytest.fixture
def client(client_of, migrating, new_models, tmp_path) -> TestClient:
    gone = Compared("gone", endpoint=f"http://127.0.0.1:{free_port()}")
    following = Compared("next", next_models=str(new_models))
    return client_of(endpoint=migrating, compare=(following, gone), demo=True, log=str(tmp_path / "served"))


@pytest.fixture
def typed(client) -> Client:
    def answer(request: httpx.Request) -> httpx.Response:
        found = client.request(request.method, str(request.url), content=request.read(), headers=dict(request.headers))
        return httpx.Response(found.status_code, content=found.content, headers=dict(found.headers))

    return Client("http://testserver", http=httpx.Client(transport=httpx.MockTransport(answer)))


def test_each_model_searches_its_own_vectors(typed, new_models, package) -> None:
    """As the vectors alone say: cosines of each model's own query and item vectors."""
    for name, models in (("main", package / "models"), ("next", new_models)):
        model = ExportedModel.load(models)
        known = TITLES if name == "main" else TITLES[:8]
        cosines = model.item_vectors(known, [[]] * len(known)).embedding @ model.query_vectors(["green shoe"])[0]
        found = typed.search("green shoe", model=name, hits=12)
        assert [hit.item for hit in found.hits] == [f"i{n}" for n in (-cosines).argsort()], name
        assert found.model == name and not found.fallbacks
        similar = typed.similar("i0", model=name, hits=12)
        assert similar.model == name and len(similar.hits) == len(known) - 1
        second = typed.similar("i0", model=name, hits=2, offset=3).hits
        assert [hit.item for hit in second] == [hit.item for hit in similar.hits[3:5]]
    assert typed.search("shoe", model="next", profile="bm25").total == 3, "words need no vectors"


def test_a_history_counts_for_each_model(typed) -> None:
    typed.event("i1", user="u1", at=900, query="shoe")
    alone, personal = (typed.search("red", model="next", user=user) for user in (None, "u1"))
    assert (alone.clicks, personal.clicks) == (0, 1)
    assert [hit.score for hit in alone.hits] != [hit.score for hit in personal.hits]
    explained = [typed.explain("red", "i1", user="u1", model=name) for name in ("main", "next")]
    assert [one.clicks for one in explained] == [1, 1] and explained[0].shares != explained[1].shares
    with pytest.raises(ServiceError, match="no item 'i9'"):
        typed.similar("i9", model="next")


def test_what_a_history_takes_is_of_the_deadline(client, monkeypatch) -> None:
    service, given = client.app.state.service, []
    inner = service.models["next"].searcher

    async def events(user, timeout):
        given.append(timeout)
        await asyncio.sleep(0.1)
        return []

    def noting(ask):
        return lambda *args, **options: given.append(options["timeout"]) or ask(*args, **options)

    monkeypatch.setattr(inner, "search", noting(inner.search))
    monkeypatch.setattr(inner, "explain", noting(inner.explain))
    monkeypatch.setattr(service.searcher, "events", events)
    ask = {"query": "red", "model": "next", "user": "u1"}
    assert client.post("/v1/search", json=ask | {"timeout": 6}).status_code == 200
    assert client.post("/v1/explain", json=ask | {"item": "i1"}).status_code == 200
    half, rest, of_default, of_explain = given
    assert half <= 3 and rest <= 6 - 0.1 and of_default <= 5 and of_explain <= 10 - 0.1


def test_an_unknown_name_is_the_caller_s_error_and_lists_the_names(client) -> None:
    for answer in (
        client.post("/v1/search", json={"query": "red", "model": "old"}),
        client.get("/v1/search?q=red&model=old"),
        client.get("/v1/similar/i1?model=old"),
        client.post("/v1/explain", json={"query": "red", "item": "i1", "model": "old"}),
    ):
        error = answer.json()["error"]
        assert (answer.status_code, error["kind"], error["field"]) == (400, "caller", "model")
        assert error["message"] == "unknown model 'old'" and error["fix"] == "One of main, next, gone"
    body = client.get("/openapi.json").json()["components"]["schemas"]["SearchBody"]
    assert body["properties"]["model"]["examples"] == ["main"] and body["examples"][-1]["model"] == "main"


def test_one_that_is_down_fails_alone_and_is_named(client, typed) -> None:
    with pytest.raises(ServiceError) as found:
        typed.search("red", model="gone")
    assert (found.value.status, found.value.error.kind) == (503, "unavailable")
    assert typed.search("red").hits and typed.search("red", model="next").hits
    main, following, gone = typed.models(["i1", "i9", "nothing"])
    assert (main.model_version, main.items, main.without, main.lacks) == (OLD, 12, 0, ["nothing"])
    assert (following.model_version, following.items, following.without) == (NEW, 8, 4)
    assert following.lacks == ["i9", "nothing"]
    assert gone.name == "gone" and "nothing answers" in gone.problem and not main.problem
    ready = client.get("/ready").json()
    assert ready["items"] == 12 and [(one["name"], bool(one["problem"])) for one in ready["compared"]] == [
        ("next", False),
        ("gone", True),
    ]
    assert client.get("/health").json()["models"] == {"main": OLD, "next": NEW, "gone": OLD}
    text = client.get("/metrics").text
    assert 'mrse_stage_seconds_count{model="next",stage="search"} 1.0' in text
    assert 'mrse_errors_total{kind="unavailable",model="gone"} 1.0' in text
    assert 'mrse_query_vectors_total{model="next",source="computed"} 1.0' in text


def test_after_the_migration_its_second_set_is_unavailable(client_of, engine, new_models) -> None:
    client = client_of(endpoint=engine, compare=(Compared("next", next_models=str(new_models)),), demo=True)
    client.post("/v1/events", json={"item": "i1", "user": "u1", "at": 900})
    ask = {"query": "red", "user": "u1", "model": "next"}
    for answer in (
        client.post("/v1/search", json=ask),
        client.post("/v1/search", json=ask | {"profile": "bm25"}),
        client.post("/v1/explain", json=ask | {"item": "i1"}),
        client.get("/v1/similar/i1?model=next"),
    ):
        error = answer.json()["error"]
        assert (answer.status_code, error["kind"]) == (503, "unavailable") and "no second set" in error["message"]
    assert client.post("/v1/search", json=ask | {"model": "main"}).status_code == 200
    assert client.post("/v1/search", json=ask | {"model": "main", "sort": ["title"]}).status_code == 400


def test_the_page_and_the_log_know_the_models(client, tmp_path) -> None:
    assert client.get("/v1/page").json()["models"] == ["main", "next", "gone"]
    client.post("/v1/search", json={"query": "red", "model": "next"})
    client.post("/v1/search", json={"query": "red"})
    [file] = (tmp_path / "served").glob("*.jsonl")
    assert ['"model":"next"' in line for line in file.read_text().splitlines()] == [True, False]


def test_models_of_one_package_share_its_graphs(package, migrating) -> None:
    same = tuple(Compared(name, endpoint=migrating) for name in ("same", "again"))
    models = open_models(Settings(endpoint=migrating, app=str(package), compare=same))
    first, *others = [model.producer for model in models.values()]
    assert len(others) == 2 and all(one is not first and one.model is first.model for one in others)


def test_settings_of_further_models(tmp_path, monkeypatch) -> None:
    file = tmp_path / "serve.toml"
    file.write_text('[[compare]]\nname = "new"\nendpoint = "http://a:1"\n[[compare]]\nname = "b"\napp = "x"\n')
    chosen = Settings.read(file)
    assert chosen.compare == (Compared("new", "http://a:1"), Compared("b", app="x"))
    assert Settings.read(file, compare=[Compared.parse("c=https://c,d/e")]).compare == (
        Compared("c", "https://c", "d/e"),
    )
    for name, value in chosen.environment().items():
        monkeypatch.setenv(name, value)
    assert Settings.from_environment() == chosen
    for text, words in (
        ("http://a:1", "compare: not a model to compare with"),
        ("new=a:1", r"compare\.new: not a URL"),
        ("main=http://a:1", "compare: no name of a further model: 'main'"),
        ("n w=http://a:1", "compare: no name of a further model"),
    ):
        with pytest.raises(InputError, match=words):
            Compared.parse(text)
    with pytest.raises(InputError, match=r"compare\.new: nothing differs"):
        Compared("new")
    with pytest.raises(InputError, match="two models have the same name"):
        Settings(compare=(Compared("a", "http://a"), Compared("a", "http://b")))
    file.write_text('[[compare]]\nnme = "new"\n')
    with pytest.raises(InputError, match="compare: malformed"):
        Settings.read(file)
