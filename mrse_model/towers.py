"""The two towers and their fusion (Jiang et al. 2024, §Methodology, "Two stages"): same structure, different weights.

A tower works in two halves, because most of the first is frozen after stage 1 and can be computed once a text:
`texts` (tokens → the three experts' text vectors) and `fuse` (those, the image and the history → one unit vector).
"""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mrse_model.config import EXPERTS, ModelConfig
from mrse_model.experts import FtAttItem, HistoryExpert, ImageHistory, NGrams, TextEncoder, UserPreference, VBertHead
from mrse_model.layers import Dense, Dropout

VBERT, LIGHT, FT = 0, 1, 2  # indices into what `texts` returns
HISTORY = EXPERTS.index("history")


class Dssm(nn.Module):
    """Fusion: k = Norm(concat(experts) W), then two dense layers to `dims`, unit norm (paper §Stage 2).

    A projection of the experts skips those layers, which start at 0: both towers begin with the same one, so
    that at first two vectors are as near as their experts are on the whole, and the layers learn a correction.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = len(EXPERTS) * config.dims
        self.mix, self.norm = Dense(width, config.dssm_hidden), nn.LayerNorm(config.dssm_hidden)
        self.dense = Dense(config.dssm_hidden, config.dssm_hidden)
        self.out = Dense(config.dssm_hidden, config.dims)
        self.dropout = Dropout(config.dropout)
        self.skip = Dense(width, config.dims, bias=False)
        nn.init.orthogonal_(self.skip.weight)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, experts: Tensor) -> Tensor:
        """experts [b, 4, d], each of unit norm or zero → [b, d] of unit norm. What else stands after the four (the
        query tower's user preference vector) is added to the fused vector.
        """
        added = experts[:, len(EXPERTS) :].sum(1)
        experts = experts[:, : len(EXPERTS)].flatten(1)
        k = self.norm(self.mix(experts))
        fused = F.normalize(self.skip(experts) + self.out(self.dropout(F.gelu(self.dense(k)))), dim=-1)
        return F.normalize(fused + added, dim=-1)


class Tower(nn.Module):
    """What both towers have in common."""

    def __init__(self, config: ModelConfig, tokens: int) -> None:
        super().__init__()
        self.config = config
        self.vbert_text, self.light_bert = TextEncoder(config, tokens), TextEncoder(config, tokens)
        self.vbert = VBertHead(config.dims)
        self.history = HistoryExpert(config)
        self.dssm = Dssm(config)
        keep = torch.tensor([float(name in config.experts) for name in EXPERTS])
        self.register_buffer("keep", keep, persistent=False)

    keep: Tensor

    def leave_out(self, expert: str) -> None:
        """Zeros stand for this expert from now on."""
        self.config = replace(self.config, experts=tuple(name for name in self.config.experts if name != expert))
        self.keep[EXPERTS.index(expert)] = 0

    def ft_att(self, ngrams: NGrams, ids: Tensor, mask: Tensor) -> Tensor:
        """The FtAtt expert of this tower: ids, mask [b, t] → [b, d]."""
        raise NotImplementedError

    def berts(self, ids: Tensor, mask: Tensor) -> Tensor:
        """ids, mask int64 [b, t] → [b, 2, d]: VBert's text half, Light-Bert; frozen in stage 2. Zeros for one that is
        left out.
        """
        encoders = (("vbert", self.vbert_text), ("light_bert", self.light_bert))
        none = torch.zeros(ids.shape[0], self.config.dims, device=ids.device)
        found = [encoder(ids, mask) if name in self.config.experts else none for name, encoder in encoders]
        return torch.stack(found, 1)

    def texts(self, ngrams: NGrams, ids: Tensor, mask: Tensor) -> Tensor:
        """ids, mask int64 [b, t] → [b, 3, d]: VBert's text half, Light-Bert, FtAtt."""
        return torch.cat([self.berts(ids, mask), self.ft_att(ngrams, ids, mask).unsqueeze(1)], 1)

    def experts(
        self,
        texts: Tensor,
        image: Tensor,
        present: Tensor,
        entries: Tensor,
        weight: Tensor,
        image_residual: Tensor | None = None,
    ) -> Tensor:
        """[b, 4, d] in the order of EXPERTS, each of unit norm, or zeros for one that the config leaves out."""
        vbert = self.vbert(texts[:, VBERT], image, present, image_residual)
        history = self.history(texts[:, FT], entries, weight)
        outputs = torch.stack([vbert, texts[:, LIGHT], texts[:, FT], history], 1)
        return F.normalize(outputs, dim=-1, eps=1e-6) * self.keep[:, None]

    def without(self, experts: Tensor, index: int) -> Tensor:
        """experts → the fused vector [b, d] without the one at `index` of EXPERTS: what it is worth. Without the
        history there is no preference either.
        """
        kept = torch.ones(experts.shape[1], device=experts.device)
        kept[index] = 0
        if index == HISTORY:
            kept[len(EXPERTS) :] = 0
        return self.dssm(experts * kept[:, None])


class QueryTower(Tower):
    """Query text and the user's history → unit vector."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config, config.query_tokens)
        self.image_history = ImageHistory(config)
        self.preference = UserPreference(config)

    def ft_att(self, ngrams: NGrams, ids: Tensor, mask: Tensor) -> Tensor:
        return ngrams.mean(ids, mask)

    def all_experts(self, texts: Tensor, history_text: Tensor, history_image: Tensor, weight: Tensor) -> Tensor:
        """texts [b, 3, d], history_text, history_image [b, h, d], weight [b, h] → [b, 5, d]: the four experts and the
        preference.
        """
        image, present = self.image_history(texts[:, FT], history_image, history_text, weight)
        experts = self.experts(texts, image, present, history_text, weight)
        preference = self.preference(history_text, history_image, weight) * self.keep[HISTORY]
        return torch.cat([experts, preference.unsqueeze(1)], 1)

    def fuse(self, texts: Tensor, history_text: Tensor, history_image: Tensor, weight: Tensor) -> Tensor:
        """The same inputs → [b, d], unit norm."""
        return self.dssm(self.all_experts(texts, history_text, history_image, weight))


class ItemTower(Tower):
    """Item text, image and item queries → unit vector.

    The image comes twice: through the shared, frozen adaptor, and as `image_residual`, one dense layer over the
    encoder's features that learns with VBert and the fusion what pairs of images do not teach (docs/design-notes.md).
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config, config.item_tokens)
        self.attention = FtAttItem(config)
        self.image_residual = Dense(config.image_width, config.dims) if config.image_dims else None
        if self.image_residual is not None:
            nn.init.zeros_(self.image_residual.weight)

    def ft_att(self, ngrams: NGrams, ids: Tensor, mask: Tensor) -> Tensor:
        return self.attention(ngrams, ids, mask)

    def fuse(
        self,
        texts: Tensor,
        image: Tensor,
        present: Tensor,
        entries: Tensor,
        weight: Tensor,
        image_residual: Tensor | None,
    ) -> Tensor:
        """texts [b, 3, d], image [b, d], present [b, 1], entries [b, q, d], weight [b, q], image_residual [b, d] →
        [b, d], unit norm.
        """
        return self.dssm(self.experts(texts, image, present, entries, weight, image_residual))
