"""Teachers of texts and images: both halves are the model's own, and what is said where one is missing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoModel, AutoTokenizer

from mrse_model.errors import InputError
from mrse_model.images.encoders import load_encoder
from mrse_model.teacher.encoders import PairTeacher, load_teacher
from tests.helpers.random_teacher import random_pair, random_teacher

KINDS = ("clip", "siglip")
TEXTS = ["red dress", "mug", "steel mug " * 40, "lawn mower"]


def teacher(name: str) -> PairTeacher:
    return PairTeacher(name, name.partition(":")[2], bf16=False)


@pytest.mark.parametrize("kind", KINDS)
def test_texts_are_encoded_as_the_model_does(tmp_path: Path, kind: str) -> None:
    ours, folder = teacher(random_pair(tmp_path, kind)), tmp_path
    found = ours.vectors(TEXTS)
    assert np.allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    limit = {"clip": 77, "siglip": 64}[kind]
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    for text, vector in zip(TEXTS, found, strict=True):
        ids = tokenizer(text, truncation=True, max_length=limit, return_tensors="pt", **padding(kind))["input_ids"]
        assert ids.shape[1] <= limit
        with torch.inference_mode():
            one = model.get_text_features(input_ids=ids).pooler_output[0].numpy()
        assert np.allclose(vector, one / np.linalg.norm(one), atol=1e-4)
    assert np.allclose(ours.vectors(["steel mug " * 40]), ours.vectors(["steel mug " * 90]), atol=1e-5)


def padding(kind: str) -> dict:
    return {"padding": "max_length"} if kind == "siglip" else {}


@pytest.mark.parametrize("kind", KINDS)
def test_images_are_those_of_the_encoder_of_the_same_name(tmp_path: Path, kind: str) -> None:
    ours, encoder = load_teacher(name := random_pair(tmp_path, kind)), load_encoder(name)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (30, 20, 3), np.uint8))
    assert ours.image is not None and ours.image.fingerprint == encoder.fingerprint
    assert ours.dims == encoder.dims == ours.vectors(["mug"]).shape[1]
    assert np.allclose(ours.image.features([image]), encoder.features([image]), atol=1e-5)


@pytest.mark.parametrize("half", ["text_model", "vision_model"])
def test_the_fingerprint_covers_both_halves(tmp_path: Path, half: str) -> None:
    name = random_pair(tmp_path)
    before, model = teacher(name).fingerprint, AutoModel.from_pretrained(tmp_path)
    assert teacher(name).fingerprint == before
    with torch.no_grad():
        next(getattr(model, half).parameters()).add_(0.1)
    model.save_pretrained(tmp_path)
    assert teacher(name).fingerprint != before


def test_a_half_that_is_missing_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(InputError, match="no image half, it is of type bert") as raised:
        load_teacher(f"clip:{random_teacher(tmp_path / 'bert')}")
    assert raised.value.field == "--teacher" and "sentence encoder" in str(raised.value.fix)
    random_pair(tmp_path / "clip")
    (tmp_path / "clip" / "preprocessor_config.json").unlink()
    with pytest.raises(InputError) as raised:
        load_teacher(f"clip:{tmp_path / 'clip'}")
    assert raised.value.field == "--teacher"
    with pytest.raises(InputError, match="no model of texts and images"):
        load_teacher(f"siglip:{tmp_path / 'none'}")
