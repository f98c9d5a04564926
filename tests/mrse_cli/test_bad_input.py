"""Each kind of bad input ends in one line that names file, row and field, in exit code 2, and in nothing fed."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from mrse_cli.main import app, main


@dataclass(frozen=True)
class Result:
    returncode: int
    stderr: str


@pytest.fixture
def mrse(monkeypatch, capsys) -> Callable[..., Result]:
    """The console script in this process."""

    def run(*arguments: object) -> Result:
        monkeypatch.setattr(sys, "argv", ["mrse", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main()
        return Result(int(end.value.code or 0), capsys.readouterr().err)

    return run


def without(column):
    return lambda c: c.pop(column)


def with_value(column, row, value):
    return lambda c: c[column].__setitem__(row, value)


CASES = {
    "no item_id": (without("item_id"), "field item_id: the column is missing"),
    "no title": (without("title"), "field title: the column is missing"),
    "empty title": (with_value("title", 4, "  "), "row 4, field title: it is empty"),
    "null title": (with_value("title", 4, None), "row 4, field title: it is null"),
    "empty id": (with_value("item_id", 4, ""), "row 4, field item_id: it is empty"),
    "duplicate id": (with_value("item_id", 9, "i2"), "row 9, field item_id: 'i2' is also the id of row 2"),
    "control character": (
        with_value("title", 5, "red\x00dress"),
        "row 5, field title: Vespa refuses the character U+0000",
    ),
    "infinite price": (with_value("price", 6, float("inf")), "row 6, field price: it is infinite"),
    "price is text": (lambda c: c.update(price=["1"] * 12), "field price: the column is string"),
    "id is a fraction": (lambda c: c.update(item_id=[n / 2 for n in range(12)]), "field item_id: the column is double"),
}


@pytest.mark.parametrize("name", CASES)
def test_bad_items_feed_nothing(name, mrse, vespa, package, columns, tmp_path) -> None:
    spoil, words = CASES[name]
    spoil(columns)
    file = tmp_path / "items.parquet"
    pq.write_table(pa.table(columns), file)
    _refused(mrse("feed", file, "--app", package, "-e", vespa.url, "--no-images"), vespa, f"{file}, {words}")


def test_a_file_that_is_not_parquet(mrse, vespa, package, tmp_path) -> None:
    file = tmp_path / "items.parquet"
    file.write_text("item_id,title\n1,dress\n")
    _refused(mrse("feed", file, "--app", package, "-e", vespa.url), vespa, f"{file}: it is not a readable Parquet file")


def test_a_file_that_does_not_exist(mrse, vespa, package, tmp_path) -> None:
    file = tmp_path / "no.parquet"
    _refused(mrse("feed", file, "--app", package, "-e", vespa.url), vespa, f"{file}: the file does not exist")


def test_an_undecodable_image(mrse, vespa, package, columns, tmp_path) -> None:
    columns["image"][7] = b"not an image"
    file, encoder = tmp_path / "items.parquet", tmp_path / "image_encoder.onnx"
    pq.write_table(pa.table(columns), file)
    _stand_in_encoder(encoder)
    result = mrse("feed", file, "--app", package, "-e", vespa.url, "--image-encoder", encoder)
    _refused(result, vespa, f"{file}, row 7, field image: the image cannot be decoded")


def test_images_without_features(mrse, vespa, package, items) -> None:
    result = mrse("feed", items, "--app", package, "-e", vespa.url)
    _refused(result, vespa, f"{items}, field image: the model uses images")


def test_a_model_that_is_not_the_deployed_one(mrse, vespa, package, items, tmp_path) -> None:
    vespa.other_model = True
    result = mrse("feed", items, "--app", package, "-e", vespa.url, "--no-images")
    _refused(
        result, vespa, f"{package}/models/manifest.json, field model_version: the model deployed at {vespa.url} is not"
    )


def test_a_model_that_was_tampered_with(mrse, vespa, package, items, tmp_path) -> None:
    import shutil

    copy = tmp_path / "app"
    shutil.copytree(package, copy)
    (copy / "models" / "item_tower.onnx").write_bytes(b"x")
    result = mrse("feed", items, "--app", copy, "-e", vespa.url, "--no-images")
    _refused(result, vespa, f"{copy}/models/item_tower.onnx: the file has changed since")


def test_nobody_there(mrse, package, items) -> None:
    result = mrse("feed", items, "--app", package, "-e", "http://127.0.0.1:9", "--no-images")
    assert result.returncode == 2 and "nothing answers at http://127.0.0.1:9" in result.stderr
    assert result.stderr.count("\n") == 1


def _refused(result: Result, vespa, words: str) -> None:
    assert result.returncode == 2, result.stderr
    assert result.stderr.startswith(words), result.stderr
    assert result.stderr.count("\n") == 1, "one line"
    assert vespa.operations == []


def _stand_in_encoder(path: Path) -> None:
    """An image encoder with the name and width that the stand-in model was made for; it is not reached here."""
    import onnx
    from onnx import TensorProto, helper

    pixels = helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["batch", 3, 96, 96])
    feature = helper.make_tensor_value_info("feature", TensorProto.FLOAT, ["batch", 24])
    width = helper.make_tensor("width", TensorProto.INT64, [2], [-1, 24])
    graph = helper.make_graph(
        [helper.make_node("Reshape", ["pixels", "width"], ["feature"])], "e", [pixels], [feature], [width]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    helper.set_model_props(model, {"name": "stand-in"})
    onnx.save(model, path)


def test_features_of_other_items_and_of_some(mrse, vespa, package, items, features, tmp_path) -> None:
    table = pq.read_table(features)
    ids = table["item_id"].to_pylist()
    for name, kept in (("none", 0), ("some", 4)):
        renamed = [*ids[:kept], *(f"x{i}" for i in ids[kept:])]
        there = table.set_column(0, table.schema.field(0), pa.array(renamed)).replace_schema_metadata(
            table.schema.metadata
        )
        pq.write_table(there, tmp_path / f"{name}.parquet")
    command = ["feed", items, "--app", package, "-e", vespa.url, "--features"]
    result = mrse(*command, tmp_path / "none.parquet")
    _refused(result, vespa, f"{tmp_path / 'none.parquet'}, field item_id: no item has an image feature in this file")
    assert (
        CliRunner()
        .invoke(app, [*map(str, command), str(tmp_path / "some.parquet")])
        .output.count(f"8 of 12 items are not in {tmp_path / 'some.parquet'}: they have no image")
    )


def test_a_catalogue_that_is_too_small_to_learn_from(mrse, tmp_path) -> None:
    file = tmp_path / "items.parquet"
    pq.write_table(pa.table({"item_id": ["i1"], "title": ["red dress"]}), file)
    result = mrse("train", file, "--out", tmp_path / "run")
    assert result.returncode == 2 and result.stderr.startswith(f"{file}: 1 items are too few to learn from")
    assert "at least 32" in result.stderr
