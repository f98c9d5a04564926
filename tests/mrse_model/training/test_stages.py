"""The stages: an item is the same in training as in serving; what goes missing, what is no negative, how the adaptor
learns.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mrse_model.config import StageConfig
from mrse_model.cpu_threads import run_parallel
from mrse_model.losses import hnst, log_q, mnsce
from mrse_model.model import MRSE
from mrse_model.training.corpus import Dev, duplicates, pool_ndcg
from mrse_model.training.dataset import Queries
from mrse_model.training.frozen_vectors import COLD_ITEM_RATE, FrozenVectors
from mrse_model.training.ragged import Ragged
from mrse_model.training.stages import AdaptorStage, FusionStage, VBertStage
from mrse_model.training.stages.base import Encode
from mrse_model.training.stages.contrastive import ContrastiveStage
from tests.helpers.small_stages import CATEGORIES, EXAMPLES, ITEM_QUERIES, KNOWN, QUERIES, TITLES, small_fusion


@pytest.fixture
def stage(tmp_path: Path) -> FusionStage:
    return small_fusion(tmp_path)


def test_an_item_is_the_same_in_training_and_in_serving(stage: FusionStage) -> None:
    model, rows = stage.model, np.array([4, 0, 3, 1, 2])
    ours = stage.fusion.items(rows).numpy()
    queries = [[QUERIES[query] for query in some] for some in ITEM_QUERIES]
    theirs = model.item_vectors(TITLES, CATEGORIES, stage.corpus.features, queries).embedding
    assert np.allclose(ours, theirs[rows], atol=1e-5)
    alone = model.item_vectors(TITLES, CATEGORIES, stage.corpus.features).embedding
    assert np.allclose(alone[2], theirs[2], atol=1e-6) and np.abs(alone - theirs)[[0, 1, 3, 4]].max(1).min() > 1e-3


def test_an_example_s_own_query_does_not_tell_its_item(stage: FusionStage) -> None:
    rows, own = np.array([0, 1]), np.array([2, 1])
    *_, weight = stage.fusion.item_inputs(rows, own)
    assert weight[:, :3].tolist() == [[1, 0, 1], [0, 0, 0]] and not weight[:, 3:].any()


def batch_of(stage: FusionStage, *rows: int) -> np.ndarray:
    return stage.corpus.examples.read(0, len(EXAMPLES))[list(rows)]


def some_vectors(n: int) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.randn(n, 8, generator=torch.Generator().manual_seed(1)), dim=-1)


class Given(ContrastiveStage):
    """A stage whose queries' [b, d] and items' vectors [5, d] are given."""

    name, hybrid = "dssm", True

    def __init__(self, stage: FusionStage, query: torch.Tensor, vectors: torch.Tensor) -> None:
        super().__init__(stage.run, stage.vectors)
        self.config, self.settings = stage.config, StageConfig(extra_negatives=3)
        self.query, self.item = query, vectors

    def queries(self, batch: np.ndarray, rng: np.random.Generator) -> Encode:
        return lambda at: self.query[at]

    def items(self, rows: np.ndarray, batch: np.ndarray, rng: np.random.Generator) -> Encode:
        return lambda at: self.item[rows[at]]


def hybrid_loss(stage: FusionStage, batch: np.ndarray, query: torch.Tensor, vectors: torch.Tensor) -> dict[str, Any]:
    return Given(stage, query, vectors).loss(batch, np.random.default_rng(4))


@pytest.mark.parametrize("log_q_on", [False, True])
def test_the_softmax_hides_known_positives_in_every_column(stage: FusionStage, log_q_on: bool) -> None:
    loss = replace(stage.config.loss, log_q=log_q_on, beta=2.0, alpha=1.5)
    stage.config = replace(stage.config, loss=loss)
    batch, vectors = batch_of(stage, 0, 1, 2, 3), some_vectors(5)
    query, positive = vectors[1:], batch["target_item"].astype(np.int64)
    found = hybrid_loss(stage, batch, query, vectors)

    rng = np.random.default_rng(4)
    extra = rng.integers(5, size=3)
    hard = stage.corpus.queries.hard.sample(batch["query"], rng)
    assert (hard < 0).tolist() == [False, True, False, False]
    columns = [*positive, *extra] + ([] if log_q_on else [*np.maximum(hard, 0)])
    hidden = [[column in KNOWN[query] for column in columns] for query in batch["query"]]
    if not log_q_on:
        for row in hidden:
            row[7 + 1] = True  # the query without a hard negative has none to give to the others either
    counts = torch.from_numpy(stage.corpus.counts.astype(np.float32))
    correction = log_q(counts[columns].clamp_min(0.5), 7.0, 5, 4, 3) if log_q_on else None
    further = vectors[columns[4:]]
    cross = mnsce(query, vectors[positive], further, torch.tensor(hidden), loss.temperature, correction).mean()
    has = torch.from_numpy((hard >= 0).astype(np.float32))
    triplet = hnst(query, vectors[positive], vectors[np.maximum(hard, 0)], has, loss.margin).sum() / 3
    assert found["mnsce"] == pytest.approx(cross.item(), abs=1e-5)
    assert found["hnst"] == pytest.approx(triplet.item(), abs=1e-5) and triplet > 0
    assert found["loss"] == pytest.approx((1.5 * cross + 2.0 * triplet).item(), abs=1e-5)


def test_what_cannot_be_told_from_a_positive_is_no_negative(stage: FusionStage) -> None:
    """Items 0 and 3 as duplicates: each the positive of one query of the batch, and its hard negative the other."""
    batch, vectors = batch_of(stage, 0, 3), some_vectors(5)
    apart = hybrid_loss(stage, batch, vectors[[3, 0]], vectors)
    stage.corpus.same_item = np.array([0, 1, 2, 0, 4])
    together = hybrid_loss(stage, batch, vectors[[3, 0]], vectors)
    assert together["mnsce"] < apart["mnsce"]  # fewer columns, the rest the same
    assert apart["hnst"] > 0 and together["hnst"] == 0


def test_nor_what_cannot_be_told_from_another_positive_of_the_query(stage: FusionStage) -> None:
    """Query 0 leads to items 0 and 2; item 3, its hard negative, is item 2 over again."""
    batch, vectors = batch_of(stage, 0), some_vectors(5)
    apart = hybrid_loss(stage, batch, vectors[[3]], vectors)
    stage.corpus.same_item = np.array([0, 1, 2, 2, 4])
    assert apart["hnst"] > 0 and hybrid_loss(stage, batch, vectors[[3]], vectors)["hnst"] == 0


def test_duplicates_are_rows_that_are_the_same_in_all_arrays() -> None:
    nan = np.full(2, np.nan, np.float32)
    texts, images = np.array([[1, 2], [1, 2], [1, 3], [1, 2]]), np.array([nan, [1, 2], nan, nan], np.float32)
    assert duplicates(texts).tolist() == [0, 0, 2, 0]
    assert duplicates(images).tolist() == [0, 1, 0, 0]
    assert duplicates(duplicates(texts), duplicates(images)).tolist() == [0, 1, 2, 0]


def test_in_training_users_images_and_queries_go_missing(stage: FusionStage) -> None:
    rng, batch = np.random.default_rng(0), np.repeat(batch_of(stage, 0), 4000)
    weight, kept = stage.vectors.event_weights(batch, rng), 1 - stage.config.train.history_dropout
    assert np.array_equal(stage.vectors.event_weights(batch)[:, :2], np.ones((4000, 2))), (
        "all are there outside of training"
    )
    assert (weight > 0).any(1).mean() == pytest.approx(kept * (1 - (1 - kept) ** 2), abs=0.02)
    rows, kept = np.zeros(4000, np.int64), 1 - stage.config.train.modality_dropout
    _, image, present, _, led = stage.fusion.item_inputs(rows, rng=rng)
    assert present.mean().item() == pytest.approx(kept, abs=0.02)
    assert torch.equal(image.abs().sum(1) > 0, present[:, 0] > 0)
    assert (led[:, :3].sum(1) > 0).float().mean().item() == pytest.approx((1 - COLD_ITEM_RATE) * (1 - 0.1**3), abs=0.02)


def test_vbert_learns_without_images_too(stage: FusionStage, monkeypatch: pytest.MonkeyPatch) -> None:
    vbert = VBertStage(stage.run, stage.vectors)
    seen: list[torch.Tensor] = []
    head = stage.model.item.vbert
    monkeypatch.setattr(head, "forward", lambda text, image, present, image_residual: seen.append(present) or text)
    rows = np.zeros(4000, np.int64)
    for training in (True, False):
        head.train(training)
        with torch.no_grad():
            vbert.encode_items(*stage.vectors.item_tokens(rows), rows)
    assert seen[0].mean().item() == pytest.approx(1 - stage.config.train.modality_dropout, abs=0.02)
    assert seen[1].eq(1).all()


@pytest.mark.parametrize("no_dev", [False, True], ids=["dev queries", "no dev query has two images"])
@pytest.mark.parametrize("few", [False, True], ids=["all", "few items have an image"])
def test_the_adaptor_learns_pairs_of_one_query_and_is_frozen(stage: FusionStage, few: bool, no_dev: bool) -> None:
    """Twenty kinds of images, told apart in four numbers of twelve; three kinds' queries are held out of training, or
    every tenth of those that have two images.
    """
    rng, items, size = np.random.default_rng(0), 400, 12
    kind = np.arange(items) % 20
    features = rng.normal(size=(items, size)).astype(np.float32) * 2
    features[:, :4] += rng.normal(size=(20, 4))[kind] * 2
    features[7] = np.nan
    if few:
        features[40:] = np.nan
    items_of = [np.flatnonzero(kind == k).tolist() for k in range(20)]
    known = Ragged.of([some[: 1 if no_dev and k in (4, 5, 6) else None] for k, some in enumerate(items_of)])
    tokens = np.repeat(stage.corpus.queries.tokens[:1], 20, 0)
    held = np.array([4, 5, 6])
    dev = Dev(held, tokens[:3], [known[k] for k in held], np.arange(items))
    corpus = replace(
        stage.corpus, item_tokens=np.ones((items, 3), np.int32), features=features, dev=dev,
        queries=Queries(QUERIES * 4, tokens, known, Ragged.of([[]] * 20)),
    )  # fmt: skip
    brief = StageConfig(batch=4 if few else 32 if no_dev else 64, epochs=1, min_steps=150, lr=0.01, extra_negatives=0)
    config = replace(stage.config, train=replace(stage.config.train, adaptor=brief, evaluate_every=50))
    config = replace(config, model=replace(config.model, image_dims=size, image_components=8))
    model = MRSE(config, stage.model.tokenizer)
    vectors = FrozenVectors(model, corpus, torch.device("cpu"), stage.run.folder)
    adaptor, has = AdaptorStage(stage.run, vectors), corpus.has_image
    assert set(adaptor.asking) == ({0, 14 if few else 13} if no_dev else set(held))
    left = set(range(20)) - set(held) - set(adaptor.asking) - ({7} if few else set())
    assert set(adaptor.training_queries) == left
    result = adaptor.train()
    scores = [row["score"] for row in adaptor.run.rows("adaptor") if "score" in row]
    assert result is not None and result.score == pytest.approx(max(scores), abs=1e-6)
    assert max(scores) > 0  # where it was 0 at each evaluation, the start was kept
    assert few or no_dev or max(scores) > scores[0] + 0.1  # of two images a kind nothing can be learnt
    assert not any(p.requires_grad for p in model.adaptor.parameters())
    norms = vectors.images.norm(dim=1)
    assert torch.allclose(norms, torch.from_numpy(has.astype(np.float32)), atol=1e-5) and not has[7]


def test_an_image_does_not_find_itself(stage: FusionStage) -> None:
    dev = Dev(np.zeros(1, int), np.zeros((1, 16)), [np.array([1])], np.array([0, 1, 2]))
    pool = torch.eye(3)
    query = pool[:1] + 0.1 * pool[1:2]
    assert pool_ndcg(dev, query, pool, k=1) == 0
    assert pool_ndcg(dev, query, pool, k=1, without=torch.tensor([0])) == 1


def test_the_fusion_is_chosen_by_items_as_they_are_and_as_new_ones(
    stage: FusionStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    pools: list[torch.Tensor] = []

    def score(dev: Dev, queries: torch.Tensor, pool: torch.Tensor) -> np.ndarray:
        pools.append(pool)
        return np.full(len(queries), float(len(pools)))

    monkeypatch.setattr("mrse_model.training.stages.fusion.pool_ndcg", score)
    with torch.no_grad():
        assert stage.score().tolist() == [1.5] * len(stage.corpus.dev.tokens)
        known, new = pools
        led = np.isin(stage.corpus.dev.pool, np.flatnonzero(np.diff(stage.corpus.item_queries.start)))
        assert led.any() and not torch.allclose(known[led], new[led]), "their queries count"
        assert torch.allclose(known[~led], new[~led]), "who has none is new"


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def test_threads_find_the_loss_and_the_gradients_of_one(
    stage: FusionStage, monkeypatch: pytest.MonkeyPatch, threads: None
) -> None:
    model, batch, rng = stage.model.eval(), batch_of(stage, 0, 1, 2, 3, 4, 5), np.random.default_rng
    together: list[int] = []
    stage.settings = StageConfig(extra_negatives=7)

    def run() -> tuple[dict[str, torch.Tensor], list[torch.Tensor | None]]:
        model.zero_grad(set_to_none=True)
        losses = stage.loss(batch, rng(4))
        losses["loss"].backward()
        return losses, [p.grad for p in model.parameters()]

    one, of_one = run()
    run_jobs = run_parallel
    monkeypatch.setattr("mrse_model.training.stages.contrastive.MIN_TOKENS", 20)
    monkeypatch.setattr(
        "mrse_model.training.stages.contrastive.run_parallel",
        lambda jobs, p: together.append(len(jobs)) or run_jobs(jobs, p),
    )
    many, of_many = run()
    assert together == [4], "the queries, and the items in three parts"
    assert one.keys() == many.keys() and all(torch.allclose(one[k], many[k], atol=1e-6) for k in one)
    assert [g is None for g in of_one] == [g is None for g in of_many] and any(g is not None for g in of_one)
    for ours, theirs in zip(of_one, of_many, strict=True):
        assert ours is None or torch.allclose(ours, theirs, atol=1e-6 + 1e-5 * float(ours.abs().max()))


def test_training_in_threads_can_be_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threads: None) -> None:
    monkeypatch.setattr("mrse_model.training.stages.contrastive.MIN_TOKENS", 20)
    brief = StageConfig(epochs=4, batch=4, extra_negatives=20, lr=0.01)

    def train(name: str) -> list[dict[str, Any]]:
        (tmp_path / name).mkdir()
        fusion = small_fusion(tmp_path / name)
        run, vectors = fusion.run, fusion.vectors
        run.train = replace(run.train, evaluate_every=2)
        for stage in (VBertStage(run, vectors), fusion):
            stage.settings = brief
            stage.train()
        rows = run.rows("vbert") + run.rows("dssm")
        return [{k: v for k, v in row.items() if k != "examples_per_second"} for row in rows]

    first, again = train("first"), train("again")
    assert len(first) > 6 and first == again
    torch.set_num_threads(1)
    assert train("alone") != first, "the threads were used: they have dropout masks of their own"
