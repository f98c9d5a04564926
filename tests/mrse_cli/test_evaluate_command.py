"""`mrse evaluate` on a small run: what it prints, what it saves, and by what judged queries are weighed."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

pytest.importorskip("torch")

from mrse_cli.main import app
from mrse_model.data.contract import SearchesFile, read_catalogue
from mrse_model.data.examples import write_examples
from mrse_model.data.search_log import query_key
from mrse_model.errors import InputError
from mrse_model.evaluation.checkpoint import MIX, NEW_ITEMS


@pytest.fixture
def run(trained, tmp_path) -> Path:
    """A copy of the run, because the command writes into it."""
    return Path(shutil.copytree(trained.run, tmp_path / "run", ignore=shutil.ignore_patterns("state")))


def mrse(*arguments: object) -> str:
    """What the command prints, as one line."""
    found = CliRunner().invoke(app, ["evaluate", *map(str, arguments)], catch_exceptions=False)
    assert found.exit_code == 0
    return " ".join(found.output.split())


def some_judgments(trained, path: Path, **more: list[Any]) -> Path:
    """Judgments of 40 queries that were trained on and so asked, 20 that were not, and of `more`."""
    asked, others = pq.read_table(trained.sample.judgments), pq.read_table(trained.sample.judgments_val)
    log = Counter(pq.read_table(trained.sample.searches)["query"].to_pylist())
    chosen = [q for q in dict.fromkeys(asked["query"].to_pylist()) if log[q]][:40]
    chosen += list(dict.fromkeys(others["query"].to_pylist()))[:20]
    rows = [row for row in (asked.to_pylist() + others.to_pylist()) if row["query"] in chosen]
    columns = {name: [row[name] for row in rows] + more.get(name, []) for name in ("query", "item_id", "grade")}
    pq.write_table(pa.table(columns), path)
    return path


def report_of(run: Path, queries: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The rankers' results by name, and the values of each query."""
    folder = run / "evaluation" / queries
    results = json.loads((folder / "report.json").read_text())["results"]
    return {r["name"]: r for r in results}, json.loads((folder / "per_query.json").read_text())


def test_clicks_after_the_split(trained, run) -> None:
    before = json.loads((run / "meta.json").read_text())
    out = mrse(run, trained.sample.items)
    results, _ = report_of(run, "clicks-after-the-split")
    assert list(results) == ["BM25", NEW_ITEMS, "MRSE", "hybrid (MRSE + BM25, RRF)", MIX]
    for words in ("clicks after the split: ", "BM25", "nDCG@10", "Recall@100_w", "chosen on", "with history"):
        assert words in out
    meta = json.loads((run / "meta.json").read_text())
    assert meta["metrics"]["nDCG@10"] == round(results["MRSE"]["measures"]["nDCG@10"]["mean"], 4)
    assert meta["metrics"]["Recall@100_w"] == round(results["MRSE"]["measures"]["Recall@100_w"]["mean"], 4)
    assert "personal Recall@20" in meta["metrics"] and not before["metrics"]
    assert {**meta, "metrics": {}} == before
    text = (run / "evaluation" / "clicks-after-the-split" / "report.md").read_text()
    paired = text.split("Paired bootstrap against BM25")[1]
    for measure in ("nDCG@10", "Recall@100_w", "Recall@100_u", "Rele@100_w", "Rele@100_u"):
        assert f"| MRSE | {measure} |" in paired and f"| {MIX} | {measure} |" in paired


