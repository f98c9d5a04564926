"""The order of examples: complete, seeded, resumable; ragged lists; histories' weights equal in training and
serving.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from mrse_model.config import ModelConfig, TrainConfig
from mrse_model.data.example_files import EXAMPLE_SCHEMA, JUDGED, PSEUDO
from mrse_model.data.history import history_weight
from mrse_model.errors import InputError
from mrse_model.serving.exported_model import event_weight
from mrse_model.serving.manifest import Manifest, TokenizerFile
from mrse_model.training.corpus import Dev, split_dev
from mrse_model.training.dataset import BLOCK, Examples, MixedExamples, Queries, build_examples, example_type
from mrse_model.training.pipeline import item_query_rows
from mrse_model.training.ragged import Ragged
from mrse_model.training.stages.contrastive import by_length
from mrse_model.training.tokenizer import train_tokenizer


@pytest.fixture
def examples(tmp_path: Path) -> Examples:
    rows = np.zeros(3 * BLOCK + 17, example_type(20))
    rows["target_item"] = np.arange(len(rows))
    rows["query"] = np.arange(len(rows)) % 500
    rows.tofile(tmp_path / "examples.bin")
    return Examples(tmp_path / "examples.bin", 20)


def test_an_epoch_shows_every_example_once_but_for_the_last_rest(examples: Examples) -> None:
    seen = np.concatenate([batch["target_item"] for batch in examples.batches(64, seed=3, epoch=0)])
    assert len(seen) == examples.steps(64) * 64 == examples.count // 64 * 64
    assert len(np.unique(seen)) == len(seen)
    assert not np.array_equal(seen, np.sort(seen))


def test_epochs_differ_and_a_resumed_one_goes_on_where_it_was(examples: Examples) -> None:
    first = [b["target_item"].copy() for b in examples.batches(64, seed=3, epoch=0)]
    other = [b["target_item"].copy() for b in examples.batches(64, seed=3, epoch=1)]
    resumed = [b["target_item"].copy() for b in examples.batches(64, seed=3, epoch=0, skip=100)]
    assert not np.array_equal(first[0], other[0])
    assert all(np.array_equal(a, b) for a, b in zip(first[100:], resumed, strict=True))


def test_fewer_examples_than_a_batch_are_one_batch(tmp_path: Path) -> None:
    np.zeros(5, example_type(20)).tofile(tmp_path / "few.bin")
    few = Examples(tmp_path / "few.bin", 20)
    assert [len(b) for b in few.batches(64, seed=0, epoch=0)] == [5]
    assert few.steps(64) == 1


def test_ragged_samples_within_a_row_and_says_when_there_is_none() -> None:
    lists = Ragged.of([[3, 4], [], [9]])
    drawn = np.array([lists.sample(np.array([0, 1, 2]), np.random.default_rng(s)) for s in range(50)])
    assert set(drawn[:, 0]) == {3, 4} and set(drawn[:, 1]) == {-1} and set(drawn[:, 2]) == {9}
    assert lists[0].tolist() == [3, 4] and len(lists) == 3


def test_ragged_rows_end_to_end() -> None:
    lists = Ragged.of([[3, 4], [], [9]])
    values, place = lists.rows(np.array([2, 1, 0, 2]))
    assert values.tolist() == [9, 3, 4, 9] and place.tolist() == [0, 2, 2, 3]
    assert all(not len(some) for some in lists.rows(np.array([1])))


def test_dev_queries_are_out_of_training(examples: Examples, tmp_path: Path) -> None:
    queries = Queries(
        [str(n) for n in range(500)], np.zeros((500, 16), np.int64),
        Ragged.of([[n, n + 500] for n in range(500)]), Ragged.of([[] for _ in range(500)]),
    )  # fmt: skip
    left, dev = split_dev(examples, queries, examples.count, seed=1, out=tmp_path / "train.bin")
    held = {int(relevant[0]) for relevant in dev.relevant}
    assert len(held) == 50 and held == set(dev.rows.tolist())
    kept = left.read(0, left.count)
    assert held.isdisjoint(kept["query"].tolist())
    assert left.count == examples.count - sum(int(n) % 500 in held for n in range(examples.count))
    assert np.isin(np.concatenate(dev.relevant), dev.pool).all()


@pytest.mark.parametrize(("queries", "held"), [(2, 1), (183, 18), (2000, 200), (5000, 200), (9000, 270), (40000, 300)])
def test_a_tenth_is_held_out_where_a_few_per_cent_are_too_few(tmp_path: Path, queries: int, held: int) -> None:
    np.zeros(1, example_type(20)).tofile(tmp_path / "one.bin")
    nothing = Ragged.of([[]] * queries)
    known = Queries([""] * queries, np.zeros((queries, 16), np.int64), nothing, nothing)
    _, dev = split_dev(Examples(tmp_path / "one.bin", 20), known, 1, seed=1, out=tmp_path / "train.bin")
    assert len(dev.rows) == held


def test_pseudo_queries_are_mixed_into_every_batch(tmp_path: Path) -> None:
    records = np.zeros(1000, example_type(20))
    records["query"], records["target_item"] = np.arange(1000), np.arange(1000)
    records["kind"] = np.where(np.arange(1000) < 100, JUDGED, PSEUDO)
    records.tofile(tmp_path / "examples.bin")
    nothing = Ragged.of([[]] * 1000)
    queries = Queries([""] * 1000, np.zeros((1000, 16), np.int64), nothing, nothing, real=np.arange(1000) < 100)
    examples = Examples(tmp_path / "examples.bin", 20)
    mixed, dev = split_dev(examples, queries, 1000, 1, tmp_path / "train.bin", pseudo_share=0.75)
    assert len(dev.rows) == 10 and (dev.rows < 100).all()
    assert mixed.count == 90 and mixed.steps(64) == 900 // 48
    batches = list(mixed.batches(64, seed=3, epoch=0))
    assert len(batches) == mixed.steps(64)
    for batch in batches:
        assert len(batch) == 64 and (batch["kind"] == PSEUDO).sum() == 48
        assert not np.isin(batch["query"], dev.rows).any()
    made = np.concatenate([batch["query"][batch["kind"] == PSEUDO] for batch in batches])
    assert len(set(made.tolist())) == len(made)  # each once an epoch
    later = list(mixed.batches(64, seed=3, epoch=0, skip=5))
    assert all(np.array_equal(a, b) for a, b in zip(batches[5:], later, strict=True))
    assert not np.array_equal(next(mixed.batches(64, seed=3, epoch=1)), batches[0])
    few = next(mixed.batches(512, seed=3, epoch=0))  # more than there are of either: some come twice
    assert (few["kind"] == JUDGED).sum() == 128


@pytest.mark.parametrize("real, pseudo", [(100, 90), (999, 0), (2500, 0)])
def test_pseudo_queries_fill_up_what_is_held_out(tmp_path: Path, real: int, pseudo: int) -> None:
    count = real + 900 if pseudo else real + 1
    records = np.zeros(count, example_type(20))
    records["query"], records["kind"] = np.arange(count), np.where(np.arange(count) < real, JUDGED, PSEUDO)
    records.tofile(tmp_path / "examples.bin")
    nothing, known = Ragged.of([[]] * count), np.arange(count) < real
    queries = Queries([""] * count, np.zeros((count, 16), np.int64), nothing, nothing, real=known)
    examples, out = Examples(tmp_path / "examples.bin", 20), tmp_path / "train.bin"
    mixed, dev = split_dev(examples, queries, 1000, 1, out, pseudo_share=0.75, fill=True)
    assert (dev.rows >= real).sum() == pseudo  # a tenth of them at most
    assert (dev.rows < real).sum() == min(200, round(0.1 * real))
    assert isinstance(mixed, MixedExamples) and mixed.count == real - min(200, round(0.1 * real))
    assert not np.isin(mixed.pseudo.read(0, count)["query"], dev.rows).any()
    assert mixed.pseudo.count == count - real - pseudo


def test_one_query_alone_cannot_be_split(examples: Examples, tmp_path: Path) -> None:
    nothing = Ragged.of([[]])
    alone = Queries(["mug"], np.zeros((1, 16), np.int64), nothing, nothing)
    with pytest.raises(InputError, match="all examples have the same query"):
        split_dev(examples, alone, examples.count, seed=1, out=tmp_path / "train.bin")


def shard_of(path: Path, *rows: dict[str, Any]) -> Path:
    nothing = {"timestamp": 0, "user_id": "", "search_id": "", "history_items": [], "history_kind": []}
    nothing |= {"history_age": [], "hard": [], "known": [], "skipped": []}
    pq.write_table(pa.Table.from_pylist([nothing | row for row in rows], EXAMPLE_SCHEMA), path)
    return path


def test_a_query_is_one_however_it_is_spelt(tmp_path: Path) -> None:
    """Else "mug" among its item's own queries would tell the example "Mug" what to answer."""
    tokenizer = train_tokenizer(["steel mug", "mug"] * 3, 40)
    shard = shard_of(
        tmp_path / "train.parquet",
        {"query": "Mug", "target_item": 1, "kind": JUDGED, "known": [1, 4], "hard": [2]},
        {"query": "cup", "target_item": 3, "kind": PSEUDO, "known": [3]},
        {"query": " mug", "target_item": 4, "kind": 0, "known": [1, 4], "hard": [2]},
        {"query": "Cup", "target_item": 5, "kind": 0, "known": [5, 6], "hard": [7]},
    )
    size = ModelConfig(vocab_size=tokenizer.get_vocab_size())
    examples, queries = build_examples([shard], tmp_path / "examples.bin", tokenizer, size, TrainConfig())
    assert queries.texts == ["Mug", "cup"]
    assert examples.read(0, 4)["query"].tolist() == [0, 1, 0, 1]
    # What a search knows of its query is not lost where a span of a title reads the same.
    assert [queries.known[row].tolist() for row in (0, 1)] == [[1, 4], [3, 5, 6]]
    assert [queries.hard[row].tolist() for row in (0, 1)] == [[2], [7]]
    assert queries.real.tolist() == [True, True] and queries.misspelt is None
    wrong = build_examples([shard], tmp_path / "examples.bin", tokenizer, size, TrainConfig(), True)[1].misspelt
    assert wrong is not None and np.array_equal(wrong, queries.tokens)  # too short to be misspelt


