"""From image bytes to the pixels an image encoder expects, with Pillow and numpy alone, and to its features in ONNX
Runtime.

The trainer (`Preprocessing`) and the torch-free feeder (`ImageEncoder`) both use this module, so they cannot differ.
The constants travel as JSON in the ONNX file's metadata.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from PIL import Image

from mrse_model.data.images import decode_image
from mrse_model.errors import InputError
from mrse_model.serving.exported_model import open_session

METADATA_KEY = "preprocessing"
MEAN, STD = 127.0, 128.0  # as EfficientNet-Lite0 was trained
Resample = Literal["nearest", "lanczos", "bilinear", "bicubic", "box", "hamming"]
FILTERS: dict[Resample, Image.Resampling] = {
    "nearest": Image.Resampling.NEAREST,
    "lanczos": Image.Resampling.LANCZOS,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "box": Image.Resampling.BOX,
    "hamming": Image.Resampling.HAMMING,
}


@dataclass(frozen=True)
class Preprocessing:
    """How an image becomes a float32 array [3, size, size].

    Args:
        size: side of the square, pixels.
        mean, std: per channel (R, G, B), in units of a byte: pixel = (byte − mean) / std.
        fit: `squash` resizes both sides to `shortest`, `crop` the shorter one; then the middle is cut out.
        shortest: the shorter side before the cut, pixels; for `squash`, 0 means that there is no cut.
        resample: a filter of Pillow, a key of `FILTERS`.
    """

    size: int
    mean: tuple[float, float, float] = (MEAN,) * 3
    std: tuple[float, float, float] = (STD,) * 3
    fit: Literal["squash", "crop"] = "squash"
    shortest: int = 0
    resample: Resample = "bicubic"

    def to_json(self) -> str:
        """One JSON object, for the ONNX file's `metadata_props`."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Preprocessing:
        """The inverse of `to_json`; raises TypeError on an unknown key."""
        values = json.loads(text)
        return cls(**{**values, "mean": tuple(values["mean"]), "std": tuple(values["std"])})

    def pixels(self, image: Image.Image) -> NDArray[np.float32]:
        """One RGB image → float32 [3, size, size]."""
        width, height = image.size
        filter_ = FILTERS[self.resample]
        if self.fit == "crop":
            # Truncated, not rounded: as the image processors of transformers do. In integers: a product with a rounded
            # quotient may fall just short of a whole pixel.
            sides = self.shortest * width // min(width, height), self.shortest * height // min(width, height)
        else:
            sides = (self.shortest or self.size,) * 2
        if sides != (width, height):
            image = image.resize(sides, filter_)
        left, top = (sides[0] - self.size) // 2, (sides[1] - self.size) // 2
        image = image.crop((left, top, left + self.size, top + self.size))
        array = np.asarray(image, dtype=np.float32)
        mean, std = np.array(self.mean, np.float32), np.array(self.std, np.float32)
        return np.ascontiguousarray(((array - mean) / std).transpose(2, 0, 1))

    def batch(self, images: Sequence[Image.Image]) -> NDArray[np.float32]:
        """RGB images → float32 [n, 3, size, size]."""
        out = np.empty((len(images), 3, self.size, self.size), dtype=np.float32)
        for i, image in enumerate(images):
            out[i] = self.pixels(image)
        return out


def pixels_from_bytes(data: bytes, settings: Mapping[str, str], *, row: int | None = None) -> NDArray[np.float32]:
    """JPEG, PNG or WebP bytes → float32 [3, S, S], as the metadata of an exported encoder says.

    settings: the `metadata_props` of image_encoder.onnx. Raises InputError on bytes that are no image and on an ONNX
    file that `export_onnx` did not write.
    """
    if METADATA_KEY not in settings:
        raise InputError(
            f"the image encoder carries no {METADATA_KEY!r}", field=METADATA_KEY, fix="Export it again: mrse export"
        )
    return Preprocessing.from_json(settings[METADATA_KEY]).pixels(decode_image(data, row=row))


class ImageEncoder:
    """The frozen image encoder in ONNX Runtime: encoded images to features (docs/contracts.md)."""

    def __init__(self, path: Path, session: onnxruntime.InferenceSession) -> None:
        self.path, self._session = path, session
        self._settings = session.get_modelmeta().custom_metadata_map
        self.name = self._settings.get("name", path.stem)
        self.dims = int(session.get_outputs()[0].shape[1])
        self.size = int(session.get_inputs()[0].shape[2])

    @classmethod
    def load(cls, path: str | Path, threads: int = 1) -> ImageEncoder:
        """Opens image_encoder.onnx. Raises InputError when it is missing."""
        return cls(Path(path), open_session(Path(path), threads))

    def features(self, images: Sequence[bytes | None], batch: int = 32) -> NDArray[np.float32]:
        """JPEG, PNG or WebP bytes to float32 [n, F]; a row is NaN where the image is None. Raises InputError on bad
        bytes.
        """
        out = np.full((len(images), self.dims), np.nan, np.float32)
        given = [(row, image) for row, image in enumerate(images) if image is not None]
        for start in range(0, len(given), batch):
            some = given[start : start + batch]
            pixels = np.stack([pixels_from_bytes(image, self._settings, row=row) for row, image in some])
            out[[row for row, _ in some]] = self._session.run(["feature"], {"pixels": pixels})[0]
        return out
