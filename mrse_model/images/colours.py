"""The colours of a product, read off its pixels: what a network trained to name objects forgets.

A linear probe names the colour of a fashion photo from these 444 numbers alone as well as from EfficientNet-Lite0's
3,632, and from both better than from either (dev/LOG.md).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mrse_model.images.lite0 import middle
from mrse_model.serving.images import MEAN, STD

LEVELS = 6  # of each channel: 8 tell no more, 5 less
GROUND = 235.0  # a pixel is empty ground where all its channels are at least that; JPEG blurs white
MIN_SHARE = 0.02  # of the image: where less is left of it, the whole counts


class Colours(nn.Module):
    """Pixels [b, 3, S, S], normalised as for EfficientNet-Lite0 → [b, 444].

    For what is not white, and for its middle half: the square roots of a histogram over 6 × 6 × 6 colours (a pixel
    counts for the eight around it, by nearness), mean and spread of each channel. Every other pixel is read.
    """

    dims = 2 * (LEVELS**3 + 2 * 3)

    def forward(self, pixels: Tensor) -> Tensor:
        x = (pixels[:, :, ::2, ::2] * STD + MEAN).clamp(0, 255) / 255
        product = _or((x.amin(1) < GROUND / 255).float(), torch.ones_like(x[:, 0]))
        half = torch.zeros_like(product)
        middle(half).fill_(1)
        x = x.flatten(2)
        levels = torch.linspace(0, 1, LEVELS, device=x.device)
        near = (1 - (x.unsqueeze(2) - levels[:, None]).abs() * (LEVELS - 1)).clamp_min(0)  # [b, 3, levels, pixels]
        pairs = (near[:, 0].unsqueeze(2) * near[:, 1].unsqueeze(1)).flatten(1, 2)
        out: list[Tensor] = []
        for chosen in (product, _or(product * half, product)):
            share = chosen.flatten(1) / chosen.flatten(1).sum(1, keepdim=True)
            histogram = (pairs * share.unsqueeze(1)) @ near[:, 2].transpose(1, 2)
            mean = (x * share.unsqueeze(1)).sum(2)
            variance = ((x - mean.unsqueeze(2)).square() * share.unsqueeze(1)).sum(2)
            out += [(histogram.flatten(1) + 1e-6).sqrt(), mean, (variance + 1e-6).sqrt()]
        return torch.cat(out, 1)


def _or(mask: Tensor, otherwise: Tensor) -> Tensor:
    """mask [b, h, w] of 0 and 1, or `otherwise` for the images in which almost nothing is 1."""
    enough = (mask.mean((1, 2), keepdim=True) >= MIN_SHARE).float()
    return mask * enough + otherwise * (1 - enough)


class ProductFeatures(nn.Module):
    """A network's feature of an image after its colours: [b, 444 + the network's width]."""

    def __init__(self, network: nn.Module, dims: int) -> None:
        super().__init__()
        self.colours, self.network = Colours(), network
        self.dims = Colours.dims + dims

    def forward(self, pixels: Tensor) -> Tensor:
        return torch.cat([self.colours(pixels), self.network(pixels)], 1)
