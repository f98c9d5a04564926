"""YQL and the simple query language: trees, windows, parameters, and what is refused."""

import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from local_vespa.yql import QueriedField, Whole, YqlError, expand_user_input, loosened, parse_user_text, parse_yql
from local_vespa.yql.ast import (
    Always,
    And,
    DotProduct,
    Equals,
    Equiv,
    Fuzzy,
    In,
    Near,
    NearestNeighbor,
    Not,
    Or,
    Phrase,
    Range,
    Rank,
    Regex,
    SameElement,
    Uri,
    UserInput,
    Wand,
    WeakAnd,
    WeightedSet,
    Word,
)  # fmt: skip


def where(condition, **parameters):
    return parse_yql(f"select * from product where {condition}", parameters).where


def a(text):
    return Word("a", text)


@pytest.mark.parametrize(
    ("condition", "tree"),
    [
        ("true", Always(True)),
        ('a contains "x"', a("x")),
        ("a contains 'it\\'s \\u00e5'", a("it's å")),
        ('a contains "x" and a contains "y" or a contains "z"', Or((And((a("x"), a("y"))), a("z")))),
        ('a contains "x" and !(a contains "y")', And((a("x"), Not(a("y"))))),
        ('a contains phrase("x", "y")', Phrase("a", ("x", "y"))),
        ('a contains near("x", "y")', Near("a", ("x", "y"))),
        ('a contains equiv("x", phrase("y", "z"))', Equiv("a", (a("x"), Phrase("a", ("y", "z"))))),
        ('a contains uri("http://x")', Uri("a", "http://x")),
        ('a contains fuzzy("x")', Fuzzy("a", "x")),
        ('a matches "^x"', Regex("a", "^x")),
        ('a contains sameElement(b contains "x", c = 1)', SameElement("a", (Word("b", "x"), Equals("c", 1)))),
        ("price < 30", Range("price", -math.inf, 30, False, False)),
        ("price <= 30.5", Range("price", -math.inf, 30.5)),
        ("30 <= price", Range("price", 30, math.inf)),
        ("price > -1", Range("price", -1, math.inf, False, False)),
        ("price = 7", Equals("price", 7)),
        ("price = 8000000000L", Equals("price", 8000000000)),
        ("b = true", Equals("b", True)),
        ("a.b = 1", Equals("a.b", 1)),
        ("range(price, 20, 40)", Range("price", 20, 40)),
        ("range(price, -Infinity, Infinity)", Range("price", -math.inf, math.inf)),
        ("price in (1, -2)", In("price", (1, -2))),
        ("a in (\"x\", 'y')", In("a", ("x", "y"))),
        ('rank(a contains "x", a contains "y")', Rank(a("x"), (a("y"),))),
        ('weakAnd(a contains "x", a contains "y")', WeakAnd((a("x"), a("y")))),
        ('weightedSet(a, {"x": 1, y: 2})', WeightedSet("a", (("x", 1), ("y", 2)))),
        ("dotProduct(a, [[1, 2], [3, 4]])", DotProduct("a", ((1, 2), (3, 4)))),
        ('wand(a, {"x": 1})', Wand("a", (("x", 1),))),
        ("nearestNeighbor(a, q)", NearestNeighbor("a", "q")),
        ("userInput('x y')", UserInput("x y", "weakAnd", "default")),
        ("/* note */ true // more", Always(True)),
    ],
)
def test_operators(condition, tree):
    assert where(condition) == tree


def test_annotations_reach_the_operators_inside():
    found = where(
        '{targetHits: 7, label: "l", "hnsw.exploreAdditionalHits": 3}nearestNeighbor(a, q) and a contains "x"'
    )
    near, word = found.children
    assert (near.target_hits, near.label, near.explore_additional_hits, near.approximate) == (7, "l", 3, True)
    assert word.annotations["targetHits"] == 7  # as in Vespa: an annotation covers the whole expression after it
    alone = where('({targetHits: 7, approximate: false}nearestNeighbor(a, q)) and a contains ({prefix: true}"x")')
    assert alone.children[0].approximate is False
    assert alone.children[1].match == "prefix" and "targetHits" not in alone.children[1].annotations
    assert where('a contains ({distance: 5}onear("x", "y"))') == Near(
        "a", ("x", "y"), 5, True, annotations={"distance": 5}
    )
    assert where('({bounds: "leftOpen", hitLimit: 3}range(p, 1, 2))').low_inclusive is False
    assert where("[{targetHits: 4}]nearestNeighbor(a, q)").target_hits == 4


