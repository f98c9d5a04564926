"""The Parquet contract: what is read, and the line a user gets for what is wrong."""

from __future__ import annotations

import io
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from mrse_model.data.contract import ItemsFile, SearchesFile, read_catalogue, read_judgments
from mrse_model.data.images import decode_image
from mrse_model.errors import InputError


def image(colour: str = "red", kind: str = "PNG") -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (4, 4), colour).save(out, kind)
    return out.getvalue()


def write(path: Path, /, **columns: Any) -> Path:
    pq.write_table(pa.table(columns), path, row_group_size=3)
    return path


def items(tmp_path: Path, /, **columns: Any) -> Path:
    return write(tmp_path / "items.parquet", **({"item_id": ["a", "b"], "title": ["A", "B"]} | columns))


def test_only_id_and_title_are_required(tmp_path: Path) -> None:
    (batch,) = ItemsFile(items(tmp_path)).batches(images=True)
    assert (batch.ids, batch.titles, batch.categories, batch.images) == (["a", "b"], ["A", "B"], [[], []], [None, None])


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (["Men > Tops", None], [["Men", "Tops"], []]),
        ([["Men", "Tops "], ["", "Toys", None]], [["Men", "Tops"], ["Toys"]]),
        (pa.array(["Men > Tops", "Toys"]).dictionary_encode(), [["Men", "Tops"], ["Toys"]]),
        (pa.array([["Men"], []], pa.large_list(pa.large_string())), [["Men"], []]),
    ],
)
def test_category_is_a_list_or_one_string(tmp_path: Path, column: Any, expected: list[list[str]]) -> None:
    (batch,) = ItemsFile(items(tmp_path, category=column)).batches()
    assert batch.categories == expected


def test_batches_count_rows_over_row_groups_and_resume(tmp_path: Path) -> None:
    ids = [f"i{n}" for n in range(11)]
    file = ItemsFile(write(tmp_path / "items.parquet", item_id=ids, title=ids, price=list(range(11))))
    for start in range(12):
        batches = list(file.batches(2, columns=["price"], start=start))
        assert [i for b in batches for i in b.ids] == ids[start:]
        assert [p for b in batches for p in b.extra["price"]] == list(range(start, 11))
        assert all(b.ids[0] == ids[b.first_row] for b in batches)


def test_images_come_from_bytes_or_from_paths(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images/a.png").write_bytes(image())
    by_path = ItemsFile(items(tmp_path, image_path=["images/a.png", None]))
    assert by_path.check() == 2
    assert next(by_path.batches(images=True)).images == [image(), None]
    assert next(by_path.batches()).images == [None, None]
    by_bytes = ItemsFile(items(tmp_path, image=[None, image()]))
    assert by_bytes.check(images=True) == 2
    assert next(by_bytes.batches(images=True)).images == [None, image()]


def test_extra_columns_are_all_others(tmp_path: Path) -> None:
    file = ItemsFile(items(tmp_path, price=[1.5, None], title_short=["x", "y"], image=[None, image()]))
    assert file.extra_columns == ["price", "title_short"]
    assert next(file.batches(columns=None)).extra == {"price": [1.5, None], "title_short": ["x", "y"]}
    assert read_catalogue(file.path, title="title_short").titles == ["x", "y"]


@pytest.mark.parametrize(
    ("columns", "line"),
    [
        ({"item_id": ["a", "a"]}, "row 1, field item_id: 'a' is also the id of row 0"),
        ({"item_id": ["a", ""]}, "row 1, field item_id: it is empty"),
        ({"item_id": [None, "a"]}, "row 0, field item_id: it is null"),
        ({"item_id": [1.5, 2.5]}, "field item_id: the column is double, not string"),
        ({"title": ["A", " \n"]}, "row 1, field title: it is empty"),
        ({"category": [1, 2]}, "field category: the column is int64, not list<string> or string"),
        ({"image": ["a", "b"]}, "field image: the column is string, not binary"),
        ({"image_path": ["no.png", None]}, "row 0, field image_path: there is no file 'no.png'"),
    ],
)
def test_bad_items_are_named(tmp_path: Path, columns: dict[str, Any], line: str) -> None:
    with pytest.raises(InputError) as error:
        ItemsFile(items(tmp_path, **columns)).check()
    assert f"{tmp_path}/items.parquet, {line}" in str(error.value)
    assert "\n" not in str(error.value)


def test_undecodable_image_is_named(tmp_path: Path) -> None:
    broken = image(kind="JPEG")[:-40]
    file = ItemsFile(items(tmp_path, image=[image(), broken]))
    assert file.check() == 2
    with pytest.raises(InputError, match=r"items\.parquet, row 1, field image: the image cannot be decoded"):
        file.check(images=True)


def test_bad_files_are_named(tmp_path: Path) -> None:
    text = tmp_path / "items.csv"
    text.write_text("item_id,title\na,A\n")
    with pytest.raises(InputError, match=r"items\.csv: it is not a readable Parquet file"):
        ItemsFile(text)
    with pytest.raises(InputError, match="does not exist"):
        ItemsFile(tmp_path / "none.parquet")
    with pytest.raises(InputError, match="field title: the column is missing; it has: item_id"):
        ItemsFile(write(tmp_path / "a.parquet", item_id=["a"]))
    with pytest.raises(InputError, match="no rows"):
        ItemsFile(write(tmp_path / "b.parquet", item_id=pa.array([], pa.string()), title=pa.array([], pa.string())))


def test_a_file_cut_short_while_reading_is_an_input_error(tmp_path: Path) -> None:
    ids = [f"i{n}" for n in range(2000)]
    path = write(tmp_path / "items.parquet", item_id=ids, title=ids)
    data = bytearray(path.read_bytes())
    data[200:2000] = b"\xff" * 1800  # pages broken, footer whole
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"items\.parquet"):
        ItemsFile(path).check()


