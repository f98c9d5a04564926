"""`mrse size` against figures worked out by hand from Vespa's formulas."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from mrse_cli.application.size import parse_count
from mrse_model.errors import InputError
from vespa_package.attributes import bytes_per_item
from vespa_package.schema import read_schemas
from vespa_package.sizing import Catalogue, graph_bytes, size

REPO = Path(__file__).parents[2]


def amounts(catalogue: Catalogue) -> dict[str, float]:
    found = size(catalogue)
    return {row.what: row.amount for row in (*found.memory, *found.totals)}


def test_published_graph_overheads() -> None:
    assert graph_bytes(16) == 92 and graph_bytes(8) == 40
    assert graph_bytes(12) == pytest.approx(66)


def test_one_million_items_by_the_rule_of_thumb() -> None:
    found = amounts(Catalogue(items=1_000_000, vector_fields=1, features=0, filter_bytes=0))
    assert found["vectors"] == 256e6
    assert found["Vespa's rule of thumb"] == pytest.approx(0.945e9, rel=1e-3)
    assert found["memory of one copy"] == 256e6 + 92e6 + 33e6
    assert found["memory, all copies"] == pytest.approx((256 + 92 + 33) * 1e6 * 1.2 * 2 / 0.65)


def test_a_billion_binary_vectors_is_near_what_vespa_measured() -> None:
    found = amounts(Catalogue(items=10**9, dims=104, cell="bits", vector_fields=1, features=0, filter_bytes=0))
    assert found["memory of one copy"] == pytest.approx(156.3e9, rel=0.15)


def test_nodes_hold_the_memory_and_every_copy_has_as_many() -> None:
    for copies in (1, 2, 3):
        catalogue = Catalogue(items=100_000_000, copies=copies, node_memory_gb=64)
        found = amounts(catalogue)
        assert found["content nodes"] * 64e9 >= found["memory, all copies"]
        assert found["content nodes"] % copies == 0


def test_more_traffic_is_more_groups() -> None:
    few, many = (amounts(Catalogue(items=10**6, queries_per_second=q))["content nodes"] for q in (100, 40_000))
    assert few == 2 and many == 10


def test_compact_keeps_less_in_memory() -> None:
    default, compact = (amounts(Catalogue(items=10**8, cell=c)) for c in ("bfloat16", "bits"))
    assert compact["vectors"] == default["vectors"] / 16
    assert compact["memory of one copy"] < default["memory of one copy"] / 2
    assert compact["behaviour features"] == 0


def test_int8_is_between() -> None:
    default, int8, compact = (amounts(Catalogue(items=10**8, cell=c)) for c in ("bfloat16", "int8", "bits"))
    assert int8["vectors"] == 10**8 * 128 * 2 == default["vectors"] / 2
    assert compact["memory of one copy"] < int8["memory of one copy"] < default["memory of one copy"]
    assert int8["disk of one copy"] == default["disk of one copy"], "the floats are on disk either way"
    drivers = {c: " ".join(size(Catalogue(items=10**8, cell=c)).drivers) for c in ("bfloat16", "int8", "bits")}
    assert "variants/int8" in drivers["bfloat16"] and "variants/compact" in drivers["bfloat16"]
    assert "variants/int8" not in drivers["int8"] and "variants/compact" in drivers["int8"]
    assert "variants/" not in drivers["bits"]


def test_attributes_by_vespas_formulas(tmp_path: Path) -> None:
    (tmp_path / "schemas").mkdir()
    (tmp_path / "schemas" / "item.sd").write_text(
        """schema item { document item {
        field a type int { indexing: attribute }
        field b type string { indexing: attribute
                              attribute: fast-search }
        field c type array<string> { indexing: attribute
                                     attribute: fast-search }
        field d type bool { indexing: attribute }
        field e type string { indexing: index }
        field f type tensor<float>(x[4]) { indexing: attribute }
        field item_id type string { indexing: attribute }
    } }""",
        "utf-8",
    )
    fields = read_schemas(tmp_path)["item"].fields
    by_hand = {"a": 4, "b": 4 + 4, "c": 4 + 3 * 4 + 3 * 8, "d": 1 / 8, "e": 0, "f": 0, "item_id": 4 + 1 + 12 + 4 + 4}
    assert {name: bytes_per_item(field) for name, field in fields.items()} == by_hand


def test_every_published_figure_has_its_source() -> None:
    found = size(Catalogue(items=10**6))
    assert all(row.source for row in found.memory)
    assert found.drivers[0].startswith("vectors")


@pytest.mark.parametrize(
    "text, count", [("100M", 10**8), ("1.5b", 1_500_000_000), ("250_000", 250_000), ("7", 7), ("3k", 3000)]
)
def test_counts(text: str, count: int) -> None:
    assert parse_count(text) == count


def test_bad_input() -> None:
    with pytest.raises(InputError, match=r"2\.5M"):
        parse_count("many")
    with pytest.raises(InputError, match="bfloat16"):
        size(Catalogue(items=1, cell="half"))
    with pytest.raises(InputError, match="--copies"):
        size(Catalogue(items=1, copies=0))


def test_command() -> None:
    from mrse_cli.main import app

    done = CliRunner().invoke(app, ["size", "--items", "100M", "--dims", "128", "--app", str(REPO / "vespa_app")])
    assert done.exit_code == 0
    for row in size(Catalogue(items=10**8)).memory:
        assert row.source in done.output, "a source that is cut is none"
    assert "51.2 GB" in done.output and "What the bill hangs on" in done.output
