"""Searches over HTTP: matching, ranking, parameters, errors."""

from __future__ import annotations

import gzip
import json
import math

import pytest

from local_vespa.http import Request
from local_vespa.package.reader import read_package
from local_vespa.search.parameters import Parameters, read
from local_vespa.testing import deploy, running_engine
from tests.helpers.small_app import THINGS, VECTORS, ask, package_files, put, search, titles, zipped

TITLE = {id: fields["title"] for id, fields in THINGS.items()}


def found(url, where, **parameters):
    """Ids of the hits, in order."""
    status, answer = search(url, yql=f"select * from thing where {where}", **parameters)
    assert status == 200, answer
    return "".join(hit["id"][-1] for hit in answer["root"].get("children", []))


def root(url, **parameters):
    return search(url, **parameters)[1]["root"]


def code(url, **parameters):
    status, answer = search(url, **parameters)
    assert status == 400
    return answer["root"]["errors"][0]["code"], answer["root"]["errors"][0]["message"]


@pytest.mark.parametrize(
    ("where", "ids"),
    [
        ("true", "abcde"),
        ("false", ""),
        ('colour contains "red"', "ac"),
        ('colour contains "RED" and stock > 0', "a"),
        ('labels contains "sale"', "ab"),
        ('marks contains "eco"', "b"),
        ("price < 36", "abe"),
        ("price <= 35.5 and price > 5", "ab"),
        ("stock = 0", "c"),
        ("stock >= 7", "bd"),
        ("range(stock, 3, 7)", "ab"),
        ("sold = true", "a"),
        ("sold = false", "bcde"),
        ("stock in (0, 9)", "cd"),
        ('colour in ("Blue", "green")', "bd"),
        ("!(price > 0)", "d"),
        ('true and !(title contains "dress")', "cde"),
        ('title contains "dresses"', "ab"),
        ('title contains "hat"', "d"),
        ('default contains "shoe"', "c"),
        ('title contains phrase("red", "shoe")', "c"),
        ('title contains phrase("red", "dress")', ""),
        ('title contains near("red", "dress")', "a"),
        ('title contains near("red-summer", "dress")', "a"),
        ('title contains near("red-dress", "summer")', ""),
        ('title contains onear("dress", "red")', ""),
        ('title contains equiv("hat", "shoe")', "cd"),
        ('TRUE AND colour CONTAINS "red"', "ac"),
        ("stock IN (0, 9)", "cd"),
        ("stock in (@absent)", ""),
        ('colour contains fuzzy("rad")', "ac"),
        ('colour contains ({maxEditDistance: 1}fuzzy("re"))', "ac"),
        ('colour contains ({maxEditDistance: 1}fuzzy("rxx"))', ""),
        ('colour contains ({prefixLength: 1}fuzzy("xed"))', ""),
        ('colour contains ({maxEditDistance: 1, prefix: true}fuzzy("bla"))', "b"),
        ('labels contains fuzzy("sael")', "ab"),
        ('sddocname contains "thing"', "abcde"),
        ('sddocname contains "person"', ""),
        ('sold = "true"', "a"),
        ('rank(title contains "dress", title contains "red")', "ab"),
        ('colour contains ({prefix: true}"re")', "ac"),
        ('colour matches "^gr"', "d"),
        ('userInput("red -shoe")', "a"),
        ('colour contains "nothing"', ""),
        ('title contains "red" or price = 5', "ace"),
    ],
)
def test_matching(shop, where, ids):
    assert "".join(sorted(found(shop, where, ranking="unranked"))) == ids


def test_weighted_operators_match_and_score(fresh):
    for id, marks in {"a": {"x": 2, "y": 3}, "b": {"x": 5}, "c": {"z": 1}}.items():
        put(fresh, id, {"marks": marks, "title": id})
    for operator, expected in {
        'dotProduct(marks, {"x": 10, "y": 1})': {"a": 23.0, "b": 50.0},
        '{targetHits: 5}wand(marks, {"x": 10, "y": 1})': {"a": 23.0, "b": 50.0},
        '{targetHits: 5, scoreThreshold: 30}wand(marks, {"x": 10, "y": 1})': {"b": 50.0},
        'weightedSet(marks, {"y": 7, "z": 2})': {"a": 7.0, "c": 2.0},
    }.items():
        answer = root(fresh, yql=f"select title from thing where {operator}", ranking="marked")
        assert {h["fields"]["title"]: h["relevance"] for h in answer["children"]} == expected


