"""Extraction: right features, each image once, resumable, nothing half done."""

import dataclasses
import os
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

pytest.importorskip("torch")

from mrse_model.errors import InputError
from mrse_model.images import extract as extraction
from mrse_model.images.extract import extract
from mrse_model.images.features import FeatureFile


class Counting:
    """Stands before an encoder's network and counts, or fails after some images."""

    def __init__(self, network, limit=10**9):
        self.network, self.limit, self.seen = network, limit, 0

    def __call__(self, pixels):
        self.seen += len(pixels)
        if self.seen > self.limit:
            raise KeyboardInterrupt
        return self.network(pixels)


def counting(encoder, limit=10**9):
    return dataclasses.replace(encoder, network=Counting(encoder.network, limit))


def test_features_in_the_order_of_the_items_and_each_image_once(items_path, images, encoder, tmp_path):
    out, counted = tmp_path / "features.parquet", counting(encoder)
    result = extract(items_path, out, counted, batch=3, threads=1, progress=False)
    assert (result.items, result.without_image, result.distinct, result.encoded) == (10, 2, 7, 7)
    assert counted.network.seen == 7
    features = FeatureFile(out)
    assert features.encoder == encoder.info
    found = features.matrix([f"i{k}" for k in range(10)])
    expected = encoder.features([p for p in images if p])
    np.testing.assert_allclose(found[[k for k, p in enumerate(images) if p]], expected, atol=1e-6)
    assert np.isnan(found[[1, 9]]).all()
    assert pq.read_schema(out).field("feature").type == pa.list_(pa.float32(), 6)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["features.parquet", "items.parquet"]


@pytest.mark.parametrize("limit", range(7))
def test_resumes_where_it_was_cut_off(items_path, encoder, tmp_path, limit):
    whole, out = tmp_path / "whole.parquet", tmp_path / "features.parquet"
    extract(items_path, whole, encoder, batch=2, progress=False)
    with pytest.raises(KeyboardInterrupt):
        extract(items_path, out, counting(encoder, limit), batch=2, progress=False)
    assert not out.exists()
    result = extract(items_path, out, encoder, batch=2, progress=False)
    assert result.resumed % 2 == 0  # whole batches
    assert result.distinct == 7 and 7 - limit <= result.encoded <= 7
    assert pq.read_table(out).equals(pq.read_table(whole))


