"""/document/v1 over HTTP."""

from __future__ import annotations

import asyncio
import gzip
import json

import pytest

from local_vespa.api.documents import DocumentApi
from local_vespa.documents.operations import read_put
from local_vespa.engine import Engine
from local_vespa.http import Request
from tests.helpers.small_app import ask, package_files, put, search, zipped

ROOT = "/document/v1/shop/thing/docid/"


def fields(url, id, query=""):
    status, answer = ask(url, ROOT + id + query)
    assert status == 200
    return answer["fields"]


def test_updates_of_one_element(fresh):
    path = "/document/v1/shop/thing/docid/one"
    fields = {"title": "x", "labels": ["a", "b"], "marks": {"eco": 3}}
    assert ask(fresh, path, {"fields": fields})[0] == 200
    for change in (
        {"labels": {"match": {"element": 1, "assign": "c"}}},
        {"labels": {"match": {"element": 5, "assign": "d"}}},
        {"marks": {"match": {"element": "eco", "increment": 4}}},
        {"marks": {"match": {"element": "none", "increment": 4}}},
    ):
        assert ask(fresh, path, {"fields": change}, "PUT")[0] == 200
    found = ask(fresh, path)[1]["fields"]
    assert found["labels"] == ["a", "c"] and found["marks"] == {"eco": 7}
    for wrong in ({"element": 0}, {"element": "x", "assign": "y"}, {"element": 0, "increment": 1}, 3):
        assert ask(fresh, path, {"fields": {"labels": {"match": wrong}}}, "PUT")[0] == 400


def test_put_get_update_remove(fresh):
    vector = {"values": "3f800000000000000000000000000000"}
    status, answer = put(
        fresh, "a%2Fb%20c", {"title": "Hat", "price": 1.1, "labels": ["x"], "vector": vector, "stock": None}
    )
    assert (status, answer) == (200, {"pathId": ROOT + "a%2Fb%20c", "id": "id:shop:thing::a/b c"})
    assert fields(fresh, "a%2Fb%20c") == {
        "title": "Hat",
        "price": 1.1,
        "labels": ["x"],
        "sold": False,
        "vector": {"type": "tensor<float>(x[4])", "values": [1.0, 0.0, 0.0, 0.0]},
    }
    assert fields(fresh, "a%2Fb%20c", "?fieldSet=thing:price") == {"price": 1.1}
    assert fields(fresh, "a%2Fb%20c", "?fieldSet=thing:vector&format.tensors=short-value") == {
        "vector": [1.0, 0.0, 0.0, 0.0]
    }
    assert ask(fresh, ROOT + "a%2Fb%20c", {"fields": {"price": {"assign": None}}}, "PUT")[0] == 200
    assert "price" not in fields(fresh, "a%2Fb%20c")
    assert ask(fresh, ROOT + "a%2Fb%20c", method="DELETE")[0] == 200
    assert ask(fresh, ROOT + "a%2Fb%20c")[0] == 404
    assert ask(fresh, ROOT + "a%2Fb%20c", method="DELETE")[0] == 200


def test_mapped_tensors_are_changed_in_parts(fresh):
    path = "/document/v1/shop/person/docid/ann"

    def clicks():
        return ask(fresh, path)[1]["fields"]["clicks"]["blocks"]

    put(fresh, "ann", {"name": "Ann", "clicks": {"blocks": {"a": [1, 2]}}}, "person")
    for update, expected in [
        ({"add": {"blocks": {"b": [3, 4]}}}, {"a": [1.0, 2.0], "b": [3.0, 4.0]}),
        (
            {"modify": {"operation": "multiply", "cells": [{"address": {"item": "b", "x": "1"}, "value": 0.5}]}},
            {"a": [1.0, 2.0], "b": [3.0, 2.0]},
        ),
        ({"remove": {"addresses": [{"item": "a"}]}}, {"b": [3.0, 2.0]}),
    ]:
        assert ask(fresh, path, {"fields": {"clicks": update}}, "PUT")[0] == 200
        assert clicks() == expected


def test_a_body_may_hold_condition_and_create_and_the_url_goes_before_it(fresh):
    def write(query, method="PUT", **options):
        fields = {"stock": {"increment": 1} if options.pop("more", False) else {"assign": 1}}
        return ask(
            fresh, ROOT + "one" + query, {**options, "fields": fields if method == "PUT" else {"stock": 5}}, method
        )[0]

    assert write("", create=False) == 200 and ask(fresh, ROOT + "one")[0] == 404
    assert write("?create=false", create=True) == 200 and ask(fresh, ROOT + "one")[0] == 404
    assert write("", create=True) == 200 and fields(fresh, "one")["stock"] == 1
    low, high = "thing.stock < 5", "thing.stock > 5"
    assert write("", condition=high, more=True) == 412
    assert write("", "POST", condition=high) == 412
    assert write("?condition=thing.stock%20%3C%205", condition=high, more=True) == 200
    assert write("?condition=thing.stock%20%3E%205", condition=low, more=True) == 412
    assert write("", condition=None, more=True) == write("", condition="", more=True) == 200
    assert fields(fresh, "one")["stock"] == 4
    assert write("", "POST", condition=low) == 200 and fields(fresh, "one")["stock"] == 5


