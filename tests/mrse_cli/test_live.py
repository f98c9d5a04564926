"""The commands against the embedded engine: deploy, feed, query; and a migration while queries run."""

from __future__ import annotations

import json
import shutil
import threading
from collections import Counter
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner
from vespa.application import Vespa

from local_vespa.testing import running_engine
from mrse_cli import main
from mrse_model.serving.exported_model import ExportedModel
from retrieval.filters import Filter
from retrieval.history.behaviour import Event
from retrieval.profiles import TABLE
from retrieval.searcher import Searcher

WORDS = (
    ["red", "blue", "green", "black"],
    ["dress", "shirt", "skirt", "boots", "bag", "jacket"],
    ["cotton", "wool", "leather"],
)
TITLES = [f"{c} {m} {t}" for c in WORDS[0] for t in WORDS[1] for m in WORDS[2]]


def mrse(*arguments: object) -> str:
    result = CliRunner().invoke(main.app, list(map(str, arguments)), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture
def shop(package, tmp_path) -> Iterator[tuple[Path, str, Path]]:
    """(package, URL, items file): an engine with the package deployed and the items fed."""
    app = shutil.copytree(package, tmp_path / "app")
    items = tmp_path / "items.parquet"
    columns = {
        "item_id": [f"i{n}" for n in range(len(TITLES))],
        "title": TITLES,
        "category": [[title.split()[2]] for title in TITLES],
        "colour": [title.split()[0] for title in TITLES],
        "price": [float(n) for n in range(len(TITLES))],
    }
    pq.write_table(pa.table(columns), items)
    with running_engine(tmp_path / "engine") as url:
        mrse("deploy", app, "--config-server", url)
        out = mrse("feed", items, "--app", app, "-e", url)
        assert f"{len(TITLES)} fed" in out
        yield app, url, items


def brute_force(model: ExportedModel, query: str) -> list[tuple[str, float]]:
    vectors = model.item_vectors(TITLES, [[t.split()[2]] for t in TITLES]).embedding
    scores = vectors @ model.query_vectors([query])[0]
    return [(f"i{n}", float(scores[n])) for n in np.argsort(-scores)]


def test_every_profile_answers_and_the_vectors_are_the_models(shop) -> None:
    app, url, _ = shop
    model = ExportedModel.load(app / "models")
    expected = dict(brute_force(model, "red wool dress"))
    clicks = [Event("i3", "click", 1.0), Event("i40", "order", 2.0)]
    for with_model in (None, model):
        searcher = Searcher(Vespa(url), model=with_model, deadline=30, clock=lambda: 3.0)
        for profile in TABLE:
            result = searcher.search("red wool dress", profile=profile, clicks=clicks if with_model else ())
            assert len(result.hits) == 10 and result.hits[0].score >= result.hits[-1].score, profile
        for hit in searcher.search("red wool dress", hits=72).hits:
            assert hit.features["similarity"] == pytest.approx(expected[hit.item_id], abs=0.01)
        found = searcher.search("red wool dress", filters=[Filter.parse("colour=blue|green"), Filter.parse("price<30")])
        assert {hit.fields["colour"] for hit in found.hits} == {"blue"} and found.total == 12
        searcher.close()


def test_the_command_prints_a_table(shop) -> None:
    app, url, _ = shop
    out = mrse("query", "red wool dress", "--app", app, "-e", url, "--hits", 2)
    assert out.count("dress") >= 2 and "2 of " in out and " ms" in out
    found = json.loads(mrse("query", "wool", "--collapse", "colour", "--app", app, "-e", url, "--json"))["hits"]
    colours = [hit["fields"]["colour"] for hit in found]
    assert len(colours) > 1 and len(set(colours)) == len(colours)


def test_similar_items_are_the_nearest_without_the_item(shop) -> None:
    app, url, _ = shop
    found = json.loads(mrse("similar", "i3", "--app", app, "-e", url, "--hits", 5, "--json"))
    vectors = ExportedModel.load(app / "models").item_vectors(TITLES, [[t.split()[2]] for t in TITLES]).embedding
    order = [f"i{n}" for n in np.argsort(-(vectors @ vectors[3])) if n != 3]
    assert len(found["hits"]) == 5 and {hit["item_id"] for hit in found["hits"]} <= set(order[:8])
    assert "i3" not in mrse("similar", "i3", "--app", app, "-e", url).split()


def test_an_explanation_beside_each_hit(shop) -> None:
    app, url, _ = shop
    command = ["query", "red wool dress", "--app", app, "-e", url, "--hits", 2, "--explain"]
    found = json.loads(mrse(*command, "--json"))
    for hit in found["hits"]:
        assert hit["shares"]["similarity"] == pytest.approx(hit["features"]["similarity"], abs=0.01)
        assert "input_query_text" in hit["shares"]
    assert "what each score loses" in mrse(*command)


def test_why_an_item_is_not_found(shop) -> None:
    app, url, _ = shop
    item = f"i{TITLES.index('blue wool shirt')}"

    def why(*arguments: object) -> list[str]:
        out = mrse("why", "red wool dress", *arguments, "--app", app, "-e", url, "--target-hits", 72, "--hits", 1)
        return [line for line in out.splitlines() if line.strip()]

    assert why("i999")[0].startswith("NO   index: it holds no item 'i999'")
    lines = why(item, "--filter", "colour=red", "--filter", "price>=0")
    assert [line[:3] for line in lines] == ["yes", "yes", "NO ", "yes", "yes", "yes", "NO "], lines
    assert "colour of the item is 'blue'" in lines[2] and "a filter keeps it out" in lines[-1]
    without = why(f"i{TITLES.index('blue cotton shirt')}", "--profile", "bm25")
    assert without[-3].startswith("NO   words: none") and without[-1] == "NO   profile: not a candidate of bm25"
    ranks = [hit[0] for hit in brute_force(ExportedModel.load(app / "models"), "red wool dress")]
    lines = why(item)
    expected = ranks.index(item) + 1
    (vectors,) = [line for line in lines if "vectors: rank" in line]
    assert abs(int(vectors.split("rank ")[1].split()[0]) - expected) <= 3, "bfloat16 may swap near ties"
    assert lines[-1].startswith("NO ") and "below the 1 hits of a page" in lines[-1]


# query profile → the match-feature that shows the cosine of query and item, or the closeness made of it
SHOWS = {
    "q2i": "similarity", "hybrid": "semantic", "three_queues": "similarity",
    "query_tower": "similarity", "explain": "similarity",
}  # fmt: skip


def test_queries_run_on_while_the_model_changes(shop, new_models) -> None:
    app, url, items = shop
    known = {
        name: dict(brute_force(ExportedModel.load(folder), "red wool dress"))
        for name, folder in (("old", app / "models"), ("new", new_models))
    }
    seen: list[str] = []
    asked: Counter[tuple[str, str]] = Counter()
    faults: list[object] = []
    stop = threading.Event()

    def ask() -> None:
        vespa = Vespa(url)
        profiles = cycle(SHOWS)
        with vespa.syncio() as session:
            while not stop.is_set():
                profile = next(profiles)
                body = {"queryProfile": profile, "query": "red wool dress", "hits": 20}
                try:
                    answer = session.query(body=body).json["root"]
                    which = _model_of(answer["children"], known, SHOWS[profile])
                    seen.append(which)
                    asked[profile, which] += 1
                    if which == "mixed" or answer.get("errors") or len(answer["children"]) != 20:
                        faults.append(answer)
                except Exception as error:
                    faults.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        mrse("migrate", new_models, items, "--app", app, "-e", url, "--config-server", url)
    finally:
        stop.set()
        thread.join()
    assert faults == []
    assert seen[0] == "old" and seen[-1] == "new" and set(seen) == {"old", "new"}
    assert seen.index("new") == len([s for s in seen if s == "old"]), "one switch, and no way back"
    assert set(asked) == {(profile, which) for profile in SHOWS for which in ("old", "new")}
    assert json.loads((app / "models" / "manifest.json").read_text())["model_version"] == "mrse-ffffffffffff"


def _model_of(hits: list[dict], known: dict[str, dict[str, float]], shown: str) -> str:
    """Which model's query and item vectors made the scores of these hits."""
    for name, scores in known.items():
        parts = [(h["fields"]["matchfeatures"][shown], scores[h["fields"]["item_id"]]) for h in hits]
        if shown == "from_query":  # 1 / (2 - cosine)
            parts = [(2 - 1 / closeness, cosine) for closeness, cosine in parts]
        if all(abs(got - expected) < 0.01 for got, expected in parts):
            return name
    return "mixed"


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ("price=abc", "must be a number (float), got 'abc'"),
        ("price==50", "Write price=50"),
        ("brand=", "a filter without a value"),
        ("colr=red", "Did you mean colour?"),
    ],
)
def test_a_filter_that_can_match_nothing_is_said(package, wrong, says) -> None:
    result = CliRunner().invoke(main.app, ["query", "dress", "--app", str(package), "--filter", wrong])
    assert result.exit_code != 0 and says in str(result.exception), result.output