def test_parameters_are_values_and_never_text_of_the_query():
    evil = 'x" or true or a contains "'
    assert where("a contains @w", w=evil) == a(evil)
    assert where("userInput(@w)", w=evil).text == evil
    assert where("a in (@v, 'z')", v="x, 'y, w'") == In("a", ("x", "y, w", "z"))
    assert where("price in (@v)", v="1,2") == In("price", ("1", "2"))
    assert where("price < @p", p="2.5") == Range("price", -math.inf, 2.5, False, False)
    assert where("wand(a, @t)", t="{x: 1, 'y': 2}").tokens == (("x", 1), ("y", 2))
    assert where("weightedSet(a, @t)", t="[[1,2],[3,4]]").tokens == ((1, 2), (3, 4))
    assert where("{targetHits: @n}nearestNeighbor(a, q)", n="9").target_hits == 9
    with pytest.raises(YqlError, match="'absent' is not set"):
        where("userInput(@absent)")
    with pytest.raises(YqlError, match="not a number"):
        where("price < @p", p="1 or true")


def test_clauses():
    query = parse_yql(
        "select title, price from sources a, b where true order by price desc, {function: 'uca', locale: 'en'}title "
        "limit 12 offset 9 timeout 500;",
        {},
    )
    assert query.fields == ("title", "price") and query.sources == ("a", "b")
    assert [(o.field, o.ascending, o.function) for o in query.order_by] == [
        ("price", False, None),
        ("title", True, "uca"),
    ]
    assert (query.hits, query.offset, query.timeout) == (3, 9, 0.5)  # limit counts from the first hit
    star = parse_yql("select * from sources * where true offset 5", {})
    assert (star.fields, star.sources, star.hits, star.offset) == ((), (), 10, 5)
    named = parse_yql("select limit from product where limit = 3 limit @n", {"n": 4})
    assert (named.fields, named.where, named.hits) == (("limit",), Equals("limit", 3), 4)


@pytest.mark.parametrize(
    "yql",
    [
        "", "select", "select * from product", "select * from product where", "select * from product where a contains",
        'select * from product where a contains "x', "select * from product where a = b",
        "select * from product where a != 1",
        'select * from product where (a contains "x"', 'select * from product where a contains "x" and',
        "select * from product where nothing(a)", 'select * from product where a contains nothing("x")',
        'select * from product where a contains equiv("x")', "select * from product where nearestNeighbor(a)",
        "select * from product where {targetHits: 'many'}nearestNeighbor(a, q)",
        "select * from product where range(p, x, 2)",
        'select * from product where a contains ({prefix: true, suffix: true}"x")', "drop table product",
        "select * from product where true limit 3 offset 5",
        "select * from product where {bounds: 'none'}range(p, 1, 2)", "select * from product where 'x'",
        "select * from product where wand(a, {x: 1.5})", "select * from product where a contains 3",
        "select * from product where price in (1.5)", 'select * from product where a contains "\\x"',
        'select * from product where a contains "\\"', "select * from product where a contains '\\'",
        "select * from product where " + "(" * 10_000 + "true" + ")" * 10_000,
        "select * from product where " + "!(" * 5_000 + "true" + ")" * 5_000,
        "select * from product where f(" + "[" * 5_000 + "]" * 5_000 + ")",
    ],
)  # fmt: skip
def test_what_is_refused(yql):
    with pytest.raises(YqlError):
        parse_yql(yql, {})


def test_a_long_flat_query_is_read():
    tree = where(" or ".join(f'a contains "{n}"' for n in range(5_000)))
    assert len(tree.children) == 5_000


def test_errors_say_where():
    with pytest.raises(YqlError, match="L2:6 mismatched input '='"):
        parse_yql("select * from product\nwhere = 3", {})


def test_user_query_takes_the_requests_text_and_type():
    assert where("userQuery()", query="x", **{"model.type": "all"}) == UserInput("x", "all")
    parts = where("userQuery()", query="a b", **{"model.type.composite": "or"})
    assert expand_user_input(parts, queried) == Or(words("a", "b"))
    assert where("userQuery()", **{"model.queryString": "y", "model.defaultIndex": "a"}) == UserInput("y", None, "a")


def words(*texts):
    return tuple(Word("default", text) for text in texts)


