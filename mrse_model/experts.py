"""The experts of MRSE, smallest module first (Jiang et al. 2024, §Methodology, "LMoE").

Every expert maps to `dims` (128) numbers. Notable:
- pre-norm BERT blocks, so that two layers learn at a high rate without warm-up tricks;
- masks are floats or ints, never bools: Vespa's ONNX takes no bool input (TensorConverter.java);
- the n-gram table is frozen and its projection is shared by the towers, so a text's mean n-gram vector means the same
  to both.

b = batch, t = tokens, h = history length, d = dims.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mrse_model.config import ModelConfig
from mrse_model.cpu_threads import uniform
from mrse_model.layers import Dense, Dropout, Packed

NO_ENTRY = -1e4  # what is added to the attention score of an entry that is none


def masked_mean(values: Tensor, weight: Tensor) -> Tensor:
    """values [..., n, d] averaged with weight [..., n] ≥ 0 to [..., d]; zeros where all weights are 0."""
    total = weight.sum(-1, keepdim=True)
    return (weight.unsqueeze(-2) @ values).squeeze(-2) / total.clamp_min(1e-6)


class Block(nn.Module):
    """One pre-norm transformer layer."""

    def __init__(self, dims: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(dims), nn.LayerNorm(dims)
        self.qkv, self.out = Dense(dims, 3 * dims), Dense(dims, dims)
        self.up, self.down = Dense(dims, 4 * dims), Dense(4 * dims, dims)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, mix: Callable[[Callable[..., Tensor], Tensor], Tensor]) -> Tensor:
        """x [..., d]. mix(attend, qkv): [..., 3 d] → [..., d], calls `attend` with the tokens of one text together."""
        x = x + self.dropout(self.out(mix(self.attend, self.qkv(self.norm1(x)))))
        return x + self.dropout(self.down(F.gelu(self.up(self.norm2(x), low=True))))

    def attend(self, qkv: Tensor, bias: Tensor | None = None) -> Tensor:
        """qkv [b, t, 3 d] → [b, t, d]; bias [b, 1, 1, t]: 0 for a token, very negative for padding."""
        b, t, _ = qkv.shape
        q, k, v = (s.view(b, t, self.heads, -1).transpose(1, 2) for s in qkv.chunk(3, -1))
        return F.scaled_dot_product_attention(q, k, v, attn_mask=bias).transpose(1, 2).reshape(b, t, -1)


class TokenAttention(nn.Module):
    """Dot attention softmax(f_Q f_K^T) f_V over tokens (paper, eq. 5-7, as its figure has it)."""

    def __init__(self, dims: int) -> None:
        super().__init__()
        self.query, self.value = nn.Linear(dims, dims), nn.Linear(dims, dims)
        self.key = nn.Linear(dims, dims, bias=False)  # softmax over the tokens would not see one
        self.scale = dims**-0.5

    def forward(self, query: Tensor, tokens: Tensor, bias: Tensor) -> Tensor:
        """query [b, q, d], tokens [b, t, d], bias [b, 1, t] → [b, q, d]."""
        scores = self.query(query) @ self.key(tokens).transpose(1, 2) * self.scale + bias
        return scores.softmax(-1) @ self.value(tokens)

    def pooled(self, query: Tensor, tokens: Tensor, bias: Tensor) -> Tensor:
        """The same for one query a row: query [b, d], tokens [b, t, d], bias [b, t] → [b, d].

        The layers are applied to the query and to the pooled token, never to each token: with one query both orders are
        equal, and this one costs next to nothing.
        """
        asked = self.query(query) @ self.key.weight * self.scale
        weight = ((tokens @ asked.unsqueeze(-1)).squeeze(-1) + bias).softmax(-1)
        return self.value((weight.unsqueeze(1) @ tokens).squeeze(1))


def padding_bias(mask: Tensor) -> Tensor:
    """mask [b, t] of ones and zeros → additive [b, 1, t]."""
    return (1.0 - mask.float()).unsqueeze(1) * -1e4


class TextEncoder(nn.Module):
    """A small BERT with an attention layer on its token outputs, mean-pooled: Light-Bert, and the text half of
    VBert.
    """

    def __init__(self, config: ModelConfig, tokens: int) -> None:
        super().__init__()
        width = config.bert_dims
        self.embed, self.position = nn.Embedding(config.vocab_size, width), nn.Embedding(tokens, width)
        # Large, so that at first a text is the sum of its words and the layers add to it: with the towers' same
        # start, the
        # same word already matches itself (dev/LOG.md, 2026-11-23: the scale decides how fast the experts learn).
        nn.init.normal_(self.embed.weight, std=1.0)
        nn.init.normal_(self.position.weight, std=0.02)
        self.blocks = nn.ModuleList(Block(width, config.bert_heads, config.dropout) for _ in range(config.bert_layers))
        self.norm = nn.LayerNorm(width)
        self.attention = TokenAttention(width)
        self.out = nn.Linear(width, config.dims)
        self.dropout = Dropout(config.dropout)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """ids, mask int64 [b, t] → [b, d]."""
        if not torch.compiler.is_compiling():  # an exported graph has no groups: it pads
            return self.packed(Packed.of(ids, mask))
        return self.padded(ids, mask)

    def packed(self, texts: Packed) -> Tensor:
        """As `padded`, without padding. The last attention is only ever averaged over a text's tokens, so its value
        layer comes after that mean, and its query and key layers, whose product is all that counts, are multiplied
        first: one product a token instead of three.
        """
        x = self.dropout(texts.filled(self.embed(texts.ids) + self.position(texts.positions)))
        for block in self.blocks:
            x = block(x, lambda attend, qkv: texts.each(qkv, attend))
        x, last = self.norm(x), self.attention
        keys, bias = x @ (last.key.weight.T @ last.query.weight), x @ (last.key.weight.T @ last.query.bias)
        means, attended = [], []
        for tokens, key, one in zip(*map(texts.split, (x, keys, bias.unsqueeze(-1))), strict=True):
            weight = ((tokens @ key.transpose(1, 2) + one.transpose(1, 2)) * last.scale).softmax(-1)
            means.append(tokens.mean(1))
            attended.append((weight.mean(1, keepdim=True) @ tokens).squeeze(1))
        return texts.in_batch_order(self.out(torch.cat(means) + last.value(torch.cat(attended))))

    def padded(self, ids: Tensor, mask: Tensor) -> Tensor:
        """ids, mask int64 [b, t] → [b, d]."""
        x = self.embed(ids) + self.position.weight[: ids.shape[1]]
        bias = padding_bias(mask)
        x = self.dropout(x)
        for block in self.blocks:
            x = block(x, lambda attend, qkv: attend(qkv, bias.unsqueeze(1)))
        x = self.norm(x)
        x = x + self.attention(x, x, bias)
        return self.out(masked_mean(x, mask.float()))


class Adaptor(nn.Module):
    """Frozen image features to the shared image space: two dense layers (paper §VBert). Output has unit norm.

    The layers, and the item tower's own view of an image, read the first principal components of the standardised
    features: encoders' channels differ in scale by orders of magnitude and mostly say the same, and the components make
    a step cheaper. Their spreads stay as they are: brought to the same spread, the adaptor forgets more of the colour
    (dev/LOG.md). `start` measures them.
    """

    mean: Tensor
    scale: Tensor
    basis: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.image_width
        self.register_buffer("mean", torch.zeros(config.image_dims))
        self.register_buffer("scale", torch.ones(config.image_dims))
        self.register_buffer("basis", torch.eye(config.image_dims, width))
        self.layers = nn.Sequential(
            nn.Linear(width, 4 * config.dims), nn.GELU(), nn.Linear(4 * config.dims, config.dims)
        )

    @torch.no_grad()
    def start(self, features: np.ndarray) -> None:
        """Takes mean, spread and principal components of the catalogue's features, float32 [n, F] without NaN rows."""
        some = torch.from_numpy(features).to(self.mean.device)
        self.mean.copy_(some.mean(0))
        self.scale.copy_(some.std(0, unbiased=False) + 1e-3)
        basis = principal_directions(self.standard(some).cpu(), self.basis.shape[1])
        self.basis.zero_()
        self.basis[:, : basis.shape[1]] = basis

    def standard(self, features: Tensor) -> Tensor:
        """[b, F] → [b, F] with mean 0 and spread 1 over the catalogue, far values cut off."""
        return ((features - self.mean) / self.scale).clamp(-8, 8)

    def components(self, features: Tensor) -> Tensor:
        """[b, F] → [b, image_components], the first ones of the largest spread."""
        return self.standard(features) @ self.basis

    def forward(self, components: Tensor) -> Tensor:
        """`components` [b, image_components] → [b, d], unit norm."""
        return F.normalize(self.layers(components), dim=-1)


