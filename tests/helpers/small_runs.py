"""Settings that train in seconds, and what a run logged."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from mrse_model.config import Config, overlay, preset, write_config


def settings(path: Path, images: bool = False, **train: object) -> Path:
    """Every stage as small as it can be, an evaluation every five steps, no images (their encoder would cost)."""
    tiny = preset("tiny")
    stages = {
        name: replace(getattr(tiny.train, name), max_steps=steps, batch=64, extra_negatives=16)
        for name, steps in (("adaptor", 5), ("ft_att", 5), ("light_bert", 30), ("vbert", 5), ("dssm", 10))
    }
    model = replace(
        tiny.model, vocab_size=600, bert_dims=32, ngrams="off", ngram_dims=32, dssm_hidden=64, use_images=images
    )
    config = replace(tiny, model=model, train=replace(tiny.train, evaluate_every=5, threads=1, **{**stages, **train}))
    write_config(config, path)
    return path


def curve(folder: Path) -> list[dict[str, float]]:
    """The log's lines, without how fast it went."""
    rows = [json.loads(line) for line in (folder / "log.jsonl").read_text("utf-8").splitlines()]
    return [{k: v for k, v in row.items() if k != "examples_per_second"} for row in rows]


def few_steps() -> Config:
    """The tiny preset made smaller, two steps a stage."""
    stages = ("adaptor", "ft_att", "light_bert", "vbert", "dssm")
    brief = {"max_steps": 2, "batch": 32, "extra_negatives": 8}
    model = {"vocab_size": 500, "bert_dims": 16, "ngram_dims": 16, "dssm_hidden": 32, "dims": 32}
    train_settings: dict[str, Any] = dict.fromkeys(stages, brief) | {"evaluate_every": 1, "threads": 1}
    return overlay(preset("tiny"), {"model": model, "train": train_settings})
