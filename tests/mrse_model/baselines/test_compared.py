"""What the baselines learn from is what MRSE learnt from, and all of them come out."""

from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, ClassVar
from unittest.mock import Mock

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

pytest.importorskip("torch")

from mrse_model.baselines.compared import DSSM_ALPHA, FASTTEXT, MINILM, TRANSFORMER, TWO_TOWER, baselines
from mrse_model.baselines.experts import TextTwoTower
from mrse_model.baselines.two_tower import TrainedTwoTower
from mrse_model.config import Config, overlay, write_config
from mrse_model.data.contract import read_catalogue
from mrse_model.data.example_files import EXAMPLE_SCHEMA, training_pairs
from mrse_model.errors import InputError
from mrse_model.model import CONFIG
from mrse_model.training.tokenizer import train_tokenizer

TITLES = ["Red dress", "Blue dress", "Red shoe", "Blue shoe"]


def example(query: str, item: int, hard: list[int]) -> dict[str, object]:
    lists = {"history_items": [], "history_kind": [], "history_age": [], "known": []}
    return {
        "query": query, "target_item": item, "kind": 0, "timestamp": 0, "user_id": "", "search_id": "",
        "hard": hard, **lists,
    }  # fmt: skip


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run's cache, as training leaves it."""
    cache = tmp_path / "run" / "cache"
    (cache / "examples").mkdir(parents=True)
    rows = [example("red dress", 0, [1, 2]), example("red dress", 0, [3]), example("red dress", 2, []),
            example("blue", 1, [1, 0])]  # fmt: skip
    pq.write_table(pa.Table.from_pylist(rows, EXAMPLE_SCHEMA), cache / "examples" / "train-00000.parquet")
    tokenizer = train_tokenizer(TITLES, 60)
    tokenizer.save(str(cache / "tokenizer.json"))
    np.save(cache / "ngrams.npy", np.random.default_rng(0).normal(size=(tokenizer.get_vocab_size(), 8)).astype("f4"))
    pq.write_table(pa.table({"item_id": list("abcd"), "title": TITLES}), tmp_path / "items.parquet")
    write_config(Config(), tmp_path / "run" / CONFIG)
    return tmp_path / "run"


def test_pairs_are_the_run_s_examples_and_no_positive_is_a_near_miss(run: Path) -> None:
    pairs = training_pairs(run / "cache" / "examples")
    assert pairs.queries == ["red dress", "blue"]
    assert [rows.tolist() for rows in pairs.positives] == [[0, 2], [1]]
    assert [rows.tolist() for rows in pairs.negatives] == [[1, 3], [0]]


def test_a_folder_without_examples_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="mrse train"):
        training_pairs(tmp_path)


def test_every_baseline_ranks_the_whole_catalogue(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mrse_model.baselines.compared.minilm_folder", lambda: None)
    said: list[str] = []
    catalogue = read_catalogue(run.parent / "items.parquet")
    rankers = baselines(run, catalogue, None, 0.05, 0.05, said.append)
    assert [r.name for r in rankers] == [FASTTEXT, TRANSFORMER, DSSM_ALPHA, TWO_TOWER]
    for ranker in rankers:
        assert sorted(ranker.search(["red dress"], 4).rows[0].tolist()) == [0, 1, 2, 3]
    assert any("MiniLM is not installed" in line for line in said)


def test_what_was_trained_is_read_by_the_next_call(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mrse_model.baselines.compared.minilm_folder", lambda: None)
    catalogue = read_catalogue(run.parent / "items.parquet")

    def vectors(seconds: float = 0.05) -> tuple[list[str], list[np.ndarray]]:
        said: list[str] = []
        found = [
            r.search(["red dress"], 4).scores for r in baselines(run, catalogue, None, seconds, seconds, said.append)
        ]
        return said, found

    said, first = vectors()
    with monkeypatch.context() as patch:
        for tower in (TextTwoTower, TrainedTwoTower):
            patch.setattr(tower, "fit", lambda *_, **__: pytest.fail("trained again"))
        again, second = vectors()
    assert said == again and all(map(np.array_equal, first, second))
    with monkeypatch.context() as patch:
        patch.setattr(TrainedTwoTower, "fit", Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            vectors(0.06)
    assert len(list((run / "cache").glob("baseline-*.pt"))) == 3 + 2  # what was finished before the kill stays
    vectors(0.06)
    assert len(list((run / "cache").glob("baseline-*.pt"))) == 3 + 3


def test_without_fasttext_s_vectors_there_is_no_mean_of_them(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mrse_model.baselines.compared.minilm_folder", lambda: None)
    write_config(overlay(Config(), {"model": {"ngrams": "off"}}), run / CONFIG)
    said: list[str] = []
    rankers = baselines(run, read_catalogue(run.parent / "items.parquet"), None, 0.05, 0.05, said.append)
    assert FASTTEXT not in [r.name for r in rankers] and "the run has no vectors of FastText" in said[0]


class Lengths:
    """Stands in for MiniLM: the vector of a text is its length; `encoded` are the texts of each call."""

    encoded: ClassVar[list[list[str]]] = []

    def vectors(self, texts: list[str]) -> np.ndarray:
        self.encoded.append(list(texts))
        return np.array([[len(text)] for text in texts], np.float32)


@pytest.fixture
def minilm(run: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], list[int]]:
    """The lengths that are kept for a title column."""
    monkeypatch.setattr("mrse_model.baselines.compared.minilm_folder", lambda: run)
    monkeypatch.setattr("mrse_model.baselines.compared.MiniLM", Lengths)
    monkeypatch.setattr(Lengths, "encoded", [])
    items = run.parent / "items.parquet"
    pq.write_table(pq.read_table(items).append_column("short", [["a", "bb", "c", "d"]]), items)

    def kept(title: str) -> list[int]:
        rankers = baselines(run, read_catalogue(items, title=title), None, 0.01, 0.01, lambda line: None)
        return next(r.items[:, 0].astype(int).tolist() for r in rankers if r.name == MINILM)

    return kept


def test_minilm_s_vectors_are_kept_for_the_texts_they_are_of(minilm: Callable[[str], list[int]]) -> None:
    lengths = [len(title) for title in TITLES]
    assert [minilm("title"), minilm("title"), minilm("short"), minilm("title")] == [
        lengths,
        lengths,
        [1, 2, 1, 1],
        lengths,
    ]
    assert Lengths.encoded == [TITLES, ["a", "bb", "c", "d"]]


def test_a_kill_leaves_no_half_file_of_vectors(
    minilm: Callable[[str], list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(file: BinaryIO, array: np.ndarray) -> None:
        file.write(b"half a file")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(np, "save", killed)
        minilm("short")
    assert minilm("short") == [1, 2, 1, 1]
