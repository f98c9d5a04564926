"""Images: bytes to RGB pixels, with an error that names the row.

Decoding is done by whoever needs the pixels (the feature extractor, a strict check), never by a reader of text.
"""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from mrse_model.errors import InputError

FORMATS = ("JPEG", "PNG", "WEBP")
MAGIC = {
    b"GIF8": "a GIF",
    b"BM": "a BMP",
    b"II*\0": "a TIFF",
    b"MM\0*": "a TIFF",
    b"ftypavi": "an AVIF",
    b"<svg": "an SVG",
    b"<?xml": "XML",
    b"<": "a web page",
    b"%PDF": "a PDF",
    b"/9j/": "base64 text",
    b"iVBOR": "base64 text",
    b"data:": "a data URL",
    b"http": "a URL",
}


def decode_image(
    data: bytes, *, file: str | Path | None = None, row: int | None = None, field: str = "image"
) -> Image.Image:
    """Decodes JPEG, PNG or WebP bytes to an RGB image, upright as its EXIF says.

    Transparent pixels become white: product images are cut out for a white page.

    Raises:
        InputError: no such image, a truncated one, or one so large (179 million pixels) that it may be an attack.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what Pillow warns of (odd EXIF, large images) decodes nevertheless
            image = ImageOps.exif_transpose(Image.open(io.BytesIO(data), formats=FORMATS))
            image.load()
            if image.mode.startswith("I"):  # 16-bit grey, which Pillow would cut off at 255 instead of scaling it
                image = Image.fromarray((np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8))
            if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
                image = image.convert("RGBA")
                page = Image.new("RGBA", image.size, "white")
                return Image.alpha_composite(page, image).convert("RGB")
            return image.convert("RGB")
    except Exception as error:  # a broken file raises nearly anything in Pillow's plugins: struct.error, SyntaxError, …
        raise InputError(
            f"the image cannot be decoded: {_reason(data, error)}",
            file=file,
            row=row,
            field=field,
            fix="Write JPEG, PNG or WebP bytes, or null for an item without an image",
        ) from error


def _reason(data: bytes, error: Exception) -> str:
    """Why these bytes are no image, in a few words."""
    if isinstance(error, Image.DecompressionBombError):
        return f"it is too large, more than {2 * (Image.MAX_IMAGE_PIXELS or 0) // 10**6} million pixels"
    if not data:
        return "it is empty"
    if isinstance(error, UnidentifiedImageError):
        head = data[:64].lstrip()
        for start, name in MAGIC.items():
            if head.startswith(start) or (start == b"ftypavi" and data[4:11] == start):
                return f"it is {name}, which is not taken"
        return "its format is not known"
    return "it is cut off or damaged" + (f" ({error})" if str(error) else "")