@pytest.mark.parametrize("given", ["the run's searches", "a log"])
def test_judged_queries_are_weighed_by_their_searches(trained, run, tmp_path, given) -> None:
    judgments = some_judgments(trained, tmp_path / "judged.parquet")
    log = pq.read_table(trained.sample.searches).to_pylist()
    clicked = [row["query"] for row in log if row["clicked"] or row["carted"] or row["ordered"]]
    counts, options = Counter(map(query_key, clicked)), []
    if given == "a log":
        counts = Counter({query_key(q): n % 7 for n, q in enumerate(dict.fromkeys(clicked))})
        pq.write_table(pa.table({"query": [*(q.upper() for q in counts.elements()), " "]}), tmp_path / "log.parquet")
        options = ["--searches", tmp_path / "log.parquet"]
    out = mrse(run, trained.sample.items, "--judgments", judgments, *options)
    results, per_query = report_of(run, "judged")
    weights = np.array([counts[query_key(query["text"])] for query in per_query.values()])
    asked = int((weights > 0).sum())
    assert 20 < asked < len(weights) - 10 and len(set(weights)) > 2, "else this shows nothing"
    assert f"{asked} of {len(weights)} judged queries were asked, in {weights.sum()} searches" in out
    for name, measure in ((name, m) for name in results for m in ("Recall@100", "Rele@100")):
        values = np.array([query[name][measure] for query in per_query.values()])
        found = results[name]["measures"]
        assert found[f"{measure}_w"]["mean"] == pytest.approx(np.average(values, weights=weights))
        assert found[f"{measure}_u"]["mean"] == pytest.approx(values.mean())
        assert (found[f"{measure}_w"]["n"], found[f"{measure}_u"]["n"]) == (asked, len(weights))
    assert f"by traffic, of the {asked} queries" in (run / "evaluation" / "judged" / "report.md").read_text()


def test_queries_that_nobody_asks_have_no_traffic(trained, run) -> None:
    out = mrse(run, trained.sample.items, "--judgments", trained.sample.judgments_val)
    assert "no judged query is in the search log: nothing is weighted by traffic" in out
    results, _ = report_of(run, "judgments_val")
    assert list(results["MRSE"]["measures"]) == ["nDCG@10", "Recall@100", "Rele@100"]
    assert "NaN" not in (run / "evaluation" / "judgments_val" / "report.md").read_text()


def test_judgments_of_vanished_items_are_left_out(trained, run, tmp_path) -> None:
    known = pq.read_table(some_judgments(trained, tmp_path / "known.parquet"))
    gone = {"query": ["no item", known["query"][0].as_py()], "item_id": ["gone", "went"], "grade": [2, 2]}
    out = mrse(run, trained.sample.items, "--judgments", some_judgments(trained, tmp_path / "more.parquet", **gone))
    assert f"left out: 2 judgments of items that are not in {trained.sample.items}" in out
    assert len((run / "evaluation" / "more" / "qrels").read_text().splitlines()) == len(known)
    _, per_query = report_of(run, "more")
    assert {query["text"] for query in per_query.values()} == set(known["query"].to_pylist())


def test_a_log_without_returning_people(trained, run, tmp_path) -> None:
    log = pq.read_table(trained.sample.searches)
    at = log.schema.get_field_index("user_id")
    pq.write_table(log.set_column(at, "user_id", pa.nulls(len(log), pa.string())), tmp_path / "searches.parquet")
    catalogue = read_catalogue(trained.sample.items)
    write_examples(run / "cache" / "examples", catalogue, searches=SearchesFile(tmp_path / "searches.parquet"))
    out = mrse(run, trained.sample.items)
    assert "what the history adds is not measured: in no search after the split has the user clicked before" in out
    assert "nDCG@10" in (metrics := json.loads((run / "meta.json").read_text())["metrics"])
    assert not any(name.startswith("personal") for name in metrics)


def test_baselines_stand_beside_mrse(trained, run, monkeypatch) -> None:
    monkeypatch.setattr("mrse_model.baselines.compared.minilm_folder", lambda: None)
    (folder := run / "evaluation" / "clicks-after-the-split").mkdir(parents=True)
    (folder / "mine.run").write_text("kept")
    out = mrse(run, trained.sample.items, "--baselines", "--seconds", "0.05")
    assert "MiniLM is not installed" in out and "pairs in 0 s of CPU" in out
    results, _ = report_of(run, "clicks-after-the-split")
    learned = ["FastText mean", "single Transformer", "DSSM-α", "plain two-tower"]
    assert list(results)[:5] == ["BM25", *learned]
    assert all("Recall@100_w" in results[name]["against"] for name in learned)
    assert "plain two-tower" in out
    mrse(run, trained.sample.items)
    assert {path.name for path in folder.glob("*.run")} == {
        "mine.run", "BM25.run", "MRSE.run", f"{NEW_ITEMS}.run", "hybrid (MRSE + BM25, RRF).run", f"{MIX}.run"
    }  # fmt: skip


