"""benchmarks/real.py: what it compares, and when a bar is short."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import real
from real import NDCG, RECALL, Row, bars_of, misspelt_bars, mixes, some_labels

from mrse_model.evaluation.bm25 import BM25
from mrse_model.evaluation.queries import QuerySet
from mrse_model.evaluation.rankers import VectorRanker


def row(name: str, value: float, peer: bool = True, untrained: bool = True) -> Row:
    spread = np.tile([-0.1, 0.1], 100)
    return Row(name, {NDCG: value + spread, RECALL: value + spread}, peer, untrained)


@pytest.mark.parametrize(
    ("labels", "gain", "ok"),
    [("0", -0.002, True), ("0", -0.004, False), ("500", 0.001, True), ("500", 0.0, False), ("all", 0.01, True)],
)
def test_the_recommended_hybrid_is_held_against_the_best_untrained_peer(labels: str, gain: float, ok: bool) -> None:
    ours, tuned = row("MRSE + BM25", 0.6 + gain, peer=False), row("x, fine-tuned + BM25", 0.7, untrained=False)
    rows = [row("BM25", 0.4), row("x", 0.5), row("x + BM25, RRF", 0.6), tuned, row("MRSE", 0.55, peer=False), ours]
    bars = {bar.name: bar for bar in bars_of("d", rows, ours, labels)}
    over = [bar for name, bar in bars.items() if "over_best_untrained" in name]
    assert len(over) == 2 and all(bar.ok == ok for bar in over)
    assert not bars["d:ndcg_over_fine_tuned"].ok  # 0.7 is more
    assert bars["d:ndcg_mix_minus_better_part"].value == pytest.approx(0.05 + gain)


def test_vectors_alone_are_held_against_the_encoders_where_there_is_one(monkeypatch) -> None:
    monkeypatch.setattr(real, "installed", lambda: ["x", "not measured"])
    ours = row("MRSE + BM25", 0.6, peer=False)
    rows = [row("BM25", 0.4), row("x", 0.5), row("MRSE", 0.49, peer=False), ours]
    alone = [bar for bar in bars_of("homedepot-0", rows, ours, "0") if "vectors_over" in bar.name]
    assert len(alone) == 2 and not any(bar.ok for bar in alone)
    assert not any("vectors_over" in bar.name for bar in bars_of("icecat-0", rows, ours, "0"))


def test_a_lead_that_may_be_chance_is_none_with_all_labels() -> None:
    rng = np.random.default_rng(0)
    ours = Row("m", {name: rng.random(50) + 0.01 for name in (NDCG, RECALL)}, False, False)
    rows = [Row("BM25", {name: rng.random(50) for name in (NDCG, RECALL)}), row("MRSE", 0.1, peer=False), ours]
    rows[1] = Row("MRSE", rows[0].values, False, False)
    assert not any(bar.ok for bar in bars_of("d", rows, ours, "all") if "low" in bar.name)


def test_half_of_what_the_words_lose_may_be_lost() -> None:
    flat = np.ones(4)
    right = {who: {NDCG: flat, RECALL: flat} for who in ("recommended", "BM25")}
    wrong = {"BM25": {NDCG: flat - 0.2, RECALL: flat - 0.2}, "recommended": {NDCG: flat - 0.09, RECALL: flat - 0.11}}
    assert [bar.ok for bar in misspelt_bars("d", right, wrong)] == [True, False]


def test_peers_are_mixed_with_fixed_weights_or_with_the_best_for_the_training_queries() -> None:
    titles, eye = ["red dress", "steel mug", "lawn mower"], np.eye(3, dtype=np.float32)
    vectors = VectorRanker("v", lambda texts: eye[[titles.index(text) for text in texts]], eye)
    judged = [np.array([n], np.int32) for n in range(3)]
    queries = QuerySet("q", titles, judged, [np.array([2], np.int16)] * 3, 2, np.ones(3))
    plain = mixes("v", vectors, BM25(titles), queries, None)
    assert [line.name for line in plain] == ["v", "v + BM25, RRF", *(f"v + BM25, {w}" for w in real.WEIGHTS)]
    assert all(line.untrained and line.values[NDCG].mean() == 1 for line in plain)
    tuned = mixes("v", vectors, BM25(titles), queries, queries, untrained=False)
    assert len(tuned) == 3 and not tuned[0].untrained


def test_some_labels_are_whole_queries(tmp_path: Path) -> None:
    rows = {"query": ["a", "A ", "b", "c"], "item_id": list("xyzw"), "grade": [1, 2, 3, 0]}
    pq.write_table(pa.table(rows), tmp_path / "j.parquet")
    found = pq.read_table(some_labels(tmp_path / "j.parquet", 3, tmp_path / "all.parquet"))
    assert found.num_rows == 4
    one = pq.read_table(some_labels(tmp_path / "j.parquet", 1, tmp_path / "one.parquet"))["query"].to_pylist()
    assert one in (["a", "A "], ["b"], ["c"])
    again = pq.read_table(some_labels(tmp_path / "j.parquet", 1, tmp_path / "two.parquet"))["query"].to_pylist()
    assert one == again
