"""FastText vectors of character n-grams, one a token of the vocabulary (paper §FtAtt: n-grams 2-4, 256-d).

They are computed per token and frozen into the graph, so that serving needs token ids alone (docs/design-notes.md).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from tokenizers import Tokenizer

from mrse_model.errors import MissingExtra
from mrse_model.serving.texts import SPECIAL

MARK = "▁"  # Metaspace's mark of a word's start


def token_vectors(
    tokenizer: Tokenizer,
    texts: Sequence[str],
    dims: int,
    ngram_min: int = 2,
    ngram_max: int = 4,
    epochs: int = 5,
    seed: int = 1,
    workers: int = 1,
) -> np.ndarray:
    """Learns FastText (skip-gram) on the texts, cut into tokens, and returns its vector of each token.

    Returns float32 [vocabulary, dims]; special tokens and the bare word mark are zero, the rest has root mean square
    1 over each column, so that the layer after it sees one scale. More than one worker is faster and not reproducible
    (gensim).
    """
    try:
        from gensim.models import FastText
    except ImportError:
        raise MissingExtra("gensim", "train") from None
    sentences = [[p.removeprefix(MARK) for p in e.tokens if p != MARK] for e in _encode(tokenizer, texts)]
    vocabulary = tokenizer.get_vocab_size()
    model = FastText(
        vector_size=dims,
        min_n=ngram_min,
        max_n=ngram_max,
        window=5,
        min_count=1,
        sg=1,
        negative=5,
        bucket=min(200_000, 25 * vocabulary),
        seed=seed,
        workers=workers,
    )
    model.build_vocab(sentences)
    model.train(sentences, total_examples=len(sentences), epochs=epochs)
    table = np.zeros((vocabulary, dims), np.float32)
    for token, index in tokenizer.get_vocab().items():
        word = token.removeprefix(MARK)
        if word and token not in SPECIAL:
            table[index] = model.wv[word]
    return scaled(table)


def random_vectors(vocabulary: int, dims: int, seed: int = 1) -> np.ndarray:
    """The table of the ablation's row without n-grams: one random vector a token, zero for special tokens."""
    table = np.random.default_rng(seed).normal(size=(vocabulary, dims)).astype(np.float32)
    table[: len(SPECIAL)] = 0
    return scaled(table)


def scaled(table: np.ndarray) -> np.ndarray:
    """Columns divided by their root mean square over the rows that are not zero."""
    used = table[np.abs(table).sum(1) > 0]
    return table / np.sqrt((used**2).mean(0) + 1e-8) if len(used) else table


def _encode(tokenizer: Tokenizer, texts: Sequence[str]):
    return tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
