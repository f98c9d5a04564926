"""Vectors that the user brings, in the forms that people have them."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mrse_model.errors import InputError
from mrse_model.images.features import ENCODER_KEY, FeatureFile


def write(path, vectors, kind, column="feature"):
    ids = [f"i{k}" for k in range(len(vectors))]
    pq.write_table(pa.table({"item_id": ids, column: pa.array(vectors, kind)}), path)
    return path


@pytest.mark.parametrize("kind", [pa.list_(pa.float64()), pa.list_(pa.float32(), 3), pa.large_list(pa.float16())])
def test_any_list_of_floats_in_any_order(kind, tmp_path):
    file = FeatureFile(write(tmp_path / "v.parquet", [None, [1, 2, 3], [4, 5, 6]], kind, "vec"), column="vec")
    assert (file.encoder.name, file.dims, file.encoder.size) == ("precomputed", 3, 0)
    found = file.matrix(["i2", "absent", "i0", "i1"])
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, [[4, 5, 6], [np.nan] * 3, [np.nan] * 3, [1, 2, 3]])
    (ids, features), *rest = file.batches(2)
    assert ids == ["i0", "i1"] and features.shape == (2, 3) and len(rest) == 1


def test_errors_name_row_and_field(tmp_path):
    floats = pa.list_(pa.float32())
    with pytest.raises(InputError, match=r"row 2, field feature: 2 values instead of 3"):
        FeatureFile(write(tmp_path / "a.parquet", [None, [1, 2, 3], [1, 2]], floats)).matrix([])
    with pytest.raises(InputError, match=r"row 1, field feature: a value is not finite"):
        FeatureFile(write(tmp_path / "b.parquet", [None, [1, float("inf")]], floats)).matrix([])
    with pytest.raises(InputError, match=r"field feature: the column is list<.*int64.*, not a list of floats"):
        FeatureFile(write(tmp_path / "c.parquet", [[1, 2]], pa.list_(pa.int64())))
    with pytest.raises(InputError, match=r"field feature: the column is missing; it has: item_id, vec"):
        FeatureFile(write(tmp_path / "d.parquet", [[1, 2]], floats, "vec"))
    for empty, kind in ((None, floats), ([], floats), (None, pa.list_(pa.float32(), 3))):
        with pytest.raises(InputError, match=r"every feature is null or empty"):
            FeatureFile(write(tmp_path / "e.parquet", [empty], kind))
    seen: dict[str, int] = {}
    file = FeatureFile(write(tmp_path / "f.parquet", [[1, 2]] * 3, floats))
    file.remember(["a", "b"], seen)
    with pytest.raises(InputError, match=r"row 3, field item_id: 'b' is also the id of row 1"):
        file.remember(["c", "b"], seen)


def test_a_file_of_an_earlier_version_is_refused_with_what_to_do(tmp_path):
    metadata = {ENCODER_KEY: b'{"name": "e", "dims": 1, "size": 8}'}
    old = pa.table({"item_id": ["a"], "feature": [[1.0]], "picture": [b"x" * 16]}).replace_schema_metadata(metadata)
    pq.write_table(old, tmp_path / "f.parquet")
    with pytest.raises(InputError, match=r"earlier version wrote this file\. Remove it and run mrse features again"):
        FeatureFile(tmp_path / "f.parquet")
