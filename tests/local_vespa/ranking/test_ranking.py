"""Ranking expressions: parsing, types, and values of all candidates at once against one at a time."""

from __future__ import annotations

import math

import numpy as np
import pytest

from local_vespa.expressions import (
    Evaluator,
    Function,
    RankingError,
    Reference,
    Unsupported,
    Value,
    features_of,
    infer_type,
    parse_expression,
    parse_feature,
)
from local_vespa.tensors import DOUBLE, Tensor, TensorType, parse_query_tensor

TYPES = {
    "q": "tensor<float>(x[3])",
    "m": "tensor<float>(k{})",
    "p": "tensor<float>(k{},x[3])",
    "w": "tensor(y[2])",
    "none": "tensor(k{})",
    "ids": "tensor<float>(d0[6])",
    "s": "tensor()",
    "n": "tensor()",
}
QUERY = {
    "q": "[1,2,3]",
    "m": "{a:2,b:-1}",
    "p": "{a:[1,0,0],b:[0,2,0]}",
    "w": "[10,20]",
    "none": "{}",
    "ids": "[7,8,9,0,0,0]",
    "s": "3",
}
DOCUMENTS = {
    "d": [[1.0, 0, 0], [0, 1, 1], [0.5, 0.5, 0]],
    "e": [{"a": [1.0, 1, 1], "c": [2.0, 0, 0]}, {}, {"b": [0.0, 3, 0]}],
    "v": [1.0, -2.0, math.nan],
}
E_TYPE = TensorType.parse("tensor<float>(k{},x[3])")
D_TYPE = TensorType.parse("tensor<float>(x[3])")
FUNCTIONS = {
    "twice": Function("twice", ("a",), parse_expression("a * 2")),
    "score": Function("score", (), parse_expression("sum(query(q) * attribute(d))")),
}


def type_of(reference):
    name = reference.arguments[0]
    if reference.name == "query" and name in TYPES:
        return TensorType.parse(TYPES[name])
    if reference.name == "attribute" and name in DOCUMENTS:
        return {"d": D_TYPE, "e": E_TYPE, "v": DOUBLE}[name]
    raise RankingError(f"no feature {reference}")


def tensor(name, row):
    if name == "d":
        return Tensor.dense(D_TYPE, np.array(DOCUMENTS["d"][row]))
    return Tensor.of_blocks(E_TYPE, {(k,): np.array(v) for k, v in DOCUMENTS["e"][row].items()})


def evaluator(rows):
    def resolve(reference):
        name = reference.arguments[0]
        if reference.name == "query":
            return Value.shared(parse_query_tensor(TensorType.parse(TYPES[name]), QUERY[name]))
        if name == "v":
            return Value.scalar(np.array([DOCUMENTS["v"][r] for r in rows]))
        return Value.each(type_of(reference), [tensor(name, r) for r in rows])

    return Evaluator(FUNCTIONS, resolve, len(rows))


EXPRESSIONS = [
    "1 + 2 * 3 ^ 2",
    "-attribute(v)",
    "!attribute(v)",
    "7 % 4 - 2",
    "2 ^ 3 ^ 2",
    "attribute(v) > 0 || 0",
    "if (attribute(v) > 0, 1, 5)",
    "if (isNan(attribute(v)), 9, attribute(v))",
    "max(0, attribute(v))",
    "min(attribute(v), 0)",
    "attribute(v) in [1, 3]",
    "sum(query(q) * attribute(d))",
    "sum(query(q) * attribute(d), x)",
    "query(q) * attribute(d)",
    "reduce(query(p) * attribute(e), sum, x)",
    "sum(query(p) * attribute(e))",
    "reduce(attribute(e), max)",
    "reduce(attribute(e), max, x)",
    "reduce(sum(query(q) * attribute(e), x), max, k)",
    "reduce(attribute(e), avg, k)",
    "reduce(attribute(e), count)",
    "count(attribute(e))",
    "reduce(attribute(e), min, x)",
    "prod(query(p) + 1)",
    "reduce(attribute(e), median, k)",
    "exp(query(m)) * query(m)",
    "query(m) + query(s)",
    "query(m) * attribute(e)",
    "query(w) * query(q)",
    "cosine_similarity(query(q), attribute(d), x)",
    "euclidean_distance(query(q), attribute(d), x)",
    "l2_normalize(attribute(e), x)",
    "softmax(query(q), x)",
    "argmax(attribute(d), x)",
    "matmul(query(q), attribute(d), x)",
    "rename(query(q), x, z) * query(w)",
    "concat(query(q), attribute(d), x)",
    "concat(attribute(v), query(w), y)",
    "cell_cast(attribute(d), int8)",
    "map(attribute(e), f(c)(c * c + 1))",
    "join(query(q), attribute(d), f(a,b)(if (a > b, a, b)))",
    "tensor<float>(x[3])(x * 2) + attribute(d)",
    "tensor(k{}):{a:2,c:3} * attribute(e)",
    "query(p){a}",
    "attribute(e){c}",
    "attribute(d){1}",
    "query(p){k:b,x:1}",
    "expand(attribute(d), b)",
    "twice(attribute(v)) + score",
    "twice(twice(score))",
    "customTokenInputIds(2, 3, 6, query(ids))",
    "tokenInputIds(8, query(ids), query(q))",
    "tokenTypeIds(8, query(ids), query(q))",
    "tokenAttentionMask(6, query(ids))",
    "sum(query(none))",
    "reduce(query(none), max)",
    "query(none) * attribute(e)",
    "relu(attribute(v)) + sigmoid(0)",
    "if (attribute(v) > 0, query(m), query(m) * 2)",
    "log(attribute(v))",
    "1 / 0",
    "hamming(3, 1)",
    "bit(5, 2)",
    "fmod(attribute(v), 1.5)",
]


