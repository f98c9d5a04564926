"""Popularity in the hybrid: counted without what it is to predict, weighed only where a log shows that it matters."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mrse_model.data.contract import SearchesFile, own_popularity, read_catalogue
from mrse_model.data.examples import ExampleSettings, write_examples
from mrse_model.errors import InputError
from mrse_model.evaluation.bm25 import BM25
from mrse_model.evaluation.popularity import Popularity, prior
from mrse_model.evaluation.rankers import FUSED, RERANKED, Ranking, VectorRanker, add_prior
from mrse_model.evaluation.tuning import FEWEST, MIDDLE, HeldOut, Mix, known_queries, tune, weigh_popularity
from tests.helpers.popular_log import ALIKE, KINDS, TITLES, WORDINGS, WORDS, write_log

WEIGHTS = {"click": 1.0, "cart": 2.0, "order": 3.0}
HELD = WORDINGS[:: len(WORDS)]  # one of a kind


def log_of(folder: Path, favourite: bool, column: dict[str, pa.Array] | None = None) -> None:
    """A run's examples of such a log."""
    write_log(folder, favourite, column)
    searches, settings = SearchesFile(folder / "searches.parquet"), ExampleSettings(validation_fraction=0)
    write_examples(folder / "examples", read_catalogue(folder / "items.parquet"), searches=searches, settings=settings)


def popularity_in(folder: Path) -> Popularity | None:
    return Popularity.read(folder / "items.parquet", len(TITLES), folder / "examples", WEIGHTS)


def held_out(folder: Path, popularity: Popularity | None, texts: list[str]) -> HeldOut:
    """Vectors that know the kind that a query names, and no more."""
    kinds = np.eye(KINDS, dtype=np.float32)

    def encode(queries):
        return kinds[[int(text.split()[0][4:]) for text in queries]]

    queries = known_queries(folder / "examples", texts)
    assert queries is not None
    return HeldOut.of(VectorRanker("v", encode, kinds.repeat(ALIKE, 0)), BM25(TITLES), queries, popularity)


@pytest.mark.parametrize("otherwise", [None, MIDDLE])
def test_a_log_in_which_popularity_decides_gives_it_a_weight(tmp_path: Path, otherwise: float | None) -> None:
    log_of(tmp_path, favourite=True)
    popularity, texts = popularity_in(tmp_path), HELD
    some = held_out(tmp_path, popularity, texts)
    plain = tune([some.qualities()], otherwise=otherwise)
    mix = weigh_popularity(plain, [some], popularity)
    assert popularity and mix.popularity > 0 and mix.source == "clicks" and "log(1 + popularity)" in mix.line()
    assert (mix.weight, mix.queries) == (plain.weight, plain.queries) and mix.profile == "hybrid_linear"
    assert Mix(**mix.noted()) == mix
    without, with_it = some.with_popularity(mix.weight, [0, mix.popularity])
    assert with_it.mean() > without.mean() + 0.2
    unit = mix.popularity * (FUSED if mix.weight is None else 1)  # the scores of a fusion are small
    assert mix.added(popularity.values) == pytest.approx(unit * np.log1p(popularity.values), rel=1e-5)


def test_where_it_does_not_matter_the_mix_is_as_it_was(tmp_path: Path) -> None:
    log_of(tmp_path, favourite=False)
    popularity = popularity_in(tmp_path)
    some = held_out(tmp_path, popularity, HELD)
    mix = tune([some.qualities()])
    assert popularity and weigh_popularity(mix, [some], popularity) == mix and mix.popularity == 0
    assert mix.queries == KINDS and weigh_popularity(mix, [some], None) == mix
    ranked = some.fused
    assert np.array_equal(add_prior(ranked, mix.added(popularity.values)).scores, ranked.scores)


def test_few_queries_do_not_say_it(tmp_path: Path) -> None:
    log_of(tmp_path, favourite=True)
    popularity = popularity_in(tmp_path)
    some = held_out(tmp_path, popularity, HELD[: FEWEST - 1])
    mix = tune([some.qualities()])
    assert mix.queries == 0 and weigh_popularity(mix, [some], popularity) == mix


def test_a_query_s_own_events_do_not_count_for_it(tmp_path: Path) -> None:
    log_of(tmp_path, favourite=True)
    popularity = popularity_in(tmp_path)
    assert popularity is not None
    events = len(WORDINGS) * 5
    orders = len(range(0, events, 7))  # of weight 3, where a click has 1
    assert popularity.values.sum() == events + 2 * orders
    assert popularity.without(WORDINGS).sum() == 0 and np.array_equal(popularity.without(["other"]), popularity.values)
    some = popularity.without([WORDINGS[0].upper()])
    assert np.flatnonzero(some != popularity.values).tolist() == [int(popularity.values[:ALIKE].argmax())]


def test_the_catalogue_s_own_column_wins(tmp_path: Path) -> None:
    sold = [None, -1.0, float("nan"), 3.0] + [0.0] * (len(TITLES) - 4)
    log_of(tmp_path, favourite=True, column={"popularity": pa.array(sold)})
    popularity = popularity_in(tmp_path)
    assert popularity is not None and popularity.source == "column"
    assert prior(popularity.values)[:5] == pytest.approx([0, 0, 0, np.log(4), 0])
    assert popularity.without(WORDINGS) is popularity.values
    nothing = {"popularity": pa.nulls(len(TITLES))}
    log_of(tmp_path / "empty", favourite=True, column=nothing)
    assert popularity_in(tmp_path / "empty") is None


@pytest.mark.parametrize(
    ("values", "says"),
    [
        (["many", "few"], "is string"),
        ([1.0, float("inf")], "row 1.*inf is out"),
        ([1.0, -4e38], "row 1.*-4e.38 is out"),
    ],
)
def test_a_column_that_is_no_popularity_is_refused(tmp_path: Path, values: list, says: str) -> None:
    file = tmp_path / "items.parquet"
    pq.write_table(pa.table({"item_id": ["a", "b"], "title": ["x", "y"], "popularity": values}), file)
    with pytest.raises(InputError, match=f"field popularity: .*{says}|{says}"):
        own_popularity(file)


def test_popularity_reorders_what_a_ranker_found() -> None:
    ranking = Ranking(np.array([[0, 1, 2], [2, -1, -1]]), np.array([[3, 2, 1], [1, -np.inf, -np.inf]], np.float32))
    found = add_prior(ranking, np.array([0, 1.5, 2], np.float32))
    assert found.rows.tolist() == [[1, 0, 2], [2, -1, -1]]
    assert found.scores.tolist() == [[3.5, 3, 3], [3, -np.inf, -np.inf]]


def test_popularity_reorders_what_the_profile_reranks_and_no_more() -> None:
    count = RERANKED + 50
    ranking = Ranking(np.arange(count)[None], np.linspace(1, 0, count, dtype=np.float32)[None])
    prior = np.zeros(count, np.float32)
    prior[[RERANKED - 1, RERANKED]] = 5
    found = add_prior(ranking, prior)
    assert found.rows[0].tolist() == [RERANKED - 1, *range(RERANKED - 1), *range(RERANKED, count)]
    assert (np.diff(found.scores[0]) <= 0).all()


def test_as_many_are_reranked_as_the_profile_says() -> None:
    profile = Path(__file__).parents[3] / "vespa_app" / "schemas" / "item" / "hybrid_linear.profile"
    assert re.findall(r"rerank-count: (\d+)", profile.read_text("utf-8")) == [str(RERANKED)]