def principal_directions(rows: Tensor, most: int) -> Tensor:
    """rows [n, F] with mean 0 → orthonormal [F, k ≤ most], those of the largest variance first; as many as there are.

    By the eigenvectors of whichever of the two products is smaller, in double: many channels repeat each other.
    """
    wide = rows.shape[1] > rows.shape[0]
    product = (rows @ rows.T if wide else rows.T @ rows).double()
    variance, vectors = torch.linalg.eigh(product)
    variance, vectors = variance.flip(0)[:most], vectors.flip(1)[:, :most]
    kept = variance > 1e-6 * variance[0]
    found = vectors[:, kept].float()
    return rows.T @ (found / variance[kept].sqrt().float()) if wide else found


class VBertHead(nn.Module):
    """Image and text vectors to one: two dense layers over their concatenation (paper §VBert).

    An image that is absent is zeros; `absent` is a learned flag that says so.
    """

    def __init__(self, dims: int) -> None:
        super().__init__()
        self.absent = nn.Parameter(torch.zeros(dims))
        self.layers = nn.Sequential(Dense(2 * dims, 2 * dims), nn.GELU(), Dense(2 * dims, dims))

    def forward(self, text: Tensor, image: Tensor, present: Tensor, image_residual: Tensor | None = None) -> Tensor:
        """text, image [b, d], present [b, 1] of 0 or 1 → [b, d]. The text skips the layers: they learn a
        correction. image_residual [b, d] is what the tower adds to the image of its own.
        """
        image = image * image.shape[-1] ** 0.5
        image = (image if image_residual is None else image + image_residual) * present + self.absent * (1 - present)
        return text + self.layers(torch.cat([text, image], -1))


