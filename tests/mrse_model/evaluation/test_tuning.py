"""Which hybrid is recommended: the fusion, unless queries that were not learnt from say clearly otherwise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mrse_model.data.example_files import EXAMPLE_SCHEMA, JUDGED, PSEUDO
from mrse_model.evaluation.bm25 import BM25
from mrse_model.evaluation.queries import QuerySet
from mrse_model.evaluation.rankers import Ranking, VectorRanker
from mrse_model.evaluation.tuning import (
    FEWEST,
    MIDDLE,
    WEIGHTS,
    HeldOut,
    Mix,
    choose,
    known_queries,
    quality,
    tune,
)

COLOURS, KINDS = ("red", "blue", "green", "black", "white", "pink"), ("dress", "shoe", "coat", "hat")
TITLES = [f"{colour} {kind}" for colour in COLOURS for kind in KINDS]


def run_of(folder: Path, kind: int = JUDGED) -> Path:
    """Examples: every title is a query, its own item right and the next one nearly."""
    (examples := folder / "examples").mkdir(parents=True)
    nothing = {name: [] for name in ("history_items", "history_kind", "history_age", "known", "skipped")}
    rows = [
        {"query": title.title(), "target_item": i, "hard": [(i + 1) % len(TITLES)], "kind": kind, "timestamp": 0}
        | {"user_id": "", "search_id": ""} | nothing
        for i, title in enumerate(TITLES)
    ]  # fmt: skip
    pq.write_table(pa.Table.from_pylist(rows, EXAMPLE_SCHEMA), examples / "train-00000.parquet")
    return examples


def vectors_of(right: bool) -> VectorRanker:
    """Vectors that find the item of a title, or else the one that is judged a near miss."""
    own, rows = np.eye(len(TITLES), dtype=np.float32), {title: i for i, title in enumerate(TITLES)}

    def encode(texts):
        found = own[[rows[text.lower()] for text in texts]]
        return found if right else np.roll(found, 1, axis=1)

    return VectorRanker("v", encode, own)


def test_what_is_known_of_queries_comes_from_the_examples(tmp_path: Path) -> None:
    found = known_queries(run_of(tmp_path), [*(title.upper() for title in TITLES[1:5]), "nothing like it"])
    assert found is not None and {text.lower() for text in found.texts} == set(TITLES[1:5])
    at = [text.lower() for text in found.texts].index(TITLES[2])
    assert found.items[at].tolist() == [2, 3] and found.grades[at].tolist() == [1, 0]
    assert known_queries(run_of(tmp_path / "made", PSEUDO), TITLES) is None  # spans of titles say nothing of the words
    assert known_queries(run_of(tmp_path / "few"), ["a span of a title"]) is None  # those held out may all be such


@pytest.mark.parametrize(("right", "weight"), [(True, None), (False, 1.0)])
def test_a_part_that_is_clearly_better_alone_is_recommended_alone(tmp_path: Path, right: bool, weight) -> None:
    queries = known_queries(run_of(tmp_path), TITLES)
    assert queries is not None
    found = HeldOut.of(vectors_of(right), BM25(TITLES), queries).qualities()
    mix = tune([found[:, :9], found[:, 9:]])
    assert mix.queries == len(TITLES)
    if right:
        assert mix.weight is None and mix.profile == "ann"  # both find it first: nothing to choose
    else:
        assert mix.weight is not None and mix.weight > 0.5 and mix.profile == "hybrid_linear"


def test_a_weighted_sum_must_be_better_by_more_than_its_error() -> None:
    rng = np.random.default_rng(0)
    fused = rng.random(400)
    sums = np.stack([fused + 0.05 * (weight == 0.3) for weight in WEIGHTS])
    assert choose(fused, sums) == 0.3
    assert choose(fused[:2], sums[:, :2] - 0.02) is None  # two queries prove nothing, however alike they are
    assert choose(fused, np.stack([fused] * len(WEIGHTS))) is None
    kept = tune([np.stack([fused, *([fused] * len(WEIGHTS))])], otherwise=MIDDLE)
    assert kept.weight == MIDDLE and kept.queries == 400  # no weight is better than the one recommended otherwise
    assert tune([np.stack([fused, *sums])], otherwise=MIDDLE).weight == 0.3
    level = np.stack([fused + 0.05 - 0.0001 * place for place in range(len(WEIGHTS))])
    assert choose(fused, level) == MIDDLE  # the lead of weight 0 is no lead


def test_without_enough_queries_it_is_the_fusion() -> None:
    few = np.stack([np.zeros(FEWEST - 1), *np.ones((len(WEIGHTS), FEWEST - 1))])
    assert tune([few]) == Mix() and tune([few, few]).weight == MIDDLE
    assert tune([few], otherwise=0.3) == Mix(0.3) and "0.3" in Mix(0.3).line() and "fewer than" in Mix(0.3).line()
    mix = tune([])
    assert mix == Mix(None, 0) and "reciprocal rank fusion" in mix.line()
    assert "0.3" in Mix(0.3, 50).line() and "50 queries" in Mix(None, 50).line()
    assert Mix(**Mix(0.3, 50).noted()) == Mix(0.3, 50)


def test_judged_samples_are_measured_by_what_was_judged() -> None:
    ranking = Ranking(np.array([[9, 8, 1, 0]] * 2), np.array([[4.0, 3, 2, 1]] * 2, np.float32))
    items = [np.array([0, 1], np.int32), np.array([0], np.int32)]
    queries = QuerySet("q", ["a", "b"], items, [np.array([0, 1], np.int16), np.array([1], np.int16)], 1, np.ones(2))
    assert quality(queries, ranking).tolist() == pytest.approx([1.0, (1 / np.log2(5) + 1) / 2])
