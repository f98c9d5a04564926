"""Measures against their definitions, on rankings small enough to do by hand."""

import math

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

pytest.importorskip("ir_measures")

from mrse_model.data.contract import Judgments, read_catalogue, read_judgments
from mrse_model.data.examples import write_examples
from mrse_model.errors import InputError
from mrse_model.evaluation.measures import condensed, per_query, unjudged_share
from mrse_model.evaluation.queries import (
    QuerySet,
    clicked_queries,
    judged_queries,
    traffic_of,
    traffic_of_run,
    with_wording_slices,
)
from mrse_model.evaluation.rankers import Ranking, search_exact


@pytest.fixture
def queries():
    items = [np.array([5, 3, 8], np.int32), np.array([1], np.int32), np.array([2, 4], np.int32)]
    grades = [np.array([2, 1, 2], np.int16), np.array([2], np.int16), np.array([2, 1], np.int16)]
    return QuerySet("hand", ["a", "b", "c"], items, grades, 2, np.array([1.0, 1.0, 2.0]))


def ranking(*rows):
    array = np.array(rows)
    return Ranking(array, np.where(array >= 0, -np.arange(array.shape[1], dtype=np.float32), -np.inf))


def test_by_hand(queries):
    found = per_query(queries, ranking([3, 9, 5, 7], [0, 9, 7, 6], [2, -1, -1, -1]), cuts=(2, 4))
    ideal = 3 + 3 / math.log2(3) + 1 / 2
    assert found["nDCG@10"] == pytest.approx([(1 + 3 / 2) / ideal, 0, 3 / (3 + 1 / math.log2(3))], abs=1e-6)
    assert found["Recall@2"] == pytest.approx([0, 0, 1])
    assert found["Recall@4"] == pytest.approx([0.5, 0, 1])
    assert found["Rele@2"] == pytest.approx([1 / 4, 0, 2 / 4])
    assert found["Rele@4"] == pytest.approx([3 / 8, 0, 2 / 8])


def test_many_at_once_against_plain_numpy():
    rng = np.random.default_rng(0)
    n, m, k = 30, 200, 50
    grade = rng.choice([0, 1, 2], (n, m), p=[0.8, 0.15, 0.05])
    grade[:, 0] = 2
    rows = [np.flatnonzero(g) for g in grade]
    queries = QuerySet(
        "r", [str(i) for i in range(n)], rows, [g[r] for g, r in zip(grade, rows, strict=True)], 2, np.ones(n)
    )
    # Scores with many ties: the files must not leave their order to the tool.
    scores = rng.integers(0, 9, (n, m)).astype(np.float32)
    found = per_query(queries, search_exact(np.eye(n, dtype=np.float32), scores.T.copy(), k), cuts=(10, k))
    order = np.argsort(-scores, 1, kind="stable")
    ranked = np.take_along_axis(grade, order, 1)
    discount = 1 / np.log2(np.arange(2, 12))
    ideal = -np.sort(-grade, 1)[:, :10]
    np.testing.assert_allclose(
        found["nDCG@10"], ((2 ** ranked[:, :10] - 1) @ discount) / ((2**ideal - 1) @ discount), atol=1e-5
    )
    np.testing.assert_allclose(found[f"Recall@{k}"], (ranked[:, :k] == 2).sum(1) / (grade == 2).sum(1), atol=1e-5)
    np.testing.assert_allclose(found["Rele@10"], ranked[:, :10].mean(1) / 2, atol=1e-9)


def test_unjudged_share(queries):
    assert unjudged_share(queries, ranking([3, 9], [1, 1], [0, 9])) == pytest.approx(0.5)


def test_what_was_not_found_is_not_unjudged(queries):
    assert unjudged_share(queries, ranking([3, -1], [1, -1], [2, 4])) == 0
    assert unjudged_share(queries, ranking([3, 9, -1], [-1, -1, -1], [0, -1, -1])) == pytest.approx(0.75)
    assert unjudged_share(queries, ranking([-1], [-1], [-1])) == 0


def test_condensed_lists_hold_the_judged_alone(queries):
    found = condensed(queries, ranking([3, 9, 5], [0, 7, 9], [4, 2, 1]))
    assert found.rows.tolist() == [[3, 5, -1], [-1, -1, -1], [4, 2, -1]]
    assert found.scores[0, :2].tolist() == [0, -2] and np.isneginf(found.scores[1]).all()