class NGrams(nn.Module):
    """The FastText table of the vocabulary and its projection to `dims`, shared by the towers (paper §FtAtt).

    `start` fills the table with FastText's vectors; FtAtt's stage tunes those of the tokens that it meets. With a
    teacher they are the teacher's, and FtAtt's stage trains beside each row those of its character n-grams, which all
    tokens share (`add_hashed`), and adds them to the rows when it is done (`fold_hashed`): the model has one table.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.table = nn.Embedding(config.vocab_size, config.ngram_dims)
        nn.init.zeros_(self.table.weight)
        self.project = nn.Linear(config.ngram_dims, config.dims)
        self.hashed: nn.Embedding | None = None

    @torch.no_grad()
    def start(self, table: np.ndarray) -> None:
        """Takes FastText's vectors, float32 [vocabulary, ngram_dims]."""
        self.table.weight.copy_(torch.from_numpy(table))

    @torch.no_grad()
    def start_from_teacher(self, table: np.ndarray) -> None:
        """Takes a teacher's vectors of the tokens, float32 [vocabulary, dims], and starts with no other projection."""
        self.start(table)
        nn.init.eye_(self.project.weight)
        nn.init.zeros_(self.project.bias)

    def add_hashed(self, start: np.ndarray, buckets: np.ndarray, count: int, sparse: bool = True) -> None:
        """Gives every token i the sum of the vectors of its n-grams, buckets[start[i] : start[i + 1]], at first zeros.
        sparse: gradients are those of the rows met alone, which torch.optim.SparseAdam takes.
        """
        self.hashed = nn.Embedding(count, self.table.embedding_dim, sparse=sparse).to(self.table.weight.device)
        nn.init.zeros_(self.hashed.weight)
        self.table.sparse = sparse
        self._ngrams_of = torch.from_numpy(start).long(), torch.from_numpy(buckets).long()

    @torch.no_grad()
    def fold_hashed(self) -> None:
        """Adds its n-grams' vectors to each token's row; they are then gone."""
        if self.hashed is not None:
            every = torch.arange(self.table.num_embeddings, device=self.table.weight.device)
            self.table.weight.copy_(torch.cat([self._rows(some) for some in every.split(8192)]))
            self.hashed, self.table.sparse = None, False

    @torch.no_grad()
    def to_half_precision(self) -> None:
        """Rounds the table to numbers of 16 bits, in which an export stores it: a teacher's has many rows, and Vespa
        distributes them four times, with each graph.
        """
        self.table.weight.copy_(self.table.weight.half().float())

    def _rows(self, ids: Tensor) -> Tensor:
        """The rows of distinct tokens [n] → [n, ngram_dims]."""
        found = self.table(ids)
        if self.hashed is None:
            return found
        start, buckets = self._ngrams_of
        tokens = ids.cpu()
        low, sizes = start[tokens], start[tokens + 1] - start[tokens]
        first = sizes.cumsum(0) - sizes
        index = torch.arange(int(sizes.sum())) + (low - first).repeat_interleave(sizes)
        weight = self.hashed.weight
        return found + F.embedding_bag(
            buckets[index].to(weight.device), weight, first.to(weight.device), mode="sum", sparse=self.hashed.sparse
        )

    @staticmethod
    def weight(ids: Tensor, mask: Tensor) -> Tensor:
        """1 for a token of the text, 0 for padding, CLS and SEP: they have no n-grams."""
        return mask.float() * (ids != 2).float() * (ids != 3).float()

    def tokens(self, ids: Tensor) -> Tensor:
        """ids [...] → the tokens' projected vectors [..., d]."""
        if torch.compiler.is_compiling():
            return self.project(self.table(ids))
        distinct, index = torch.unique(ids, return_inverse=True)  # a batch repeats its words: project each once
        return F.embedding(index, self.project(self._rows(distinct)))

    def mean(self, ids: Tensor, mask: Tensor) -> Tensor:
        """The text's mean n-gram vector [..., d], zeros for one without tokens: the query tower's FtAtt, and what an
        item's history holds of one of its queries.
        """
        return masked_mean(self.tokens(ids), self.weight(ids, mask))


