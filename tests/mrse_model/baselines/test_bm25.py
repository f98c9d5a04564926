"""BM25 against its formula."""

import math

import pytest

pytest.importorskip("bm25s")

from mrse_model.evaluation.bm25 import BM25, words


def test_words_lose_their_plural():
    assert words("Dresses, BOXES & t-shirts; glass bus ladies sunglasses") == [
        "dress", "box", "t", "shirt", "glass", "bus", "lady", "sunglass",
    ]  # fmt: skip


def test_scores_are_vespas():
    texts = ["red dress", "red red shoe with laces", "blue shoe", "green hat"]
    found = BM25(texts, k1=1.2, b=0.75).search(["red shoes"], 4)
    lengths = [len(words(t)) for t in texts]
    mean = sum(lengths) / 4

    def term(tf, df, n):
        idf = math.log(1 + (4 - df + 0.5) / (df + 0.5))
        return idf * tf * 2.2 / (tf + 1.2 * (0.25 + 0.75 * n / mean))

    expected = {1: term(2, 2, 5) + term(1, 2, 5), 0: term(1, 2, 2), 2: term(1, 2, 2)}
    assert found.rows[0, 0] == 1 and set(found.rows[0, 1:3]) == {0, 2} and found.rows[0, 3] == -1
    assert found.scores[0, :3] == pytest.approx([expected[r] for r in found.rows[0, :3]], rel=1e-4)


def test_a_query_of_unknown_words_has_no_hits():
    assert (BM25(["red dress", "blue shoe"]).search(["xyzzy"], 2).rows == -1).all()


def test_equal_scores_come_by_row():
    assert BM25(["red dress", "blue shoe", "red shoe", "red hat", "red coat"]).search(["red"], 4).rows.tolist() == [
        [0, 2, 3, 4]
    ]
