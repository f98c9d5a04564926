"""Cross-validation, where too few queries are held out to choose by: FtAtt is trained again without one fold of the
real queries each time, and is then asked for these.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F

from mrse_model.evaluation.rankers import VectorRanker
from mrse_model.model import MRSE
from mrse_model.serving.texts import token_matrix
from mrse_model.training.corpus import Corpus, write_where
from mrse_model.training.dataset import MixedExamples
from mrse_model.training.frozen_vectors import FrozenVectors
from mrse_model.training.run_folder import Run
from mrse_model.training.stages.experts import FtAttStage

FOLDS, ENOUGH = 3, 200  # held-out queries from which on there are no folds
EPOCHS = 0.5  # of FtAtt's stage, in each fold


class FoldStage(FtAttStage):
    """FtAtt's stage without a fold's queries."""

    def __init__(self, run: Run, vectors: FrozenVectors, fold: int) -> None:
        super().__init__(run, vectors)
        self.name = f"ft_att_fold{fold}"
        self.settings = replace(self.settings, epochs=EPOCHS * self.settings.epochs)


def fold_rankers(
    run: Run, corpus: Corpus, start: MRSE, examples: MixedExamples
) -> Iterator[tuple[VectorRanker, list[str]]]:
    """FtAtt's vectors as each fold of the real queries finds them, which has not learnt from these, and the fold's
    queries. start: a model whose table is the teacher's; it is trained over. examples: the corpus's.
    """
    learnt = np.unique(examples.read(0, examples.count)["query"])
    order = np.random.default_rng(run.train.seed).permutation(learnt)
    fresh = {name: value.clone() for name, value in start.state_dict().items()}
    for fold, held in enumerate(np.array_split(order, FOLDS)):
        path = run.folder / "cache" / f"fold{fold}.bin"
        write_where(examples, path, partial(_are_of, np.setdiff1d(learnt, held)))
        start.load_state_dict(fresh)
        kept = MixedExamples(path, examples.history, examples.pseudo.path, examples.share)
        vectors = FrozenVectors(start, replace(corpus, examples=kept), run.processes.device, run.folder)
        FoldStage(run, vectors, fold).train()
        yield ft_att_ranker(vectors), [corpus.queries.texts[row] for row in held]


def _are_of(queries: np.ndarray, records: np.ndarray) -> np.ndarray:
    return np.isin(records["query"], queries)


@torch.no_grad()
def ft_att_ranker(vectors: FrozenVectors) -> VectorRanker:
    """The catalogue as FtAtt alone finds it."""
    model, tokenizer, size = vectors.model.eval(), vectors.model.tokenizer, vectors.config.model
    items = torch.zeros(len(vectors.corpus), size.dims)
    for rows, ids, mask in vectors.item_blocks():
        items[rows] = F.normalize(model.item.ft_att(model.ngrams, ids, mask), dim=-1).cpu()

    @torch.no_grad()
    def encode(texts: Sequence[str]) -> np.ndarray:
        ids, mask = (vectors.put(some) for some in token_matrix(tokenizer, list(texts), size.query_tokens))
        return F.normalize(model.query.ft_att(model.ngrams, ids, mask), dim=-1).cpu().numpy()

    return VectorRanker("FtAtt", encode, items.numpy())