def test_decode_image_flattens_transparency_on_white() -> None:
    out = io.BytesIO()
    Image.new("RGBA", (2, 2), (255, 0, 0, 0)).save(out, "WEBP", lossless=True)
    image = decode_image(out.getvalue())
    assert (image.mode, image.getpixel((0, 0))) == ("RGB", (255, 255, 255))


def encoded(pixels: np.ndarray, kind: str = "PNG") -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, kind)
    return out.getvalue()


def test_grey_of_16_bits_is_scaled_not_cut_off() -> None:
    grey = np.array([[0, 82 * 257, 65535]], np.uint16)
    assert np.asarray(decode_image(encoded(grey)))[0].tolist() == [[0] * 3, [82] * 3, [255] * 3]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "it is empty"),
        (b"<html><body>404 Not Found</body></html>", "it is a web page, which is not taken"),
        (encoded(np.zeros((2, 2, 3), np.uint8), "GIF"), "it is a GIF, which is not taken"),
        (encoded(np.zeros((2, 2, 3), np.uint8), "TIFF"), "it is a TIFF, which is not taken"),
        (b"/9j/4AAQSkZJRgABAQAAAQABAAD", "it is base64 text, which is not taken"),
        (b"\0" * 4096, "its format is not known"),
        (encoded(np.zeros((99, 99, 3), np.uint8), "JPEG")[:-40], "it is cut off or damaged"),
        (encoded(np.zeros((13_400, 13_400), bool)), "it is too large, more than 178 million pixels"),
    ],
    ids=["empty", "page", "gif", "tiff", "base64", "zeros", "cut", "huge"],
)
def test_a_refused_image_has_its_reason(data: bytes, reason: str) -> None:
    with pytest.raises(InputError, match=f"the image cannot be decoded: {reason}"):
        decode_image(data, row=0)


@pytest.mark.parametrize(
    "times",
    [
        pa.array([1_700_000_000, 1_700_000_001]),
        pa.array([1_700_000_000_999_999_999, 1_700_000_001_000_000_000], pa.timestamp("ns")),
        pa.array([1_700_000_000_999, 1_700_000_001_000], pa.timestamp("ms", "Europe/Berlin")),
        pa.array([datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC), datetime(2023, 11, 14, 22, 13, 21, tzinfo=UTC)]),
    ],
)
def test_times_of_any_unit_become_seconds(tmp_path: Path, times: pa.Array) -> None:
    path = write(
        tmp_path / "searches.parquet", search_id=["s", "t"], user_id=["u", None], timestamp=times, query=["q", None],
        shown=[["a"], None], clicked=[["a"], []],
    )  # fmt: skip
    (batch,) = SearchesFile(path).batches()
    assert batch.timestamps.tolist() == [1_700_000_000, 1_700_000_001]
    assert (batch.user_ids, batch.queries, batch.shown, batch.ordered) == (["u", ""], ["q", ""], [["a"], []], [[], []])


def test_milliseconds_are_refused(tmp_path: Path) -> None:
    path = write(
        tmp_path / "searches.parquet", search_id=["s"], user_id=["u"], timestamp=[1_700_000_000_000], query=["q"],
        shown=[["a"]], clicked=[["a"]],
    )  # fmt: skip
    with pytest.raises(InputError, match=r"row 0, field timestamp: 1700000000000 is not in seconds.*Divide"):
        list(SearchesFile(path).batches())


@pytest.mark.parametrize(
    ("ids", "problem"), [(["s", "t", ""], "empty"), (["s", "t", " "], "empty"), (["s", "t", None], "null")]
)
def test_a_search_without_an_id_is_refused(tmp_path: Path, ids: list[str | None], problem: str) -> None:
    """All searches of one id would be one search, whose events no history of it may hold."""
    path = write(
        tmp_path / "searches.parquet", search_id=ids, user_id=["u"] * 3, timestamp=[1_700_000_000] * 3,
        query=["q"] * 3, shown=[["a"]] * 3, clicked=[["a"]] * 3,
    )  # fmt: skip
    with pytest.raises(InputError, match=rf"searches\.parquet, row 2, field search_id: it is {problem}\. Every"):
        list(SearchesFile(path).batches(2))


