"""Token ids: the same as Vespa's embedder makes, cut to the limit, never empty; a frequent word is one token."""

from __future__ import annotations

import random

import pytest
from tokenizers import Tokenizer

from mrse_model.errors import InputError
from mrse_model.serving.texts import CLS, SEP, token_lists, token_matrix
from mrse_model.training.tokenizer import train_tokenizer

TEXTS = ["Nike running shoes", "Nike red T-shirt", "Mother Earth kurta 12.5 cm", "running shorts"] * 4


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(TEXTS, 120)


def test_special_tokens_have_the_contract_s_ids(tokenizer: Tokenizer) -> None:
    assert [tokenizer.token_to_id(t) for t in ("[PAD]", "[UNK]", "[CLS]", "[SEP]")] == [0, 1, 2, 3]


def test_ids_are_what_the_post_processor_makes(tokenizer: Tokenizer) -> None:
    """Vespa's embedder adds CLS and SEP by the tokenizer's own post-processor and then cuts to max-tokens."""
    text = "nike running shoes"
    assert token_lists(tokenizer, [text], 16)[0] == tokenizer.encode(text).ids


def test_a_long_text_keeps_cls_and_sep(tokenizer: Tokenizer) -> None:
    ids, mask = token_matrix(tokenizer, ["running shoes " * 40, "", "nike"], 16)
    assert ids.shape == (3, 16) and mask.sum(1).tolist()[:2] == [16, 2]
    assert ids[0, 0] == CLS and ids[0, -1] == SEP and ids[1, :3].tolist() == [CLS, SEP, 0]


def test_a_frequent_word_in_one_form_is_one_piece(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode("NIKE kurta").tokens == ["[CLS]", "▁nike", "▁kurta", "[SEP]"]


def test_user_text_cannot_make_special_tokens(tokenizer: Tokenizer) -> None:
    assert not {0, CLS, SEP} & set(tokenizer.encode("[CLS] [SEP] [PAD]", add_special_tokens=False).ids)


def test_no_words_at_all_is_an_input_error() -> None:
    with pytest.raises(InputError, match="no text to learn a vocabulary from"):
        train_tokenizer(["  ", ""], 100)


def test_too_small_a_vocabulary_names_the_setting() -> None:
    with pytest.raises(InputError, match=r"field model\.vocab_size: 8 tokens are too few .*30,000 is the paper's"):
        train_tokenizer(TEXTS, 8)


def test_the_same_texts_give_the_same_tokenizer() -> None:
    draw = random.Random(0)
    texts = [
        f"{draw.choice(('mug', 'sock'))} {draw.randrange(16**6):x} {draw.randrange(9999)}W/{draw.choice('ABC')}"
        for _ in range(1500)
    ]
    assert len({train_tokenizer(texts, 30_000).to_str() for _ in range(4)}) == 1