def closeness(query, vector):
    return 1 / (2 - sum(q * v for q, v in zip(query, vector, strict=True)) / sum(q * q for q in query))


QUERY = [0.8, 0.6, 0.0, 0.0]


def test_nearest_neighbors_are_ordered_and_scored(shop):
    answer = root(
        shop,
        yql="select title from thing where {targetHits: 3}nearestNeighbor(vector, q)",
        ranking="near",
        **{"input.query(q)": QUERY},
    )
    expected = sorted(((closeness(QUERY, v), TITLE[i]) for i, v in VECTORS.items()), reverse=True)[:3]
    assert [h["fields"]["title"] for h in answer["children"]] == [t for _, t in expected]
    assert [h["relevance"] for h in answer["children"]] == pytest.approx([s for s, _ in expected], abs=1e-6)
    assert answer["children"][0]["fields"]["matchfeatures"] == {
        "closeness(field,vector)": pytest.approx(expected[0][0])
    }
    assert answer["fields"]["totalCount"] == 3


def test_a_filter_comes_before_the_nearest(shop):
    where = '({targetHits: 1}nearestNeighbor(vector, q)) and colour contains "green"'
    assert found(shop, where, ranking="near", **{"input.query(q)": QUERY}) == "d"


def test_first_and_second_phase(shop):
    answer = root(shop, yql="select title from thing where price > 0", ranking="two")
    scores = {h["fields"]["title"]: h["relevance"] for h in answer["children"]}
    assert scores[TITLE["b"]] == 0.5 * 35.5 and scores[TITLE["a"]] == 10.0  # the best two by stock, again by price
    features = answer["children"][0]["fields"]["matchfeatures"]
    assert features == {"firstPhase": 7.0, "secondPhase": 17.75}
    again = root(
        shop,
        yql="select title from thing where price > 0",
        ranking="two",
        **{"input.query(boost)": 2, "ranking.rerankCount": 1},
    )
    assert again["children"][0]["relevance"] == 71.0


def test_global_phase_fuses_ranks(shop):
    where = "({targetHits: 4}nearestNeighbor(vector, q)) or userInput(@words)"
    answer = root(
        shop, yql=f"select title from thing where {where}", words="dress", ranking="fused", **{"input.query(q)": QUERY}
    )
    lexical = sorted(answer["children"], key=lambda h: -h["fields"]["matchfeatures"]["lexical"])
    semantic = sorted(answer["children"], key=lambda h: -h["fields"]["matchfeatures"]["semantic"])
    for hit in answer["children"][:2]:
        ranks = [order.index(hit) for order in (lexical, semantic)]
        assert hit["relevance"] == pytest.approx(sum(1 / (61 + r) for r in ranks))


LONG = 1234567890123456789  # as a float it is equal to its neighbours


@pytest.mark.parametrize(
    ("where", "ids"),
    [
        ("{n} = {long}", "b"),
        ("{n} = @long", "b"),
        ("{n} = @text", "b"),
        ("{n} in ({long}, 5)", "b"),
        ("{n} in (@text)", "b"),
        ('{n} contains "{long}"', "b"),
        ('{n} contains "[{long};]"', "bc"),
        ('{n} contains ">{long}"', "c"),
        ("{n} >= {long}", "bc"),
        ("range({n}, {long}, {long})", "b"),
        ('({{defaultIndex: "{n}"}}userInput("[{long};{long}]"))', "b"),
        ('weightedSet({n}, {{"{long}": 1}})', "b"),
        ("{n} = @huge", ""),
        ("{n} in (@huge)", ""),
    ],
)
@pytest.mark.parametrize("field", ["added", "runs"])
def test_long_integers_are_not_their_neighbours(longs, field, where, ids):
    asked = {"long": LONG, "text": str(LONG), "huge": "9" * 500}
    assert "".join(sorted(found(longs, where.format(n=field, long=LONG), **asked))) == ids


