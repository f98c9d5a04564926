"""FastText's vectors of the vocabulary's tokens: n-grams 2 to 4, one scale, reproducible."""

from __future__ import annotations

import gensim.models
import numpy as np
import pytest

from mrse_model.config import ModelConfig
from mrse_model.serving.texts import SPECIAL
from mrse_model.training.ngrams import token_vectors
from mrse_model.training.tokenizer import train_tokenizer

TEXTS = ["striped shirt", "stripes on a shirt", "steel mug", "a mug of steel", "red shirt", "red mug"] * 20


def test_pieces_of_the_same_ngrams_are_near() -> None:
    tokenizer, size = train_tokenizer(TEXTS, 300), ModelConfig()
    table = token_vectors(tokenizer, TEXTS, 24, size.ngram_min, size.ngram_max)
    place = tokenizer.get_vocab()
    assert table.shape == (tokenizer.get_vocab_size(), 24) and table.dtype == np.float32
    assert not table[[place[token] for token in SPECIAL]].any()
    assert np.sqrt(np.square(table[table.any(1)]).mean()) == pytest.approx(1, rel=0.05)

    def cosine(a: str, b: str) -> float:
        x, y = table[place["▁" + a]], table[place["▁" + b]]
        return float(x @ y / np.linalg.norm(x) / np.linalg.norm(y))

    assert cosine("striped", "stripes") > cosine("striped", "mug") + 0.1
    assert np.array_equal(table, token_vectors(tokenizer, TEXTS, 24, size.ngram_min, size.ngram_max))


def test_the_ngrams_are_those_of_the_paper(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, object] = {}
    real = gensim.models.FastText

    def told(**settings: object) -> gensim.models.FastText:
        asked.update(settings)
        return real(**settings)

    monkeypatch.setattr(gensim.models, "FastText", told)
    size = ModelConfig()
    token_vectors(train_tokenizer(TEXTS, 300), TEXTS, size.ngram_dims, size.ngram_min, size.ngram_max)
    assert (asked["min_n"], asked["max_n"], asked["vector_size"]) == (2, 4, 256)
