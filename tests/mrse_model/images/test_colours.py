"""The product's colours: what is white does not count, neighbours share a pixel, nothing divides by zero."""

import pytest

torch = pytest.importorskip("torch")

from mrse_model.images.colours import LEVELS, Colours, ProductFeatures  # noqa: E402
from mrse_model.serving.images import MEAN, STD  # noqa: E402

BINS = LEVELS**3


def image(colour, ground=(255, 255, 255), box=(8, 24), size=32):
    x = torch.tensor(ground, dtype=torch.float32)[:, None, None].repeat(1, size, size)
    x[:, box[0] : box[1], box[0] : box[1]] = torch.tensor(colour, dtype=torch.float32)[:, None, None]
    return (x - MEAN) / STD


def colours(*images):
    return Colours()(torch.stack(images))


def test_white_ground_does_not_count():
    small, large = colours(image((204, 0, 51), box=(12, 20)), image((204, 0, 51), box=(2, 30)))
    torch.testing.assert_close(small, large, atol=1e-3, rtol=0)
    assert small[BINS : BINS + 3].tolist() == pytest.approx([0.8, 0, 0.2], abs=1e-4)


def test_a_pixel_counts_for_the_colours_around_it():
    on, between = colours(image((204, 0, 51)), image((204 + 25.5, 0, 51)))  # 51 is one level
    level = 4 * LEVELS**2 + 1
    assert on[level].item() == pytest.approx(1, abs=1e-3)
    assert between[[level, level + LEVELS**2]].square().tolist() == pytest.approx([0.5, 0.5], abs=1e-3)


def test_middle_tells_a_print_from_its_shirt():
    shirt = image((0, 0, 200), box=(0, 32))
    shirt[:, 12:20, 12:20] = image((255, 0, 0))[:, 12:13, 12:13]
    whole, half = colours(shirt)[0].split(Colours.dims // 2)
    assert whole[BINS].item() == pytest.approx(16 / 256, abs=1e-3)
    assert half[BINS].item() == pytest.approx(16 / 64, abs=1e-3)


@pytest.mark.parametrize("alone", [(255, 255, 255), (0, 0, 0), (240, 240, 240)])
def test_an_image_of_one_colour_is_itself(alone):
    found = colours(image(alone, alone))[0]
    assert found.isfinite().all()
    assert found[BINS : BINS + 3].tolist() == pytest.approx([alone[0] / 255] * 3, abs=1e-4)


def test_a_product_beside_the_middle_counts_as_its_own_middle():
    whole, half = colours(image((0, 102, 0), box=(0, 7)))[0].split(Colours.dims // 2)
    torch.testing.assert_close(whole, half)


def test_features_are_the_colours_and_then_the_networks():
    network = torch.nn.Sequential(torch.nn.AvgPool2d(32), torch.nn.Flatten())
    features = ProductFeatures(network, 3)
    both = torch.stack([image((9, 200, 9)), image((0, 0, 0))])
    found = features(both)
    assert found.shape == (2, features.dims) == (2, Colours.dims + 3)
    torch.testing.assert_close(found, torch.cat([Colours()(both), network(both)], 1))
