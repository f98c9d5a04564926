"""Hostile requests, made by changing valid ones at random: YQL, parameters, JSON bodies, tensors, paths, packages."""
# ruff: noqa: E501  tables of inputs

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import quote, urlencode

from tests.helpers.small_app import THINGS, package_files, zipped

JSON_HEADERS = {"Content-Type": "application/json"}
ROOT = "/document/v1/shop/thing/docid/"
PREPARE = "/application/v2/tenant/default/session"

FIELDS = ["title", "colour", "labels", "marks", "price", "stock", "sold", "added", "vector", "parts", "default"]
WHERES = [
    "true",
    "colour contains ({maxEditDistance: 1, prefixLength: 1}fuzzy('rad')) or sddocname contains 'thing'",
    "stock in (@words) or labels in ('sale', @words)",
    "title contains 'dress' and !(colour contains 'red')",
    "title contains phrase('red', 'summer', 'dress') or title contains near('red', 'dress')",
    "title contains ({distance: 3}onear('red', 'dress')) or colour contains ({prefix: true}'re')",
    "colour matches '^r.d$' or title contains equiv('shoe', 'dress')",
    "colour in ('red', 'blue') and stock in (3, 7)",
    "price > 10 and price <= 80.5 and range(stock, 0, Infinity)",
    "rank({targetHits: 3, approximate: false}nearestNeighbor(vector, q), title contains 'dress')",
    "({targetHits: 10, label: 'a', distanceThreshold: 0.9}nearestNeighbor(vector, q)) or userInput(@words)",
    "{targetHits: 5}weakAnd(title contains 'red', title contains 'shoe')",
    "{grammar: 'all', defaultIndex: 'title'}userInput(@words)",
    "userQuery() and sold = true",
    "weightedSet(marks, {'eco': 3, 'new': 1}) or dotProduct(marks, {'eco': 2})",
    "{targetHits: 4, scoreThreshold: 0.5}wand(marks, {'eco': 7})",
    "labels contains 'sale' and added >= 0L",
]
TAILS = [
    "",
    " order by price desc, title asc",
    " limit 3 offset 1",
    " | all(group(colour) max(3) order(-count()) each(output(count(), avg(price), max(stock))))",
    " | all(group(predefined(price, bucket(0, 20), bucket[20, 50>, bucket(50, inf))) each(output(count())))",
    " | all(group(fixedwidth(stock, 3)) each(max(2) each(output(summary(short)))))",
    " | all(group(labels) each(group(colour) each(output(sum(price), min(price)))))",
]
EXPRESSIONS = [
    "sum(query(q) * attribute(vector))",
    "if (attribute(price) > 3, log10(attribute(stock) + 1), pow(2, 0.5))",
    "reduce(tensor<float>(x[4])(x * 2) * attribute(vector), max, x)",
    "sum(join(query(q), attribute(vector), f(a, b)(a - b)))",
    "sum(map(attribute(parts), f(a)(exp(a))))",
    "sum(concat(query(q), attribute(vector), x))",
]
HOSTILE_TEXTS = [
    "", " ", "\0", "'", '"', "\\", "(", ")", "{", "}", "[", "]", ":", ",", "@q", "@", "|", "%", "*", "-", "!", "\n",
    "é", "\u202e", "💥", "\ufffd", "ß", "İ", "and", "or", "not", "in", "contains", "null", "true", "NaN", "Infinity",
    "-1", "0", "1e400", "-1e308", "99999999999999999999999", "2147483648", "9223372036854775807L", "0x", "1e-400",
    "embed(text, @words)", "embed(@words)", "embed(", "{{x:0}:1}", "[1,2,3,4]", "[1,2,3,4,5]", "{a:1}", "../..", "%00",
    "(a+)+$", "((((", "[[[[", "{{{{", "a" * 300, "query(q)", "now()", "id:shop:thing::a",
]  # fmt: skip
HOSTILE_VALUES: list[Any] = [
    *HOSTILE_TEXTS, None, True, False, 0, -1, 3, 1.5, 1e308, -1e308, 5e-324, 2**31, 2**63 - 1, -(2**63), 2**64, 10**40,
    [], {}, [[]], [None], {"": None}, [1, "a"], {"a": {"b": {"c": 1}}}, {"cells": []}, {"blocks": {}}, {"values": [1]},
    {"blocks": {"p": [1]}}, {"cells": [{"address": {"p": "a"}, "value": 1}]}, {"type": "tensor(x[4])", "values": "00"},
    [1] * 500, ["a"] * 500, {"assign": 1}, {"key": "a", "value": 1}, [{"key": "a", "value": 2}],
]  # fmt: skip
PARAMETERS = [
    "hits", "offset", "ranking", "ranking.rerankCount", "ranking.sorting", "timeout", "presentation.summary",
    "presentation.format", "presentation.format.tensors", "presentation.timing", "model.type", "model.defaultIndex",
    "model.restrict", "model.sources", "queryProfile", "query", "type", "input.query(q)", "input.query(boost)",
    "input.query(person)", "ranking.features.query(q)", "trace.level", "ranking.listFeatures", "select", "recall",
    "ranking.globalPhase.rerankCount", "ranking.rankScoreDropLimit", "maxHits", "maxOffset", "bogus", "yql",
]  # fmt: skip
VISIT = [
    "cluster=shop", "selection=thing.stock%20%3E%203", "selection=thing.colour%20%3D~%20%22r.d%22", "wantedDocumentCount=3",
    "continuation=YWZ0ZXI6Mg", "slices=2", "sliceId=1", "stream=true", "fieldSet=thing:title,price", "bucketSpace=default",
    "format.tensors=hex", "condition=thing.stock%3D%3D3", "create=true", "dryRun=true", "timeout=1s", "route=default",
]  # fmt: skip


