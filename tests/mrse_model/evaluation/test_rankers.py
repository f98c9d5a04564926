"""Exact search and the fusions, against plain definitions."""

import numpy as np
import pytest

from mrse_model.evaluation import rankers
from mrse_model.evaluation.rankers import LinearFusion, Ranking, ReciprocalRankFusion, VectorRanker, best, search_exact


class Fixed:
    """A ranker that answers what it was given."""

    def __init__(self, name, rows, scores):
        self.name, self.ranking = name, Ranking(np.array(rows), np.array(scores, np.float32))

    def search(self, queries, k):
        return self.ranking.cut(k)


@pytest.mark.parametrize("k", [1, 7, 50, 80])
def test_exact_search_over_blocks_is_a_stable_sort(monkeypatch, k):
    monkeypatch.setattr(rankers, "ITEM_BLOCK", 13)
    monkeypatch.setattr(rankers, "QUERY_BLOCK", 3)
    rng = np.random.default_rng(0)
    items = rng.integers(-2, 3, (50, 4)).astype(np.float32)  # small integers: many ties
    queries = rng.integers(-2, 3, (8, 4)).astype(np.float32)
    found = search_exact(queries, items, k)
    scores = queries @ items.T
    expected = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    np.testing.assert_array_equal(found.rows, expected)
    np.testing.assert_array_equal(found.scores, np.take_along_axis(scores, expected, 1))


def test_best_breaks_ties_by_column():
    assert best(np.array([[1, 3, 3, 0, 3]], np.float32), 2).tolist() == [[1, 2]]


def test_a_memory_mapped_catalogue(tmp_path):
    items = np.eye(5, dtype=np.float16)
    np.save(tmp_path / "items.npy", items)
    ranker = VectorRanker("v", lambda texts: np.eye(5, dtype=np.float32)[[2]], np.load(tmp_path / "items.npy", "r"))
    assert ranker.search(["x"], 1).rows.tolist() == [[2]]


def test_reciprocal_rank_fusion_adds_one_over_60_plus_rank():
    one, two = Fixed("a", [[4, 7, 9]], [[3, 2, 1]]), Fixed("b", [[9, 4, -1]], [[8, 7, -np.inf]])
    found = ReciprocalRankFusion("f", (one, two)).search(["q"], 4)
    assert found.rows.tolist() == [[4, 9, 7, -1]]
    assert found.scores[0, :3] == pytest.approx([1 / 61 + 1 / 62, 1 / 63 + 1 / 61, 1 / 62], rel=1e-6)


def _vectors(scores):
    """A ranker of one query whose items have these cosines."""
    items = np.array(scores, np.float32)[:, None]
    return VectorRanker("vectors", lambda texts: np.ones((len(texts), 1), np.float32), items)


def test_linear_fusion_adds_what_the_words_say_to_the_cosine():
    words = Fixed("words", [[2, 1, -1]], [[60.0, 20.0, -np.inf]])
    found = LinearFusion("f", _vectors([0.9, 0.6, 0.3]), words, weight=0.25).search(["q"], 3)
    assert found.rows.tolist() == [[0, 1, 2]]
    assert found.scores[0] == pytest.approx([0.75 * 0.9, 0.75 * 0.6 + 0.25 * 0.5, 0.75 * 0.3 + 0.25 * 0.9])
    few = Fixed("words", [[2, 1, -1]], [[6.0, 2.0, -np.inf]])  # a common word alone moves nothing
    assert LinearFusion("f", _vectors([0.9, 0.8, 0.7]), few, weight=0.4).search(["q"], 3).rows.tolist() == [[0, 1, 2]]
    nothing = Fixed("none", [[-1, -1]], [[-np.inf, -np.inf]])
    assert LinearFusion("f", _vectors([0.1, 0.3, 0.2]), nothing, weight=0.5).search(["q"], 3).rows.tolist() == [
        [1, 2, 0]
    ]


def test_what_only_the_words_found_has_its_cosine():
    """As in the rank profile hybrid_linear; the word's hits are all equal, and the cosine orders them."""
    words = Fixed("words", [[1, 2]], [[50.0, 50.0]])
    mix = LinearFusion("f", _vectors([0.9, 0.1, 0.2]), words, weight=0.8, depth=2)
    assert mix.search(["q"], 3).rows.tolist() == [[2, 1, 0]]