@pytest.fixture(scope="module")
def longs(tmp_path_factory):
    files = package_files()
    files["schemas/thing.sd"] = files["schemas/thing.sd"].replace(
        b"field sold ", b"field runs type array<long> { indexing: attribute }\n    field sold "
    )
    with running_engine(tmp_path_factory.mktemp("longs")) as url:
        deploy(url, zipped(files))
        for n, id in enumerate("abc", LONG - 1):
            assert put(url, id, {"added": n, "runs": [n]})[0] == 200
        yield url


def test_groups_are_of_all_matches_whatever_the_global_phase_leaves(shop):
    grouping = "all(group(colour) max(9) each(output(count()) max(1) each(output(summary()))))"
    asked = {
        "yql": f"select title from thing where userInput(@words) limit 1 | {grouping}",
        "words": "dress shoe hats plain",
        "input.query(q)": QUERY,
        "ranking.globalPhase.rerankCount": 1,
    }
    (plain, _), (fused, hit) = (root(shop, **asked, ranking=ranking)["children"] for ranking in ("near", "fused"))
    assert sum(g["fields"]["count()"] for g in fused["children"][0]["children"]) == 5
    assert fused == plain  # their relevance is the content node's, too
    assert hit["relevance"] < 0.04


def test_onnx_in_a_rank_profile_and_summary_features(shop):
    answer = root(
        shop,
        yql="select title, summaryfeatures from thing where true",
        ranking="tower",
        **{"input.query(person)": [[1, 2, 3, 4]]},
    )
    scores = {h["fields"]["title"]: h["relevance"] for h in answer["children"]}
    for id, vector in VECTORS.items():
        assert scores[TITLE[id]] == pytest.approx(2 * sum((n + 1) * v for n, v in enumerate(vector)), abs=1e-5)
    assert answer["children"][0]["fields"]["summaryfeatures"].keys() == {
        "attribute(price)",
        "vespa.summaryFeatures.cached",
    }


def test_embed_makes_the_query_vector(shop):
    status, made = ask(
        shop,
        "/model-evaluation/v1/text/eval?input_ids=[[2,4,6,3]]&attention_mask=[[1,1,1,1]]&format.tensors=short-value",
    )
    assert status == 200
    norm = math.sqrt(sum(v * v for v in made[0]))
    unit = [v / norm for v in made[0]]
    for text in ("embed(text, @words)", 'embed(text, "red dress")'):
        answer = root(
            shop,
            yql="select title from thing where {targetHits: 4}nearestNeighbor(vector, q)",
            ranking="near",
            words="red dress",
            **{"input.query(q)": text},
        )
        expected = {TITLE[i]: closeness(unit, v) for i, v in VECTORS.items()}
        assert {h["fields"]["title"]: h["relevance"] for h in answer["children"]} == pytest.approx(expected, abs=1e-5)


def test_query_profiles(shop):
    answer = root(shop, queryProfile="meaning", query="red dress")
    assert len(answer["children"]) == 2 and answer["fields"]["totalCount"] == 3
    assert len(root(shop, queryProfile="meaning", query="red dress", hits=1)["children"]) == 1


def test_query_profiles_may_refer_to_what_they_are_given(tmp_path):
    files = package_files()
    files["search/query-profiles/echo.xml"] = b"""<query-profile id="echo">
      <field name="yql">
        select title from thing where title contains "%{query}" and price &lt; %{most} order by %{sorting} asc
      </field>
      <field name="most" overridable="false">50</field><field name="sorting">stock</field>
      <field name="ranking">words</field><field name="said">%{ranking}, %{nothing}, %{ranking.features.query(n)}</field>
    </query-profile>"""
    with running_engine(tmp_path) as url:
        deploy(url, zipped(files))
        for id in "abc":
            put(url, id, THINGS[id])
        asked = {"queryProfile": "echo", "query": "dress", "most": 1}
        assert titles(search(url, **asked)[1]) == [TITLE["a"], TITLE["b"]]
        assert titles(search(url, **asked, sorting="colour")[1]) == [TITLE["b"], TITLE["a"]]
    asked = {"queryProfile": "echo", "ranking": "%{query}", "input.query(n)": True}
    request = Request("POST", "/search/", {}, {}, json.dumps(asked).encode(), "")
    given = Parameters(read(request), read_package(files).query_profiles)
    assert given.text("ranking.profile") == "%{query}" and given.text("said") == "%{query}, , true"


