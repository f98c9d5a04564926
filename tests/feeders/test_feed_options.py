"""--since, --limit, --dry-run and --max-errors, alike for items, updates and shoppers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import typer

from mrse_cli.feeding.feed import feed_items_command, feed_shoppers_command, feed_updates_command
from mrse_model.errors import InputError


@pytest.fixture
def log(tmp_path: Path) -> Path:
    users = ["u1", "u2", "u3"]
    table = {
        "search_id": ["a", "b", "c"], "user_id": users, "query": ["red dress"] * 3,
        "timestamp": pa.array([100, 200, 300], pa.timestamp("s")), "shown": [["i1"]] * 3, "clicked": [["i1"]] * 3,
    }  # fmt: skip
    pq.write_table(pa.table(table), tmp_path / "searches.parquet")
    return tmp_path / "searches.parquet"


@pytest.fixture
def prices(tmp_path: Path) -> Path:
    pq.write_table(pa.table({"item_id": ["i1", "i2", "i3"], "price": [9.5, 8.5, 7.5]}), tmp_path / "prices.parquet")
    return tmp_path / "prices.parquet"


@pytest.fixture(params=["items", "updates", "shoppers"])
def feed(request, package, vespa, items, prices, log, tmp_path, capsys) -> Callable[..., str]:
    """Runs the command on three to twelve rows; what it says."""

    def run(**options: object) -> str:
        given = {"app": package, "endpoint": vespa.url, "state": tmp_path / "state.sqlite", **options}
        if request.param == "items":
            feed_items_command([items], images=False, **given)  # type: ignore[arg-type]
        elif request.param == "updates":
            feed_updates_command([prices], **given)  # type: ignore[arg-type]
        else:
            feed_shoppers_command(log, **given)  # type: ignore[arg-type]
        return capsys.readouterr().out

    return run


def test_a_dry_run_shows_three_documents_and_sends_nothing(feed, vespa) -> None:
    said = feed(dry_run=True)
    assert sum("id:item:" in line for line in said.splitlines()) == 3 and "are right; nothing was sent" in said
    assert "0 fed" in said and not vespa.operations and not vespa.documents
    assert "2 documents are right" in feed(dry_run=True, limit=2)


def test_a_limit_is_kept_and_is_no_failure(feed, vespa) -> None:
    said = feed(limit=2)
    assert said.splitlines()[1].startswith("2 fed in") and "not reached" not in said
    assert len({document for _, document, _ in vespa.operations}) == 2


def test_it_gives_up_after_so_many_refusals(feed, vespa, capsys) -> None:
    vespa.status = lambda method, path, tries: 400 if method != "GET" else 200
    with pytest.raises(typer.Exit) as ended:
        feed(max_errors=1)
    said = capsys.readouterr().out
    assert ended.value.exit_code == 1 and "were refused (--max-errors)" in said and "mrse feed retry" in said


def test_items_since_a_time(package, vespa, columns, tmp_path, capsys) -> None:
    columns["added"] = [1_790_000_000 + n if n else None for n in range(12)]
    columns["edited"] = pa.array([1_790_000_000 - n for n in range(12)], pa.timestamp("s"))
    file = tmp_path / "items.parquet"
    pq.write_table(pa.table(columns), file)

    def feed(**options: object) -> str:
        feed_items_command([file], package, vespa.url, images=False, state=tmp_path / "s", **options)  # type: ignore
        return capsys.readouterr().out

    said = feed(since="2026-09-21T14:13:25Z")  # 1,790,000,005
    assert "8 fed" in said and "4 unchanged" in said and "4 of the unchanged are from before --since" in said
    assert {name.rpartition("::")[2] for name in vespa.documents} == {"i0", *(f"i{n}" for n in range(5, 12))}
    assert "1 fed" in feed(since="2026-09-21T14:13:19Z", since_column="edited")  # i1; i0 is there
    with pytest.raises(
        InputError, match=r"title.*--since needs a column of times.*columns of times or whole numbers: added, edited"
    ):
        feed(since="2026-09-21", since_column="title")
    assert "3 fed" in feed()