def test_misspelt_queries_have_tokens_of_their_own(tmp_path: Path) -> None:
    tokenizer = train_tokenizer(["steel refrigerator", "mug"] * 3, 60)
    texts = ["refrigerator", "mug", "steel refrigerator"]
    rows = [{"query": text, "target_item": n, "kind": JUDGED, "known": [n]} for n, text in enumerate(texts)]
    shard = shard_of(tmp_path / "train.parquet", *rows)
    size = ModelConfig(vocab_size=tokenizer.get_vocab_size())
    _, queries = build_examples([shard], tmp_path / "examples.bin", tokenizer, size, TrainConfig(), True)
    assert queries.misspelt is not None and queries.misspelt.shape == queries.tokens.shape
    assert (queries.misspelt != queries.tokens).any(1).tolist() == [True, False, True]


def test_dev_queries_do_not_tell_items_that_they_are_relevant() -> None:
    nothing = Ragged.of([[], [], []])
    queries = Queries(["Red dress", "mug", "gown"], np.zeros((3, 16), np.int64), nothing, nothing)
    dev = Dev(np.array([0]), np.zeros((1, 16)), [np.array([1])], np.array([1]))
    rows = item_query_rows([["red dress", "gown"], ["red dress"], ["mug", "never trained on"]], queries, dev)
    assert [rows[item].tolist() for item in range(3)] == [[2], [], [1]]


