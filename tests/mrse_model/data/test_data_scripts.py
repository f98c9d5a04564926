"""Titles in scripts without spaces: what shoppers type is a part of them, and their queries are parts as well."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mrse_model.data.contract import read_catalogue
from mrse_model.data.examples import write_examples
from mrse_model.data.pseudo_queries import pseudo_queries
from mrse_model.data.scripts import is_unspaced, parts
from mrse_model.evaluation.checkpoint import pseudo_query_set

# title, what a shopper would type of it
TITLES = {
    "Japanese": ("リネンドレス赤レディース", "ドレス"),
    "Chinese": ("夏季红色连衣裙女士长款", "连衣裙"),
    "Thai": ("เสื้อเชิ้ตผ้าฝ้ายสีขาว", "เสื้อเชิ้ต"),
    "Korean": ("여름 면 원피스 빨강", "원피스"),
}
SPACED = {"Korean"}


@pytest.mark.parametrize("script", TITLES)
def test_queries_are_parts_of_the_title_and_what_is_typed_is_among_them(script: str) -> None:
    title, typed = TITLES[script]
    assert is_unspaced(title) == (script not in SPACED)
    queries = pseudo_queries(title, [], 400, np.random.default_rng(0))
    assert typed in queries
    assert all(word in title for query in queries for word in query.split())
    assert np.mean([len(query) < len(title) for query in queries]) > 0.8


@pytest.mark.parametrize("script", TITLES)
def test_no_part_begins_with_a_mark_or_ends_before_the_letter_of_its_vowel(script: str) -> None:
    title, _ = TITLES[script]
    for seed in range(40):
        for part, _ in parts(title, np.random.default_rng(seed)):
            assert not part.startswith(("ー", "ィ", "\u0e31", "\u0e34", "\u0e35", "\u0e37", "\u0e47", "\u0e49"))
            assert not part.endswith(tuple("เแโใไ"))
        assert "".join(part for part, _ in parts(title, np.random.default_rng(seed))) == title.replace(" ", "")


def test_latin_titles_draw_nothing_for_their_words() -> None:
    rng = np.random.default_rng(3)
    assert parts(" Red  t-shirt\tXL ", rng) == [("Red", True), ("t-shirt", True), ("XL", True)]
    assert rng.random() == np.random.default_rng(3).random()


def catalogue(folder: Path) -> Path:
    titles = [title for title, _ in TITLES.values()] + ["Red dress", "iPhone用ケース青"]
    pq.write_table(pa.table({"item_id": [f"i{n}" for n in range(6)], "title": titles}), folder / "items.parquet")
    return folder / "items.parquet"


def test_such_titles_are_counted_and_warned_of(tmp_path: Path) -> None:
    summary = write_examples(tmp_path / "examples", read_catalogue(catalogue(tmp_path)))
    assert summary.unspaced_titles == 4
    assert any("warning: 4 titles are in a script without spaces" in line for line in summary.lines())


def test_what_is_relevant_to_a_part_is_every_title_that_holds_it(tmp_path: Path) -> None:
    titles = ["リネンドレス", "赤ドレス", "ドレス", "red dress", "iPhone用ケース"]
    table = pa.table({"item_id": [f"i{n}" for n in range(5)], "title": titles})
    pq.write_table(table, tmp_path / "items.parquet")
    for seed in range(20):
        found = pseudo_query_set(read_catalogue(tmp_path / "items.parquet"), seed=seed)
        for query, rows in zip(found.texts, found.items, strict=True):
            holds = [row for row, title in enumerate(titles) if all(w in title.lower() for w in query.split())]
            assert rows.tolist() == holds, query