@dataclass(frozen=True)
class Case:
    """One request."""

    method: str
    path: str
    body: Any = None
    headers: dict[str, str] = field(default_factory=lambda: dict(JSON_HEADERS))

    def data(self) -> bytes | None:
        """The body as it is sent."""
        return self.body if isinstance(self.body, (bytes, type(None))) else json.dumps(self.body).encode()


class Generator:
    """Requests from a seed: `case(i)` is the same whenever it is asked."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def cases(self, count: int) -> Iterator[Case]:
        for i in range(count):
            yield self.case(i)

    def case(self, i: int) -> Case:
        """The i-th request: a valid one with one to three changes."""
        r = random.Random(self.seed * 1_000_003 + i)
        make = r.choices([_search, _search_get, _put, _update, _path, _package, _other], [40, 10, 20, 14, 8, 5, 3])[0]
        case = make(r)
        if r.random() < 0.1 and (data := case.data()):
            case = replace(case, body=_bytes(r, data))
        return case


def _text(r: random.Random, text: str) -> str:
    """A text with a part removed, doubled, moved, or something hostile in it."""
    at, to = sorted((r.randint(0, len(text)), r.randint(0, len(text))))
    part = text[at:to]
    fields = [name for name in FIELDS if name in text]
    if fields and r.random() < 0.25:  # what fits one type meets another
        return text.replace(r.choice(fields), r.choice(FIELDS))
    match r.randrange(6):
        case 0:
            return text[:at] + text[to:]
        case 1:
            return text[:to] + part + text[to:]
        case 2:
            words = text.split(" ")
            r.shuffle(words)
            return " ".join(words)
        case 3:
            words = text.split(" ")
            words[r.randrange(len(words))] = r.choice(HOSTILE_TEXTS)
            return " ".join(words)
        case 4:
            return text[:at] + part * r.choice((2, 10, 100)) + text[to:]
        case _:
            return text[:at] + r.choice(HOSTILE_TEXTS) + text[at:]


def _bytes(r: random.Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(r.randint(1, 4)):
        at = r.randrange(len(changed) + 1)
        match r.randrange(3):
            case 0:
                del changed[at : at + r.randint(1, 40)]
            case 1:
                changed[at:at] = r.randbytes(r.randint(1, 8))
            case _ if at < len(changed):
                changed[at] = r.randrange(256)
    return bytes(changed)


def _value(r: random.Random, value: Any) -> Any:
    """A JSON value with something in it changed."""
    if r.random() < 0.3:
        return r.choice(HOSTILE_VALUES)
    if isinstance(value, dict) and value:
        key = r.choice(list(value))
        changed = dict(value)
        match r.randrange(4):
            case 0:
                del changed[key]
            case 1:
                changed[r.choice(HOSTILE_TEXTS)] = changed.pop(key)
            case _:
                changed[key] = _value(r, value[key])
        return changed
    if isinstance(value, list) and value:
        changed_list = list(value)
        changed_list[r.randrange(len(value))] = _value(r, r.choice(value))
        return changed_list * r.choice((1, 1, 1, 3))
    if isinstance(value, str):
        return _text(r, value)
    return r.choice(HOSTILE_VALUES)


def _parameters(r: random.Random) -> dict[str, Any]:
    yql = "select " + r.choice(("*", "title, price", "title")) + " from thing where "
    joined = f" {r.choice(('and', 'or'))} ".join(f"({w})" for w in r.sample(WHERES, r.randint(1, 2)))
    body: dict[str, Any] = {
        "yql": yql + joined + r.choice(TAILS),
        "words": "red 'dress' -shoe",
        "query": "title:red dress",
        "ranking": r.choice(("near", "words", "two", "fused", "tower", "marked", "unranked")),
        "input.query(q)": [1, 0, 0.5, 0],
        "input.query(person)": [[1, 2, 3, 4]],
    }
    for name in r.sample(PARAMETERS, r.randint(0, 2)):
        body[name] = r.choice(HOSTILE_VALUES)
    if r.random() < 0.4:
        body["yql"] = _text(r, str(body["yql"]))
    return body


def _search(r: random.Random) -> Case:
    body = _parameters(r)
    for _ in range(r.choice((0, 0, 1, 2))):
        changed = _value(r, body)
        body = changed if isinstance(changed, dict) else body
    return Case("POST", "/search/", body)


def _search_get(r: random.Random) -> Case:
    found = {k: v if isinstance(v, str) else json.dumps(v) for k, v in _parameters(r).items()}
    return Case("GET", "/search/?" + urlencode(found))


def _id(r: random.Random) -> str:
    return r.choice(
        ["a", "b", "c", "d", "e", "f", "n/a", "%00", "a%2Fb", quote(r.choice(HOSTILE_TEXTS) or "x", safe="")]
    )


def _query(r: random.Random) -> str:
    return "?" + "&".join(r.sample(VISIT, r.randint(1, 3))) if r.random() < 0.3 else ""


def _put(r: random.Random) -> Case:
    body: Any = {"fields": copy.deepcopy(THINGS[r.choice(list(THINGS))])}
    for _ in range(r.randint(0, 3)):
        body = _value(r, body)
    return Case("POST", ROOT + _id(r) + _query(r), body)


def _update(r: random.Random) -> Case:
    updates: dict[str, Any] = {
        "stock": {r.choice(("assign", "increment", "decrement", "multiply", "divide")): r.choice([0, 1, 2.5, 10**30])},
        "price": {r.choice(("assign", "multiply", "divide")): r.choice([0, 1e308, "NaN", 2])},
        "added": {r.choice(("increment", "multiply")): r.choice([1, 2**62, 1e300])},
        "labels": {r.choice(("add", "remove", "assign")): ["new"]},
        "marks": {r.choice(("add", "remove")): {"eco": 3}},
        "parts": {r.choice(("add", "modify", "remove")): {"operation": "multiply", "blocks": {"p": [2, 3]}}},
        "vector": {r.choice(("assign", "modify")): {"operation": "replace", "cells": [{"address": {"x": "1"}, "value": 3}]}},
        "title": {r.choice(("assign", "match", "increment")): "red dress"},
    }  # fmt: skip
    names = r.sample(list(updates), r.randint(1, 3))
    body: Any = {"fields": {n: updates[n] for n in names}}
    for _ in range(r.randint(0, 2)):
        body = _value(r, body)
    return Case("PUT", ROOT + _id(r) + _query(r), body)


def _path(r: random.Random) -> Case:
    """Gets, visits and deletes; removal by selection only ever means few documents."""
    place = r.choice(
        [ROOT, ROOT + _id(r), "/document/v1/", "/document/v1/shop/person/docid/", "/document/v1/shop/thing/"]
    )
    path = place + "?" + "&".join(r.sample(VISIT, r.randint(0, 4)))
    if r.random() < 0.5:
        path = quote(_text(r, path), safe="/?&=%:")
    return Case(r.choice(("GET", "GET", "DELETE", "PUT", "PATCH", "OPTIONS")), "/" + path.lstrip("/"))


def _package(r: random.Random) -> Case:
    """A package with one text file changed, or a zip with wrong bytes."""
    files = package_files()
    if r.random() < 0.3:
        expression = _text(r, r.choice(EXPRESSIONS))
        files["schemas/thing/fuzz.profile"] = (
            f"rank-profile fuzz inherits base {{ first-phase {{ expression: {expression} }} }}".encode(
                "utf-8", "replace"
            )
        )
    else:
        path = r.choice([p for p in files])
        if path.startswith("models/"):
            files[path] = _bytes(r, files[path])
        else:
            files[path] = _text(r, files[path].decode()).encode("utf-8", "replace")
    data = zipped(files)
    if r.random() < 0.2:
        data = _bytes(r, data)
    return Case("POST", PREPARE, data, {"Content-Type": "application/zip"})


def _other(r: random.Random) -> Case:
    path = r.choice(["/", "/metrics", "/state/v1/health", "/model-evaluation/v1/tower/eval?person=[[1,2,3,4]]",
                     "/application/v2/tenant/default/session/7/active", "/ApplicationStatus",
                     "/model-evaluation/v1/text/eval?input_ids=[[1,2]]&attention_mask=[[1,1]]"])  # fmt: skip
    return Case(r.choice(("GET", "POST", "PUT")), "/" + quote(_text(r, path), safe="/?&=%:").lstrip("/"))