def test_the_default_rank_profile_is_native_rank(shop):
    answer = root(shop, yql='select title from thing where title contains "red"')
    assert titles({"root": answer}) == [TITLE["a"], TITLE["c"]]
    assert 0 < answer["children"][1]["relevance"] < answer["children"][0]["relevance"] < 1


def test_sorting_paging_and_missing_values(shop):
    assert found(shop, "true order by price asc") == "deabc"
    assert found(shop, "true order by price desc") == "cbaed"
    assert found(shop, "true order by colour asc, price desc") == "ebdca"
    assert found(shop, "true", sorting="-stock +price", ranking="unranked") == "dbace"
    assert found(shop, "true order by price asc limit 3 offset 1") == "ea"
    assert found(shop, "true order by price asc", hits=2, offset=2) == "ab"


def test_summaries_and_tensor_formats(shop):
    hit = root(shop, yql="select * from thing where stock = 9")["children"][0]
    assert hit["id"] == "id:shop:thing::d" and hit["source"] == "shop"
    assert hit["fields"]["vector"] == {"type": "tensor<float>(x[4])", "values": [0.0, 0.0, 1.0, 0.0]}
    assert hit["fields"]["parts"] == {"type": "tensor<float>(p{},x[2])", "blocks": {"p": [1.0, 2.0]}}
    assert "price" not in hit["fields"] and hit["fields"]["sold"] is False
    short = root(shop, yql="select * from thing where stock = 3", **{"presentation.summary": "short"})["children"][0]
    assert short["fields"] == {"sddocname": "thing", "title": TITLE["a"], "price": 20.0}
    assert short["id"].startswith("index:shop/0/") and len(short["id"]) == len("index:shop/0/") + 24
    value = root(shop, yql="select vector from thing where stock = 9", **{"presentation.format.tensors": "short-value"})
    assert value["children"][0]["fields"] == {"vector": [0.0, 0.0, 1.0, 0.0]}


def test_grouping(shop):
    answer = root(
        shop,
        yql="select * from thing where true limit 0 | "
        "all(group(colour) order(-count()) each(output(count(), max(price))))",
    )
    groups = answer["children"][0]["children"][0]["children"]
    assert [(g["value"], g["fields"]["count()"]) for g in groups] == [
        ("", 1),
        ("Blue", 1),
        ("Green", 1),
        ("Red", 1),
        ("red", 1),
    ]


@pytest.mark.parametrize("how", ["get", "form", "gzip", "nested"])
def test_every_way_to_send_parameters(shop, how):
    yql = 'select title from thing where title contains "warm"'
    if how == "get":
        status, answer = ask(shop, "/search/?ranking=words&yql=" + yql.replace(" ", "%20").replace('"', "%22"))
    elif how == "form":
        body = ("ranking=words&yql=" + yql.replace(" ", "+").replace('"', "%22")).encode()
        status, answer = ask(shop, "/search", body, headers={"Content-Type": "application/x-www-form-urlencoded"})
    elif how == "gzip":
        body = gzip.compress(json.dumps({"yql": yql, "ranking.profile": "words"}).encode())
        status, answer = ask(shop, "/search/", body, headers={"Content-Encoding": "gzip"})
    else:
        status, answer = search(shop, yql=yql, ranking={"profile": "words"}, presentation={"timing": True})
        assert answer["timing"]["searchtime"] >= 0
    assert status == 200 and titles(answer) == [TITLE["c"]]
    assert "bm25(title)" in answer["root"]["children"][0]["fields"]["matchfeatures"]


