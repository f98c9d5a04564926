"""The cache of a teacher's vectors: each text once, and after a kill the rest."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from mrse_model.teacher import vectors
from mrse_model.teacher.vectors import VectorCache


class Counting:
    """A teacher whose vectors say the text's length; it notes what it was asked."""

    dims = 4

    def __init__(self, fingerprint: str = "a") -> None:
        self.fingerprint, self.asked = fingerprint, list[str]()

    def vectors(self, texts: Sequence[str]) -> np.ndarray:
        self.asked += texts
        return np.array([[len(text), len(text) ** 0.5, 1, 0] for text in texts], np.float32)


def test_each_text_is_encoded_once_and_comes_in_its_place(tmp_path: Path) -> None:
    teacher = Counting()
    cache = VectorCache(tmp_path, teacher)
    found = cache.encode(["mug", "red dress", "mug", ""])
    assert found.dtype == np.float16 and found[:, 0].tolist() == [3, 9, 3, 0]
    assert sorted(teacher.asked) == ["", "mug", "red dress"]
    again = VectorCache(tmp_path, teacher).encode(["red dress", "cup!", "mug"])
    assert again[:, 0].tolist() == [9, 4, 3] and sorted(teacher.asked) == ["", "cup!", "mug", "red dress"]
    assert cache.encode([]).shape == (0, 4)


def test_teachers_do_not_read_each_others_vectors(tmp_path: Path) -> None:
    VectorCache(tmp_path, Counting("a")).encode(["mug"])
    other = Counting("b")
    VectorCache(tmp_path, other).encode(["mug"])
    assert other.asked == ["mug"]


@pytest.mark.parametrize("cut", [("vectors", 3), ("keys", 5), ("keys", 0), ("vectors", 0)])
def test_a_killed_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cut: tuple[str, int]) -> None:
    monkeypatch.setattr(vectors, "BLOCK", 2)
    texts = ["a", "bb", "ccc", "dddd", "eeeee"]

    class Killed(Counting):
        def vectors(self, texts: Sequence[str]) -> np.ndarray:
            if "eeeee" in texts:
                raise KeyboardInterrupt
            return super().vectors(texts)

    with pytest.raises(KeyboardInterrupt):
        VectorCache(tmp_path, Killed()).encode(texts)
    kind, lost = cut  # bytes that a kill left out at the end of a file
    path = tmp_path / f"a.{kind}"
    path.write_bytes(path.read_bytes()[: path.stat().st_size - lost])
    teacher = Counting()
    assert VectorCache(tmp_path, teacher).encode(texts)[:, 0].tolist() == [1, 2, 3, 4, 5]
    assert sorted(teacher.asked) == (["dddd", "eeeee"] if lost else ["eeeee"])
    assert VectorCache(tmp_path, Counting()).encode(texts)[:, 0].tolist() == [1, 2, 3, 4, 5]
