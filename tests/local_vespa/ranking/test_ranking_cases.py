"""Ranking expressions held to the answers of Vespa's own evaluator; data/make_ranking_cases.py recorded them."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from local_vespa.expressions import Evaluator, RankingError, Unsupported, Value, infer_type, parse_expression
from local_vespa.tensors import Tensor, TensorType, parse_query_tensor

RECORDED = json.loads((Path(__file__).parents[1] / "data" / "ranking_cases.json").read_text(encoding="utf-8"))


def literal(text):
    spec, value = text.split(":", 1)
    type = TensorType.parse(spec)
    if type.mapped and type.indexed and type.block_size == 1:  # Java prints such a block as a number
        value = re.sub(r":([^,}]+)", r":[\1]", value)
    return parse_query_tensor(type, value.strip("{}") or "0" if type.is_scalar else value)


INPUTS = {name: literal(text) for name, text in RECORDED["inputs"].items()}
OTHERS = {name: Tensor(t.type, t.labels[::-1][:1], t.cells[::-1][:1] + 1) for name, t in INPUTS.items()}


def same(found, wanted, tolerance):
    """Whether two tensors have the same dimensions and labels, and cells within the tolerance."""
    if found.type.dimensions != wanted.type.dimensions or set(found.labels) != set(wanted.labels):
        return False
    mine, theirs = found.blocks(), wanted.blocks()
    return all(
        np.allclose(mine[k].astype(float), theirs[k].astype(float), rtol=tolerance, atol=tolerance, equal_nan=True)
        for k in mine
    )


def answer(expression, rows):
    """The tensors of an expression for the inputs of some rows at once."""

    def resolve(reference):
        if rows == 1:
            return Value.shared(INPUTS[reference.name])
        other, mine = OTHERS[reference.name], INPUTS[reference.name]
        return Value.each(mine.type, [other, mine, None])

    node = parse_expression(expression)
    infer_type(node, lambda reference: INPUTS[reference.name].type)
    return Evaluator({}, resolve, rows).evaluate(node).tensor(1 if rows > 1 else 0)


@pytest.mark.parametrize("rows", [1, 3], ids=["shared", "one of three candidates"])
def test_equal_to_vespas_evaluator(rows):
    wrong, unsupported, equal = [], 0, 0
    for case in RECORDED["cases"]:
        text, wanted = case["expression"], literal(case["answer"])
        try:
            found = answer(text, rows)
        except Unsupported:
            unsupported += 1
            continue
        except RankingError as error:
            wrong.append(f"{text}: {error}")
            continue
        if same(found, wanted, 1e-6 if wanted.type.cell == "double" else 2e-6):
            equal += 1
        else:
            wrong.append(f"{text}: {found} instead of {wanted}")
    assert not wrong, f"{len(wrong)} of {len(RECORDED['cases'])}:\n" + "\n".join(wrong[:40])
    assert equal >= 1_300 and unsupported <= 2