@pytest.mark.parametrize(
    ("parameters", "expected", "words"),
    [
        ({}, 3, "No query"),
        ({"yql": "select * from"}, 4, ""),
        ({"yql": "select * from nobody where true"}, 4, "Could not resolve source ref 'nobody'"),
        ({"yql": "select * from thing where nothing contains 'x'"}, 4, "Field 'nothing' does not exist"),
        ({"yql": "select * from thing where true", "ranking": "none"}, 4, "rank profile 'none'"),
        ({"yql": "select * from thing where true", "hits": 501}, 3, "configured limit: 500"),
        ({"yql": "select * from thing where true", "hits": "many"}, 3, "not a valid integer"),
        ({"yql": "select * from thing where true order by title"}, 4, "no sortable attribute named 'title'"),
        (
            {"yql": "select * from thing where nearestNeighbor(vector, q)", "ranking": "near", "input.query(q)": QUERY},
            3,
            "targetHits",
        ),
        (
            {"yql": "select * from thing where {targetHits:1}nearestNeighbor(vector, q)", "ranking": "near"},
            3,
            "not present",
        ),
        (
            {
                "yql": "select * from thing where {targetHits:1}nearestNeighbor(title, q)",
                "ranking": "near",
                "input.query(q)": QUERY,
            },
            3,
            "not an attribute",
        ),
        (
            {"yql": "select * from thing where true", "ranking": "near", "input.query(q)": "hello"},
            3,
            "Could not parse 'hello'",
        ),
        (
            {"yql": "select * from thing where true", "ranking": "near", "input.query(q)": "embed(none, @x)"},
            3,
            "Can't find embedder 'none'",
        ),
        (
            {"yql": "select * from thing where true order by price", "ranking": "fused"},
            3,
            "Sorting is not supported with global phase",
        ),
        ({"yql": "select * from thing where colour matches '('"}, 4, "is invalid"),
        ({"yql": "select * from thing where true", "timeout": "x"}, 3, "Error parsing"),
        ({"queryProfile": "nothing", "query": "x"}, 3, "Could not resolve query profile"),
        (
            {"yql": "select * from thing where true", "recall": "+id:1"},
            3,
            "local_vespa does not support the query parameter 'recall'",
        ),
        ({"yql": "select * from thing where true | all(group(nothing) each(output(count())))"}, 17, "not available"),
        ({"yql": "select * from thing where true | all(group(vector) each(output(count())))"}, 17, "unsupported type"),
        (
            {"yql": "select * from thing where true | all(max(1) group(stock) each(output(count())))"},
            4,
            "'group' comes",
        ),
        (
            {"yql": "select * from thing where true | all(group(predefined(stock, bucket(0,5), bucket(3,9))) each())"},
            4,
            "monotonically increasing",
        ),
        ({"yql": "select * from thing where stock in ('1')"}, 4, "String to java.lang.Number"),
        ({"yql": "select * from thing where stock in (@v)", "v": "a"}, 4, "invalid literal"),
        ({"yql": "select * from thing where labels in (1)"}, 4, "Integer to java.lang.String"),
        ({"yql": "select * from thing where vector contains 'a'"}, 17, "It is a tensor field"),
        ({"yql": "select * from thing where colour contains ''"}, 4, "cannot be empty"),
        ({"yql": "select * from thing where title contains phrase()"}, 3, "No query"),
        ({"yql": "select * from thing where rank()"}, 3, "No query"),
        ({"yql": "select * from thing where userQuery()"}, 3, "No query"),
        ({"yql": "select * from thing where userQuery()", "query": "a", "type": "odd"}, 3, "model.type"),
        ({"yql": "select * where true"}, 4, "'from'"),
        ({"yql": "select * from thing where true limit -1"}, 17, "must be a positive number"),
        ({"yql": "select * from thing where true", "hits": -1}, 3, "must be a positive number"),
        ({"yql": "select * from thing where true order by vector"}, 4, "because it is a tensor"),
        ({"yql": "select * from thing where true order by labels"}, 4, "local_vespa does not support sorting by"),
        ({"yql": "select * from thing where stock < 99999999999999999999"}, 4, "For input string"),
        ({"yql": "select * from thing where price < 1e400"}, 4, "not a number"),
        (
            {
                "yql": "select * from thing where {targetHits:0}nearestNeighbor(vector, q)",
                "ranking": "near",
                "input.query(q)": QUERY,
            },
            3,
            "invalid targetHits 0",
        ),
        (
            {"yql": "select * from thing where {targetHits:'2'}nearestNeighbor(vector, q)", "ranking": "near"},
            4,
            "annotation 'targetHits'",
        ),
        (
            {"yql": "select * from thing where true", "ranking": "near", "input.query(q)": "[NaN, 1]"},
            3,
            "Could not parse '[NaN, 1]'",
        ),
        (
            {"yql": "select * from thing where title contains ({prefix:true}'re')"},
            3,
            "Prefix matching is not supported",
        ),
    ],
)
def test_errors(shop, parameters, expected, words):
    found_code, message = code(shop, **parameters)
    assert found_code == expected and words in message


