"""The tokenizer of a catalogue: a unigram vocabulary learnt from its texts and queries."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from mrse_model.config import ModelConfig
from mrse_model.errors import InputError
from mrse_model.serving.texts import CLS, SEP, SPECIAL, UNK


def train_tokenizer(texts: Sequence[str], vocab_size: int, min_count: int = 2) -> Tokenizer:
    """A SentencePiece-style unigram tokenizer (paper §Methodology: 30k tokens), lower-cased, as Vespa's tokenizer
    reads it.

    Half the vocabulary is the trainer's tokens, the rest the most frequent whole words, those that occur `min_count`
    times or more: the trainer takes its first tokens from the list of distinct words, so a word that occurs in one form
    only ("nike") would never become a token of its own.

    Raises InputError when the texts hold no word at all.
    """
    normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    # "x/y", "a-b" and "t-shirt" fall into words and marks; digits stay together (sizes, model numbers).
    splitter = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation(), pre_tokenizers.Metaspace()]
    )

    def empty(model: models.Unigram) -> Tokenizer:
        tokenizer = Tokenizer(model)
        tokenizer.normalizer, tokenizer.pre_tokenizer, tokenizer.decoder = normalizer, splitter, decoders.Metaspace()
        return tokenizer

    words: Counter[str] = Counter()
    for text in texts:
        words.update(word for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text)))
    if not words:
        raise InputError(
            "no text to learn a vocabulary from", field="title", fix="Give items whose titles are not blank"
        )
    trainer = trainers.UnigramTrainer(
        vocab_size=vocab_size // 2,
        special_tokens=list(SPECIAL),
        unk_token="[UNK]",
        show_progress=False,
        max_piece_length=16,
    )
    learner = empty(models.Unigram())
    try:
        learner.train_from_iterator(iter(texts), trainer)
    except Exception as error:  # tokenizers has no class of its own for it
        fix = f"Give more: {ModelConfig.vocab_size:,} is the paper's"
        raise InputError(f"{vocab_size} tokens are too few ({error})", field="model.vocab_size", fix=fix) from None
    # The trainer's sums differ by some 1e-11 from run to run, and equally good tokens come in any order. So do the
    # characters that it adds to cover the texts, each 0.0001 above the one before: all of them get the lowest score.
    found = {token: round(score, 6) for token, score in json.loads(learner.to_str())["model"]["vocab"]}
    tokens: list[tuple[str, float]] = [(token, found.pop(token)) for token in SPECIAL]
    lowest = min(found.values())
    few = lowest + 0.0001 * sum(len(token) == 1 for token in found)
    found |= {token: lowest for token, score in found.items() if len(token) == 1 and score <= few}
    tokens += sorted(found.items(), key=lambda entry: (-entry[1], entry[0]))
    known = {token for token, _ in tokens}
    total = words.total()
    for word, count in sorted(words.items(), key=lambda entry: (-entry[1], entry[0])):
        if len(tokens) >= vocab_size or count < min_count:
            break
        if word not in known:
            tokens.append((word, math.log(count / total)))
    # A new tokenizer, because the trainer registered its special tokens: a user's "[CLS]" would become one.
    tokenizer = empty(models.Unigram(tokens, unk_id=UNK, byte_fallback=False))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", CLS), ("[SEP]", SEP)]
    )
    for index, token in enumerate(SPECIAL):
        if tokenizer.token_to_id(token) != index:
            raise RuntimeError(f"{token} has id {tokenizer.token_to_id(token)} instead of {index}")
    return tokenizer
