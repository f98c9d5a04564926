"""A checkpoint, measured: what is ranked with which vectors, on what the mix is tuned, with whose history."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

pytest.importorskip("torch")

from mrse_model.config import preset
from mrse_model.data.contract import Catalogue, SearchesFile, read_catalogue
from mrse_model.data.example_files import EXAMPLE_SCHEMA, dev_queries, item_queries, queries_in_training
from mrse_model.data.example_files import KINDS as KINDS_OF_EXAMPLES
from mrse_model.data.examples import write_examples
from mrse_model.evaluation.checkpoint import (
    MIX,
    NEW_ITEMS,
    Measured,
    catalogue_words,
    measure,
    measure_personal,
    pseudo_query_set,
)
from mrse_model.evaluation.measures import per_query
from mrse_model.evaluation.personal import PersonalSearches
from mrse_model.evaluation.queries import QuerySet, clicked_queries
from mrse_model.evaluation.rankers import LinearFusion, VectorRanker
from mrse_model.evaluation.tuning import MIDDLE, Mix
from mrse_model.serving.exported_model import ItemVectors

DAY = 86400.0


@dataclass(frozen=True)
class Run:
    """A trained run, measured on the clicks after its split."""

    catalogue: Catalogue
    features: np.ndarray
    examples: Path
    queries: QuerySet
    measured: Measured


@pytest.fixture(scope="module")
def run(trained) -> Run:
    cache = trained.run / "cache"
    catalogue, features = read_catalogue(trained.sample.items), np.load(cache / "features.npy")
    queries = clicked_queries("clicks", cache / "examples" / "validation.parquet")
    found = measure(trained.model, catalogue, features, cache / "examples", queries, cuts=(20, 100, 10**6))
    return Run(catalogue, features, cache / "examples", queries, found)


def test_the_mix_is_the_one_that_training_noted(trained, run) -> None:
    noted = Mix(**trained.model.meta["mix"])
    assert run.measured.mix == noted and noted.queries == len(dev_queries(run.examples))


def test_new_items_are_ranked_without_the_queries_that_led_to_them(trained, run) -> None:
    report, catalogue = run.measured.report, run.catalogue
    names = ["BM25", NEW_ITEMS, "MRSE", "hybrid (MRSE + BM25, RRF)", MIX]
    assert [result.name for result in report.results] == names
    led = item_queries(run.examples, len(catalogue))
    known, new = (
        VectorRanker("v", trained.model.query_vectors, trained.model.item_vectors(*texts, run.features, led).embedding)
        for texts, led in (((catalogue.titles, catalogue.categories), some) for some in (led, None))
    )
    mix = LinearFusion(
        "m",
        known,
        catalogue_words(catalogue),
        MIDDLE if run.measured.mix.weight is None else run.measured.mix.weight,
    )
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
    config = preset("tiny")
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
    who = {"target_item": 0, "timestamp": 0, "user_id": "", "search_id": ""}
    rows = [{"query": query, "kind": KINDS_OF_EXAMPLES.index(kind)} | who | lists for query, kind in (
        ("Mug", "click"), ("mug", "judged"), ("red  mug", "order"), ("steel", "pseudo-query"),
    )]  # fmt: skip
    pq.write_table(pa.Table.from_pylist(rows, EXAMPLE_SCHEMA), tmp_path / "train-00000.parquet")
    assert queries_in_training(tmp_path) == {"judgments": {"mug"}, "clicks": {"mug", "red mug"}, "texts": {"steel"}}
