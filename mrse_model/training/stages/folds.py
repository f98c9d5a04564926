"""Cross-validation, where too few queries are held out to choose by: FtAtt and the fusion are trained again without one
fold of the real queries each time, and are then asked for these. So it is decided how long the fusion is trained, or
that FtAtt is better alone, and by which weight words and vectors are mixed.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from mrse_model.atomic_file import atomic_file
from mrse_model.data.example_files import training_pairs
from mrse_model.evaluation.queries import QuerySet
from mrse_model.evaluation.rankers import VectorRanker
from mrse_model.evaluation.tuning import FEWEST, HeldOut, known_of
from mrse_model.model import MRSE
from mrse_model.serving.texts import token_matrix
from mrse_model.training.corpus import Corpus, write_where
from mrse_model.training.dataset import MixedExamples
from mrse_model.training.frozen_vectors import FrozenVectors
from mrse_model.training.loop import all_steps, keep_proven
from mrse_model.training.ragged import Ragged
from mrse_model.training.run_folder import Run
from mrse_model.training.stages.experts import FtAttStage
from mrse_model.training.stages.fusion import FusionStage

FOLDS, ENOUGH = 3, 200  # held-out queries from which on there are no folds
SCORES = 2  # of the fusion in each fold, after its start's

Ask = Callable[[VectorRanker, QuerySet], HeldOut]  # vectors and queries → what these and the words find for them


@dataclass(frozen=True)
class OutOfFold:
    """What queries say that were not learnt from. steps: how many of the fusion's are best, 0: none. found: for each
    fold's queries, after so many.
    """

    steps: int
    found: list[HeldOut]


class FoldFtAtt(FtAttStage):
    """FtAtt's stage without a fold's queries."""

    def __init__(self, run: Run, vectors: FrozenVectors, fold: int) -> None:
        super().__init__(run, vectors)
        self.name = f"{FtAttStage.name}_fold{fold}"


class FoldFusion(FusionStage):
    """The fusion's first steps without a fold's queries: its score is how good the vectors alone are for these. What
    they find after each is kept in the run's state/NAME-STEP.pickle.

    steps: how many the whole training's fusion has; by its own examples each fold would have others, and end elsewhere.
    """

    def __init__(self, run: Run, vectors: FrozenVectors, fold: int, ask: Ask, queries: QuerySet, steps: int) -> None:
        super().__init__(run, vectors)
        self.name = f"{FusionStage.name}_fold{fold}"
        self.ask, self.asked = ask, queries
        self.settings = replace(self.settings, min_steps=steps, max_steps=steps)
        self.stops_after = SCORES * run.train.evaluate_every

    def score(self) -> np.ndarray:
        self.fusion.refresh()
        items = self.vectors.text_features.numpy()  # as of new items: no item's own query must name it
        self.found = self.ask(VectorRanker("", self._vectors_of, items), self.asked)
        return self.found.vectors_alone()

    def evaluated(self, step: int) -> None:
        with atomic_file(self.run.folder / "state" / f"{self.name}-{step}.pickle") as part:
            part.write_bytes(pickle.dumps(self.found))

    @torch.no_grad()
    def _vectors_of(self, texts: Sequence[str]) -> NDArray[np.float32]:
        query, size = self.model.query, self.config.model
        ids, mask = map(self.vectors.put, token_matrix(self.model.tokenizer, list(texts), size.query_tokens))
        found = query.fuse(query.texts(self.model.ngrams, ids, mask), *self.vectors.no_history(len(texts)))
        return found.cpu().numpy()

    def watch(self) -> None:
        """What looks wrong is said of the training itself."""


def are_needed(corpus: Corpus) -> bool:
    """Whether too few real queries are held out to choose by, and enough are known to ask in folds. Only where a
    teacher starts FtAtt: without one, a fold would train all of the experts.
    """
    real = corpus.queries.real
    if corpus.taught is None or real is None or not isinstance(corpus.examples, MixedExamples):
        return False
    return real[corpus.dev.rows].sum() < ENOUGH and real.sum() >= FEWEST


def cross_validate(run: Run, vectors: FrozenVectors, first_table: NDArray[np.float32], ask: Ask) -> OutOfFold:
    """Trains the folds and asks each for its queries; call it before the fusion is trained.

    vectors: of stage 1, trained. Its image side is every fold's. Its BERTs have learnt from all of the queries and find
    them by heart: the folds do without, but for VBert where there are images, which nothing else sees. first_table:
    FtAtt's, as the teacher gives it.
    """
    corpus, model = vectors.corpus, vectors.model
    assert isinstance(corpus.examples, MixedExamples)
    learnt = np.unique(corpus.examples.read(0, corpus.examples.count)["query"])
    order = np.random.default_rng(run.train.seed).permutation(learnt)
    torch.manual_seed(run.train.seed)
    fold_model = MRSE(model.config, model.tokenizer).to(vectors.device)
    fold_model.start_tables(first_table, from_teacher=True)
    fold_model.leave_out("light_bert")
    if corpus.features is None:
        fold_model.leave_out("vbert")
    fresh = {k: v.clone() for k, v in fold_model.state_dict().items() if k.startswith(("ngrams.", "item.attention."))}
    start = {**model.state_dict(), **fresh}
    settings, names = run.train.dssm, []
    steps = all_steps(settings, corpus.examples.steps(settings.batch))
    pairs = training_pairs(run.folder / "cache" / "examples")
    for fold, held in enumerate(np.array_split(order, FOLDS)):
        queries = known_of(pairs, [corpus.queries.texts[row] for row in held])
        if queries is None:
            continue
        fold_model.load_state_dict(start)
        some = FrozenVectors(fold_model, _without(corpus, held, run, fold), vectors.device, run.folder)
        some.take_images(vectors)
        FoldFtAtt(run, some, fold).train()
        stage = FoldFusion(run, some, fold, ask, queries, steps)
        stage.train()
        names.append(stage.name)
    return _decide(run, names)


def _without(corpus: Corpus, held: np.ndarray, run: Run, fold: int) -> Corpus:
    """The corpus without these queries: neither an example nor an item tells of them."""
    examples = corpus.examples
    assert isinstance(examples, MixedExamples)
    path = run.folder / "cache" / f"fold{fold}.bin"
    if run.processes.main and not path.exists():
        write_where(examples, path, partial(_are_of_others, held))
    run.processes.wait()
    out, known = set(held.tolist()), corpus.item_queries
    kept = Ragged.of([[row for row in known[item].tolist() if row not in out] for item in range(len(corpus))])
    mixed = MixedExamples(path, examples.history, examples.pseudo.path, examples.share)
    return replace(corpus, examples=mixed, item_queries=kept)


def _are_of_others(held: np.ndarray, records: np.ndarray) -> np.ndarray:
    return ~np.isin(records["query"], held)


def _decide(run: Run, names: Sequence[str]) -> OutOfFold:
    """The steps after which the folds' queries are found better than at any score before, by more than their error."""
    folder = run.folder / "state"
    run.processes.wait()  # the main process writes what they found
    steps = sorted(int(path.stem.rpartition("-")[2]) for path in folder.glob(f"{names[0]}-*.pickle"))
    found: dict[int, list[HeldOut]] = {
        step: [pickle.loads((folder / f"{name}-{step}.pickle").read_bytes()) for name in names] for step in steps
    }
    score = {step: np.concatenate([part.vectors_alone() for part in found[step]]) for step in steps}
    kept = 0
    for step in steps[1:]:
        if keep_proven(score[step], score[kept], kept):
            kept = step
    shown = ", ".join(f"{score[step].mean():.4f} after {step}" for step in steps)
    run.console.print(f"  {len(score[0]):,} queries by folds: {shown} steps of the fusion; {kept} are taken")
    return OutOfFold(kept, found[kept])
