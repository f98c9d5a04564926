"""Misspelt queries: one edit, the same for the same seed."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mrse_model.data.misspellings import EDITS, misspelt, misspelt_all


def distance(a: str, b: str) -> int:
    """Damerau–Levenshtein, neighbours swapped counting 1."""
    rows = np.zeros((len(a) + 1, len(b) + 1), int)
    rows[:, 0], rows[0] = np.arange(len(a) + 1), np.arange(len(b) + 1)
    for i in range(1, len(a) + 1):
        for j in range(1, len(b) + 1):
            rows[i, j] = min(rows[i - 1, j] + 1, rows[i, j - 1] + 1, rows[i - 1, j - 1] + (a[i - 1] != b[j - 1]))
            if i > 1 and j > 1 and a[i - 1] == b[j - 2] and a[i - 2] == b[j - 1]:
                rows[i, j] = min(rows[i, j], rows[i - 2, j - 2] + 1)
    return int(rows[-1, -1])


@given(st.text("abcd12 /-", min_size=1, max_size=24), st.integers(0, 2**32))
def test_it_is_one_edit_away(text: str, seed: int) -> None:
    found = misspelt(text, np.random.default_rng(seed))
    assert distance(text, found) <= 1
    if any(sum(c.isalnum() for c in word) >= 4 and len(set(word)) > 1 for word in text.split(" ")):
        assert found != text


def test_each_kind_of_edit_happens_and_short_words_stay() -> None:
    rng = np.random.default_rng(0)
    found = {misspelt("delta faucet", rng) for _ in range(300)}
    assert {"deltafaucet", "delta fauct", "delta fauecct", "delta fau cet", "delta faauet"} & found
    assert "deltafaucet" in found and any(len(text) == 11 and " " in text for text in found)
    assert any(text.count(" ") == 2 for text in found) and any(sorted(text) == sorted("delta faucet") for text in found)
    assert len(EDITS) == 5 and misspelt("tv", rng) == "tv" and misspelt("", rng) == ""


def test_a_text_has_the_same_edit_whatever_else_is_asked() -> None:
    texts = ["steel mug", "red dress", "lawn mower"]
    assert misspelt_all(texts, 1) == misspelt_all(texts, 1) != misspelt_all(texts, 2)
    assert misspelt_all([*texts, "more"], 1)[:3] == misspelt_all(texts, 1)