class FtAttItem(nn.Module):
    """The item tower's FtAtt: dropout, then dot attention with the mean-pooled text as the query (paper, figure 3).

    What drops out are whole tokens: to draw a random number for each of their numbers would cost more than the rest.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.dropout = config.dropout
        self.attention = TokenAttention(config.dims)
        self.mix = nn.Parameter(torch.tensor(0.5))

    def forward(self, ngrams: NGrams, ids: Tensor, mask: Tensor) -> Tensor:
        """ids, mask [b, t] → [b, d]: the mean plus what attention adds to it."""
        weight, tokens = ngrams.weight(ids, mask), ngrams.tokens(ids)
        if self.training:
            weight = weight * (uniform(weight) >= self.dropout)
        mean = masked_mean(tokens, weight)
        return mean + self.mix * self.attention.pooled(mean, tokens, (weight - 1) * 1e4)


def history_bias(weight: Tensor) -> Tensor:
    """Weights of a history's entries → what is added to their attention scores: an entry counts in proportion to its
    weight however small that is, and not at all at 0, so that padding changes nothing.
    """
    return torch.where(weight > 0, weight.clamp_min(1e-30).log(), NO_ENTRY)


class HistoryExpert(nn.Module):
    """FtAtt over a history (paper §Stage 2): attention over its entries, asked by the tower's own text.

    Query tower: entries are clicked items' text features, with their weights. Item tower: the mean n-gram vectors of
    the item queries. Entries of weight 0 do not count; an empty history gives the learned flag `empty`.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.attention = TokenAttention(config.dims)
        self.empty = nn.Parameter(torch.zeros(config.dims))

    def forward(self, text: Tensor, entries: Tensor, weight: Tensor) -> Tensor:
        """text [b, d], entries [b, h, d], weight [b, h] ≥ 0 → [b, d]."""
        present = (weight.sum(-1, keepdim=True) > 0).float()
        return self.attention.pooled(text, entries, history_bias(weight)) * present + self.empty * (1 - present)


class UserPreference(nn.Module):
    """What a user's clicks say whatever is asked: the mean of the clicked items' text features and of their images,
    mapped linearly to the items' space. Not in the paper; no gradient trains it: a ridge regression finds the map when
    the fusion is done (mrse_model.training.preference). Zeros until then, and for an empty history. Every event counts
    alike, whatever its kind and age: a preference changes slowly, and few events tell it.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.register_buffer("weight", torch.zeros(config.dims, 2 * config.dims))
        self.register_buffer("bias", torch.zeros(config.dims))

    @staticmethod
    def means(texts: Tensor, images: Tensor, weight: Tensor) -> Tensor:
        """texts, images [b, h, d], weight [b, h], 0 where there is no entry → [b, 2 d]. An entry without an image (a
        zero row) counts for its text alone.
        """
        there = (weight > 0).float()
        imaged = (images.square().sum(-1) > 0).float() * there
        return torch.cat([masked_mean(texts, there), masked_mean(images, imaged)], -1)

    def forward(self, texts: Tensor, images: Tensor, weight: Tensor) -> Tensor:
        """The same inputs → [b, d], which is added to the fused vector."""
        present = (weight.sum(-1, keepdim=True) > 0).float()
        return F.linear(self.means(texts, images, weight), self.weight, self.bias) * present


class ImageHistory(nn.Module):
    """The query side's image: the clicked items' image vectors, attended by the query's text (paper: Q_img)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.query = nn.Linear(config.dims, config.dims)
        self.image_key, self.text_key = (nn.Linear(config.dims, config.dims, bias=False) for _ in range(2))

    def forward(self, text: Tensor, images: Tensor, texts: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        """text [b, d], images, texts [b, h, d], weight [b, h] → mean image [b, d] of unit norm or 0, present [b, 1].

        An entry without an image (a zero row) has no weight. The image is a weighted mean, not a projection: it
        stays in the image space that the adaptor made.
        """
        has = (images.square().sum(-1) > 0).float() * weight
        # The keys' layers are applied to the query, as in TokenAttention.pooled.
        asked = self.query(text) * images.shape[-1] ** -0.5
        by_image, by_text = (
            (entries @ (asked @ key.weight).unsqueeze(-1)).squeeze(-1)
            for entries, key in ((images, self.image_key), (texts, self.text_key))
        )
        weights = (by_image + by_text + history_bias(has)).softmax(-1)
        mean = (weights.unsqueeze(1) @ images).squeeze(1)
        present = (has.sum(-1, keepdim=True) > 0).float()
        return F.normalize(mean, dim=-1, eps=1e-6) * present, present
