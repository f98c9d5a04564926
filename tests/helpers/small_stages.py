"""An untrained model over five items, with all that the stages of training need."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from rich.console import Console

from mrse_model.config import Config, ModelConfig
from mrse_model.data.contract import Catalogue
from mrse_model.model import MRSE
from mrse_model.serving.texts import token_matrix
from mrse_model.training.corpus import Corpus, Dev
from mrse_model.training.dataset import Examples, Queries, example_type, tokenise_items
from mrse_model.training.frozen_vectors import FrozenVectors
from mrse_model.training.ragged import Ragged
from mrse_model.training.run_folder import Run
from mrse_model.training.stages import FusionStage
from mrse_model.training.tokenizer import train_tokenizer

TITLES = ["red summer dress", "steel mug 12oz", "blue denim jacket", "wool socks", "red wool hat"]
CATEGORIES = [["Clothes", "Dresses"], [], ["Clothes"], ["Clothes"], ["Clothes", "Hats"]]
QUERIES = ["red dress", "mug", "dress for summer", "red wool", "qqq"]
ITEM_QUERIES = [[0, 2, 3], [1], [], [3], [4, 3]]
KNOWN = [[0, 2], [1], [0], [3, 4], [4]]  # items that are right for each query
HARD = [[3], [], [2, 4], [0], []]
EXAMPLES = [(0, 0), (1, 1), (2, 0), (3, 3), (3, 4), (4, 4)]  # query, clicked item


def small_fusion(folder: Path) -> FusionStage:
    """The fusion of an untrained model over five items; its `vectors` and `fusion` hold what the other stages left."""
    torch.manual_seed(0)
    tokenizer = train_tokenizer(TITLES * 2 + QUERIES[:4] * 2, 120)
    size = ModelConfig(
        vocab_size=tokenizer.get_vocab_size(), dims=32, bert_layers=1, bert_heads=2, bert_dims=32, ngram_dims=16,
        dssm_hidden=32, image_dims=6, image_components=4,
    )  # fmt: skip
    model = MRSE(Config(model=size), tokenizer)
    model.ngrams.start(np.random.default_rng(1).normal(size=(size.vocab_size, 16)).astype(np.float32))
    for part in (model.item.dssm.out, model.item.image_residual, model.item.vbert.layers[-1]):
        torch.nn.init.normal_(part.weight, std=0.1)  # it starts at 0
    torch.nn.init.normal_(model.item.history.empty)
    features = np.random.default_rng(0).normal(size=(5, 6)).astype(np.float32)
    features[3] = np.nan
    model.adaptor.start(features[:3])
    ids = [f"i{row}" for row in range(len(TITLES))]
    catalogue = Catalogue(Path("items"), ids, TITLES, CATEGORIES, {item: row for row, item in enumerate(ids)})
    tokens = np.zeros((5, size.query_tokens), np.int64)
    some, _ = token_matrix(tokenizer, QUERIES, size.query_tokens)
    tokens[:, : some.shape[1]] = some
    queries = Queries(QUERIES, tokens, Ragged.of(KNOWN), Ragged.of(HARD))
    records = np.zeros(len(EXAMPLES), example_type(size.history_length))
    records["query"], records["target_item"] = np.array(EXAMPLES).T
    records["history_items"] = records["skipped"] = -1
    records["history_items"][:, :2], records["history_weight"][:, :2] = [[1, 4]] * len(EXAMPLES), 1
    records.tofile(folder / "examples.bin")
    corpus = Corpus(
        tokenise_items(catalogue, tokenizer, size), features, Ragged.of(ITEM_QUERIES), queries,
        Examples(folder / "examples.bin", size.history_length),
        Dev(np.zeros(1, int), tokens[:1], [np.array([0, 2])], np.arange(5)), np.array([3, 1, 0, 2, 1]),
    )  # fmt: skip
    run = Run(folder, model.config.train, Console(quiet=True))
    vectors = FrozenVectors(model, corpus, torch.device("cpu"), folder)
    vectors.embed_images()
    return FusionStage(run, vectors)
