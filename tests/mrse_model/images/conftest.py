"""A tiny catalogue with images, and a tiny encoder, drawn and built here."""

from __future__ import annotations

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image


def draw(colour: tuple[int, int, int], size: tuple[int, int] = (30, 40)) -> bytes:
    """A PNG: one colour with a diagonal gradient, so that orientation and resizing matter."""
    y, x = np.mgrid[0 : size[1], 0 : size[0]]
    pixels = np.array(colour)[None, None] * (0.5 + 0.5 * (x + y)[..., None] / sum(size))
    out = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(out, "PNG")
    return out.getvalue()


@pytest.fixture
def image():
    """Draws: image(colour, size) → PNG bytes."""
    return draw


@pytest.fixture
def images() -> list[bytes | None]:
    """Ten items: eight images of which two are the same bytes, two items without."""
    colours = [(10 * i, 255 - 20 * i, 90) for i in range(8)]
    colours[5] = colours[1]
    out: list[bytes | None] = [draw(c) for c in colours]
    return [out[0], None, *out[1:], None]


@pytest.fixture
def items_path(tmp_path, images):
    """The catalogue as Parquet."""
    n = len(images)
    table = {"item_id": [f"i{k}" for k in range(n)], "title": [f"title {k}" for k in range(n)], "image": images}
    path = tmp_path / "items.parquet"
    pq.write_table(pa.table(table, schema=pa.schema({"item_id": "string", "title": "string", "image": "binary"})), path)
    return path


@pytest.fixture
def encoder():
    """Two numbers a channel: mean and maximum; as little as an encoder can be."""
    torch = pytest.importorskip("torch")
    from mrse_model.images.encoders import FrozenEncoder
    from mrse_model.serving.images import Preprocessing

    class Statistics(torch.nn.Module):
        def forward(self, pixels):
            return torch.cat([pixels.mean((2, 3)), pixels.amax((2, 3))], 1)

    return FrozenEncoder("statistics", 6, Statistics().eval(), Preprocessing(16), weights="0")