def judge(tmp_path: Path, query: list[str], item_id: list[str], grade: list[int]) -> Path:
    return write(tmp_path / "judgments.parquet", query=query, item_id=item_id, grade=grade)


def test_judgments_are_grouped_and_looked_up(tmp_path: Path) -> None:
    catalogue = read_catalogue(items(tmp_path))
    path = judge(tmp_path, ["q", "p", "q", "q", "gone"], ["b", "a", "a", "b", "x"], [2, 1, 0, 2, 1])
    judgments = read_judgments(path, catalogue, unknown="skip")
    groups = [(q, i.tolist(), g.tolist()) for q, i, g in judgments.groups()]
    assert groups == [("q", [1, 0], [2, 0]), ("p", [0], [1])]
    assert (judgments.skipped, judgments.item.dtype) == (1, np.int32)
    with pytest.raises(InputError, match=r"row 4, field item_id: 'x' is not an item of"):
        read_judgments(path, catalogue)


@pytest.mark.parametrize(
    ("query", "grade", "line"),
    [
        (["q", "q"], [1, 2], "row 1, field grade: row 0 gives the same query and item the grade 1, this one 2"),
        (["q", "p"], [1, -1], "row 1, field grade: -1 is not a grade"),
        (["q", " "], [1, 1], "row 1, field query: it is empty"),
    ],
)
def test_bad_judgments_are_named(tmp_path: Path, query: list[str], grade: list[int], line: str) -> None:
    catalogue = read_catalogue(items(tmp_path))
    with pytest.raises(InputError) as error:
        read_judgments(judge(tmp_path, query, ["a", "a"], grade), catalogue)
    assert line in str(error.value)


def test_columns_that_pandas_writes_without_a_type_are_null(tmp_path: Path) -> None:
    """Nulls alone: of shoppers who are all anonymous, or an error about the row where none may be null."""
    columns = {"search_id": ["s"], "user_id": [None], "query": ["q"], "shown": [None], "clicked": [["a"]]}
    path = write(tmp_path / "searches.parquet", timestamp=[1_700_000_000], **columns)
    assert pq.read_schema(path).field("user_id").type == pa.null()
    (batch,) = SearchesFile(path).batches()
    assert (batch.user_ids, batch.shown, batch.clicked) == ([""], [[]], [["a"]])
    timeless = write(tmp_path / "searches.parquet", timestamp=[None], **columns)
    with pytest.raises(InputError, match=r"row 0, field timestamp: it is null"):
        list(SearchesFile(timeless).batches())
    with pytest.raises(InputError, match=r"row 0, field title: it is null"):
        ItemsFile(items(tmp_path, title=[None, None])).check()
    with pytest.raises(InputError, match="it has no rows"):
        ItemsFile(write(tmp_path / "none.parquet", item_id=[], title=[]))


def test_parts_whose_types_read_alike_are_one_table(tmp_path: Path) -> None:
    """A part of a day on which nothing was ordered, or whose texts are encoded in another way."""
    times = {"timestamp": [1_700_000_000], "shown": [["7"]], "clicked": [[7]]}
    ids = {"search_id": ["s"], "user_id": pa.array(["u"]).dictionary_encode(), "query": ["q"]}
    (tmp_path / "log").mkdir()
    write(tmp_path / "log/0.parquet", **ids, **times, carted=[[]], ordered=[None])
    plain = ids | {"user_id": pa.array(["v"], pa.large_string())}
    write(tmp_path / "log/1.parquet", **plain, **times, carted=[["c"]], ordered=[[9]])
    batches = list(SearchesFile(tmp_path / "log").batches())
    assert [b.user_ids + b.carted + b.ordered + b.clicked for b in batches] == [
        ["u", [], [], ["7"]],
        ["v", ["c"], ["9"], ["7"]],
    ]
    write(tmp_path / "log/2.parquet", **ids, **times, carted=["c"], ordered=[[9]])
    with pytest.raises(InputError, match=r"2\.parquet, field carted: the column is string here and list"):
        SearchesFile(tmp_path / "log")
    write(tmp_path / "log/2.parquet", **ids | {"query": [[]]}, **times, carted=[[]], ordered=[[9]])
    with pytest.raises(InputError, match=r"2\.parquet, field query: the column is list<element: null> here"):
        SearchesFile(tmp_path / "log")


def test_what_is_no_such_file_is_told_how_to_become_one(tmp_path: Path) -> None:
    catalogue = read_catalogue(items(tmp_path))
    floats = write(tmp_path / "judgments.parquet", query=["q"], item_id=["a"], grade=[2.0])
    with pytest.raises(InputError, match=r"double, not integer\. .* or make the file with mrse convert judgments"):
        read_judgments(floats, catalogue)
    with pytest.raises(InputError, match=r"field search_id: .* or make the file with mrse convert clicks, events or"):
        SearchesFile(floats)
    ids = items(tmp_path, item_id=[7.0, None])
    with pytest.raises(InputError, match=r'not string or integer\. .* floats of integers .* astype\("Int64"\)'):
        ItemsFile(ids)
