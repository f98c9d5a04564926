"""Whatever is typed is words: never the query language behind userInput."""

from __future__ import annotations

import os
import random
import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from local_vespa.yql.simple import parse_user_text
from mrse_model.errors import InputError
from retrieval.query_text import MAX_CHARACTERS, cleaned, has_words, key_of
from vespa_package.checks.vespa_java import ask, why_not

WORDS = ["dress", "red", "20", "38", "t", "shirt", "title", "price", "OR", "AND", "NOT", "brand", "été", "日本", "x9"]
SYNTAX = [
    *"-+\"'*:()<>=!~^[]{}|&%$#@;,./\\?`",
    "--",
    "price:<",
    "title:",
    "(",
    ")",
    '" "',
    "^3",
    "[1;2]",
    "{",
    "\x0c",
    "\u200b",
    "…",
]


def hostile(n: int) -> list[str]:
    """Words among everything that a query language could mean."""
    draw = random.Random(7)
    texts = []
    while len(texts) < n:
        parts = [draw.choice(WORDS if draw.random() < 0.5 else SYNTAX) for _ in range(draw.randint(1, 9))]
        text = draw.choice([" ", "", " "]).join(parts)
        if has_words(text):
            texts.append(text)
    return texts


def words_alone(text: str) -> str:
    """Letters, digits and their marks; an apostrophe within a word belongs to it, as in children's."""
    inner = re.sub(r"(?<=\w)'(?=\w)", "\ue000", text)
    kept = [c if c.isalnum() or c == "\ue000" or unicodedata.category(c) in ("Mn", "Mc") else " " for c in inner]
    return " ".join("".join(kept).split()).replace("\ue000", "'")


def shape(text: str) -> object:
    """The tree of a text: kinds of nodes, and their words."""

    def of(node: object) -> object:
        children = getattr(node, "children", None)
        name = type(node).__name__
        return (name, *map(of, children)) if children is not None else (name, node.field, node.text)

    return of(parse_user_text(text, "tokenize"))


def test_a_thousand_hostile_queries_parse_as_their_words_do() -> None:
    for text in hostile(1000):
        assert shape(cleaned(text)) == shape(words_alone(cleaned(text))), text


@pytest.mark.java
@pytest.mark.skipif(why_not() is not None and not os.environ.get("CI"), reason=str(why_not()))
def test_vespas_own_parser_agrees(package) -> None:
    texts = [cleaned(text) for text in hostile(1000)]
    yql = 'select * from item where {grammar: "tokenize"}userInput(@query)'
    ask_of = lambda some: [{"package": "app", "yql": yql, "parameters": {"query": t}} for t in some]  # noqa: E731
    verdict = ask(
        {"packages": [{"name": "app", "dir": str(package)}], "yql": ask_of([*texts, *map(words_alone, texts)])}
    )
    trees = verdict["yql"]
    wrong = [(t, a, b) for t, a, b in zip(texts, trees[: len(texts)], trees[len(texts) :], strict=True) if a != b]
    assert not wrong, wrong[:5]
    assert not [tree for tree in trees if "error" in tree]


@given(st.text(max_size=2000))
def test_any_text_is_cut_and_clean_or_blank(text) -> None:
    try:
        found = cleaned(text)
    except InputError as error:
        assert "blank" in str(error)
        return
    assert 0 < len(found) <= MAX_CHARACTERS and found == found.strip() and "  " not in found
    found.encode("utf-8")
    assert cleaned(found) == found and key_of(found) == key_of(key_of(found))


def test_a_text_of_megabytes_costs_what_a_line_does() -> None:
    assert cleaned("dress " * 1_000_000) == ("dress " * 100)[:MAX_CHARACTERS].strip()