def test_after_kill_9_in_the_middle_of_a_write(items_path, encoder, tmp_path):
    whole, out = tmp_path / "whole.parquet", tmp_path / "features.parquet"
    extract(items_path, whole, encoder, batch=2, progress=False)
    script = f"""
        import os, signal, torch
        from mrse_model.images.encoders import FrozenEncoder
        from mrse_model.serving.images import Preprocessing
        from mrse_model.images import extract as module
        class Statistics(torch.nn.Module):
            def forward(self, pixels):
                return torch.cat([pixels.mean((2, 3)), pixels.amax((2, 3))], 1)
        written = []
        def fsync(descriptor):  # the third batch is on disk but not committed
            written.append(descriptor)
            if len(written) == 3:
                os.kill(os.getpid(), signal.SIGKILL)
        module.os.fsync = fsync
        encoder = FrozenEncoder("statistics", 6, Statistics(), Preprocessing(16), weights="0")
        module.extract({str(items_path)!r}, {str(out)!r}, encoder, batch=2, progress=False)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=False)
    assert done.returncode == -signal.SIGKILL
    result = extract(items_path, out, encoder, batch=2, progress=False)
    assert result.resumed == 4
    assert pq.read_table(out).equals(pq.read_table(whole))


def test_starts_afresh_for_another_encoder_and_not_at_all_when_done(items_path, encoder, tmp_path):
    out = tmp_path / "features.parquet"
    with pytest.raises(KeyboardInterrupt):
        extract(items_path, out, counting(encoder, 4), batch=2, progress=False)
    other = counting(dataclasses.replace(encoder, weights="1"))
    assert extract(items_path, out, other, batch=2, progress=False).encoded == 7
    again = counting(dataclasses.replace(encoder, weights="1"))
    assert extract(items_path, out, again, batch=2, progress=False).resumed == 10
    assert again.network.seen == 0
    os.utime(items_path)  # the catalogue was written again
    done = extract(items_path, out, again, batch=2, progress=False)
    assert (done.resumed, done.distinct, done.encoded, again.network.seen) == (0, 7, 0, 0)
    assert extract(items_path, out, encoder, batch=2, progress=False).encoded == 7  # the first weights again


def with_new_items(items_path, images: dict) -> None:
    table = pq.read_table(items_path).to_pydict()
    for item_id, image in images.items():
        for column, values in table.items():
            values.append({"item_id": item_id, "image": image}.get(column, values[0]))
    pq.write_table(pa.table(table), items_path)


def test_of_a_catalogue_that_has_grown_the_new_images_alone_are_encoded(items_path, image, encoder, tmp_path):
    out, counted = tmp_path / "features.parquet", counting(encoder)
    extract(items_path, out, encoder, batch=2, progress=False)
    known = pq.read_table(items_path)["image"][0].as_py()
    with_new_items(items_path, {"new": image((9, 99, 9), (31, 40)), "known": known, "none": None})
    done = extract(items_path, out, counted, batch=2, progress=False)
    assert (done.items, done.distinct, done.without_image) == (13, 8, 3)
    assert done.encoded == counted.network.seen == 1
    extract(items_path, tmp_path / "whole.parquet", encoder, batch=2, progress=False)
    assert pq.read_table(out).equals(pq.read_table(tmp_path / "whole.parquet"))


def test_a_kill_while_known_images_are_taken_over(items_path, image, encoder, tmp_path, monkeypatch):
    out, counted = tmp_path / "features.parquet", counting(encoder)
    extract(items_path, out, encoder, batch=2, progress=False)
    with_new_items(items_path, {"new": image((9, 99, 9), (31, 40))})
    monkeypatch.setattr("mrse_model.images.features.BATCH", 3)
    commit, calls = extraction._Work._commit, []

    def cut_off(work, digests):
        calls.append(digests)
        if len(calls) == 3:  # their features are on disk
            raise KeyboardInterrupt
        commit(work, digests)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(extraction._Work, "_commit", cut_off)
        extract(items_path, out, counted, batch=2, progress=False)
    assert extract(items_path, out, counted, batch=2, progress=False).encoded == counted.network.seen == 1
    extract(items_path, tmp_path / "whole.parquet", encoder, batch=2, progress=False)
    assert pq.read_table(out).equals(pq.read_table(tmp_path / "whole.parquet"))


def test_a_mended_catalogue_goes_on_with_the_images_that_are_done(items_path, encoder, tmp_path):
    out = tmp_path / "features.parquet"
    table = pq.read_table(items_path).to_pydict()
    mended = table["image"][8]
    table["image"][8] = b"broken"
    pq.write_table(pa.table(table), items_path)
    with pytest.raises(InputError, match="row 8, field image"):
        extract(items_path, out, encoder, batch=2, progress=False)
    table["image"][8] = mended
    pq.write_table(pa.table(table), items_path)
    done = extract(items_path, out, encoder, batch=2, progress=False)
    assert (done.resumed, done.distinct) == (0, 7) and done.encoded < 4
    extract(items_path, tmp_path / "whole.parquet", encoder, progress=False)
    assert pq.read_table(out).equals(pq.read_table(tmp_path / "whole.parquet"))


def test_vectors_that_a_user_brought_are_not_written_over(items_path, encoder, tmp_path):
    out = tmp_path / "own.parquet"
    pq.write_table(pa.table({"item_id": ["i0"], "feature": [[1.0, 2.0]]}), out)
    before = out.read_bytes()
    with pytest.raises(InputError, match="was not written by mrse features"):
        extract(items_path, out, encoder, progress=False)
    assert out.read_bytes() == before


def test_an_image_file_that_is_not_there_is_told_before_any_is_encoded(items_path, encoder, tmp_path):
    ids = ["i0", "i1"]
    (tmp_path / "0.png").write_bytes(pq.read_table(items_path)["image"][0].as_py())
    pq.write_table(pa.table({"item_id": ids, "image_path": ["0.png", "gone.png"]}), tmp_path / "paths.parquet")
    with pytest.raises(InputError, match=r"row 1, field image_path: there is no file 'gone\.png'"):
        extract(tmp_path / "paths.parquet", tmp_path / "f.parquet", counting(encoder, 0), progress=False)


def test_two_runs_into_one_file_are_refused(items_path, encoder, tmp_path):
    out = tmp_path / "features.parquet"

    class Nested:
        def __call__(self, pixels):
            with pytest.raises(InputError, match="another mrse features is writing this file"):
                extract(items_path, out, encoder, progress=False)
            return encoder.network(pixels)

    extract(items_path, out, dataclasses.replace(encoder, network=Nested()), progress=False)
    assert out.exists()


def test_errors_name_the_row(items_path, encoder, tmp_path):
    table = pq.read_table(items_path).to_pydict()
    broken = {**table, "image": [*table["image"][:4], b"broken", *table["image"][5:]]}
    pq.write_table(pa.table(broken), tmp_path / "broken.parquet")
    with pytest.raises(InputError, match=r"broken.parquet, row 4, field image: the image cannot be decoded"):
        extract(tmp_path / "broken.parquet", tmp_path / "f.parquet", encoder, progress=False)
    twice = {**table, "item_id": ["i0", *table["item_id"][:9]]}
    pq.write_table(pa.table(twice), tmp_path / "twice.parquet")
    with pytest.raises(InputError, match="row 1, field item_id: 'i0' is also the id of row 0"):
        extract(tmp_path / "twice.parquet", tmp_path / "f.parquet", encoder, progress=False)
    pq.write_table(pa.table({k: table[k] for k in ("item_id", "title")}), tmp_path / "none.parquet")
    with pytest.raises(InputError, match="the items file has no images"):
        extract(tmp_path / "none.parquet", tmp_path / "f.parquet", encoder, progress=False)


def test_an_image_file_that_is_replaced_is_read_again(images, image, encoder, tmp_path):
    for k, content in enumerate(images):
        if content:
            (tmp_path / f"{k}.png").write_bytes(content)
    paths = [f"{k}.png" if content else None for k, content in enumerate(images)]
    ids = [f"i{k}" for k in range(10)]
    items, out = tmp_path / "items.parquet", tmp_path / "features.parquet"
    pq.write_table(pa.table({"item_id": ids, "title": ids, "image_path": paths}), items)
    before = extract(items, out, encoder, progress=False)
    assert (before.distinct, before.encoded) == (7, 7)
    again = extract(items, out, encoder, progress=False)
    assert (again.resumed, again.encoded, again.distinct, again.without_image) == (10, 0, None, None)
    (tmp_path / "3.png").write_bytes(new := image((1, 2, 250), (31, 40)))
    assert extract(items, out, encoder, progress=False).encoded == 1
    np.testing.assert_allclose(FeatureFile(out).matrix(["i3"]), encoder.features([new]), atol=1e-6)


def test_what_is_no_feature_file_is_not_written_over(items_path, encoder):
    before = items_path.read_bytes()
    with pytest.raises(
        InputError, match=r"items.parquet: the file exists and holds no image features\. Give another --out"
    ):
        extract(items_path, items_path, encoder, progress=False)
    assert items_path.read_bytes() == before
