"""Pixels are those the encoders were trained with."""

import numpy as np
import pytest
from PIL import Image

from mrse_model.errors import InputError
from mrse_model.serving.images import METADATA_KEY, Preprocessing, pixels_from_bytes


def test_lite0_normalisation_is_byte_minus_127_over_128():
    white = Image.new("RGB", (5, 5), "white")
    assert Preprocessing(3).pixels(white) == pytest.approx(np.full((3, 3, 3), 1.0))
    assert Preprocessing(3).pixels(Image.new("RGB", (5, 5), (127, 0, 255)))[:, 0, 0] == pytest.approx(
        [0, -127 / 128, 1]
    )


def test_crop_keeps_the_middle_and_the_proportions():
    image = Image.new("RGB", (40, 80), "black")
    image.paste((255, 255, 255), (0, 20, 40, 60))  # the middle square
    crop = Preprocessing(20, (0, 0, 0), (255, 255, 255), fit="crop", shortest=20)
    squash = Preprocessing(20, (0, 0, 0), (255, 255, 255))
    assert crop.pixels(image)[:, 2:-2].min() == pytest.approx(1)
    assert squash.pixels(image)[:, 0].max() == pytest.approx(0)


def test_squash_may_cut_the_middle_out():
    image = Image.new("RGB", (80, 40), "black")
    image.paste((255, 255, 255), (20, 10, 60, 30))  # the middle, half of either side
    cut = Preprocessing(20, (0, 0, 0), (255, 255, 255), shortest=40, resample="box")
    assert cut.pixels(image) == pytest.approx(np.ones((3, 20, 20)))


def test_survives_the_onnx_metadata(image):
    settings = Preprocessing(24, (1.0, 2.0, 3.0), (4.0, 5.0, 6.0), "crop", 28, "bilinear")
    assert Preprocessing.from_json(settings.to_json()) == settings
    data = image((200, 100, 50))
    found = pixels_from_bytes(data, {METADATA_KEY: settings.to_json()})
    assert found.shape == (3, 24, 24) and found.dtype == np.float32


def test_says_what_is_wrong(image):
    with pytest.raises(InputError, match="row 7, field image: the image cannot be decoded"):
        pixels_from_bytes(b"no image", {METADATA_KEY: Preprocessing(8).to_json()}, row=7)
    with pytest.raises(InputError, match="carries no 'preprocessing'"):
        pixels_from_bytes(image((1, 2, 3)), {})
