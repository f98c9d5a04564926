"""One evaluation end to end: measures, comparison, slices, TREC files that ir-measures reads to the same values."""

import json

import numpy as np
import pytest

ir_measures = pytest.importorskip("ir_measures")

from mrse_model.evaluation.queries import QuerySet  # noqa: E402
from mrse_model.evaluation.rankers import Ranking, VectorRanker  # noqa: E402
from mrse_model.evaluation.report import evaluate  # noqa: E402
from mrse_model.evaluation.trec import trec_id, write_run  # noqa: E402

N, M, D = 40, 120, 16


@pytest.fixture
def world():
    """Queries near their relevant items; a good encoder and one with noise."""
    rng = np.random.default_rng(5)
    items = rng.normal(size=(M, D)).astype(np.float32)
    items /= np.linalg.norm(items, axis=1, keepdims=True)
    vectors = items[:N]
    relevant = [np.array([i, (i + 1) % M], np.int32) for i in range(N)]
    grades = [np.array([2, 1], np.int16)] * N
    texts = [f"query {i}" for i in range(N)]
    even = np.arange(N) % 2 == 0
    queries = QuerySet("planted", texts, relevant, grades, 2, 1.0 + np.arange(N), {"even numbers": even})

    def encode(noise):
        shift = noise * np.random.default_rng(6).normal(size=(N, D)).astype(np.float32)
        return lambda some: (vectors + shift)[[int(text.split()[1]) for text in some]]

    return queries, VectorRanker("good", encode(0.1), items), VectorRanker("poor/er", encode(0.6), items)


def test_report_and_files(world, tmp_path):
    queries, good, poor = world
    ids = [f"SKU {i}" for i in range(M)]
    report = evaluate([good, poor], queries, ids, baseline="poor/er", cuts=(5, 20), folder=tmp_path)
    assert report["good"].value("Recall@5_u") > report["poor/er"].value("Recall@5_u")
    assert report["good"].against["Recall@5_u"].clear and not report["poor/er"].against
    assert report["good"].slices["even numbers"]["nDCG@10"].n == N // 2
    assert {"nDCG@10", "Recall@5_w", "Recall@5_u", "Rele@20_w"} <= set(report["good"].measures)
    text = (tmp_path / "report.md").read_text()
    assert "| good |" in text and "Only the 20 queries with even numbers" in text and "against poor/er" in text
    assert json.loads((tmp_path / "report.json").read_text())["results"][0]["name"] == "good"
    qrels = list(ir_measures.read_trec_qrels(str(tmp_path / "qrels")))
    for name, file in (("good", "good.run"), ("poor/er", "poor_er.run")):
        run = list(ir_measures.read_trec_run(str(tmp_path / file)))
        measure = ir_measures.R(rel=2) @ 5
        read = ir_measures.calc_aggregate([measure], qrels, run)[measure]
        assert read == pytest.approx(report[name].value("Recall@5_u"), abs=1e-6)
        scores = {}
        for hit in run:
            assert hit.score < scores.get(hit.query_id, np.inf)
            scores[hit.query_id] = hit.score
    assert qrels[0].doc_id == trec_id("SKU 0") == "SKU%200"
    assert (tmp_path / "topics.tsv").read_text().splitlines()[1] == "q2\tquery 1"


def test_without_traffic_there_is_one_recall(world):
    queries, good, _ = world
    even = QuerySet(**{**queries.__dict__, "traffic": np.ones(N), "slices": {}})
    assert set(evaluate([good], even, [str(i) for i in range(M)], cuts=(5,))["good"].measures) == {
        "nDCG@10",
        "Recall@5",
        "Rele@5",
    }


def test_the_paired_test_knows_the_traffic(world):
    queries, good, poor = world
    report = evaluate([good, poor], queries, [str(i) for i in range(M)], baseline="poor/er", cuts=(5,))
    against = report["good"].against
    assert (
        set(against) == set(report["good"].measures) == {"nDCG@10", "Recall@5_w", "Recall@5_u", "Rele@5_w", "Rele@5_u"}
    )
    for measure in against:
        difference = report["good"].value(measure) - report["poor/er"].value(measure)
        assert against[measure].difference == pytest.approx(difference)
        assert f"| good | {measure} | {difference:+.4f} " in report.markdown()
    assert against["Recall@5_w"].difference != against["Recall@5_u"].difference


def test_queries_that_are_never_asked_count_in_the_unweighted_means_alone(world):
    queries, good, poor = world
    odd = ~queries.slices["even numbers"]
    some = QuerySet(**{**queries.__dict__, "traffic": np.where(odd, 4.0, 0.0)})
    report = evaluate([good, poor], some, [str(i) for i in range(M)], baseline="poor/er", cuts=(5,))
    found = report["poor/er"].measures
    assert (found["Recall@5_w"].n, found["Recall@5_u"].n) == (N // 2, N)
    plain = evaluate([poor], queries, [str(i) for i in range(M)], cuts=(5,))
    twice = 2 * plain["poor/er"].value("Recall@5_u") - plain["poor/er"].slices["even numbers"]["Recall@5_u"].mean
    assert found["Recall@5_w"].mean == pytest.approx(twice)
    assert "Recall@5_w" not in report["good"].slices["even numbers"]
    text = report.markdown()
    assert "| – |" in text and "nan" not in text and f"of the {N // 2} queries that are asked" in text


def test_ties_keep_their_order_in_a_tool_that_compares_in_float32(tmp_path):
    scores = np.array([[8.1] * 60 + [0.0] * 3 + [-1e-9]], np.float32)
    rows = np.random.default_rng(0).permutation(64)[None]
    write_run(tmp_path / "run", Ranking(rows, scores), [f"i{row}" for row in range(64)], "ties")
    read = [(np.float32(hit.score), hit.doc_id) for hit in ir_measures.read_trec_run(str(tmp_path / "run"))]
    assert [name for _, name in sorted(read, reverse=True)] == [f"i{row}" for row in rows[0]]
    assert len({score for score, _ in read}) == 64
