"""A checkpoint, measured: what is ranked with which vectors, on what the mix is tuned, with whose history."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

pytest.importorskip("torch")

from mrse_model.config import preset
from mrse_model.data.contract import Catalogue, SearchesFile, read_catalogue
from mrse_model.data.example_files import EXAMPLE_SCHEMA, item_queries, queries_in_training, save_dev_queries
from mrse_model.data.example_files import KINDS as KINDS_OF_EXAMPLES
from mrse_model.data.examples import write_examples
from mrse_model.data.search_log import query_key
from mrse_model.evaluation.bm25 import BM25
from mrse_model.evaluation.checkpoint import (
    MIX,
    NEW_ITEMS,
    TUNED_ON,
    Measured,
    catalogue_texts,
    measure,
    measure_personal,
    pseudo_query_set,
    tune_mix,
)
from mrse_model.evaluation.measures import per_query
from mrse_model.evaluation.personal import PersonalSearches
from mrse_model.evaluation.queries import QuerySet, clicked_queries
from mrse_model.evaluation.rankers import LinearFusion, VectorRanker
from mrse_model.serving.exported_model import ItemVectors

DAY = 86400.0


@dataclass(frozen=True)
class Run:
    """A trained run, measured on the clicks after its split; tuned_on: the texts that the mix was tuned on."""

    catalogue: Catalogue
    features: np.ndarray
    examples: Path
    queries: QuerySet
    measured: Measured
    tuned_on: list[str]


@pytest.fixture(scope="module")
def run(trained) -> Run:
    cache, tuned_on = trained.run / "cache", list[str]()
    catalogue, features = read_catalogue(trained.sample.items), np.load(cache / "features.npy")
    queries = clicked_queries("clicks", cache / "examples" / "validation.parquet")
    tuned = LinearFusion.tuned

    def spied(mix, texts, *arguments, **options):
        tuned_on.extend(texts)
        return tuned(mix, texts, *arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LinearFusion, "tuned", spied)
        found = measure(trained.model, catalogue, features, cache / "examples", queries, cuts=(20, 100, 10**6))
    return Run(catalogue, features, cache / "examples", queries, found, tuned_on)


def test_the_mix_is_tuned_on_queries_that_are_not_measured(run) -> None:
    trained_on = {q for path in run.examples.glob("train-*") for q in pq.read_table(path)["query"].to_pylist()}
    assert set(run.queries.texts) & trained_on, "else this shows nothing"
    assert run.tuned_on and set(run.tuned_on) <= trained_on
    assert not set(run.tuned_on) & set(run.queries.texts)
    assert run.measured.tuned_on == f"{len(run.tuned_on)} training queries"


def test_new_items_are_ranked_without_the_queries_that_led_to_them(trained, run) -> None:
    report, catalogue = run.measured.report, run.catalogue
    names = ["BM25", NEW_ITEMS, "MRSE", "hybrid (MRSE + BM25, RRF)", MIX]
    assert [result.name for result in report.results] == names
    led = item_queries(run.examples, len(catalogue))
    known, new = (
        VectorRanker("v", trained.model.query_vectors, trained.model.item_vectors(*texts, run.features, led).embedding)
        for texts, led in (((catalogue.titles, catalogue.categories), some) for some in (led, None))
    )
    mix = LinearFusion("m", known, BM25(catalogue_texts(catalogue)), run.measured.weight)
    for name, ranker in (("MRSE", known), (NEW_ITEMS, new), (MIX, mix)):
        values = per_query(run.queries, ranker.search(run.queries.texts, 100), (20, 100))
        assert report[name].value("nDCG@10") == pytest.approx(values["nDCG@10"].mean(), abs=1e-6)
        assert report[name].value("Recall@20_u") == pytest.approx(values["Recall@20"].mean(), abs=1e-6)
    assert report[NEW_ITEMS].value("nDCG@10") != report["MRSE"].value("nDCG@10")


def test_metrics_are_mrse_s_own_and_the_history_s(run) -> None:
    measured, metrics = run.measured, run.measured.metrics()
    assert metrics["nDCG@10"] == round(measured.report["MRSE"].value("nDCG@10"), 4)
    assert {"Recall@20_w", "Recall@20_u", "Rele@100_w"} <= set(metrics) and "Recall@1000000_w" not in metrics
    assert measured.personal is not None and measured.not_personal is None
    assert metrics["personal Recall@20"] == round(measured.personal.with_history.mean, 4)
    validation = pq.read_table(run.examples / "validation.parquet").to_pylist()
    assert measured.personal.searches == sum(bool(row["history_items"]) for row in validation) > 0


@pytest.mark.parametrize("who", ["nobody is known", "everybody comes once"])
def test_without_histories_all_but_the_personal_measure_is_there(trained, run, who, tmp_path) -> None:
    log = pq.read_table(trained.sample.searches)
    users = [None if who == "nobody is known" else f"u{row}" for row in range(len(log))]
    at = log.schema.get_field_index("user_id")
    pq.write_table(log.set_column(at, "user_id", pa.array(users, pa.string())), tmp_path / "searches.parquet")
    examples = tmp_path / "examples"
    summary = write_examples(examples, run.catalogue, searches=SearchesFile(tmp_path / "searches.parquet"))
    assert summary.validation_searches
    found = measure(trained.model, run.catalogue, run.features, examples, run.queries, cuts=(20,), folder=tmp_path)
    assert found.personal is None and "clicked before" in (found.not_personal or "")
    assert set(found.metrics()) == {"nDCG@10", "Recall@20_w", "Recall@20_u", "Rele@20_w", "Rele@20_u"}
    assert (tmp_path / "report.md").exists()


COLOURS, KINDS = ("red", "blue", "green", "black"), ("dress", "shoe", "coat")


@pytest.fixture
def shop(tmp_path) -> Catalogue:
    titles = [f"{colour} {kind}" for colour in COLOURS for kind in KINDS]
    pq.write_table(pa.table({"item_id": titles, "title": titles}), tmp_path / "items.parquet")
    return read_catalogue(tmp_path / "items.parquet")


def judged(folder: Path, shop: Catalogue, near: bool = True) -> Path:
    """Training examples: every title but the last is a query, its own item right and the next one nearly."""
    lists = {name: [] for name in ("history_items", "history_kind", "history_age", "known", "skipped")}
    who = {"kind": 3, "timestamp": 0, "user_id": "", "search_id": ""}
    rows = [
        {"query": shop.titles[i].title(), "item": i, "hard": [i + 1] if near else []} | who | lists
        for i in range(len(shop) - 1)
    ]
    folder.mkdir()
    pq.write_table(pa.Table.from_pylist(rows, EXAMPLE_SCHEMA), folder / "train-00000.parquet")
    return folder


def mix_of(shop: Catalogue, right: bool) -> LinearFusion:
    """Words, and vectors that find the item of a title, or else the one that is judged a near miss."""
    own = np.eye(len(shop), dtype=np.float32)
    rows = {title: i for i, title in enumerate(shop.titles)}

    def encode(texts):
        vectors = own[[rows[text.lower()] for text in texts]]
        return vectors if right else np.roll(vectors, 1, axis=1)

    return LinearFusion(MIX, VectorRanker("v", encode, own), BM25(shop.titles), weight=0.5)


@pytest.mark.parametrize(("right", "weights"), [(True, {0}), (False, {0.6, 0.7, 0.8, 0.9, 1})])
def test_the_words_get_a_share_where_the_vectors_mistake_near_misses(shop, tmp_path, right, weights) -> None:
    measured = [shop.titles[0].upper(), "hat"]  # the first is a training query, spelt otherwise
    tuned, what = tune_mix(mix_of(shop, right), judged(tmp_path / "examples", shop), shop, measured)
    assert tuned.weight in weights
    assert what == f"{len(shop) - 2} training queries"


def test_without_near_misses_the_mix_is_tuned_on_pieces_of_titles_that_are_not_measured(shop, tmp_path) -> None:
    examples = judged(tmp_path / "examples", shop, near=False)
    all_pieces = pseudo_query_set(shop, TUNED_ON, seed=102).texts
    asked: list[str] = []

    def encode(texts):
        asked.extend(texts)
        return np.ones((len(texts), 1), np.float32)

    alike = VectorRanker("v", encode, np.ones((len(shop), 1), np.float32))
    mix = LinearFusion(MIX, alike, BM25(shop.titles), weight=0.5)
    tuned, what = tune_mix(mix, examples, shop, all_pieces[:2])
    trained_on = {query_key(title) for title in shop.titles[:-1]}
    new = [piece for piece in all_pieces[2:] if query_key(piece) not in trained_on]
    assert 0 < len(new) < len(all_pieces[2:])
    assert asked == new and what == f"{len(asked)} pseudo-queries"
    assert tuned.weight > 0.5  # vectors that are all alike say nothing
    assert tune_mix(mix, examples, shop, all_pieces) == (mix, "no query, because all are measured")
    asked.clear()
    tune_mix(mix, examples, shop, [piece for piece in all_pieces if query_key(piece) not in trained_on])
    assert asked and {query_key(text) for text in asked} <= trained_on  # better than none


@pytest.mark.parametrize(("fewest", "held_out"), [(3, True), (4, False)])
def test_the_mix_is_tuned_on_what_the_training_held_out_where_that_is_enough(
    shop, tmp_path, monkeypatch, fewest, held_out
) -> None:
    monkeypatch.setattr("mrse_model.evaluation.checkpoint.FEWEST_DEV", fewest)
    examples = judged(tmp_path / "examples", shop)
    save_dev_queries(examples, [title.upper() for title in shop.titles[:4]])
    _, what = tune_mix(mix_of(shop, True), examples, shop, [shop.titles[0]])
    assert what == ("3 dev queries" if held_out else f"{len(shop) - 2} training queries")


def test_relevant_to_a_pseudo_query_are_the_items_with_all_its_words(shop) -> None:
    found = pseudo_query_set(shop, most=100)
    assert {1, 2} <= {len(text.split()) for text in found.texts}
    for text, rows, grades in zip(found.texts, found.items, found.grades, strict=True):
        assert rows.tolist() == [i for i, t in enumerate(shop.titles) if set(text.split()) <= set(t.split())]
        assert grades.tolist() == [1] * len(rows) and rows.dtype == np.int32
    assert len(pseudo_query_set(shop, most=3)) <= 3
    assert pseudo_query_set(shop, but=set(found.texts)).texts == []


def test_a_history_is_told_to_the_model_as_its_items_and_their_weights() -> None:
    seen = []
    config = SimpleNamespace(train=preset("tiny").train)
    items = ItemVectors(*(np.eye(40, dtype=np.float32) * scale for scale in (1, 2, 3)))

    class Follower:
        """Wants what its history wants; without one the first items."""

        def __init__(self) -> None:
            self.config = config

        def query_vectors(self, texts, histories=None):
            seen.append(histories)
            if histories is None:
                return np.tile(np.arange(40, 0, -1, dtype=np.float32), (len(texts), 1))
            return np.stack([h.image.sum(0) for h in histories])

    searches = PersonalSearches(
        ["q", "r"], ["u", "v"], [[30, 0], [35, 0]], [[30, 3], [35]], [[2, 0], [1]], [[0.0, DAY], [0]]
    )
    found = measure_personal(Follower(), items, searches)  # type: ignore[arg-type]
    assert (found.with_history.mean, found.without.mean, found.users) == (1, 0.5, 2)
    histories, none = seen
    assert none is None
    train = config.train
    day = 0.5 ** (1 / train.half_life_days)
    assert histories[0].weight == pytest.approx([train.event_weights["order"], train.event_weights["click"] * day])
    assert histories[0].image.tolist() == items.image_embedding[[30, 3]].tolist()
    assert histories[1].text.tolist() == items.text_feature[[35]].tolist()


def test_what_a_run_learnt_from_is_told_apart(tmp_path) -> None:
    lists = {name: [] for name in ("history_items", "history_kind", "history_age", "hard", "known", "skipped")}
    who = {"item": 0, "timestamp": 0, "user_id": "", "search_id": ""}
    rows = [{"query": query, "kind": KINDS_OF_EXAMPLES.index(kind)} | who | lists for query, kind in (
        ("Mug", "click"), ("mug", "judged"), ("red  mug", "order"), ("steel", "pseudo-query"),
    )]  # fmt: skip
    pq.write_table(pa.Table.from_pylist(rows, EXAMPLE_SCHEMA), tmp_path / "train-00000.parquet")
    assert queries_in_training(tmp_path) == {"judgments": {"mug"}, "clicks": {"mug", "red mug"}, "texts": {"steel"}}