def test_queries_without_a_relevant_item_are_counted_and_left_out(tmp_path):
    grades = np.array([2, 1, 1, 0], np.int16)
    judgments = Judgments(
        tmp_path, ["a", "b"], np.array([0, 0, 1, 1], np.int32), np.array([4, 5, 6, 7], np.int32), grades, 0
    )
    found = judged_queries("j", judgments, traffic={"a": 7.0})
    assert (found.texts, found.left_out, found.traffic.tolist()) == (["a"], 1, [7.0])
    assert found.items[0].tolist() == [4, 5]
    both = judged_queries("j", judgments, positive=1, traffic={"b": 3})
    assert (both.texts, both.traffic.tolist(), both.weighted) == (["a", "b"], [0, 3], True)
    unknown = judged_queries("j", judgments, positive=1, traffic={"c": 3})
    assert (unknown.traffic.tolist(), unknown.weighted) == ([1, 1], False)
    none = Judgments(tmp_path, ["a"], np.zeros(1, np.int32), np.zeros(1, np.int32), np.zeros(1, np.int16), 0)
    with pytest.raises(InputError, match="no query has a relevant item"):
        judged_queries("j", none)


def test_a_judged_query_is_one_however_it_is_spelt(tmp_path):
    query, item, grades = [0, 0, 1, 2, 2], [4, 5, 7, 5, 6], np.array([2, 0, 2, 1, 2], np.int16)
    texts = ["Red dress", "mug", "red  dress"]
    judgments = Judgments(tmp_path, texts, np.array(query, np.int32), np.array(item, np.int32), grades, 0)
    found = judged_queries("j", judgments, traffic={"red dress": 3, "mug": 1})
    assert (found.texts, found.traffic.tolist()) == (["Red dress", "mug"], [3, 1])
    assert [i.tolist() for i in found.items] == [[4, 5, 6], [7]]
    assert [g.tolist() for g in found.grades] == [[2, 1, 2], [2]]  # graded apart, the higher


def test_clicked_queries_and_traffic(tmp_path):
    path = tmp_path / "validation.parquet"
    pq.write_table(pa.table({"query": ["x", "y", "x", "z"], "target_items": [[3], [1, 2], [9, 3], []]}), path)
    found = clicked_queries("c", path)
    assert found.texts == ["x", "y"] and found.traffic.tolist() == [2, 1]
    assert [i.tolist() for i in found.items] == [[3, 9], [1, 2]]
    assert traffic_of(path) == {"x": 2, "y": 1, "z": 1}


def test_traffic_is_of_queries_however_they_are_spelt(tmp_path):
    pq.write_table(pa.table({"query": ["Red  dress", "red dress ", None, " "]}), tmp_path / "log.parquet")
    assert traffic_of(tmp_path / "log.parquet") == {"red dress": 2}
    pq.write_table(pa.table({"text": ["x"]}), tmp_path / "no.parquet")
    with pytest.raises(InputError, match="field query: the column is missing"):
        traffic_of(tmp_path / "no.parquet")


def test_a_run_of_judgments_alone_knows_no_traffic(tmp_path):
    pq.write_table(pa.table({"item_id": ["a", "b"], "title": ["A", "B"]}), tmp_path / "items.parquet")
    pq.write_table(pa.table({"query": ["q"], "item_id": ["a"], "grade": [2]}), tmp_path / "judged.parquet")
    catalogue = read_catalogue(tmp_path / "items.parquet")
    write_examples(tmp_path / "x", catalogue, judgments=read_judgments(tmp_path / "judged.parquet", catalogue))
    assert traffic_of_run(tmp_path / "x") == {}


def test_wording_slices(queries, tmp_path):
    path = tmp_path / "q.parquet"
    pq.write_table(pa.table({"query": ["c", "a"], "share_exact_not_worded_in_title": [0.9, 0.1]}), path)
    worded, not_worded = with_wording_slices(queries, path).slices.values()
    assert worded.tolist() == [True, False, False] and not_worded.tolist() == [False, False, True]