def test_numbers_and_groups_in_ids(fresh):
    for place, id in [("number/7/x", "id:shop:thing:n=7:x"), ("group/g1/y", "id:shop:thing:g=g1:y")]:
        path = f"/document/v1/shop/thing/{place}"
        assert ask(fresh, path, {"fields": {"stock": 1}})[1]["id"] == id
        assert ask(fresh, path)[1]["id"] == id


@pytest.mark.parametrize(
    ("path", "body", "method", "status", "words"),
    [
        ("bad", {"fields": {"nothing": 1}}, "POST", 400, "Field 'nothing' is not defined"),
        ("bad", {"fields": {"stock": "many"}}, "POST", 400, 'For input string: "many"'),
        ("bad", {"fields": {"stock": 1 << 40}}, "POST", 400, "out of range"),
        ("bad", {"fields": {"vector": [1, 2]}}, "POST", 400, "Could not parse field 'vector'"),
        ("bad", {}, "POST", 400, 'missing the required "fields"'),
        ("bad", b"{", "POST", 400, "failed reading document JSON"),
        ("bad", b"", "POST", 400, "missing the required"),
        ("bad", {"fields": {"price": {"explode": 1}}}, "PUT", 400, "Operation 'explode' not implemented."),
        ("bad", {"fields": {"title": {"increment": 1}}}, "PUT", 400, "Expected a numeric field"),
        ("bad", {"fields": {"marks": ["a", "b"]}}, "POST", 400, "Expected start of JSON object, got START_ARRAY"),
        ("bad", {"fields": {"marks": [{"key": "a", "value": 1}]}}, "POST", 400, "got START_ARRAY"),
        ("bad", {"fields": {"marks": {"add": ["a"]}}}, "PUT", 400, "Expected start of JSON object, got START_ARRAY"),
        ("bad", {"fields": {"marks": {"remove": ["a"]}}}, "PUT", 400, "Expected start of JSON object"),
        ("bad", {"fields": {"labels": {"add": "a"}}}, "PUT", 400, "Expected start of composite, got VALUE_STRING"),
        ("bad", {"fields": {"ages": {"remove": {"abc": 0}}}}, "PUT", 400, 'For input string: "abc"'),
        (
            "bad",
            {"fields": {"marks{eco}": {"increment": 1}}},
            "PUT",
            400,
            "local_vespa does not support the field path",
        ),
        ("bad?condition=thing.stock%20%3E", {"fields": {}}, "PUT", 400, "Cannot parse the selection"),
        ("bad?create=maybe", {"fields": {}}, "PUT", 400, "'maybe' is not a boolean"),
        ("bad?condition=thing.stock%20%3E%205", {"fields": {}}, "PUT", 412, "TEST_AND_SET_CONDITION_FAILED"),
        ("bad", {"condition": "thing.stock > 5", "fields": {}}, "PUT", 412, "TEST_AND_SET_CONDITION_FAILED"),
        ("bad", {"condition": "thing.stock >", "fields": {}}, "PUT", 400, "Cannot parse the selection"),
        (
            "bad",
            {"condition": 1, "fields": {}},
            "PUT",
            400,
            "expected string value for condition, got VALUE_NUMBER_INT",
        ),
        ("bad", {"create": "true", "fields": {}}, "PUT", 400, "(VALUE_STRING) not of boolean type"),
        ("bad?selection=true", {"fields": {}}, "PUT", 400, "May not specify 'selection'"),
        ("bad?fieldSet=thing:nothing", None, "GET", 400, "No such field 'nothing'"),
        ("bad", None, "PATCH", 405, "not allowed"),
        ("?selection=true", None, "DELETE", 400, "Must specify 'cluster'"),
        ("?cluster=other", None, "GET", 400, "has no content cluster 'other', only: 'shop'"),
        ("?continuation=xyz", None, "GET", 400, "continuation"),
        ("?slices=2&sliceId=2", None, "GET", 400, "sliceId"),
        ("?fromTimestamp=1", None, "GET", 400, "local_vespa does not support the parameter 'fromTimestamp'"),
    ],
)
def test_refusals(shop, path, body, method, status, words):
    found, answer = ask(shop, ROOT + path, body, method)
    assert (
        found == status and words in answer["message"] and answer["pathId"].startswith("/document/v1/shop/thing/docid/")
    )


def test_unknown_types_and_paths(shop):
    assert (
        ask(shop, "/document/v1/shop/nothing/docid/x", {"fields": {}})[1]["message"]
        == "Document type nothing does not exist"
    )
    assert ask(shop, "/document/v1/shop")[0] == 404
    assert ask(shop, "/nothing")[0] == 404


