"""Shards of vectors: what a feed with them sends is what a feed with the model sends, whoever made them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feeders.encoding import bfloat16_hex, from_bfloat16
from feeders.image_features import ExtractedFeatures, NoImages
from feeders.item_queries import ItemQueries, write_item_queries
from feeders.items import ItemSource
from feeders.shards.encode import Job, encode_groups, groups_of, shards_in
from mrse_model.data.contract import ItemsFile
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
    pq.write_table(table.slice(8), tmp_path / "items" / "b.parquet")
    return tmp_path / "items"


@pytest.fixture
def queries(package: Path, folder: Path, tmp_path: Path) -> ItemQueries:
    judged = tmp_path / "judgments.parquet"
    pq.write_table(pa.table({"query": ["gown", "gown"], "item_id": ["i2", "i9"], "grade": [2, 2]}), judged)
    return ItemQueries(ExportedModel.load(package / "models").manifest, None, judged)


def job(package: Path, folder: Path, features: Path, queries: ItemQueries) -> Job:
    file = write_item_queries(queries, ItemsFile(folder), folder.parent / "queries.json")
    return Job(package / "models", features=features, item_queries=file)


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
