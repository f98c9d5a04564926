"""`mrse convert`: logs and judgments of other tools, by the command, to files that the readers of MRSE take."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from mrse_cli.main import app
from mrse_model.data.contract import ItemsFile, SearchesFile, read_catalogue, read_judgments
from mrse_model.data.convert import EPOCH
from mrse_model.data.examples import write_examples
from mrse_model.errors import InputError


def write(path: Path, **columns: Any) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


def convert(*arguments: object) -> str:
    done = CliRunner().invoke(app, ["convert", *map(str, arguments)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return " ".join(done.output.split())


def searches(path: Path) -> list[dict[str, Any]]:
    SearchesFile(path)
    return pq.read_table(path).to_pylist()


def test_clicks_alone_with_names_of_their_own_and_integer_ids(tmp_path: Path) -> None:
    clicks = write(tmp_path / "c.parquet", term=["Mug", " mug ", "", "cup"], item=[7, 8, 9, None], query=[1, 2, 3, 4])
    out = convert("clicks", clicks, "--column", "query=term", "--column", "item_id=item", "-o", tmp_path / "s.parquet")
    assert "2 searches, 2 clicks, carts and orders" in out and "1 × click without a query" in out
    assert "item_id holds integers, which are taken as text" in out
    assert "no column timestamp: all clicks of a query get one made-up time" in out and "no user has a history" in out
    found = searches(tmp_path / "s.parquet")
    assert sorted((row["query"], row["clicked"], row["user_id"]) for row in found) == [
        ("Mug", ["7"], ""), ("mug", ["8"], ""),
    ]  # fmt: skip
    times = {row["timestamp"].timestamp() for row in found}
    assert len(times) == 1 and EPOCH <= times.pop() < EPOCH + 365 * 86_400, "one time for one query"


def test_clicks_of_users_with_times_are_searches_by_pause(tmp_path: Path) -> None:
    clicks = write(
        tmp_path / "c.parquet", query=["mug"] * 3, item_id=["a", "b", "c"], user_id=["u"] * 3,
        timestamp=[100, 200, 9000],
    )  # fmt: skip
    convert("clicks", clicks, "-o", tmp_path / "s.parquet")
    assert [row["clicked"] for row in searches(tmp_path / "s.parquet")] == [["a", "b"], ["c"]]


def test_a_count_stands_for_so_many_searches(tmp_path: Path) -> None:
    clicks = write(tmp_path / "c.parquet", query=["mug", "cup"], item_id=["a", "b"], count=[3, 250])
    out = convert("clicks", clicks, "-o", tmp_path / "s.parquet")
    assert Counter(row["query"] for row in searches(tmp_path / "s.parquet")) == {"mug": 3, "cup": 100}
    assert "left out: 150 × click beyond 100 of one row" in out


def test_a_user_with_a_large_count_is_no_bot(tmp_path: Path) -> None:
    items = write(tmp_path / "i.parquet", item_id=[f"i{n}" for n in range(40)], title=[f"mug {n}" for n in range(40)])
    asked, users = [f"mug {n}" for n in range(40)], [f"u{n % 4}" for n in range(40)]
    clicks = write(
        tmp_path / "c.parquet", query=asked, item_id=[f"i{n}" for n in range(40)], user_id=users,
        timestamp=[100_000 * n for n in range(40)], count=[90] * 40,
    )  # fmt: skip
    convert("clicks", clicks, "-o", tmp_path / "s.parquet")
    found = searches(tmp_path / "s.parquet")
    assert len(found) == 40 * 90 and Counter(row["user_id"] for row in found)["u0"] == 10
    summary = write_examples(tmp_path / "x", read_catalogue(items), searches=SearchesFile(tmp_path / "s.parquet"))
    assert summary.spam_users == 0


def test_clicks_without_times_are_held_out_by_query(tmp_path: Path) -> None:
    items = write(
        tmp_path / "items.parquet", item_id=[f"i{n}" for n in range(40)], title=[f"mug {n}" for n in range(40)]
    )
    queries = [f"mug number {n % 50}" for n in range(400)]
    clicks = write(tmp_path / "c.parquet", query=queries, item_id=[f"i{n % 40}" for n in range(400)])
    convert("clicks", clicks, "-o", tmp_path / "s.parquet")
    summary = write_examples(tmp_path / "x", read_catalogue(items), searches=SearchesFile(tmp_path / "s.parquet"))
    assert summary.validation_searches > 0 and summary.examples["click"] > 0
    learnt = set(pq.read_table(sorted((tmp_path / "x").glob("train-*.parquet"))[0])["query"].to_pylist())
    assert not learnt & set(pq.read_table(tmp_path / "x" / "validation.parquet")["query"].to_pylist())


SCALES: dict[str, tuple[list[Any], list[int]]] = {
    "esci": (["E", "S", "C", "I", "exact", "irrelevant"], [3, 2, 1, 0, 3, 0]),
    "1-3": ([1, 2, 3], [0, 1, 2]),
    "1-4": ([1, 2, 3, 4], [0, 1, 2, 3]),
    "1-5": ([1, 2, 3, 4, 5], [0, 0, 1, 2, 3]),
    "0-1": ([0.0, 0.2, 0.5, 1.0], [0, 0, 1, 2]),
    "0-100": ([0.0, 40.0, 60.0, 100.0], [0, 1, 2, 3]),
    "grades": ([0, 1, 2, 7], [0, 1, 2, 7]),
}


@pytest.mark.parametrize("scale", SCALES)
def test_judgments_of_every_scale(tmp_path: Path, scale: str) -> None:
    values, grades = SCALES[scale]
    n = len(values)
    items = write(tmp_path / "items.parquet", item_id=list(range(n)), title=["mug"] * n)
    labels = write(tmp_path / "l.parquet", query=["mug"] * n, product=list(range(n)), label=values)
    columns = ["--column", "item_id=product", "--column", "grade=label"]
    out = convert("judgments", labels, "--scale", scale, *columns, "-o", tmp_path / "j.parquet")
    assert f"{n} judgments" in out
    found = read_judgments(tmp_path / "j.parquet", read_catalogue(items))
    assert found.grade.tolist() == grades and found.item.tolist() == list(range(n))


def test_averages_of_judges_are_rounded_to_the_nearer_grade(tmp_path: Path) -> None:
    values = [1.0, 1.33, 1.67, 2.33, 2.67, 3.0]
    labels = write(tmp_path / "l.parquet", query=["mug"] * 6, item_id=list("abcdef"), grade=values)
    convert("judgments", labels, "--scale", "1-3", "-o", tmp_path / "j.parquet")
    assert pq.read_table(tmp_path / "j.parquet")["grade"].to_pylist() == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize(
    ("scale", "value", "words"),
    [
        ("1-5", 0, "row 1, field grade: 0 is not on the scale"),
        ("esci", "X", "row 1, field grade: 'X' is not on the scale"),
        ("grades", 1.5, "row 1, field grade: 1.5 is not on the scale"),
        ("1-5", None, "row 1, field grade: it is null. Leave out"),
        ("1-5", float("nan"), "row 1, field grade: it is null. Leave out"),
        ("5-1", 1, "field --scale: unknown scale"),
        ("stars", 1, "field --scale: unknown scale: 'stars'. Choose grades"),
    ],
)  # fmt: skip
def test_what_is_not_on_the_scale(tmp_path: Path, scale: str, value: Any, words: str) -> None:
    first = {"1-5": 5, "esci": "E", "grades": 1.0}.get(scale, value)
    labels = write(tmp_path / "l.parquet", query=["mug", "cup"], item_id=["a", "b"], grade=[first, value])
    with pytest.raises(InputError) as error:
        convert("judgments", labels, "--scale", scale, "-o", tmp_path / "j.parquet")
    assert words in str(error.value)
    assert not (tmp_path / "j.parquet").exists()


def test_judgments_that_training_would_refuse_are_not_written(tmp_path: Path) -> None:
    out = tmp_path / "j.parquet"

    def refused(words: str, **columns: Any) -> None:
        with pytest.raises(InputError, match=words):
            convert("judgments", write(tmp_path / "l.parquet", **columns), "--scale", "1-5", "-o", out)
        assert not out.exists()

    refused("row 2, field grade: row 0 gives the same query and item the grade 3, this one 1", query=["mug"] * 4,
            item_id=[7, 8, 7, 8], grade=[5, 4, 3, 4])  # fmt: skip
    refused("it has no rows", query=pa.array([], pa.string()), item_id=pa.array([], pa.int64()), grade=[])
    refused("row 0, field query: it is empty", query=[" "], item_id=[7], grade=[5])


@pytest.mark.parametrize("kind", ["clicks", "events", "judgments"])
def test_what_is_converted_is_not_written_over(tmp_path: Path, kind: str) -> None:
    """`mrse convert judgments judgments.parquet` would write where it reads, by its own default."""
    columns = {"query": ["mug"], "item_id": ["a"], "user_id": ["u"], "timestamp": [100], "event": ["click"]}
    source = write(tmp_path / "given.parquet", **columns, grade=[5])
    before, more = source.read_bytes(), ["--scale", "1-5"] * (kind == "judgments")
    with pytest.raises(InputError, match="it is the file that is read, and would be lost"):
        convert(kind, source, *more, "-o", tmp_path / "." / "given.parquet")
    with pytest.raises(InputError, match="it is a folder"):
        convert(kind, source, *more, "-o", tmp_path)
    assert source.read_bytes() == before
    with pytest.raises(InputError, match=r"field --column: no column 'item' is read.*Name one of: .*item_id"):
        convert(kind, source, *more, "--column", "item=item_id", "-o", tmp_path / "out.parquet")


def test_positions_that_pandas_made_floats(tmp_path: Path) -> None:
    """Clicks have no position, so that a data frame holds those of the impressions as floats."""
    rows = 3
    log = write(
        tmp_path / "e.parquet", event=["impression", "impression", "click"], item_id=["b", "a", "a"],
        position=[2.0, 1.0, float("nan")], user_id=["u"] * rows, query=["mug"] * rows, timestamp=[100] * rows,
    )  # fmt: skip
    convert("events", log, "-o", tmp_path / "s.parquet")
    assert [(row["shown"], row["clicked"]) for row in searches(tmp_path / "s.parquet")] == [(["a", "b"], ["a"])]


def test_a_column_of_another_name_says_how_to_name_it(tmp_path: Path) -> None:
    clicks = write(tmp_path / "c.parquet", term=["mug"], item_id=["a"])
    with pytest.raises(InputError, match=r"query: .* it has: term, item_id\. Add it .* or name another by --column"):
        convert("clicks", clicks, "-o", tmp_path / "s.parquet")


def test_integer_ids_are_taken_as_text_with_a_notice(tmp_path: Path) -> None:
    items = ItemsFile(write(tmp_path / "items.parquet", item_id=[10, 20], title=["mug", "cup"]))
    assert [batch.ids for batch in items.batches()] == [["10", "20"]]
    assert items.table.notices == [f"{tmp_path / 'items.parquet'}: item_id holds integers, which are taken as text"]
    log = write(
        tmp_path / "s.parquet", search_id=[1], user_id=[5], timestamp=[100], query=["mug"], shown=[[10, 20]],
        clicked=[[10]],
    )  # fmt: skip
    (batch,) = SearchesFile(log).batches()
    assert (batch.search_ids, batch.user_ids, batch.shown, batch.clicked) == (["1"], ["5"], [["10", "20"]], [["10"]])