def visited(url, query):
    """All ids, page by page."""
    found, more = [], ""
    while True:
        status, answer = ask(url, f"{ROOT}?cluster=shop&{query}{more}")
        assert status == 200 and answer["documentCount"] == len(answer["documents"])
        found += [d["id"].rsplit(":", 1)[1] for d in answer["documents"]]
        if "continuation" not in answer:
            return found
        more = f"&continuation={answer['continuation']}"


def test_visits(fresh):
    for n in range(30):
        put(fresh, str(n), {"stock": n})
    everything = [str(n) for n in range(30)]
    assert visited(fresh, "wantedDocumentCount=7") == everything
    assert visited(fresh, "wantedDocumentCount=100&selection=thing.stock%20%3C%205") == everything[:5]
    slices = [visited(fresh, f"slices=3&sliceId={s}&wantedDocumentCount=4") for s in range(3)]
    assert sorted((i for s in slices for i in s), key=int) == everything and all(slices)
    assert len(ask(fresh, "/document/v1/?cluster=shop&stream=true")[1]["documents"]) == 30
    assert visited(fresh, "bucketSpace=global") == []
    status, answer = ask(
        fresh, f"{ROOT}?cluster=shop&selection=thing.stock%20%3E%2027", {"fields": {"price": {"assign": 1}}}, "PUT"
    )
    assert (status, answer["documentCount"]) == (200, 2) and fields(fresh, "29")["price"] == 1.0
    assert ask(fresh, f"{ROOT}?cluster=shop&selection=thing.stock%20%3E%203", method="DELETE")[1]["documentCount"] == 26
    assert visited(fresh, "wantedDocumentCount=50") == everything[:4]


def test_what_changed_since_the_scan_of_a_selection_is_left_alone(tmp_path):
    engine = Engine(tmp_path)
    engine.deploy(zipped(package_files()))
    schema, api = engine.schema("thing"), DocumentApi(engine)

    async def write(name, stock):
        await engine.submit(read_put(schema, f"id:shop:thing::{name}", {"fields": {"stock": stock}}))

    async def change(method, body=b""):
        """A change by selection during which `b` ceases to be selected."""
        await write("a", 1)
        await write("b", 1)
        whole, loop = api._selected, asyncio.get_running_loop()

        def scan(*arguments):
            found = list(whole(*arguments))
            asyncio.run_coroutine_threadsafe(write("b", 7), loop).result()
            return iter(found)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(api, "_selected", scan)
            query = {"cluster": "shop", "selection": "thing.stock < 5", "wantedDocumentCount": "9"}
            answer = await api.handle(Request(method, ROOT, query, {}, body, ""))
        return answer.status, engine.get("id:shop:thing::a"), engine.get("id:shop:thing::b")

    assert asyncio.run(change("PUT", b'{"fields": {"stock": {"assign": 3}}}')) == (200, {"stock": 3}, {"stock": 7})
    assert asyncio.run(change("DELETE")) == (200, None, {"stock": 7})
    engine.close()


def test_bodies_may_be_gzipped_but_not_endless(fresh):
    body = gzip.compress(json.dumps({"fields": {"stock": 4}}).encode())
    assert ask(fresh, ROOT + "z", body, headers={"Content-Encoding": "gzip"})[0] == 200
    assert fields(fresh, "z")["stock"] == 4
    assert ask(fresh, ROOT + "z", body[:-9], headers={"Content-Encoding": "gzip"})[0] == 400
    bomb = gzip.compress(b" " * (300 << 20))
    assert ask(fresh, ROOT + "z", bomb, headers={"Content-Encoding": "gzip"})[0] == 413


def test_status_pages(fresh):
    assert ask(fresh, "/status.html") == (200, "OK")
    assert ask(fresh, "/ApplicationStatus")[1]["application"]["meta"]["generation"] == 1
    assert ask(fresh, "/state/v1/health")[1]["status"]["code"] == "up"
    put(fresh, "a", {"stock": 1})
    text = ask(fresh, "/metrics")[1]
    assert 'local_vespa_documents{schema="thing"} 1' in text and 'operation="put"} 1' in text


def test_numbers_stay_in_the_range_of_their_type(fresh):
    put(fresh, "n", {"stock": 2**31 - 1, "added": 5, "price": 1e30})
    updates = {"stock": {"increment": 1}, "added": {"multiply": 1e300}, "price": {"multiply": -1e30}}
    assert ask(fresh, ROOT + "n", {"fields": updates}, "PUT")[0] == 200
    assert fields(fresh, "n") == {"stock": 2**31 - 1, "added": 2**63 - 1, "price": "-Infinity", "sold": False}
    assert ask(fresh, ROOT + "n", {"fields": {"stock": {"multiply": -1e30}}}, "PUT")[0] == 200
    assert "stock" not in fields(fresh, "n")  # the least integer of an attribute is no value (isUndefined)
    found = search(fresh, yql="select * from thing where range(price, -Infinity, 0)")[1]
    assert found["root"]["fields"]["totalCount"] == 1  # what is stored and what is searched are the same value
