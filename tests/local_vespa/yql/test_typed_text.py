"""What shoppers type, over the generated sample: each kind of the golden catalogue `words`, against sets counted here.

Words are indexed without stems, so that the expected items are plain sets of words on every machine.
"""

from __future__ import annotations

import re
import struct

import numpy as np
import pyarrow.parquet as pq
import pytest

from local_vespa.testing import deploy, running_engine
from mrse_model.sample.catalogue import write_sample
from tests.helpers.small_app import SERVICES, ask, zipped

SCHEMA = """
schema item {
  document item {
    field language type string { indexing: (input language || "en") | set_language }
    field title type string { indexing: index | summary
      index: enable-bm25
      stemming: none }
    field description type string { indexing: index | summary
      stemming: none }
    field brand type string { indexing: attribute | summary }
    field colour type string { indexing: attribute | summary }
    field price type float { indexing: attribute | summary }
    field vector type tensor<float>(x[4]) { indexing: attribute | index | summary
      attribute { distance-metric: angular } }
  }
  fieldset default { fields: title, description }
}
"""
PROFILES = {
    "words": "first-phase { expression: bm25(title) }",
    "fused": """first-phase { expression: closeness(field, vector) }
      function lexical() { expression: bm25(title) }
      function semantic() { expression: closeness(field, vector) }
      global-phase { expression: reciprocal_rank_fusion(lexical, semantic)
        rerank-count: 100 }
      match-features: lexical semantic""",
}
QUERY = [1.0, 0.0, 0.0, 0.0]
NEAREST = "{targetHits: 20}nearestNeighbor(vector, q)"
words_of = re.compile("[a-z0-9]+").findall


class Shop:
    """The sample's items and an engine that has them."""

    def __init__(self, url: str, items: dict[str, dict]) -> None:
        self.url, self.items = url, items

    def answer(self, text: str = "", where: str = "userInput(@text)", after: str = "", **more) -> dict:
        yql = f"select title, price from item where {where} {after}"
        parameters = {"yql": yql, "text": text, "ranking": "words", "hits": 400} | more
        status, answer = ask(self.url, "/search/", parameters)
        assert status == 200, answer
        return answer["root"]

    def found(self, text: str, where: str = "userInput(@text)", **more) -> set[str]:
        return {hit["fields"]["title"] for hit in self.answer(text, where, **more).get("children", [])}

    def expected(self, *wanted: set[str]) -> set[str]:
        """Titles of the items that have all words of one of the sets."""
        return {
            item["title"]
            for item in self.items.values()
            if any(need <= set(words_of(f"{item['title']} {item['description']}".lower())) for need in wanted)
        }


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    sample = write_sample(tmp_path_factory.mktemp("sample"), items=240, users=5, searches=5)
    columns = ["item_id", "title", "description", "brand", "colour", "price"]
    items = {row.pop("item_id"): row for row in pq.read_table(sample.items, columns=columns).to_pylist()}
    vectors = np.random.default_rng(5).normal(size=(len(items), 4)).round(3)
    services = SERVICES[: SERVICES.index("<component")] + SERVICES[SERVICES.index("<nodes>") :]
    services = services.replace('<document type="thing" mode="index"/><document type="person" mode="index"/>', "")
    services = services.replace("<documents>", '<documents><document type="item" mode="index"/>')
    inputs = "inputs { query(q) tensor<float>(x[4]) }"
    files = {"services.xml": services, "schemas/item.sd": SCHEMA} | {
        f"schemas/item/{name}.profile": f"rank-profile {name} {{\n{inputs}\n{body}\n}}\n"
        for name, body in PROFILES.items()
    }
    with running_engine(tmp_path_factory.mktemp("engine")) as url:
        deploy(url, zipped({path: text.encode() for path, text in files.items()}))
        for (id, fields), vector in zip(items.items(), vectors.tolist(), strict=True):
            fields["vector"] = vector
            assert ask(url, f"/document/v1/shop/item/docid/{id}", {"fields": fields})[0] == 200
        yield Shop(url, items)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("t-shirt", [{"t", "shirt"}]),  # both parts, not any
        ("navy t-shirt", [{"navy"}, {"t", "shirt"}]),
        ("a-line skirt", [{"a", "line"}, {"skirt"}]),
        ("children's", [{"children", "s"}]),
        ("children\u2019s mug", [{"children", "s"}, {"mug"}]),
        ("skirt/boots", [{"skirt", "boots"}]),
        ("a&b", [{"a", "b"}]),
        ("serving_dish", [{"serving", "dish"}]),
        ("mug, bowl!", [{"mug"}, {"bowl"}]),
        ("tea*", [{"tea"}]),  # a text index has no prefixes: the letters are a word
        ("*mug*", [{"mug"}]),
        ('"tea kettle"', [{"tea", "kettle"}]),
        ("-casual mug", "without"),
        ("MUG Bowl", [{"mug"}, {"bowl"}]),
        ("mug <5", [{"mug"}]),
        ("\U0001f45f mug", [{"mug"}]),
    ],
)
def test_typed_text(shop, text, wanted):
    if wanted == "without":
        assert shop.found(text) == shop.expected({"mug"}) - shop.expected({"casual"})
    else:
        assert shop.found(text) == shop.expected(*wanted)
        assert any(shop.expected(need) for need in wanted) or text in ("skirt/boots", "a&b")


