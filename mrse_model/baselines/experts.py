"""Parts of MRSE by themselves: the FastText mean, one Transformer, and DSSM-α (Transformer + FastText), the paper's own
old system (Jiang et al. 2024, §Experiments). They share MRSE's modules, its tokenizer and its n-gram table.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional as F

from mrse_model.baselines.two_tower import progress
from mrse_model.config import ModelConfig
from mrse_model.errors import InputError
from mrse_model.experts import NGrams, TextEncoder
from mrse_model.losses import mnsce
from mrse_model.serving.texts import token_matrix

Kind = Literal["transformer", "dssm_alpha"]


def fasttext_mean(tokenizer: Tokenizer, table: NDArray[np.float32]) -> Callable[[Sequence[str]], NDArray[np.float32]]:
    """An encoder of texts: the mean of their tokens' FastText vectors (n-grams 2–4), unit norm. Nothing is trained
    on judgments or clicks. table: float32 [vocabulary, dims], as `mrse_model.training.ngrams.token_vectors` makes it.
    """

    def encode(texts: Sequence[str]) -> NDArray[np.float32]:
        out = np.empty((len(texts), table.shape[1]), np.float32)
        for start in range(0, len(texts), 1024):
            ids, mask = token_matrix(tokenizer, texts[start : start + 1024], 64)
            mean = (table[ids] * mask[..., None]).sum(1)
            out[start : start + len(ids)] = mean / np.maximum(np.linalg.norm(mean, axis=1, keepdims=True), 1e-6)
        return out

    return encode


class TextTower(nn.Module):
    """One Transformer, or with `ngrams` DSSM-α: Transformer and FastText mean, concatenated, two dense layers."""

    def __init__(self, config: ModelConfig, tokens: int, ngrams: NGrams | None) -> None:
        super().__init__()
        self.encoder = TextEncoder(config, tokens)
        self.ngrams = ngrams
        width = config.dims
        self.fuse = nn.Sequential(nn.Linear(2 * width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """ids, mask int64 [b, t] → [b, 128], unit norm."""
        vector = self.encoder(ids, mask)
        if self.ngrams is not None:
            vector = self.fuse(
                torch.cat([F.normalize(vector, dim=1), F.normalize(self.ngrams.mean(ids, mask), dim=1)], 1)
            )
        return F.normalize(vector, dim=1)


class TextTwoTower:
    """`fit` it on queries and their positives, then `query_vectors` and `items` make a VectorRanker. Text only."""

    def __init__(
        self, kind: Kind, texts: Sequence[str], tokenizer: Tokenizer, table: NDArray[np.float32], seed: int = 0
    ) -> None:
        torch.manual_seed(seed)
        self._rng = np.random.default_rng(seed)
        config = ModelConfig(vocab_size=table.shape[0], ngram_dims=table.shape[1])
        self._tokenizer, self._limit = tokenizer, config.query_tokens
        ngrams = None
        if kind == "dssm_alpha":
            ngrams = NGrams(config)
            ngrams.start(table)
        self.query = TextTower(config, config.query_tokens, ngrams)
        self.item = TextTower(config, config.item_tokens, ngrams)
        self.modules = nn.ModuleList([self.query, self.item])
        # Both towers begin alike, as MRSE's do.
        self.item.encoder.embed.load_state_dict(self.query.encoder.embed.state_dict())
        starts = range(0, len(texts), 8192)
        self._ids = _stack([token_matrix(tokenizer, texts[i : i + 8192], config.item_tokens)[0] for i in starts])

    def fit(
        self,
        queries: Sequence[str],
        positives: Sequence[NDArray[np.int32]],
        *,
        cpu_seconds: float = 240.0,
        steps: int | None = None,
        batch: int = 256,
        lr: float = 1e-3,
        temperature: float = 0.1,
    ) -> int:
        """MNSCE with as many uniform negatives as the batch has, for that much CPU time, or `steps` steps.
        Returns the pairs seen.
        """
        tokens, _ = token_matrix(self._tokenizer, queries, self._limit)
        pairs = np.array([(q, item) for q, items in enumerate(positives) for item in items], np.int64)
        if not len(pairs):
            raise InputError("no query has a relevant item", field="grade", fix="Judge some pairs, or give searches")
        known = np.unique(pairs[:, 0] * len(self._ids) + pairs[:, 1])
        self.modules.train()
        optimizer = torch.optim.Adam(self.modules.parameters(), lr=lr)
        began, seen = time.process_time(), 0
        while (share := progress(seen // batch, steps, began, cpu_seconds)) < 1:
            some = pairs[self._rng.integers(len(pairs), size=batch)]
            rows = np.concatenate([some[:, 1], self._rng.integers(len(self._ids), size=batch)])
            codes = some[:, :1] * len(self._ids) + rows
            same = torch.from_numpy(known[np.minimum(np.searchsorted(known, codes), len(known) - 1)] == codes)
            for group in optimizer.param_groups:
                group["lr"] = lr * max(0.02, 1 - share)
            found = self._encode(self.item, self._ids[rows])
            loss = mnsce(
                self._encode(self.query, tokens[some[:, 0]]), found[:batch], found[batch:], same, temperature
            ).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            seen += batch
        self.modules.eval()
        return seen

    @staticmethod
    def _encode(tower: TextTower, ids: NDArray[np.int64] | NDArray[np.int32]) -> Tensor:
        used = ids[:, : int((ids != 0).sum(1).max())].astype(np.int64)
        tensor = torch.from_numpy(used)
        return tower(tensor, (tensor != 0).long())

    @torch.inference_mode()
    def query_vectors(self, queries: Sequence[str]) -> NDArray[np.float32]:
        """float32 [n, 128], unit norm."""
        return self._encode(self.query, token_matrix(self._tokenizer, queries, self._limit)[0]).numpy()

    @torch.inference_mode()
    def items(self, batch: int = 1024) -> NDArray[np.float32]:
        """All items: float32 [m, 128], unit norm."""
        blocks = (self._ids[i : i + batch] for i in range(0, len(self._ids), batch))
        return np.concatenate([self._encode(self.item, ids).numpy() for ids in blocks])


def _stack(blocks: Sequence[NDArray[np.int64]]) -> NDArray[np.int32]:
    """Padded matrices of different widths, one on another."""
    out = np.zeros((sum(map(len, blocks)), max(block.shape[1] for block in blocks)), np.int32)
    row = 0
    for block in blocks:
        out[row : row + len(block), : block.shape[1]] = block
        row += len(block)
    return out
