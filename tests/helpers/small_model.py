"""An untrained model of the smallest size."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from mrse_model.config import Config, ModelConfig
from mrse_model.model import MRSE
from mrse_model.training.tokenizer import train_tokenizer

TITLES = ["Red cotton dress", "Blue denim jacket", "Red leather shoes", "Green cotton shirt"] * 3


def small(**changes: object) -> MRSE:
    tokenizer = train_tokenizer(TITLES, 200)
    size = ModelConfig(vocab_size=tokenizer.get_vocab_size(), bert_dims=32, bert_heads=2, ngram_dims=16, image_dims=12)
    torch.manual_seed(0)
    model = MRSE(Config(model=replace(size, **changes)), tokenizer)  # type: ignore[arg-type]
    table = np.random.default_rng(0).normal(size=(size.vocab_size, 16)).astype(np.float32)
    table[:4] = 0
    model.ngrams.start(table)
    torch.nn.init.normal_(model.query.preference.weight, std=0.02)  # training finds it last
    return model.eval()
