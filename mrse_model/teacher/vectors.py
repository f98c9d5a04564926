"""A teacher's vectors of texts, kept on disk: each text is encoded once, and a killed run resumes where it was.

Two files a teacher: `FINGERPRINT.vectors`, float16 [n, dims], and `FINGERPRINT.keys`, 16 bytes a text (BLAKE2b). Both
only grow; a key is written after its vector, so that what a kill cut off is encoded again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

KEY = 16  # bytes
BLOCK = 4096  # texts that are encoded between two writes


class Encoder(Protocol):
    """What VectorCache needs of a teacher."""

    dims: int
    fingerprint: str

    def vectors(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """float32 [n, dims]."""
        ...


class VectorCache:
    """The vectors of one teacher in `folder`."""

    def __init__(self, folder: str | Path, teacher: Encoder) -> None:
        self.teacher = teacher
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self._vectors, self._keys = (folder / f"{teacher.fingerprint}.{kind}" for kind in ("vectors", "keys"))
        self._row: dict[bytes, int] = {}
        if self._keys.is_file():
            raw, width = self._keys.read_bytes(), 2 * teacher.dims
            whole = min(len(raw) // KEY, self._vectors.stat().st_size // width)
            for row in range(whole):
                self._row[raw[row * KEY : (row + 1) * KEY]] = row
            for path, size in ((self._vectors, whole * width), (self._keys, whole * KEY)):
                with open(path, "r+b") as file:
                    file.truncate(size)  # what a kill left half written
        self._count = len(self._row)

    def encode(
        self, texts: Sequence[str], progress: Callable[[int, int], None] = lambda done, total: None
    ) -> NDArray[np.float16]:
        """float16 [n, dims], unit norm to its precision. progress: (texts encoded, texts to encode)."""
        keys = [hashlib.blake2b(text.encode(), digest_size=KEY).digest() for text in texts]
        missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in self._row}
        # Of like length together: a block then has little padding.
        todo = sorted(missing.items(), key=lambda entry: (len(entry[1]), entry[0]))
        for start in range(0, len(todo), BLOCK):
            some = todo[start : start + BLOCK]
            found = self.teacher.vectors([text for _, text in some]).astype(np.float16)
            with open(self._vectors, "ab") as file:
                file.write(found.tobytes())
            with open(self._keys, "ab") as file:
                file.write(b"".join(key for key, _ in some))
            for key, _ in some:
                self._row[key] = self._count
                self._count += 1
            progress(min(start + BLOCK, len(todo)), len(todo))
        if not texts:
            return np.zeros((0, self.teacher.dims), np.float16)
        stored = np.memmap(self._vectors, np.float16, "r", shape=(self._count, self.teacher.dims))
        return stored[[self._row[key] for key in keys]]
