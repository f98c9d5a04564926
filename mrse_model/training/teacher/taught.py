"""What a teacher (mrse_model.teacher) gives to a training: FtAtt's first table, its similarities of queries and items,
and the start of the fusion.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from tokenizers import Tokenizer
from torch import Tensor

from mrse_model.config import LossConfig
from mrse_model.images.features import FeatureFile
from mrse_model.progress import steps_shown
from mrse_model.teacher.encoders import load_teacher
from mrse_model.teacher.vectors import VectorCache
from mrse_model.training.teacher.pairs import add_images, centre, image_file, mean_of
from mrse_model.training.teacher.table import principal_axes, token_table, token_texts

SAMPLE = 100_000  # texts by which the table's axes are found


@dataclass(frozen=True)
class Taught:
    """A teacher's vectors of all queries [Q, D] and items [N, D], float16, and the share of pseudo-queries: the less is
    known of real queries, the more its similarities count.
    """

    queries: NDArray[np.float16]
    items: NDArray[np.float16]
    pseudo_share: float

    def cosines(self, queries: NDArray, items: NDArray) -> Tensor:
        """What the teacher finds between these queries [b] and items [m], by row: float32 [b, m]."""
        asked, found = (
            torch.from_numpy(rows.astype(np.float32)) for rows in (self.queries[queries], self.items[items])
        )
        return asked @ found.T

    def weights(self, pseudo: NDArray[np.bool_], loss: LossConfig) -> tuple[Tensor, Tensor]:
        """The weights of MNSCE and of the distillation for each example [b]; pseudo: which are pseudo-queries [b]."""
        made, one = torch.from_numpy(pseudo), torch.ones(len(pseudo))
        real = loss.distil_real * min(1.0, 2.5 * self.pseudo_share)
        return torch.where(made, loss.pseudo_contrast, one), torch.where(made, loss.distil, real * one)


class TeacherVectors:
    """The vectors that a run needs of its teacher, kept in its cache (mrse_model.teacher.vectors).

    Those of a teacher with an image half are centred by the mean of the items' texts, once `taught` knows it, and an
    item's is of its text and its image (mrse_model.training.teacher.pairs).
    """

    def __init__(self, name: str, cache: Path, console: Console) -> None:
        self.teacher, self.console, self.folder = load_teacher(name), console, cache / "teacher"
        self._cache = VectorCache(self.folder, self.teacher)
        self._images: FeatureFile | None = None
        self._mean: NDArray[np.float32] | None = None

    def read_images(self, items: Path, made: Path, column: str) -> None:
        """Makes the vectors of the items' images, of a teacher that has an image half (pairs.image_file)."""
        if self.teacher.image is not None:
            self._images = image_file(self.teacher.image, items, made, column, self.folder)

    def of(self, texts: Sequence[str], what: str) -> NDArray[np.float16]:
        """float16 [n, D]. what: for the progress line."""
        with steps_shown(self.console) as progress:
            found = self._cache.encode(texts, lambda done, total: progress(f"teacher: {what}", done, total))
        return found if self._mean is None else centre(found, self._mean)

    def taught(
        self, queries: Sequence[str], items: Sequence[str], row: Mapping[str, int], pseudo_share: float
    ) -> Taught:
        """What it says of queries and of items, by their texts and images. row: of each item id."""
        asked, found = self.of(queries, "queries"), self.of(items, "items")
        if self.teacher.image is not None:
            self._mean = mean_of(found)
            asked, found = centre(asked, self._mean), centre(found, self._mean)
        if self._images is not None:
            add_images(found, self._images, row)
        return Taught(asked, found, pseudo_share)

    def table(
        self, tokenizer: Tokenizer, item_tokens: NDArray[np.int32], taught: Taught, dims: int, seed: int
    ) -> NDArray[np.float32]:
        """FtAtt's first table [V, dims], in the principal axes of what the teacher says of items and queries; columns
        beyond the teacher's width are zeros.
        """
        rng = np.random.default_rng(seed)
        some = (rows[np.sort(rng.permutation(len(rows))[:SAMPLE])] for rows in (taught.items, taught.queries))
        axes = principal_axes(np.concatenate(list(some)), dims)
        axes = np.pad(axes, ((0, 0), (0, dims - axes.shape[1])))
        return token_table(self.of(token_texts(tokenizer), "tokens"), axes, item_tokens)
