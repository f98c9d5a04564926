"""Shards of vectors: what a feed with them sends is what a feed with the model sends, whoever made them."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feeders.encoding import bfloat16_hex, from_bfloat16
from feeders.image_features import ExtractedFeatures, NoImages
from feeders.item_queries import ItemQueries, write_item_queries
from feeders.items import ItemSource
from feeders.shards import encode
from feeders.shards.catalogue import EncodedCatalogue, encode_catalogue
from feeders.shards.encode import Job, encode_groups, groups_of, shards_in
from mrse_model.data.contract import ItemsFile
from mrse_model.data.ids import Ids
from mrse_model.errors import InputError
from mrse_model.serving.exported_model import ExportedModel
from tests.helpers.extras import extra
from vespa_package.fields import DocumentType


@pytest.fixture
def folder(tmp_path: Path, columns: dict[str, list]) -> Path:
    """The items as two part files, the first in two row groups; titles of many lengths."""
    columns["title"] = ["red dress " * (1 + n * 5 % 7) + str(n) for n in range(12)]
    table = pa.table({name: values for name, values in columns.items() if name != "image"})
    (tmp_path / "items").mkdir()
    pq.write_table(table.slice(0, 8), tmp_path / "items" / "a.parquet", row_group_size=5)
    pq.write_table(table.slice(0, 0), tmp_path / "items" / "aa.parquet")  # as Spark does where a part has no rows
    pq.write_table(table.slice(8), tmp_path / "items" / "b.parquet")
    return tmp_path / "items"


@pytest.fixture
def queries(package: Path, folder: Path, tmp_path: Path) -> ItemQueries:
    judged = tmp_path / "judgments.parquet"
    pq.write_table(pa.table({"query": ["gown", "gown"], "item_id": ["i2", "i9"], "grade": [2, 2]}), judged)
    return ItemQueries(ExportedModel.load(package / "models").manifest, None, judged)


def job(package: Path, folder: Path, features: Path, queries: ItemQueries) -> Job:
    items, ids = ItemsFile(folder), Ids()
    list(ids.add(list(enumerate(f"i{n}" for n in range(12)))))
    file = write_item_queries(queries, items, folder.parent / "queries.parquet")
    extracted = ExtractedFeatures(features, ExportedModel.load(package / "models").manifest)
    extracted.join(items, ids)
    aligned = extracted.in_order_of(items, folder.parent / "aligned.parquet")
    return Job(package / "models", features=aligned, item_queries=file)


@pytest.mark.parametrize("processes", [1, 2])
def test_a_feed_of_shards_is_a_feed_of_the_model(package, folder, features, queries, tmp_path, processes) -> None:
    groups = groups_of(ItemsFile(folder), tmp_path / "vectors")
    assert [group.rows for group in groups] == [5, 3, 4]
    made = job(package, folder, features, queries)
    assert encode_groups(groups, made, processes=processes) == 3
    model, doctype = ExportedModel.load(package / "models"), DocumentType.load(package)
    shards = ItemSource.open(folder, doctype, model, NoImages(), vectors=tmp_path / "vectors")
    whole = ItemSource.open(folder, doctype, model, ExtractedFeatures(features, model.manifest), item_queries=queries)
    ours, theirs = ({item.id: item for item in source.documents()} for source in (shards, whole))
    assert ours.keys() == theirs.keys() and len(ours) == 12
    for name, item in ours.items():
        assert item.digest == theirs[name].digest, "a feed with the model finds nothing changed"
        for field, cells in item.tensors.items():
            other = theirs[name].tensors[field]
            assert (cells is None) == (other is None)
            if cells is not None:  # batches of other lengths differ in the last bit
                pair = [from_bfloat16(bytes.fromhex(some["values"])) for some in (cells, other)]
                np.testing.assert_allclose(*pair, atol=2**-8)
    assert sum(item.tensors["image_embedding"] is None for item in ours.values()) == 4


@pytest.mark.parametrize("order", ["reversed", "some", "same"])
def test_features_come_in_any_order_and_a_catalogue_shrinks(package, folder, features, tmp_path, order) -> None:
    table = pq.read_table(features)
    if order != "reversed":
        table = table.take(list(range(11, -1 if order == "same" else 3, -1)))
        pq.write_table(table, features)
    out, said = tmp_path / "vectors", list[str]()
    make = partial(encode_catalogue, models=package / "models", out=out, features=features, warn=said.append)
    assert make(folder) == EncodedCatalogue(12, 3, 3) and make(folder).made == 0
    assert sum("4 of 12 items are not in" in line for line in said) == (2 if order == "some" else 0)
    assert (out / "features.parquet").exists() == (order != "same")
    doctype, model = DocumentType.load(package), ExportedModel.load(package / "models")
    whole = ItemSource.open(folder, doctype, model, ExtractedFeatures(features, model.manifest))
    digests = {item.id: item.digest for item in whole.documents()}
    shards = ItemSource.open(folder, doctype, model, NoImages(), vectors=out)
    assert {item.id: item.digest for item in shards.documents()} == digests
    (folder / "b.parquet").unlink()
    assert make(folder).shards == 2
    assert ItemSource.open(folder, doctype, model, NoImages(), vectors=out).items.rows == 8
    with pytest.raises(InputError, match="no item has an image feature"):
        pq.write_table(table.set_column(0, "item_id", pa.array([f"x{n}" for n in range(table.num_rows)])), features)
        make(folder)


def test_a_row_group_is_encoded_part_by_part(package, folder, features, queries, tmp_path, monkeypatch) -> None:
    made, held = job(package, folder, features, queries), list[int]()
    whole = groups_of(ItemsFile(folder), tmp_path / "whole")
    encode_groups(whole, made)
    monkeypatch.setattr("feeders.shards.encode.PART", 2)
    by_length = encode.by_length
    monkeypatch.setattr("feeders.shards.encode.by_length", lambda *a: (held.append(len(a[1])), by_length(*a))[1])
    parts = groups_of(ItemsFile(folder), tmp_path / "parts")
    encode_groups(parts, made)
    assert held == [2, 2, 1, 2, 1, 2, 2]
    for one, other in zip(whole, parts, strict=True):
        ours, theirs = pq.read_table(one.shard), pq.read_table(other.shard)
        assert ours.select(["item_id", "source", "inputs"]).equals(theirs.select(["item_id", "source", "inputs"]))


def test_shards_that_are_there_are_not_made_again(package, folder, features, queries, tmp_path) -> None:
    groups, made = groups_of(ItemsFile(folder), tmp_path / "vectors"), job(package, folder, features, queries)
    rows: list[int] = []
    assert encode_groups(groups, made, progress=rows.append) == 3 and rows == [5, 3, 4]
    groups[1].shard.unlink()
    (tmp_path / "vectors" / "shard-00002.parquet.part").write_bytes(b"half")
    assert encode_groups(groups, made) == 1 and encode_groups(groups, made) == 0
    table = pq.read_table(folder / "b.parquet")
    pq.write_table(table, folder / "b.parquet")
    assert encode_groups(groups, made) == 1, "a file that was written again"
    assert len(list(shards_in(tmp_path / "vectors"))) == 3


def test_shards_of_another_model_or_catalogue_are_refused(package, folder, features, queries, new_models) -> None:
    vectors = folder.parent / "vectors"
    encode_groups(groups_of(ItemsFile(folder), vectors), job(package, folder, features, queries))
    doctype, model = DocumentType.load(package), ExportedModel.load(package / "models")
    with pytest.raises(InputError, match=r"vectors of model mrse-0123456789ab, and the package has mrse-ffffffffffff"):
        ItemSource.open(folder, doctype, ExportedModel.load(new_models), NoImages(), vectors=vectors)
    with pytest.raises(InputError, match=r"vectors of 12 items, and the file has 8"):
        ItemSource.open(folder / "a.parquet", doctype, model, NoImages(), vectors=vectors)
    table = pq.read_table(folder / "b.parquet").to_pydict()
    table["title"][1] = "blue boot"
    pq.write_table(pa.table(table), folder / "b.parquet")
    with pytest.raises(
        InputError, match=r"row 9: the vectors in .* were made before the item 'i9' changed.*mrse encode"
    ):
        ItemSource.open(folder, doctype, model, NoImages(), vectors=vectors)


@pytest.mark.slow
def test_ray_makes_the_same_shards(package, folder, features, queries, tmp_path) -> None:
    extra("ray")
    from feeders.shards.ray_job import encode_with_ray

    made = job(package, folder, features, queries)
    here, there = groups_of(ItemsFile(folder), tmp_path / "here"), groups_of(ItemsFile(folder), tmp_path / "there")
    encode_groups(here, made)
    rows: list[int] = []
    assert encode_with_ray(there, made, workers=2, progress=rows.append) == 3 and sorted(rows) == [3, 4, 5]
    for ours, theirs in zip(here, there, strict=True):
        assert pq.read_table(ours.shard).equals(pq.read_table(theirs.shard))
    assert encode_groups(there, made) == 0


def test_bfloat16_comes_back() -> None:
    vectors = np.array([[1.0, -2.0, 0.15625]], np.float32)
    assert np.array_equal(from_bfloat16(bytes.fromhex(bfloat16_hex(vectors)[0])), vectors[0])