def queried(name):
    """A schema with the text fields default and title, the string attribute colour, the number price."""
    kinds = {
        "default": QueriedField(),
        "title": QueriedField(),
        "colour": QueriedField(text=False, whole=Whole()),
        "code": QueriedField(text=False, whole=Whole("@@")),
        "price": QueriedField(text=False),
    }
    return kinds.get(name)


@pytest.mark.parametrize(
    ("text", "grammar", "tree"),
    [
        ("red dress", "weakAnd", WeakAnd(words("red", "dress"))),
        ("red dress", "all", And(words("red", "dress"))),
        ("red dress", "any", Or(words("red", "dress"))),
        ("red dress", "phrase", Phrase("default", ("red", "dress"), False)),
        ("red, dress!", "tokenize", WeakAnd(words("red", "dress"))),
        ("red", "weakAnd", WeakAnd(words("red"))),
        ('"red dress" blue', "all", And((Phrase("default", ("red", "dress")), *words("blue")))),
        ('hoodie" or true or "', "weakAnd", WeakAnd((*words("hoodie"), Phrase("default", ("or", "true", "or"))))),
        ("red -blue", "all", And((*words("red"), Not(*words("blue"))))),
        ('red -"light blue"', "all", And((*words("red"), Not(Phrase("default", ("light", "blue")))))),
        ("-blue", "all", And((Always(True), Not(*words("blue"))))),
        ("+red dress", "any", Rank(words("red")[0], words("dress"))),
        ("red+(dress", "any", Rank(words("dress")[0], words("red"))),
        ("title:red dress", "all", And((Word("title", "red"), *words("dress")))),
        ("other:red", "all", And(words("other", "red"))),
        ('title:"red dress"', "all", Phrase("title", ("red", "dress"))),
        ("t-shirt", "weakAnd", WeakAnd((And(words("t", "shirt")),))),
        ("don't", "all", And(words("don", "t"))),
        ('"don\'t go"', "all", Phrase("default", ("don", "t", "go"))),
        ("don't!", "all", And(tuple(Word("default", w, annotations={"weight": 150}) for w in ("don", "t")))),
        ("t-shirt!", "all", And(words("t", "shirt"))),
        ("don't", "raw", And(words("don", "t"))),
        ("don't", "segment", Phrase("default", ("don", "t"), False)),
        ("red*", "all", Word("default", "red", "prefix")),
        ("*red*", "all", Word("default", "red")),
        ("colour:*red*", "all", Word("colour", "red", "substring")),
        ("colour:dark-blue! x", "all", And((Word("colour", "dark-blue", annotations={"weight": 150}), *words("x")))),
        ('colour:"dark blue"', "all", Word("colour", "dark blue")),
        ("code:a b@@ x", "all", And((Word("code", "a b"), *words("x")))),
        ("red!200", "all", Word("default", "red", annotations={"weight": 200})),
        ("red!99999999999", "all", And((*words("red"), Word("default", "99999999999", "whole")))),
        ("(red blue) dress", "all", And((Or(words("red", "blue")), *words("dress")))),
        ("title:[10;20]", "all", Range("title", 10, 20)),
        ("title:<5", "all", Range("title", -math.inf, 5, False, False)),
        ("shoes -5.5", "all", And((*words("shoes"), Word("default", "-5.5", "whole")))),
        ("red OR blue", "web", Or(words("red", "blue"))),
        ("", "weakAnd", None),
        ('"! - +', "weakAnd", None),
    ],
)
def test_simple_query_language(text, grammar, tree):
    assert parse_user_text(text, grammar, queried=queried) == tree


def test_words_of_the_linguistics_grammar_are_processed_whatever_the_field_is():
    tree = parse_user_text('+red "dress 5', "linguistics", queried=queried)
    assert [(word.text, word.match) for word in tree.children] == [("red", "word"), ("dress", "word"), ("5", "whole")]
    assert all(word.annotations == {"linguistics": True} for word in tree.children)
    with pytest.raises(YqlError, match="not an int item"):
        parse_user_text("½", "linguistics", queried=queried)


@pytest.mark.parametrize(
    ("annotation", "tree"),
    [
        ('grammar.composite: "or"', Or(words("a", "b"))),
        ('grammar: "all", grammar.composite: "or"', Or(words("a", "b"))),
        ('grammar: "any", grammar.syntax: "none"', Or(words("a", "b"))),
        ('grammar.composite: "phrase"', Phrase("default", ("a", "b"), False)),
        ('grammar.composite: "and", grammar.syntax: "web"', And(words("a", "b"))),
    ],
)
def test_the_parts_of_a_grammar(annotation, tree):
    assert expand_user_input(where(f"{{{annotation}}}userInput('a b')"), queried) == tree