@pytest.mark.parametrize(
    ("grammar", "text", "wanted"),
    [
        ("all", "red mug", [{"red", "mug"}]),
        ("any", "red mug", [{"red"}, {"mug"}]),
        ("any", "+mug red", [{"mug"}]),
        ("web", "mug OR tea kettle", [{"mug"}, {"tea", "kettle"}]),
        ("web", "(mug kettle)", [{"mug", "kettle"}]),
        ("all", "(mug kettle) look", [{"mug", "look"}, {"kettle", "look"}]),
        ("phrase", "tea-kettle", [{"tea", "kettle"}]),
        ("raw", "Tea's kettle", [{"tea", "s", "kettle"}]),
        ("linguistics", "(mug) -kettle", [{"mug"}, {"kettle"}]),
        ("tokenize", "(mug) -kettle", [{"mug"}, {"kettle"}]),
    ],
)
def test_grammars(shop, grammar, text, wanted):
    assert shop.found(text, f'{{grammar: "{grammar}"}}userInput(@text)') == shop.expected(*wanted)


def test_fields_in_typed_text(shop):
    cheap_mugs = {i["title"] for i in shop.items.values() if i["price"] < 12 and "mug" in words_of(i["title"].lower())}
    assert shop.found("title:mug price:<12", '{grammar: "all"}userInput(@text)') == cheap_mugs
    brand = next(i["brand"] for i in shop.items.values() if " " in i["brand"] or i["brand"].isalpha())
    of_brand = {i["title"] for i in shop.items.values() if i["brand"] == brand}
    assert shop.found(f'brand:"{brand}"', '{grammar: "all"}userInput(@text)') == of_brand


def test_all_parts_of_a_word_are_scored_where_all_are_there(shop):
    def scores(text):
        return {
            h["id"]: h["relevance"] for h in shop.answer(text, 'title contains "mug" or userInput(@text)')["children"]
        }

    mugs, t, shirt, both = scores("xyzzy"), scores("t"), scores("shirt"), scores("t-shirt")
    matched = [id for id in both if id not in mugs]
    assert matched
    for id in matched:
        assert both[id] == pytest.approx(t[id] + shirt[id])
    assert all(both[id] == pytest.approx(mugs[id]) for id in mugs)


def test_a_hybrid_whose_words_match_nothing_has_hits_and_tied_ranks(shop):
    more = {"ranking": "fused", "input.query(q)": QUERY, "hits": 5}
    root = shop.answer("xyzzy-t", f"({NEAREST}) or userInput(@text)", **more)
    assert root["fields"]["totalCount"] == 20
    for place, hit in enumerate(root["children"]):  # no words: lexical ranks are in the order of the first phase
        assert hit["relevance"] == pytest.approx(2 / (61 + place))


def test_prefixes_do_not_fail_a_hybrid(shop):
    more = {"ranking": "fused", "input.query(q)": QUERY}
    assert shop.answer("mug*", f"({NEAREST}) or userInput(@text)", **more)["fields"]["totalCount"] >= 20
    root = shop.answer("title:mug*", f"({NEAREST}) or userInput(@text)", **more)
    assert [e["code"] for e in root["errors"]] == [3, 3] and root["children"]  # of a field Vespa says so, and answers


FACETS = "all(group(predefined(price, bucket(0, 20), bucket(20, inf))) each(output(count())))"


def test_order_by_keeps_relevance_and_groups_come_last(shop):
    root = shop.answer("mug bowl", after=f"order by price desc limit 5 | {FACETS}")
    *hits, groups = root["children"]
    assert [h["fields"]["price"] for h in hits] == sorted((h["fields"]["price"] for h in hits), reverse=True)
    assert len(hits) == 5 and all(h["relevance"] > 0 for h in hits)
    (prices,) = groups["children"]
    assert prices["label"] == "predefined(price, bucket[0, 20>, bucket[20, inf>)"
    assert sum(g["fields"]["count()"] for g in prices["children"]) == root["fields"]["totalCount"]
    assert shop.answer("", 'title contains "mug"', "order by price")["children"][0]["relevance"] == 0  # nothing to rank


def test_groups_stand_by_their_relevance_of_one(shop):
    root = shop.answer("mug", after=f"limit 3 | {FACETS}")
    relevance = [child["relevance"] for child in root["children"]]
    assert relevance == sorted(relevance, reverse=True)
    assert str(root["children"][-1]["id"]).startswith("group:") == (min(relevance) == 1)


def test_tensors_as_hex(shop):
    digits = "".join(struct.pack(">f", x).hex() for x in QUERY)
    yql = f"select vector from item where {NEAREST}"
    answers = []
    for given in (QUERY, digits, digits.upper(), f"tensor<float>(x[4]):{digits}", {"values": digits}):
        parameters = {"yql": yql, "ranking": "fused", "hits": 3, "input.query(q)": given}
        status, answer = ask(shop.url, "/search/", parameters)
        assert status == 200, answer
        answers.append(answer["root"]["children"])
    assert all(answer == answers[0] for answer in answers)
    parameters["presentation.format.tensors"] = "hex"
    shown = ask(shop.url, "/search/", parameters)[1]["root"]["children"][0]["fields"]["vector"]
    assert shown["values"].lower() == "".join(
        struct.pack(">f", x).hex() for x in answers[0][0]["fields"]["vector"]["values"]
    )
