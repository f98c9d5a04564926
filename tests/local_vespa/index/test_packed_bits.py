"""Fields that Vespa derives from a vector: `input vector | binarize | pack_bits`, outside the document."""

from __future__ import annotations

import numpy as np
import pytest

from local_vespa.documents.operations import apply_update, read_put, read_update
from local_vespa.documents.values import document_json
from local_vespa.errors import DeployError, DocumentError
from local_vespa.package.schema import Schema, read_schema
from local_vespa.package.sd import parse_statements

TEXT = """schema item {
  document item {
    field vector type tensor<bfloat16>(x[16]) { indexing: attribute }
  }
  field bits type tensor<int8>(x[2]) {
    indexing: input vector | binarize | pack_bits | attribute | index
    attribute { distance-metric: hamming }
  }
}"""
VECTOR = [1.0, -1.0, 0.0, 0.5, -0.5, -1.0, 2.0, 3.0] + [-1.0] * 7 + [1.0]
BITS = np.packbits(np.array(VECTOR) > 0).view(np.int8)  # a zero is no 1


def schema(text: str = TEXT) -> Schema:
    return read_schema(parse_statements(text, "item.sd"), {})


def test_a_put_packs_the_signs_and_a_get_does_not_show_them() -> None:
    item = schema()
    fields = read_put(item, "id:item:item::a", {"fields": {"vector": VECTOR}}).fields
    assert fields["bits"].cells.tolist() == [BITS.tolist()]
    assert set(document_json(item, fields, None, "short-value")) == {"vector"}
    assert "bits" not in read_put(item, "id:item:item::b", {"fields": {}}).fields


def test_an_update_of_the_vector_packs_it_again_and_a_cleared_one_leaves_the_bits() -> None:
    item = schema()
    before = read_put(item, "id:item:item::a", {"fields": {"vector": VECTOR}}).fields

    def after(value: object) -> dict:
        updates = read_update(item, "id:item:item::a", {"fields": {"vector": {"assign": value}}}).fields
        return apply_update(updates, item, before)

    assert after([-v for v in VECTOR])["bits"].cells.tolist() != before["bits"].cells.tolist()
    cleared = after(None)
    assert "vector" not in cleared and cleared["bits"].cells.tolist() == before["bits"].cells.tolist()


def test_the_bits_cannot_be_fed() -> None:
    with pytest.raises(DocumentError, match="'bits' is not defined in document type 'item'"):
        read_put(schema(), "id:item:item::a", {"fields": {"bits": [1, 2]}})


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("tensor<int8>(x[2])", "tensor<int8>(x[4])", "does not hold the bits of tensor<bfloat16>"),
        ("tensor<bfloat16>(x[16])", "string", "packing 'vector' into tensor<int8>"),
        ("input vector", "input vectr", "packing 'vectr'"),
        ("input vector | binarize | pack_bits | ", "", "a field outside the document"),
    ],
)
def test_what_is_no_bits_of_a_vector_is_refused(old: str, new: str, words: str) -> None:
    assert old in TEXT
    with pytest.raises(DeployError, match=words):
        schema(TEXT.replace(old, new))