def test_dev_ndcg_by_hand(examples: Examples, tmp_path: Path) -> None:
    dev = Dev(np.zeros(1, np.int64), np.zeros((1, 16)), [np.array([10, 30])], np.array([10, 20, 30]))
    ideal = 1 + 1 / np.log2(3)
    assert dev.ndcg(np.array([[0, 1, 2]])) == pytest.approx((1 + 1 / np.log2(4)) / ideal)
    assert dev.ndcg(np.array([[2, 0, 1]])) == pytest.approx(1.0)


def test_history_weights_are_the_same_in_training_and_in_serving() -> None:
    train = TrainConfig()
    manifest = Manifest(
        "mrse-1", "", 8, "prenormalized-angular", 16, 64, ("title",), 20, 8, train.event_weights, train.half_life_days,
        {}, TokenizerFile("tokenizer.json", "", 4), {},
    )  # fmt: skip
    ages = [0.0, 86400.0 * 30, 86400.0 * 60]
    serving = event_weight(["click", "cart", "order"], ages, manifest)
    assert history_weight(np.array([0, 1, 2]), np.array(ages), train).tolist() == pytest.approx(serving.tolist())
    assert serving.tolist() == pytest.approx([1.0, 1.0, 0.75])


def test_rows_of_like_length_are_encoded_together_and_come_back_in_their_order() -> None:
    lengths, met = np.array([3, 0, 0, 5, 0, 1]), list[list[int]]()

    def encode(some: np.ndarray) -> torch.Tensor:
        met.append(sorted(lengths[some].tolist()))
        return torch.from_numpy(some * 10)

    assert by_length(lengths, encode, parts=2).tolist() == [0, 10, 20, 30, 40, 50]
    assert met == [[0, 0, 0], [1, 3, 5]]


def test_rows_of_some_values_alone() -> None:
    some = Ragged.of([[3, 0, 1], [], [2], [0, 3]]).where(np.array([True, False, False, True]))
    assert [some[row].tolist() for row in range(len(some))] == [[3, 0], [], [], [0, 3]]
