"""The syntax of schema and profile files."""

import pytest

from local_vespa.errors import DeployError
from local_vespa.package.sd import parse_statements, without_comments


def test_headers_values_and_blocks():
    text = """
    field tags type weightedset<string> {
      indexing: summary | attribute
      attribute { fast-search }
    }
    rank-profile a
    {
      function f(x) { expression: if (x > 1, tensor(y{}):{a:1}, 2) }
      match-features { bm25(title)  closeness(field, v) }
      inputs { query(p) tensor<float>(i{},x[2]): { } }
    }
    """
    field, profile = parse_statements(text, "a.sd")
    assert field.header == "field tags type weightedset<string>"
    assert [(c.header, c.value, c.body) for c in field.children] == [
        ("indexing", "summary | attribute", None),
        ("attribute", None, " fast-search "),
    ]
    function, features, inputs = profile.children
    assert function.children[0].value == "if (x > 1, tensor(y{}):{a:1}, 2)"
    assert features.items() == ["bm25(title)", "closeness(field,v)"]
    assert inputs.children[0].header == "query(p) tensor<float>(i{},x[2])"
    assert inputs.children[0].value == "{ }"


def test_lines_are_counted():
    statements = parse_statements("a: 1\n\nb {\n  c: 2\n}\nd: 3\n", "x.sd")
    assert [(s.header, s.line) for s in statements] == [("a", 1), ("b", 3), ("d", 6)]
    assert statements[1].children[0].line == 4
    assert str(statements[2].error("wrong")) == "Invalid application package: x.sd:6: wrong"


def test_comments_become_blanks_but_not_in_quotes():
    assert without_comments('a: 1 # one\nb: "#x" # two') == 'a: 1      \nb: "#x"      '


def test_a_statement_knows_its_place_in_the_file():
    text = "a: 1 # one\nb { # two\n  c {\n    d: 2\n  }\n}\n"
    a, b = parse_statements(without_comments(text), "x.sd")
    (c,) = b.children
    (d,) = c.children
    assert [text[s.start : s.end] for s in (a, c, d)] == ["a: 1 # one", "c {\n    d: 2\n  }", "d: 2"]
    assert text[b.start :] == text[b.start : b.end] + "\n" and text[b.inside - 1] == "{"


@pytest.mark.parametrize(("text", "problem"), [("a {\n b: 1\n", "never closed"), ("a: 1\n}\n", "without its")])
def test_braces_must_balance(text, problem):
    with pytest.raises(DeployError, match=problem):
        parse_statements(text, "a.sd")
