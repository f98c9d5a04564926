"""Texts that Vespa makes of other fields: `input title . " " . ((input category | join " ") || "") | index`.

What is expected was seen in Vespa's own indexing language (8.700.24, puts and updates).
"""

from __future__ import annotations

import pytest

from local_vespa.documents.operations import apply_update, read_put, read_update
from local_vespa.documents.values import Fields, document_json
from local_vespa.errors import DeployError, DocumentError
from local_vespa.index.table import Table
from local_vespa.package.schema import Schema, read_schema
from local_vespa.package.sd import parse_statements

TEXT = """schema item {
  document item {
    field language type string { indexing: (input language || "en") | set_language }
    field title type string { indexing: index }
    field category type array<string> { indexing: attribute }
    field brand type string { indexing: attribute }
  }
  field words type string {
    indexing: input title . " " . ((input category | join " ") || "") | index
    index: enable-bm25
  }
  fieldset default { fields: words }
}"""


def schema(text: str = TEXT) -> Schema:
    return read_schema(parse_statements(text, "item.sd"), {})


def put(**fields: object) -> Fields:
    return read_put(schema(), "id:item:item::a", {"fields": fields}).fields


def updated(before: Fields, **fields: object) -> Fields:
    body = {"fields": {name: {"assign": value} for name, value in fields.items()}}
    return apply_update(read_update(schema(), "id:item:item::a", body).fields, schema(), before)


def test_a_put_joins_the_texts_and_a_get_does_not_show_them() -> None:
    fields = put(title="Red dress", category=["Women", "Clothes"])
    assert fields["words"] == "Red dress Women Clothes"
    assert set(document_json(schema(), fields, None, "short-value")) == {"title", "category"}
    assert put(title="Red dress")["words"] == "Red dress "
    assert "words" not in put(category=["Women"])


def test_an_update_joins_what_it_writes() -> None:
    before = put(title="Red dress", category=["Women"])
    assert updated(before, title="Blue hat", category=["Men"])["words"] == "Blue hat Men"
    assert updated(before, title="Blue hat")["words"] == "Blue hat "
    assert updated(before, category=["Men"])["words"] == "Red dress Women"
    assert updated(before, brand="Acme")["words"] == "Red dress Women"


def test_words_of_both_fields_are_found_in_one_also_in_documents_from_before() -> None:
    fields = put(title="Red dresses", category=["Women"])
    for document in (fields, {name: value for name, value in fields.items() if name != "words"}):
        table = Table(schema(), [("a", document)])
        assert all(len(table.texts["words"].word(word, table.live).rows) for word in ("dress", "women"))
        assert schema().fields["words"].language is not None


def test_the_text_cannot_be_fed() -> None:
    with pytest.raises(DocumentError, match="'words' is not defined in document type 'item'"):
        put(words="red")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("input title .", "input titel .", "input field 'titel' does not exist"),
        ("(input category | join", "(input brand | join", "joining string brand into words"),
        ("input title .", "input category .", "joining array<string> category into words"),
        (
            "field title type string { indexing: index",
            "field title type string { indexing: input title | index",
            "'input' in a field",
        ),
        ('|| "") | index', '|| "") | index | summary', "in an indexing statement"),
        ("field words type string", "field words type array<string>", "a text of other fields as array<string>"),
    ],
)
def test_what_is_no_joined_text_is_refused(old: str, new: str, words: str) -> None:
    assert old in TEXT
    with pytest.raises(DeployError, match=words):
        schema(TEXT.replace(old, new))