def test_searches_weigh_judged_queries_alone(trained, run) -> None:
    with pytest.raises(InputError, match="Give --judgments"):
        mrse(run, trained.sample.items, "--searches", trained.sample.searches)


@pytest.mark.parametrize("change", ["fewer", "another order"])
def test_other_items_than_the_run_s_are_refused(trained, run, tmp_path, change) -> None:
    items = pq.read_table(trained.sample.items)
    items = items.slice(1) if change == "fewer" else items.take(list(range(len(items)))[::-1])
    pq.write_table(items, tmp_path / "items.parquet")
    with pytest.raises(InputError, match=f"{len(items)} items, and the run was trained on 240: others, or in another"):
        mrse(run, tmp_path / "items.parquet")


def test_queries_that_were_trained_on_are_told(trained, run, tmp_path) -> None:
    judgments = some_judgments(trained, tmp_path / "judged.parquet")
    out = mrse(run, trained.sample.items, "--judgments", judgments)
    assert "warning: 40 of these 60 queries were trained on with their judgments" in out
    assert "keeps the figures it had" in out and not json.loads((run / "meta.json").read_text())["metrics"]
    assert re.search(r"warning: \d+ of these 60 queries were trained on with their clicks", out)
    assert "trained on with" not in mrse(run, trained.sample.items, "--judgments", trained.sample.judgments_val)


def test_the_depths_and_what_it_is_tested_against_can_be_chosen(trained, run, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    out = mrse(run, trained.sample.items, "--k", "50", "--k", "10", "--against", "MRSE")
    results, _ = report_of(run, "clicks-after-the-split")
    assert {m.split("_")[0] for m in results["BM25"]["measures"]} == {
        "nDCG@10", "Recall@10", "Recall@50", "Rele@10", "Rele@50"
    }  # fmt: skip
    assert "Recall@10_w" in out and "Recall@50_u" in out
    text = (run / "evaluation" / "clicks-after-the-split" / "report.md").read_text()
    assert "Paired bootstrap against MRSE" in text and "Unjudged among the first 10: BM25 " in text
    with pytest.raises(
        InputError, match=r"unknown ranker 'Transformer'\. Choose one of 'BM25', 'MRSE', .*with --baselines more"
    ):
        mrse(run, trained.sample.items, "--against", "Transformer")
    with pytest.raises(InputError, match=r"field --k: 241 exceeds the catalogue size .240."):
        mrse(run, trained.sample.items, "--k", "241")


def test_a_small_depth_leaves_the_other_measures_as_they_are(trained, run) -> None:
    mrse(run, trained.sample.items)
    before, _ = report_of(run, "clicks-after-the-split")
    mrse(run, trained.sample.items, "--k", "3")
    after, _ = report_of(run, "clicks-after-the-split")
    for name in before:
        assert after[name]["measures"]["nDCG@10"] == before[name]["measures"]["nDCG@10"]
        assert after[name]["unjudged_at_10"] == before[name]["unjudged_at_10"]


def test_a_baseline_that_will_not_be_there_is_refused_before_any_is_trained(trained, run, monkeypatch) -> None:
    monkeypatch.setattr("mrse_model.baselines.compared.minilm_folder", lambda: None)
    monkeypatch.setattr("mrse_model.baselines.compared.baselines", Mock(side_effect=AssertionError("trained")))
    with pytest.raises(InputError, match=r"unknown ranker 'MiniLM-L6, untrained'.*'plain two-tower'\.$"):
        mrse(run, trained.sample.items, "--baselines", "--against", "MiniLM-L6, untrained")


def test_a_report_that_is_not_finished_leaves_the_last_one(trained, run, monkeypatch) -> None:
    mrse(run, trained.sample.items)
    folder = run / "evaluation" / "clicks-after-the-split"
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    monkeypatch.setattr("mrse_model.evaluation.report.Report.markdown", Mock(side_effect=KeyboardInterrupt))
    assert CliRunner().invoke(app, ["evaluate", str(run), str(trained.sample.items), "--k", "7"]).exit_code == 130
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
