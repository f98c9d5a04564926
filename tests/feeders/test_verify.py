"""What mrse verify finds in an index that was tampered with, and mends."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import typer
from vespa.application import Vespa

from feeders.feed import feed_items
from feeders.image_features import ExtractedFeatures, NoImages
from feeders.index.verify import verify
from feeders.items import ItemSource
from local_vespa.testing import deploy, running_engine
from mrse_cli.feeding.feed import feed_items_command
from mrse_cli.feeding.verify import verify as verify_command
from mrse_model.errors import InputError
from mrse_model.serving.exported_model import ExportedModel
from vespa_package.fields import DocumentType


@pytest.fixture(scope="module")
def url(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_engine(tmp_path_factory.mktemp("engine")) as url:
        deploy(url, package)
        yield url


def test_a_part_of_the_catalogue_empties_no_index(package, tmp_path) -> None:
    ids, model, state = [f"m{k}" for k in range(250)], ExportedModel.load(package / "models"), tmp_path / "index.sqlite"

    def source(n: int) -> ItemSource:
        pq.write_table(pa.table({"item_id": ids[:n], "title": ["red dress"] * n}), tmp_path / "items.parquet")
        return ItemSource.open(tmp_path / "items.parquet", DocumentType.load(package), model, NoImages())

    with running_engine(tmp_path / "data") as url:
        deploy(url, package)
        assert feed_items(Vespa(url), source(250), state).ok == 250
        with pytest.raises(InputError, match=r"--fix: 150 of the 250 items of the index .*--max-removals 150"):
            verify(Vespa(url), source(100), state, fix=True)
        fixed = verify(Vespa(url), source(100), state, fix=True, max_removals=150).fixed
        assert fixed is not None and fixed.removed == 150


def test_it_takes_the_options_of_the_feed(package, tmp_path, capsys) -> None:
    file = tmp_path / "items.parquet"
    pq.write_table(pa.table({"item_id": ["a"], "title": ["röd klänning"], "price": [1.0], "brand": ["x"]}), file)
    with running_engine(tmp_path / "data") as url:
        deploy(url, package)
        given = {"app": package, "endpoint": url, "state": tmp_path / "index.sqlite"}
        feed_items_command([file], columns="brand", language="sv", **given)  # type: ignore[arg-type]
        verify_command([file], columns="brand", language="sv", **given)  # type: ignore[arg-type]
        assert "1 right, 0 wrong" in capsys.readouterr().out
        with pytest.raises(typer.Exit):
            verify_command([file], **given)  # type: ignore[arg-type]
        assert "fields that differ: language (1), price (1)" in capsys.readouterr().out


def test_each_kind_of_wrong_is_counted_named_and_mended(url, package, items, features, tmp_path) -> None:
    app, model = Vespa(url), ExportedModel.load(package / "models")
    source = ItemSource.open(items, DocumentType.load(package), model, ExtractedFeatures(features, model.manifest))
    state = tmp_path / "index.sqlite"
    assert feed_items(app, source, state).ok == 12
    clean = verify(app, source, state)
    assert clean.counts == {"right": 12} and not clean.wrong

    def change(item_id: str, **fields: object) -> None:
        body = {"fields": {name: {"assign": value} for name, value in fields.items()}}
        httpx.put(f"{url}/document/v1/item/item/docid/{item_id}", json=body).raise_for_status()

    httpx.delete(f"{url}/document/v1/item/item/docid/i0").raise_for_status()
    put = {"fields": {"item_id": "stranger", "title": "x"}}
    httpx.post(f"{url}/document/v1/item/item/docid/stranger", json=put).raise_for_status()
    change("i1", title="another title", price=None)
    change("i2", model_version="mrse-000000000000")
    change("i4", embedding={"values": "3f80" + "0000" * 127})
    change("i6", brand="of an update, and no column of the file")
    found = verify(app, source, state)
    assert found.counts == {
        "right": 8, "missing": 1, "orphaned": 1, "stale": 1, "other model": 1, "wrong vector": 1,
    }  # fmt: skip
    assert found.ids == {
        "missing": ["i0"], "stale": ["i1"], "other model": ["i2"], "wrong vector": ["i4"], "orphaned": ["stranger"],
    }  # fmt: skip
    assert found.fields == {"title": 1, "price": 1, "model_version": 1, "embedding": 1} and found.wrong == 5
    mended = verify(app, source, state, fix=True).fixed
    assert mended is not None and (mended.ok, mended.removed, mended.complete) == (4, 1, True)
    assert verify(app, source, state).counts == {"right": 12}
    assert httpx.get(f"{url}/document/v1/item/item/docid/i6").json()["fields"]["brand"].startswith("of an update")
    assert feed_items(app, source, state).unchanged == 12
    (tmp_path / "index.sqlite").unlink()
    assert verify(app, source, state, fix=True).counts == {"right": 12}
    assert feed_items(app, source, state).unchanged == 12, "the journal has learnt what the index holds"