@pytest.mark.parametrize(
    ("annotation", "problem"),
    [
        ('grammar.composite: "xor"', "'xor' in a query type"),
        ('grammar.tokenization: "linguistics"', "can only be combined with syntax none"),
        ('grammar.profile: "p"', "grammar.profile"),
        ('grammar: "advanced"', "does not support the query type 'advanced'"),
    ],
)
def test_parts_of_a_grammar_that_are_refused(annotation, problem):
    with pytest.raises(YqlError, match=problem):
        expand_user_input(where(f"{{{annotation}}}userInput('a b')"), queried)


@pytest.mark.parametrize(
    ("condition", "language", "tree"),
    [
        ('title contains "tee 日本語"', None, And((Word("title", "tee"), Word("title", "日本語")))),
        ('title contains "tee x"', "ja", And((Word("title", "tee"), Word("title", "x")))),
        ('title contains "tee x"', None, Word("title", "tee x")),
        ('title contains "tee 日本語"', "en", Word("title", "tee 日本語")),
        ('colour contains "tee 日本語"', "ja", Word("colour", "tee 日本語")),
        ('title contains phrase("tee", "日本語")', "ja", Phrase("title", ("tee", "日本語"))),
        ("{grammar: \"phrase\"}userInput('tee 한국어')", None, And(words("tee", "한국어"))),
        ("{grammar: \"segment\"}userInput('กางเกง tee')", None, And(words("กางเกง", "tee"))),
        ("userInput('\"tee x\"')", "zh", WeakAnd((Phrase("default", ("tee", "x")),))),
    ],
)
def test_phrases_that_nobody_asked_for_are_loose_where_a_language_has_no_spaces(condition, language, tree):
    assert loosened(expand_user_input(where(condition), queried), queried, language) == tree


@pytest.mark.parametrize("text", ["(" * 5000, "-(" * 5000])
@pytest.mark.parametrize("grammar", ["weakAnd", "any"])
def test_a_text_that_is_nested_too_deeply_is_refused(text, grammar):
    with pytest.raises(YqlError, match="nested too deeply"):
        parse_user_text(text, grammar, queried=queried)


@pytest.mark.parametrize("text", ['"' * 20_000, "-" * 20_000, "+" * 20_000, "*" * 20_000, '" ' * 10_000])
@pytest.mark.parametrize("grammar", ["weakAnd", "any", "web"])
def test_a_long_run_of_signs_is_read_in_one_go(text, grammar):
    assert parse_user_text(text, grammar, queried=queried) is None


def test_words_of_an_unknown_language_are_not_split():
    assert parse_user_text("don't", "all", queried=queried, language="und").text == "don't"


@example("<²", "all")  # a digit by Unicode that is no decimal
@given(st.text(max_size=60), st.sampled_from(["all", "any", "weakAnd", "phrase", "tokenize", "web"]))
def test_any_text_is_read_without_an_error(text, grammar):
    parse_user_text(text, grammar, queried=queried)


@given(st.text(alphabet='ab "+-():*!<>[];', max_size=40), st.sampled_from(["all", "any", "weakAnd", "web"]))
def test_any_mix_of_signs_is_read_without_an_error(text, grammar):
    parse_user_text(text, grammar, queried=lambda name: QueriedField() if name == "a" else None)


def test_user_input_is_expanded_in_place():
    tree = where('({defaultIndex: "title", ranked: false}userInput(@w)) and price < 3', w="red dress")
    first = expand_user_input(tree, lambda name: QueriedField()).children[0]
    assert [(w.field, w.text, w.annotations["ranked"]) for w in first.children] == [
        ("title", "red", False),
        ("title", "dress", False),
    ]
    with pytest.raises(YqlError, match="Parsing '' only resulted in NullItem"):
        expand_user_input(where("userInput(@w)", w=""), lambda name: QueriedField())
    assert expand_user_input(where("{allowEmpty: true}userInput('')"), lambda name: QueriedField()) == Always(False)
    with pytest.raises(YqlError, match="Invalid query type"):
        expand_user_input(where("{grammar: 'rhyme'}userInput('x')"), lambda name: QueriedField())
