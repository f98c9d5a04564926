"""Texts to token ids: the item's text format and the padded id matrix, the same in training and serving. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import numpy as np
from tokenizers import Tokenizer

PAD, UNK, CLS, SEP = 0, 1, 2, 3
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")


def item_texts(columns: Sequence[str], titles: Sequence[str], categories: Sequence[Sequence[str]]) -> list[str]:
    """The texts that the item tower reads: these columns in this order, joined by spaces (paper §Data).

    Every item text of training, export and serving is made here. columns: of "title" and "category", a path from broad
    to narrow; a model's own are in its config (ModelConfig.text_columns) and in its manifest (Manifest.item_text).

    >>> item_texts(("title", "category"), ["Red dress"], [["Clothes", "Dresses"]])
    ['Red dress Clothes Dresses']
    """
    parts = {"title": [[title] for title in titles], "category": categories}
    rows = zip(*(parts[column] for column in columns), strict=True)
    return [" ".join(chain.from_iterable(row)) for row in rows]


def token_lists(tokenizer: Tokenizer, texts: Sequence[str], limit: int) -> list[list[int]]:
    """Token ids of each text: CLS, at most limit - 2 tokens, SEP; what Vespa's hugging-face-embedder makes with
    max-tokens = limit, and customTokenInputIds of the tokens cut to limit - 2."""
    if len(texts) == 1:  # a batch wakes the tokenizer's threads
        encoded = [tokenizer.encode(texts[0], add_special_tokens=False)]
    else:
        encoded = tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
    return [[CLS, *e.ids[: limit - 2], SEP] for e in encoded]


def token_matrix(tokenizer: Tokenizer, texts: Sequence[str], limit: int) -> tuple[np.ndarray, np.ndarray]:
    """Ids and attention mask, int64 [n, longest of the batch ≤ limit] each, padded with 0."""
    lists = token_lists(tokenizer, texts, limit)
    width = max(map(len, lists), default=2)
    ids = np.zeros((len(lists), width), np.int64)
    for row, some in enumerate(lists):
        ids[row, : len(some)] = some
    return ids, (ids != PAD).astype(np.int64)
