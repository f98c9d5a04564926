"""Tensor types, literals, JSON forms and updates, against Vespa's rules and the golden answers."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from local_vespa.tensors import (
    FORMATS,
    Tensor,
    TensorError,
    TensorType,
    parse_document_tensor,
    parse_query_tensor,
    render,
    round_cells,
    update_tensor,
)

X3 = TensorType.parse("tensor<float>(x[3])")
XY = TensorType.parse("tensor(x[2],y[3])")
MAPPED = TensorType.parse("tensor(a{})")
TWO = TensorType.parse("tensor(a{},b{})")
MIXED = TensorType.parse("tensor<float>(a{},x[2])")


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("tensor( y{} , x[3] )", "tensor(x[3],y{})"),
        ("tensor<bfloat16>(x[128],item{})", "tensor<bfloat16>(item{},x[128])"),
        ("tensor<double>(x{})", "tensor(x{})"),
        ("double", "tensor()"),
    ],
)
def test_types_are_printed_sorted(text, printed):
    assert str(TensorType.parse(text)) == printed
    assert TensorType.parse(printed) == TensorType.parse(text)


@pytest.mark.parametrize(
    "text", ["tensor(x)", "tensor<half>(x[1])", "tensor(x[0])", "tensor(x[1],x[2])", "vector(x[1])", "tensor(x[])"]
)
def test_bad_types_are_refused(text):
    with pytest.raises(TensorError):
        TensorType.parse(text)


@pytest.mark.parametrize(
    ("type", "value", "cells"),
    [
        (X3, [1, 2, 3], [1, 2, 3]),
        (X3, {"values": [1, 2, 3]}, [1, 2, 3]),
        (X3, {"type": "tensor<float>(x[3])", "values": [1, 2, 3]}, [1, 2, 3]),
        (X3, "3f8000004000000040400000", [1, 2, 3]),
        (X3, {"values": "3F8040004040"}, [1, 2, 3]),
        (X3, {"cells": [{"address": {"x": "1"}, "value": 4}]}, [0, 4, 0]),
        (X3, [{"address": {"x": "1"}, "value": 4}], [0, 4, 0]),
        (X3, ["1", "Infinity", "-inf"], [1, np.inf, -np.inf]),
        (XY, [[1, 2, 3], [4, 5, 6]], [[1, 2, 3], [4, 5, 6]]),
    ],
)
def test_dense_documents(type, value, cells):
    assert parse_document_tensor(type, value).array.tolist() == cells


@pytest.mark.parametrize(
    ("type", "value", "blocks"),
    [
        (MAPPED, {"k": 1, "l": 2.5}, {("k",): 1, ("l",): 2.5}),
        (MAPPED, {"cells": {"k": 1}}, {("k",): 1}),
        (MAPPED, {"cells": [{"address": {"a": "k"}, "value": 1}]}, {("k",): 1}),
        (MAPPED, {"cells": 3}, {("cells",): 3}),
        (MAPPED, {}, {}),
        (TWO, {"cells": [{"address": {"b": "2", "a": "1"}, "value": 7}]}, {("1", "2"): 7}),
        (MIXED, {"k": [1, 2]}, {("k",): [1, 2]}),
        (MIXED, {"blocks": {"k": [1, 2], "l": "3f8040"}}, None),
        (MIXED, {"blocks": {"k": [1, 2], "l": "3f804000"}}, {("k",): [1, 2], ("l",): [1, 2]}),
        (MIXED, {"blocks": [{"address": {"a": "k"}, "values": [1, 2]}]}, {("k",): [1, 2]}),
        (MIXED, {"cells": [{"address": {"a": "k", "x": "1"}, "value": 3}]}, {("k",): [0, 3]}),
    ],
)
def test_mapped_and_mixed_documents(type, value, blocks):
    if blocks is None:
        with pytest.raises(TensorError):
            parse_document_tensor(type, value)
    else:
        assert {k: b.tolist() for k, b in parse_document_tensor(type, value).blocks().items()} == blocks


@pytest.mark.parametrize(
    ("type", "value", "words"),
    [
        (X3, [1, 2], "Expected 3 values, but got 2"),
        (X3, [1, 2, 3, 4], "Expected 3 values, but got 4"),
        (X3, {"values": "3f80"}, "Unexpected hex digits per cell|Unexpected hex length"),
        (X3, {"cells": [{"address": {"x": "3"}, "value": 4}]}, "label '3'"),
        (X3, {"cells": [{"address": {"y": "1"}, "value": 4}]}, "'y'"),
        (X3, "", "Bad string"),
        (X3, 7, "Expected"),
        (X3, ["one", 2, 3], "Expected a number"),
        (X3, {"values": []}, "does not contain any values"),
        (TWO, {"k": 1}, "single dimension"),
        (MIXED, {"k": [1]}, "Expected 2 values, but got 1"),
        (TensorType.parse("tensor<int8>(x[2])"), "3f804000", "Unexpected hex length"),
    ],
)
def test_bad_documents_are_refused(type, value, words):
    with pytest.raises(TensorError, match=words):
        parse_document_tensor(type, value)


@pytest.mark.parametrize(
    ("type", "value", "blocks"),
    [
        (X3, "[1, 2.5,-3e1]", {(): [1, 2.5, -30]}),
        (X3, "[1,2]", {(): [1, 2, 0]}),
        (X3, [1, 2], {(): [1, 2, 0]}),
        (X3, "tensor<float>(x[3]):[1,2,3]", {(): [1, 2, 3]}),
        (X3, "{{x:0}:1,{x:2}:3}", {(): [1, 0, 3]}),
        (X3, "3f8000004000000040400000", {(): [1, 2, 3]}),
        (X3, {"cells": [{"address": {"x": "2"}, "value": 1}]}, {(): [0, 0, 1]}),
        (XY, "[[1,2,3],[4,5,6]]", {(): [[1, 2, 3], [4, 5, 6]]}),
        (XY, "[1,2,3,4,5,6]", {(): [[1, 2, 3], [4, 5, 6]]}),
        (XY, "tensor(y[3],x[2]):[[1,2],[3,4],[5,6]]", {(): [[1, 3, 5], [2, 4, 6]]}),
        (MAPPED, "{{a:k}:1, {a:'l m'}:2}", {("k",): 1, ("l m",): 2}),
        (MAPPED, '{k:1,"l":2}', {("k",): 1, ("l",): 2}),
        (MAPPED, "{}", {}),
        (MAPPED, {"k": 1}, {("k",): 1}),
        (TWO, "{{a:1,b:2}:3}", {("1", "2"): 3}),
        (TWO, "{1:{2:3,4:5}}", {("1", "2"): 3, ("1", "4"): 5}),
        (MIXED, "{k:[1,2],l:[3,4]}", {("k",): [1, 2], ("l",): [3, 4]}),
        (MIXED, "{{a:k,x:0}:1,{a:k,x:1}:2}", {("k",): [1, 2]}),
        (MIXED, {"k": [1, 2]}, {("k",): [1, 2]}),
        (MIXED, {"blocks": {"k": [1, 2]}}, {("k",): [1, 2]}),
        (TensorType(), "0.5", {(): 0.5}),
        (TensorType(), 2, {(): 2}),
    ],
)
def test_query_tensors(type, value, blocks):
    assert {k: b.tolist() for k, b in parse_query_tensor(type, value).blocks().items()} == blocks


@pytest.mark.parametrize(
    ("type", "value", "words"),
    [
        (X3, "[1,2,3,4]", "At value position 6: Expected a ']' but got ','"),
        (X3, "hello", "Expected a number, hex string, or a string starting by"),
        (X3, "3f80", "Expected 24 hex digits, but got 4"),
        (X3, "{k:1}", "mixed form"),
        (X3, "tensor<float>(x[4]):[1,2,3,4]", "was passed type"),
        (X3, "[a,2,3]", "is not a valid FLOAT"),
        (X3, "[1,2,3", "end of the string"),
        (MAPPED, "[1,2]", "dense"),
        (TensorType(), "one", "Expected a number"),
        (MIXED, "{k:{l:[1,2]}}", "Too many nested"),
        (TWO, "{k:1}", "Not enough nested"),
    ],
)
def test_bad_query_tensors_are_refused(type, value, words):
    with pytest.raises(TensorError, match=f"(?s)Could not parse .*{words.replace('[', '.')}"):
        parse_query_tensor(type, value)


def test_deeply_nested_input_is_refused_without_a_crash():
    for text in ("[" * 100_000, "{a:" * 100_000, '{"a":' * 100_000):
        with pytest.raises(TensorError):
            parse_query_tensor(MIXED, text)


def test_rounding_to_cells():
    assert round_cells("bfloat16", np.array([-0.534])).tolist() == [-0.53125]  # cut off, as a real Vespa did
    assert round_cells("bfloat16", np.array([-0.534]), nearest=True).tolist() == [-0.53515625]
    assert round_cells("int8", np.array([-1.9, 300, 2.5])).tolist() == [-1, 44, 2]
    assert round_cells("float", np.array([0.1])).tolist() == [float(np.float32(0.1))]


def test_every_form_of_rendering():
    dense = parse_document_tensor(X3, [1, 2, 3])
    mapped = parse_document_tensor(MAPPED, {"k": 1})
    two = parse_document_tensor(TWO, {"cells": [{"address": {"a": "1", "b": "2"}, "value": 7}]})
    mixed = parse_document_tensor(MIXED, {"k": [1, 2]})
    cells = [{"address": {"x": str(n)}, "value": n + 1.0} for n in range(3)]
    assert render(dense) == {"type": "tensor<float>(x[3])", "values": [1, 2, 3]}
    assert render(dense, "short-value") == [1, 2, 3]
    assert render(dense, "long") == {"type": "tensor<float>(x[3])", "cells": cells}
    assert render(dense, "long-value") == cells
    assert render(dense, "hex") == {"type": "tensor<float>(x[3])", "values": "3F8000004000000040400000"}
    assert render(dense, "hex-value") == "3F8000004000000040400000"
    assert render(mapped) == {"type": "tensor(a{})", "cells": {"k": 1.0}}
    assert render(mapped, "hex") == render(mapped)
    assert render(two, "short-value") == [{"address": {"a": "1", "b": "2"}, "value": 7.0}]
    assert render(mixed) == {"type": "tensor<float>(a{},x[2])", "blocks": {"k": [1.0, 2.0]}}
    assert render(mixed, "hex-value") == {"k": "3F80000040000000"}
    with pytest.raises(ValueError, match="not one of"):
        render(dense, "tall")


@given(
    arrays.arrays(np.float32, (2, 3), elements=st.floats(-(2.0**99), 2.0**99, width=32)),
    st.sampled_from(FORMATS),
    st.booleans(),
)
def test_what_is_rendered_is_read_back(cells, form, mixed):
    type = TensorType.parse("tensor<float>(a{},x[3])" if mixed else "tensor<float>(x[2],y[3])")
    tensor = Tensor(type, (("k",), ("l",)), cells) if mixed else Tensor.dense(type, cells)
    written = json.loads(json.dumps(render(tensor, form)))
    assert parse_document_tensor(type, written) == tensor
    assert parse_query_tensor(type, written) == tensor


def test_updates_of_blocks():
    tensor = parse_document_tensor(MIXED, {"k": [1, 2], "l": [3, 4]})
    added = update_tensor(tensor, "add", {"blocks": {"l": [5, 6], "m": [7, 8]}})
    assert {k: b.tolist() for k, b in added.blocks().items()} == {("k",): [1, 2], ("l",): [5, 6], ("m",): [7, 8]}
    removed = update_tensor(added, "remove", {"addresses": [{"a": "k"}, {"a": "absent"}]})
    assert set(removed.labels) == {("l",), ("m",)}
    doubled = update_tensor(tensor, "modify", {"operation": "multiply", "blocks": {"k": [2, 3], "absent": [1, 1]}})
    assert {k: b.tolist() for k, b in doubled.blocks().items()} == {("k",): [2, 6], ("l",): [3, 4]}
    made = update_tensor(
        tensor, "modify", {"operation": "add", "create": True, "cells": [{"address": {"a": "m", "x": "1"}, "value": 9}]}
    )
    assert made.blocks()[("m",)].tolist() == [0, 9]
    with pytest.raises(TensorError, match="'x' should not be specified"):
        update_tensor(tensor, "remove", {"addresses": [{"a": "k", "x": "1"}]})


def test_partial_addresses_remove_all_that_match():
    tensor = parse_query_tensor(TWO, "{{a:1,b:1}:1,{a:1,b:2}:2,{a:2,b:1}:3}")
    assert update_tensor(tensor, "remove", {"addresses": [{"a": "1"}]}).labels == (("2", "1"),)


def test_updates_of_dense_tensors():
    tensor = parse_document_tensor(X3, [1, 2, 3])
    cells = {"operation": "replace", "cells": [{"address": {"x": "1"}, "value": 5}]}
    assert update_tensor(tensor, "modify", cells).array.tolist() == [1, 5, 3]
    assert update_tensor(tensor, "modify", {"operation": "add", "cells": {"2": 1}}).array.tolist() == [1, 2, 4]
    for operation, value in {
        "add": {"cells": {"1": 2}},
        "remove": {"addresses": [{"x": "1"}]},
        "modify": {"operation": "divide", "cells": {"1": 2}},
        "explode": {},
    }.items():
        with pytest.raises(TensorError):
            update_tensor(tensor, operation, value)
