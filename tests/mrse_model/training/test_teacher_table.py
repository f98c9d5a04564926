"""FtAtt's table from a teacher: its axes, its weights, the n-grams that it is trained with and that are folded in."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mrse_model.config import ModelConfig
from mrse_model.experts import NGrams
from mrse_model.serving.texts import SPECIAL
from mrse_model.training.loop import _optimizers
from mrse_model.training.teacher.table import (
    hashed_ngrams,
    principal_axes,
    rotation,
    token_table,
    token_texts,
    whole_words,
)
from mrse_model.training.tokenizer import train_tokenizer

TEXTS = ["striped shirt", "stripes on a shirt", "steel mug", "a mug of steel", "red shirt SC-141"] * 3


def test_axes_keep_cosines_of_vectors_that_lie_in_few_directions() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(500, 3)) @ rng.normal(size=(3, 20)) + 0.5 * np.ones(20)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    axes = principal_axes(vectors.astype(np.float16), 4)
    found = vectors @ axes
    assert np.allclose(axes.T @ axes, np.eye(4), atol=1e-5)
    assert np.allclose(found @ found.T, vectors @ vectors.T, atol=1e-2)


def test_a_common_token_weighs_less() -> None:
    vectors = np.ones((8, 3), np.float32)
    items = np.array([[5, 6, 6], [5, 0, 0], [5, 7, 0]] * 40, np.int32)
    table = token_table(vectors, np.eye(3, dtype=np.float32), items)
    norms = np.linalg.norm(table, axis=1)
    assert not norms[: len(SPECIAL)].any()
    assert norms[4] > norms[6] == norms[7] > norms[5]  # in no item, in a third, in all of them
    assert norms[4] / norms[5] == pytest.approx((0.01 + 1) / 0.01, rel=1e-4)
    assert np.sqrt((table[len(SPECIAL) :] ** 2).mean()) == pytest.approx(1)


def test_ngrams_are_shared_and_marked_at_a_words_ends() -> None:
    tokenizer = train_tokenizer(TEXTS, 300, min_count=1)
    words = whole_words(tokenizer, TEXTS)
    assert {"striped", "stripes", "sc", "141"} <= words
    grams, place = hashed_ngrams(tokenizer, words, buckets=1 << 20), tokenizer.get_vocab()

    def of(token: str) -> set[int]:
        return set(grams[place[token]].tolist())

    assert len(of("▁striped") & of("▁stripes")) == 9  # <st str tri rip ipe <str stri trip ripe
    assert len(of("▁mug")) == 5  # <mu mug ug> <mug mug>
    assert not len(grams[place["[CLS]"]]) and token_texts(tokenizer)[place["▁mug"]] == "mug"
    cut = hashed_ngrams(tokenizer, words - {"mug"}, buckets=1 << 20)
    assert set(cut[place["▁mug"]].tolist()) < of("▁mug")  # <mu mug <mug: it goes on


def small_table(sparse: bool) -> tuple[NGrams, torch.Tensor]:
    torch.manual_seed(0)
    tokenizer = train_tokenizer(TEXTS, 300)
    size = ModelConfig(vocab_size=tokenizer.get_vocab_size(), dims=8, ngram_dims=8)
    ngrams = NGrams(size)
    ngrams.start_from_teacher(np.random.default_rng(0).normal(size=(size.vocab_size, 8)).astype(np.float32))
    grams = hashed_ngrams(tokenizer, whole_words(tokenizer, TEXTS), 64)
    ngrams.add_hashed(grams.start, grams.values, 64, sparse)
    shirt, mug, steel = (tokenizer.token_to_id(f"▁{word}") for word in ("shirt", "mug", "steel"))
    return ngrams, torch.tensor([[shirt, mug, mug, 0], [steel, 0, 0, 0]])


@pytest.mark.parametrize("sparse", [True, False])
def test_what_is_trained_is_folded_into_the_rows(sparse: bool) -> None:
    ngrams, ids = small_table(sparse)
    mask, before = (ids != 0).long(), ngrams.table.weight.detach().clone()
    start = ngrams.mean(ids, mask).detach()
    assert torch.allclose(start[1], before[ids[1, 0]], atol=1e-6)  # n-grams start at 0, and nothing is projected
    optimizers = _optimizers(ngrams, 1e-2)
    assert len(optimizers) == (2 if sparse else 1)
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = 1e-2
    ngrams.mean(ids, mask).square().sum().backward()
    for optimizer in optimizers:
        optimizer.step()
    assert ngrams.hashed is not None and ngrams.hashed.weight.any()
    trained = ngrams.mean(ids, mask).detach()
    assert not torch.allclose(trained, start, atol=1e-3)
    ngrams.fold_hashed()
    assert ngrams.hashed is None and "hashed.weight" not in ngrams.state_dict()
    assert torch.allclose(ngrams.mean(ids, mask), trained, atol=1e-5)
    other = [row for row in range(len(before)) if row not in ids.tolist()[0] + ids.tolist()[1]]
    assert not torch.equal(ngrams.table.weight[other], before[other])  # tokens of the same n-grams have learnt, too


def test_a_rotation_is_found() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(50, 4)).astype(np.float32)
    turn = np.linalg.qr(rng.normal(size=(4, 4)))[0].astype(np.float32)
    assert np.allclose(rotation(vectors, vectors @ turn), turn, atol=1e-4)
