"""Images: bytes to RGB pixels, with an error that names the row.

Decoding is done by whoever needs the pixels (the feature extractor, a strict check), never by a reader of text.
"""

from __future__ import annotations

import io
import warnings
from pathlib import Path

from PIL import Image, ImageOps

from mrse_model.errors import InputError

FORMATS = ("JPEG", "PNG", "WEBP")


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
            if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
                image = image.convert("RGBA")
                page = Image.new("RGBA", image.size, "white")
                return Image.alpha_composite(page, image).convert("RGB")
            return image.convert("RGB")
    except Exception as error:  # a broken file raises nearly anything in Pillow's plugins: struct.error, SyntaxError, …
        raise InputError(
            "the image cannot be decoded",
            file=file,
            row=row,
            field=field,
            fix="Write JPEG, PNG or WebP bytes, or null for an item without an image",
        ) from error