@pytest.mark.parametrize(
    ("where", "right", "wrong"),
    [
        ('{targetHits:@n,defaultIndex:"title"}userInput(@w)', "1", "x"),
        ("{totalTargetHits:@n}userQuery()", "1", "1.5"),
        ('{distance:@n,grammar:"near",defaultIndex:"title"}userInput(@w)', "2", "x"),
        ('title contains ({weight:@n}"dress")', "50", "99999999999"),
        ('title contains ({significance:@n}"dress")', "0.5", "x"),
        ('title contains ({ranked:@n}"dress")', "true", "7"),
    ],
)
def test_annotations_are_read_as_their_types(shop, where, right, wrong):
    asked = {"yql": f"select * from thing where {where}", "w": "summer dress", "query": "summer dress"}
    assert titles(search(shop, **asked, n=right)[1])
    found, message = code(shop, **asked, n=wrong)
    assert found == 4 and message.endswith(f"got '{wrong}'.") and "for annotation '" in message


@pytest.mark.parametrize("mark", ['weight:"x"', "weight:1.5", 'significance:"x"', "label:1", "ranked:1", 'stem:"no"'])
def test_annotations_of_another_type_are_refused(shop, mark):
    found, message = code(shop, yql=f'select * from thing where title contains ({{{mark}}}"dress")')
    assert found == 4 and f"for annotation '{mark.split(':')[0]}'" in message


def test_grouping_by_time_where_a_document_has_none(fresh):
    put(fresh, "a", {"added": 86_400})
    put(fresh, "b", {"stock": 1})
    grouping = "all(group(time.dayofmonth(added)) each(output(count())))"
    (found,) = root(fresh, yql=f"select * from thing where true limit 0 | {grouping}")["children"][0]["children"]
    assert [(g["value"], g["fields"]["count()"]) for g in found["children"]] == [("1", 1), ("2", 1)]


def test_a_restriction_to_no_type_finds_nothing(shop):
    status, answer = search(shop, yql="select * from thing where true", **{"model.restrict": "zzz"})
    assert status == 200 and answer["root"]["fields"]["totalCount"] == 0 and "children" not in answer["root"]


def test_grouping_may_be_a_parameter(shop):
    found = root(shop, yql="select * from thing where true", select="all(output(count()));", hits=0)
    assert found["children"][0]["fields"] == {"count()": 5}


def test_a_trace_says_what_was_done(shop):
    answer = search(shop, yql="select * from thing where true", tracelevel=1)[1]
    assert "rank profile 'default'" in str(answer["trace"]["children"])
    assert "trace" not in search(shop, yql="select * from thing where true")[1]


def test_json_that_is_nested_too_deeply_is_refused(shop):
    assert ask(shop, "/search/", b'{"a":' * 2000 + b"1" + b"}" * 2000)[0] == 400
    assert ask(shop, "/search/", b"[1]")[0] == 400
    assert ask(shop, "/search/", b'{"yql": ')[0] == 400
    where = "(" * 3000 + "true" + ")" * 3000
    assert search(shop, yql=f"select * from thing where {where}")[0] == 400


def test_a_missing_profile_in_one_source_is_an_error_beside_the_hits(shop):
    status, answer = search(shop, yql="select * from sources * where title contains 'dress'", ranking="words")
    assert status == 200 and answer["root"]["errors"][0]["code"] == 4 and len(answer["root"]["children"]) == 2


def test_hits_leave_out_what_is_empty_or_undefined(fresh):
    empty = {"title": "", "colour": "", "labels": [], "marks": {}, "stock": -(2**31), "added": -(2**63)}
    assert put(fresh, "empty", empty | {"price": "NaN"})[0] == 200
    zero = {"title": "0", "colour": " ", "labels": [""], "stock": 0, "added": 0, "price": 0.0, "sold": False}
    assert put(fresh, "zero", zero)[0] == 200
    assert put(fresh, "unset", {})[0] == 200
    answer = search(fresh, yql="select * from thing where true")[1]["root"]["children"]
    shown = {hit["id"].split("::")[1]: hit["fields"] for hit in answer}
    own = {"sddocname": "thing", "sold": False}
    assert {k: v for k, v in shown["empty"].items() if k != "documentid"} == own
    assert {k: v for k, v in shown["unset"].items() if k != "documentid"} == own
    assert {k: v for k, v in shown["zero"].items() if k != "documentid"} == own | zero
