"""The stages' cached vectors: an item is the same in training as in serving."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from rich.console import Console

from mrse_model.arrays import Dev, Queries, Ragged, tokenise_items
from mrse_model.config import Config, ModelConfig
from mrse_model.fit import Run
from mrse_model.model import MRSE
from mrse_model.stages import Corpus, Stages
from mrse_model.texts import token_matrix, train_tokenizer

TITLES = ["red summer dress", "steel mug 12oz", "blue denim jacket", "wool socks", "red wool hat"]
CATEGORIES = [["Clothes", "Dresses"], [], ["Clothes"], ["Clothes"], ["Clothes", "Hats"]]
QUERIES = ["red dress", "mug", "dress for summer", "red wool", "qqq"]
LED = [[0, 2, 3], [1], [], [3], [4, 3]]


@pytest.fixture
def stages(tmp_path: Path) -> Stages:
    torch.manual_seed(0)
    tokenizer = train_tokenizer(TITLES * 2 + QUERIES[:4] * 2, 120)
    size = ModelConfig(
        vocab_size=tokenizer.get_vocab_size(), dims=32, bert_layers=1, bert_heads=2, bert_dims=32, ngram_dims=16,
        dssm_hidden=32, image_dims=6, image_components=4,
    )  # fmt: skip
    model = MRSE(Config(model=size), tokenizer)
    model.ngrams.start(np.random.default_rng(1).normal(size=(size.vocab_size, 16)).astype(np.float32))
    for part in (model.item.dssm.out, model.item.detail, model.item.vbert.layers[-1]):
        torch.nn.init.normal_(part.weight, std=0.1)  # it starts at 0
    torch.nn.init.normal_(model.item.history.empty)
    features = np.random.default_rng(0).normal(size=(5, 6)).astype(np.float32)
    features[3] = np.nan
    model.adaptor.start(features[:3])
    catalogue = cast(Any, SimpleNamespace(titles=TITLES, categories=CATEGORIES))
    tokens = np.zeros((5, size.query_tokens), np.int64)
    some, _ = token_matrix(tokenizer, QUERIES, size.query_tokens)
    tokens[:, : some.shape[1]] = some
    nothing = Ragged.of([[]] * 5)
    corpus = Corpus(
        tokenise_items(catalogue, tokenizer, size), features, Ragged.of(LED),
        Queries(QUERIES, tokens, nothing, nothing), cast(Any, None),
        Dev(np.zeros(1, int), tokens[:1], [], np.arange(5)), np.zeros(5),
    )  # fmt: skip
    stages = Stages(Run(tmp_path, model.config.train, Console(quiet=True)), model, corpus)
    rows = np.arange(5)
    with torch.no_grad():
        stages.images[rows] = stages._adapt(rows) * stages.has_image
    stages.freeze_texts()
    stages.refresh_cached()
    return stages


def test_an_item_is_the_same_in_training_and_in_serving(stages: Stages) -> None:
    model, rows = stages.model, np.array([4, 0, 3, 1, 2])
    with torch.no_grad():
        ours = model.item.fuse(*stages.item_inputs(rows), stages.detail(rows)).numpy()
    led = [[QUERIES[query] for query in some] for some in LED]
    theirs = model.item_vectors(TITLES, CATEGORIES, stages.corpus.features, led).embedding
    assert np.allclose(ours, theirs[rows], atol=1e-5)
    alone = model.item_vectors(TITLES, CATEGORIES, stages.corpus.features).embedding
    assert np.allclose(alone[2], theirs[2], atol=1e-6) and np.abs(alone - theirs)[[0, 1, 3, 4]].max(1).min() > 1e-3


def test_an_example_s_own_query_does_not_tell_its_item(stages: Stages) -> None:
    rows, own = np.array([0, 1]), np.array([2, 1])
    *_, weight = stages.item_inputs(rows, own)
    assert weight[:, :3].tolist() == [[1, 0, 1], [0, 0, 0]] and not weight[:, 3:].any()