@pytest.mark.parametrize("text", EXPRESSIONS)
def test_all_candidates_at_once_is_one_at_a_time(text):
    node = parse_expression(text)
    kind = infer_type(node, type_of, FUNCTIONS)
    together = evaluator([0, 1, 2]).evaluate(node)
    assert together.type == kind
    for row in range(3):
        alone = evaluator([row]).evaluate(node).tensor(0)
        assert together.tensor(row) == alone
        assert alone.type == kind


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1 + 2 * 3 ^ 2", [19.0] * 3),
        ("2 ^ 3 ^ 2", [512.0] * 3),
        ("10 - 2 - 3", [5.0] * 3),
        ("1 < 2 && 3 > 4 || 1", [1.0] * 3),
        ("score", [1.0, 5.0, 1.5]),
        ("max(0, attribute(v))", [1.0, 0.0, 0.0]),
        ("sum(query(m) * attribute(e))", [6.0, 0.0, -3.0]),
        ("reduce(attribute(e), max)", [2.0, 0.0, 3.0]),
        ("count(attribute(e))", [6.0, 0.0, 3.0]),
        ("reduce(reduce(attribute(e), max, x), sum, k)", [3.0, 0.0, 3.0]),
        ("sum(attribute(e){c})", [2.0, 0.0, 0.0]),
        ("cosine_similarity(query(q), query(q), x)", [1.0] * 3),
        ("attribute(v) in [1, 3]", [1.0, 0.0, 0.0]),
        ("if (attribute(v) > 0, 1, 5)", [1.0, 5.0, 5.0]),
        ("twice(twice(score))", [4.0, 20.0, 6.0]),
        ("sum(tensor(x[4])(x + 1))", [10.0] * 3),
        ("sum(join(query(q), attribute(d), f(a,b)(a - b)))", [5.0, 4.0, 5.0]),
    ],
)
def test_values(text, expected):
    assert evaluator([0, 1, 2]).evaluate(parse_expression(text)).scores(3) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("customTokenInputIds(2, 3, 6, query(ids))", [2, 7, 8, 9, 3, 0]),
        ("tokenInputIds(8, query(ids), query(q))", [101, 7, 8, 9, 102, 1, 2, 3]),
        ("tokenTypeIds(9, query(ids), query(q))", [0, 0, 0, 0, 0, 1, 1, 1, 1]),
        ("tokenAttentionMask(6, query(ids))", [1, 1, 1, 1, 1, 0]),
    ],
)
def test_token_sequences(text, expected):
    assert evaluator([0]).evaluate(parse_expression(text)).tensor(0).array.tolist() == [expected]


def test_normalizers_rank_over_all_candidates():
    def resolve(reference):
        return Value.scalar(np.array({"a": [1.0, 3.0, math.nan, 2.0], "b": [5.0, 5.0, 5.0, 5.0]}[reference.name]))

    def scores(text):
        return Evaluator({}, resolve, 4).evaluate(parse_expression(text)).scores(4).tolist()

    assert scores("reciprocal_rank(a)") == [1 / 63, 1 / 61, 1 / 64, 1 / 62]
    assert scores("reciprocal_rank(a, 0)") == [1 / 3, 1.0, 1 / 4, 1 / 2]
    assert scores("normalize_linear(a)")[:2] == [0.0, 1.0] and scores("normalize_linear(b)") == [0.5] * 4
    expected = [x + y for x, y in zip(scores("reciprocal_rank(a)"), scores("reciprocal_rank(b)"), strict=True)]
    assert scores("reciprocal_rank_fusion(a, b)") == pytest.approx(expected)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1 +",
        "sum(query(q)",
        "1 2",
        "if (1, 2)",
        "reduce(1, nothing)",
        "tensor(x[2]):{",
        "max()",
        "(" * 300 + "1" + ")" * 300,
        "join(1, 2, f(x)(x))",
        "tensor(x[0])(1)",
        "pow(1)",
    ],
)
def test_syntax_errors(text):
    with pytest.raises(RankingError):
        parse_expression(text)


@pytest.mark.parametrize("text", ["random()"])
def test_what_is_not_done_is_named(text):
    with pytest.raises(Unsupported, match="local_vespa does not support"):
        parse_expression(text)


@pytest.mark.parametrize(
    "text",
    [
        "query(q) + attribute(other)",
        "sum(query(q), y)",
        "if (query(q), 1, 2)",
        "if (1, query(q), query(w))",
        "rename(query(q), z, y)",
        "query(q){5}",
        "twice(1, 2)",
        "concat(query(p), query(p), k)",
        "query(q) * tensor(x[4])(1)",
        "query(p){a, b}",
    ],
)
def test_types_that_do_not_fit(text):
    with pytest.raises(RankingError):
        infer_type(parse_expression(text), type_of, FUNCTIONS)


def test_functions_that_call_themselves_are_refused():
    loop = {"a": Function("a", (), parse_expression("b + 1")), "b": Function("b", (), parse_expression("a"))}
    with pytest.raises(RankingError, match="calls itself"):
        infer_type(parse_expression("a"), type_of, loop)


def test_features_are_found_through_functions():
    node = parse_expression("twice(bm25(title)) + score + closeness(field, v)")
    assert features_of(node, FUNCTIONS) == {
        Reference("bm25", ("title",)),
        Reference("query", ("q",)),
        Reference("attribute", ("d",)),
        Reference("closeness", ("field", "v")),
    }


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("closeness( field , v )", "closeness(field,v)"),
        ('closeness(label, "a")', "closeness(label,a)"),
        ("onnx(tower).out", "onnx(tower).out"),
        ("lexical", "lexical"),
    ],
)
def test_features_have_canonical_names(text, shown):
    assert str(parse_feature(text)) == shown
