"""Texts of many lengths without padding: the tokens of a batch end to end, texts of one length side by side.

A batch of titles padded to its longest is half padding, and a layer that works token by token need not see it. In a
`Packed` batch such layers get one [tokens, d] matrix, and attention gets every group of equally long texts as a dense
[texts, length, d] view: nothing is padded and nothing is masked.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mrse_model.cpu_threads import generator

# oneDNN, which multiplies in bfloat16, prepares itself for every size of a matrix that it meets and keeps what it
# prepared for 1,024 of them: of batches of any number of tokens none ever comes again, and a fifth of the time is lost.
ROWS = 64


class Dropout(nn.Dropout):
    """Dropout whose masks cost a third on a CPU: eight of them from each random number. p is taken to 1/256."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or not self.p or x.device.type != "cpu":
            return super().forward(x)
        low = round(256 * self.p)
        drawn = torch.empty((x.numel() + 7) // 8, dtype=torch.int64).random_(-(2**63), None, generator=generator())
        kept = drawn.view(torch.uint8)[: x.numel()].view(x.shape) >= low
        return x * (kept * (256 / (256 - low)))


class Dense(nn.Linear):
    """A layer that multiplies in bfloat16 when it is trained with `low_precision`; weights and results are float32, a
    result with `low` excepted: what comes next takes bfloat16.

    autocast on a CPU takes attention and GELU along, which are slow in bfloat16 there (dev/LOG.md).
    """

    low_precision = False

    def forward(self, x: Tensor, low: bool = False) -> Tensor:
        if not (self.low_precision and self.training):
            return super().forward(x)
        bias = None if self.bias is None else self.bias.bfloat16()
        found = F.linear(x.bfloat16(), self.weight.bfloat16(), bias)
        return found if low else found.float()


@dataclass(frozen=True)
class Packed:
    """ids, positions int64 [T]: the tokens of the texts in order of length, and where each stands in its text.
    groups: (number of texts, their length), shortest first. order [b]: which text of the batch comes when.
    """

    ids: Tensor
    positions: Tensor
    groups: list[tuple[int, int]]
    order: Tensor

    @classmethod
    def of(cls, ids: Tensor, mask: Tensor) -> Packed:
        """ids, mask int64 [b, t]; a text's tokens come first, its padding (mask 0) last."""
        lengths, order = mask.sum(1).sort(stable=True)
        kept = mask[order] != 0
        each, number = torch.unique_consecutive(lengths, return_counts=True)
        positions = torch.arange(ids.shape[1], device=ids.device).expand_as(ids)[kept]
        groups = list(zip(number.tolist(), each.tolist(), strict=True))
        return cls(ids[order][kept], positions, groups, order)

    def filled(self, tokens: Tensor) -> Tensor:
        """tokens [T, d] → [F, d], F the next multiple of ROWS, with rows of zeros that belong to no text."""
        return F.pad(tokens, (0, 0, 0, -len(tokens) % ROWS))

    def split(self, tokens: Tensor) -> list[Tensor]:
        """tokens [F, d] → a view [texts, length, d] of each group."""
        texts = tokens[: len(self.ids)].split([texts * length for texts, length in self.groups])
        return [some.view(*group, tokens.shape[-1]) for some, group in zip(texts, self.groups, strict=True)]

    def each(self, tokens: Tensor, apply: Callable[[Tensor], Tensor]) -> Tensor:
        """apply: [texts, length, d] → [texts, length, e], to each group of tokens [F, d] → [F, e]."""
        return self.filled(torch.cat([apply(some).flatten(0, 1) for some in self.split(tokens)]))

    def in_batch_order(self, texts: Tensor) -> Tensor:
        """A row a text in the order of the groups → in the order of the batch."""
        return texts[self.order.argsort()]
