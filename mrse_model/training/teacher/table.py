"""FtAtt's start from a teacher: a row of the table for each token, as model2vec makes them (Tulkens & van Dongen 2024),
and the hashed character n-grams that a row is trained with (Bojanowski et al. 2017).
"""

from __future__ import annotations

import zlib
from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from mrse_model.serving.texts import SPECIAL
from mrse_model.training.ngrams import MARK
from mrse_model.training.ragged import Ragged

NGRAM_MIN, NGRAM_MAX, BUCKETS = 3, 4, 1 << 17
COMMON = 1e-2  # a token in this share of the items counts half (Arora et al. 2017, "smooth inverse frequency")


def principal_axes(vectors: NDArray, dims: int) -> NDArray[np.float32]:
    """The `dims` directions, [D, dims], in which unit vectors [n, D] have the most length: of their second moments, not
    centred, because cosines are taken from the origin.
    """
    moments = np.zeros((vectors.shape[1], vectors.shape[1]))
    for start in range(0, len(vectors), 65536):
        some = vectors[start : start + 65536].astype(np.float64)
        moments += some.T @ some
    return np.linalg.eigh(moments)[1][:, ::-1][:, :dims].astype(np.float32)


def token_texts(tokenizer: Tokenizer) -> list[str]:
    """What each token of the vocabulary says, without its mark of a word's start; "" for special tokens."""
    tokens = (tokenizer.id_to_token(index) or "" for index in range(tokenizer.get_vocab_size()))
    return ["" if token in SPECIAL else token.removeprefix(MARK) for token in tokens]


def token_table(vectors: NDArray, axes: NDArray[np.float32], item_tokens: NDArray[np.int32]) -> NDArray[np.float32]:
    """The teacher's vectors of single tokens [V, D] in `axes` [D, d], weighted by how rare they are → float32 [V, d].

    item_tokens [N, t], padded with 0: in how many items a token is. Special tokens are zero; all rows together have
    root mean square 1.
    """
    count = np.zeros(len(vectors), np.int64)
    for start in range(0, len(item_tokens), 65536):
        some = np.sort(item_tokens[start : start + 65536], axis=1)
        first = np.concatenate([np.ones((len(some), 1), bool), some[:, 1:] != some[:, :-1]], 1)
        count += np.bincount(some[first], minlength=len(vectors))
    weight = COMMON / (COMMON + count / max(len(item_tokens), 1))
    table = (vectors.astype(np.float32) @ axes) * weight[:, None].astype(np.float32)
    table[: len(SPECIAL)] = 0
    return table / max(float(np.sqrt((table[len(SPECIAL) :] ** 2).mean())), 1e-8)


def hashed_ngrams(tokenizer: Tokenizer, whole: Collection[str], buckets: int = BUCKETS) -> Ragged:
    """The buckets of each token's character n-grams. A token that begins a word has the mark `<` before it, and one
    that is a whole word of the texts (`whole`) the mark `>` behind it: so the "<ref" that a misspelt word begins with
    is that of the right one.
    """
    rows: list[list[int]] = []
    for index in range(tokenizer.get_vocab_size()):
        token = tokenizer.id_to_token(index) or ""
        word = "" if token in SPECIAL else token.removeprefix(MARK)
        if word and token.startswith(MARK):
            word = f"<{word}>" if word in whole else f"<{word}"
        grams = {word[i : i + n] for n in range(NGRAM_MIN, NGRAM_MAX + 1) for i in range(len(word) - n + 1)}
        rows.append(sorted({zlib.crc32(gram.encode()) % buckets for gram in grams}))
    return Ragged.of(rows)


def rotation(of: NDArray[np.float32], onto: NDArray[np.float32]) -> NDArray[np.float32]:
    """The rotation R [d, d] with of @ R nearest to `onto`, both [n, d] (orthogonal Procrustes, Schönemann 1966)."""
    left, _, right = np.linalg.svd(of.T.astype(np.float64) @ onto.astype(np.float64))
    return (left @ right).astype(np.float32)


def whole_words(tokenizer: Tokenizer, texts: Sequence[str]) -> set[str]:
    """The words of the texts, as the tokenizer cuts them before it looks for tokens."""
    found: set[str] = set()
    for text in texts:
        normal = tokenizer.normalizer.normalize_str(text)
        found.update(word.removeprefix(MARK) for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(normal))
    return found
