"""The preference: ridge regression in blocks, and a planted preference that it finds and that helps."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: E402
from rich.console import Console  # noqa: E402
from torch import Tensor  # noqa: E402

from mrse_model.config import Config, ModelConfig, TrainConfig  # noqa: E402
from mrse_model.experts import UserPreference  # noqa: E402
from mrse_model.training.dataset import Examples, example_type  # noqa: E402
from mrse_model.training.preference import _choice, _recall, _Regression, fit_preference  # noqa: E402
from mrse_model.training.run_folder import Run  # noqa: E402

DIMS, TYPES, ITEMS, HISTORY = 16, 4, 800, 5


def test_the_ridge_in_blocks_is_the_ridge_at_once() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(50, 3)), rng.normal(size=(50, 2)) + 5
    regression = _Regression(3, 2)
    for rows in np.array_split(np.arange(50), 4):
        regression.add(torch.tensor(x[rows]), torch.tensor(y[rows]))
    weight, bias = regression.solve(7.0)
    centred = x - x.mean(0)
    want = np.linalg.solve(centred.T @ centred + 7 * np.eye(3), centred.T @ y)
    assert weight.numpy() == pytest.approx(want.T, abs=1e-3)
    assert bias.numpy() == pytest.approx(y.mean(0) - x.mean(0) @ want, abs=1e-3)


def test_a_choice_is_the_clicked_item_less_the_mean_of_the_skipped() -> None:
    rows = np.zeros(1, example_type(HISTORY))
    rows["target_item"], rows["skipped"] = 3, -1
    rows["skipped"][0, :2] = 0, 2
    vectors = torch.arange(4.0).unsqueeze(1).expand(4, 2)
    assert _choice(rows, vectors).tolist() == [[2, 2]]


def test_recall_counts_items_that_fewer_than_twenty_beat() -> None:
    others = torch.linspace(0, 0.95, 20).unsqueeze(1)  # 20 values, 0.05 apart
    assert _recall(torch.ones(3, 1), torch.tensor([[-1.0], [0.01], [1.0]]), others) == pytest.approx(2 / 3)


def test_means_read_entries_and_images_that_are_there() -> None:
    texts = torch.tensor([[[1.0, 0], [0, 1], [9, 9]]])
    images = torch.tensor([[[0.0, 0], [0, 2], [9, 9]]])
    assert UserPreference.means(texts, images, torch.tensor([[0.2, 3.0, 0]])).tolist() == [[0.5, 0.5, 0, 2]]
    assert UserPreference.means(texts, images, torch.zeros(1, 3)).tolist() == [[0, 0, 0, 0]]


def quiet_run(folder: Path) -> Run:
    return Run(folder, TrainConfig(), Console(quiet=True))


def shop(folder: Path, clicks: int, preference: float) -> tuple[Any, Tensor]:
    """What fit_preference reads of the fusion: items of four types in two styles, users who click their style
    `preference` times as often. The second value: each item's style, 1 or -1.
    """
    rng = np.random.default_rng(0)
    style = rng.choice([-1.0, 1.0], ITEMS)
    kind = rng.integers(TYPES, size=ITEMS)
    types, direction = np.eye(TYPES, DIMS), np.eye(DIMS)[-1]
    vectors = types[kind] + 0.3 * style[:, None] * direction + 0.2 * rng.normal(size=(ITEMS, DIMS))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    texts = style[:, None] * np.eye(DIMS)[0] + rng.normal(size=(ITEMS, DIMS))
    rows = np.zeros(clicks, example_type(HISTORY))
    rows["history_items"], rows["skipped"], rows["history_weight"] = -1, -1, 1
    for row in rows:
        mine = rng.choice([-1.0, 1.0])
        like = np.where(style == mine, preference, 1)
        row["history_items"] = rng.choice(ITEMS, HISTORY, p=like / like.sum())
        row["query"] = rng.integers(TYPES)
        shown = rng.choice(np.flatnonzero(kind == row["query"]), 8, replace=False)
        row["target_item"] = chosen = rng.choice(shown, p=like[shown] / like[shown].sum())
        row["skipped"][:7] = shown[shown != chosen]
    rows.tofile(folder / "train.bin")
    text_features, config = torch.tensor(texts, dtype=torch.float32), Config(model=ModelConfig(dims=DIMS))
    preference = UserPreference(config.model)
    query = SimpleNamespace(preference=preference, fuse=lambda texts, *history: F.normalize(texts[:, 0], dim=-1))

    def histories(some: np.ndarray, weight: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
        entries = text_features[some["history_items"].astype(np.int64)]
        return entries, torch.zeros_like(entries), torch.tensor(weight.copy())

    base = SimpleNamespace(
        device=torch.device("cpu"), histories=histories, event_weights=lambda some: some["history_weight"],
        no_history=lambda n: (),
    )  # fmt: skip
    fusion = SimpleNamespace(
        base=base, model=SimpleNamespace(query=query), config=config,
        corpus=SimpleNamespace(examples=Examples(folder / "train.bin", HISTORY)),
        query_texts=torch.tensor(types, dtype=torch.float32).unsqueeze(1),
        all_items=lambda: torch.tensor(vectors, dtype=torch.float32),
    )  # fmt: skip
    return fusion, torch.tensor(style, dtype=torch.float32)


def test_a_planted_preference_is_found(tmp_path: Path) -> None:
    fusion, style = shop(tmp_path, clicks=3000, preference=6.0)
    fit_preference(quiet_run(tmp_path), cast(Any, fusion))
    (row,) = [line for line in (tmp_path / "log.jsonl").read_text().splitlines() if '"preference"' in line]
    found = json.loads(row)
    assert found["scale"] > 0 and found["recall"] > found["without"] + 0.05
    # Someone who clicked one style is moved towards the items of that style.
    liked = np.zeros(1, example_type(HISTORY))
    liked["history_items"] = np.flatnonzero(style.numpy() > 0)[:HISTORY]
    liked["history_weight"] = 1
    moved = fusion.model.query.preference(*fusion.base.histories(liked, liked["history_weight"]))[0]
    assert moved[-1] > 0.1 and moved[-1] > moved[:-1].abs().max()


def test_without_enough_clicks_there_is_no_taste(tmp_path: Path) -> None:
    fusion, _ = shop(tmp_path, clicks=900, preference=6.0)
    fit_preference(quiet_run(tmp_path), cast(Any, fusion))
    assert not fusion.model.query.preference.weight.any() and not fusion.model.query.preference.bias.any()


def test_where_users_click_at_random_next_to_nothing_is_found(tmp_path: Path) -> None:
    fusion, _ = shop(tmp_path, clicks=3000, preference=1.0)
    fit_preference(quiet_run(tmp_path), cast(Any, fusion))
    assert fusion.model.query.preference.weight.abs().max() < 0.1
