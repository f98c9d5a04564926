"""Every Arrow type that Parquet holds × every field type: validate accepts a file if and only if feed accepts it, and
what is fed is in the engine as Vespa would store it.
"""

from __future__ import annotations

import datetime
import decimal
import math
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from vespa.application import Vespa

from feeders.feed import feed_items
from feeders.image_features import NoImages
from feeders.items import ItemSource
from local_vespa.testing import deploy, running_engine
from mrse_model.errors import InputError
from mrse_model.serving.exported_model import ExportedModel
from vespa_package.checks.all import validate
from vespa_package.fields import DocumentType

FIELDS = {
    "f_string": "string",
    "f_bool": "bool",
    "f_byte": "byte",
    "f_int": "int",
    "f_long": "long",
    "f_float": "float",
    "f_double": "double",
    "f_strings": "array<string>",
    "f_longs": "array<long>",
    "f_bytes": "array<byte>",
    "f_floats": "array<float>",
    "f_bools": "array<bool>",
    "f_weights": "weightedset<string>",
    "f_vector": "tensor<float>(x[2])",
    "f_numbers": "tensor<int8>(x[2])",
    "f_labels": "tensor<float>(label{})",
}
DAY = datetime.datetime(2026, 3, 1, 12, 30, 59, tzinfo=datetime.UTC)
SECONDS = int(DAY.timestamp())
D = decimal.Decimal
# A column of each type, with values that are hard to hold: name → (type, values)
COLUMNS: dict[str, tuple[pa.DataType, list[Any]]] = {
    "null": (pa.null(), [None]),
    "bool": (pa.bool_(), [True, False, None]),
    **{
        f"int{n}": (getattr(pa, f"int{n}")(), [0, 100, -(1 << (n - 1)), (1 << (n - 1)) - 1, None])
        for n in (8, 16, 32, 64)
    },
    **{f"uint{n}": (getattr(pa, f"uint{n}")(), [0, 100, (1 << n) - 1, None]) for n in (8, 16, 32, 64)},
    "small integers": (pa.int64(), [0, -128, 127]),
    "half": (pa.float16(), [0.5, math.nan, math.inf, None]),
    "float": (pa.float32(), [0.1, -2.5, math.nan, None]),
    "double": (pa.float64(), [0.1, 1e300, -1e-300, -math.inf, None]),
    "small numbers": (pa.float64(), [0.1, 3.0, math.nan, None]),
    "decimal": (pa.decimal128(10, 2), [D("1.25"), D("-99999999.99"), None]),
    "decimal256": (pa.decimal256(50, 0), [D(10) ** 49, D(7), None]),
    "string": (pa.string(), ["red", "", "Größe \U0001f45f", "a\x0cb", "\ufdd0", "\uffff", "\U0001fffe", None]),
    "plain string": (pa.string(), ["red", None]),
    "large string": (pa.large_string(), ["red", None]),
    "string view": (pa.string_view(), ["red", None]),
    "categories": (pa.dictionary(pa.int32(), pa.string()), ["red", "red", None]),
    "binary": (pa.binary(), [b"red", None]),
    "fixed binary": (pa.binary(2), [b"ab", None]),
    "date": (pa.date32(), [datetime.date(2026, 3, 1), datetime.date(1, 1, 1), None]),
    "date64": (pa.date64(), [datetime.date(2026, 3, 1), None]),
    "time": (pa.time32("s"), [datetime.time(12), None]),
    "time64": (pa.time64("us"), [datetime.time(12), None]),
    "duration": (pa.duration("s"), [datetime.timedelta(1), None]),
    **{f"timestamp {unit}": (pa.timestamp(unit), [SECONDS, None, -1]) for unit in ("ms", "us", "ns")},
    "timestamp with zone": (pa.timestamp("us", "Europe/Berlin"), [SECONDS, None]),
    "timestamp with an unknown zone": (pa.timestamp("us", "Mars/Phobos"), [SECONDS, None]),
    "timestamp at the edges": (pa.timestamp("us"), [-(2**63) + 1, 2**63 - 1]),
    "strings": (pa.list_(pa.string()), [["a", None, "b"], [], None, ["a\x00"]]),
    "plain strings": (pa.list_(pa.string()), [["a", None, "b"], [], None]),
    "large list": (pa.large_list(pa.string()), [["a"], None]),
    "list of categories": (pa.list_(pa.dictionary(pa.int8(), pa.string())), [["a", "a"], None]),
    "list of nulls": (pa.list_(pa.null()), [[None], []]),
    "list of bools": (pa.list_(pa.bool_()), [[True, None], None]),
    "integers": (pa.list_(pa.int64()), [[1, -2], [2**40], None]),
    "pairs of integers": (pa.list_(pa.int64(), 2), [[1, -2], None]),
    "floats": (pa.list_(pa.float32()), [[0.5, math.nan], [1.0, 2.0, 3.0], None]),
    "pairs of floats": (pa.list_(pa.float32(), 2), [[0.5, -1.5], None]),
    "list of times": (pa.list_(pa.timestamp("ms")), [[SECONDS, None, -1], None]),
    "list of lists": (pa.list_(pa.list_(pa.string())), [[["a"]], None]),
    "struct": (pa.struct({"a": pa.string()}), [{"a": "x"}, None]),
    "map": (pa.map_(pa.string(), pa.int64()), [[("a", 1)], None]),
}


@pytest.fixture(scope="module")
def app(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The default package with a field of each type."""
    app = Path(shutil.copytree(package, tmp_path_factory.mktemp("types") / "app"))
    schema = app / "schemas" / "item.sd"
    fields = "".join(f"field {n} type {t} {{\n indexing: attribute | summary\n }}\n" for n, t in FIELDS.items())
    schema.write_text(schema.read_text("utf-8").replace("document item {\n", f"document item {{\n{fields}", 1), "utf-8")
    return app


@pytest.fixture(scope="module")
def engine(app: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_engine(tmp_path_factory.mktemp("engine")) as url:
        deploy(url, app)
        yield url


@pytest.fixture(scope="module")
def model(app: Path) -> ExportedModel:
    return ExportedModel.load(app / "models")


def array(kind: pa.DataType, values: list[Any]) -> pa.Array:
    """Times as seconds of the unit that the type has."""
    of = kind.value_type if pa.types.is_list(kind) else kind
    if pa.types.is_timestamp(of) and all(abs(v) < 2**40 for v in flat(values)):
        scale = {"ms": 10**3, "us": 10**6, "ns": 10**9}[of.unit]

        def ticks(value: Any) -> Any:
            return [ticks(v) for v in value] if isinstance(value, list) else None if value is None else value * scale

        values = ticks(values)
    return pa.array(values, kind)


def flat(values: list[Any]) -> list[int]:
    return [v for value in values for v in (value if isinstance(value, list) else [value]) if v is not None]


def stored(field: str, value: Any) -> Any:
    """What Vespa's get shows of a value; None for nothing. `refused` where the field cannot hold it."""
    if field.startswith("array<"):
        inner = field[6:-1]
        return [stored(inner, v) for v in value or [] if v is not None and v == v] or None
    if field.startswith("tensor"):
        if value is None:
            return None
        cell = np.float32 if "float" in field else np.int8
        if len(value) != 2 or any(v is None or v != v for v in value):
            return "refused"
        return "refused" if (np.array(value, cell) != np.array(value)).any() else [float(v) for v in value]
    if value is None or value != value:
        return False if field == "bool" else None
    if field in ("string", "bool"):
        return value or (None if field == "string" else False)
    if bits := {"byte": 8, "int": 32, "long": 64}.get(field):
        return None if value == -(2 ** (bits - 1)) else int(value)  # the least is "undefined" to an attribute
    number = float(value)
    return struct.unpack("f", struct.pack("f", number))[0] if field == "float" else number


def seconds(kind: pa.DataType, value: Any) -> Any:
    if isinstance(value, list):
        return [seconds(kind, v) for v in value]
    if isinstance(value, datetime.date):
        return (value - datetime.date(1970, 1, 1)).days * 86_400
    edge = pa.types.is_timestamp(kind) and value is not None and abs(value) > 2**40
    return value // 10**6 if edge else value


@pytest.mark.parametrize("name", COLUMNS)
def test_validate_and_feed_and_the_engine_agree(
    name: str, app: Path, engine: str, model: ExportedModel, tmp_path: Path
) -> None:
    kind, values = COLUMNS[name]
    doctype, items = DocumentType.load(app), tmp_path / "items.parquet"
    ids = [f"{name} {n}" for n in range(len(values))]
    fields = dict(FIELDS)
    while True:  # columns of a wrong type first, then those with a value that does not fit
        table = {"item_id": ids, "title": ["red shoe"] * len(ids), **{f: array(kind, values) for f in fields}}
        pq.write_table(pa.table(table), items)
        refused = {problem.field for problem in validate(app, items)} - {None}
        try:
            source = ItemSource.open(items, doctype, model, NoImages())
        except InputError as error:
            assert {e.field for e in getattr(error, "errors", [error])} - {None} == refused, kind
            fields = {field: of_type for field, of_type in fields.items() if field not in refused}
            continue
        assert not refused, kind
        break
    assert len(fields) == FITTING.get(name, 0), fields
    report = feed_items(Vespa(engine), source, tmp_path / "journal.sqlite")
    assert report.failed == 0, report.first_error
    with Vespa(engine).syncio() as session:
        for item_id, value in zip(ids, values, strict=True):
            document = session.get_data("item", item_id, namespace="item").json["fields"]
            for field, of_type in fields.items():
                found, right = document.get(field), stored(of_type, seconds(kind, value))
                if isinstance(found, dict):
                    found = found["values"]
                approximate = isinstance(right, list) and right and isinstance(right[0], float)
                if approximate or isinstance(right, float):
                    right = pytest.approx(right, rel=1e-6)
                assert found == right, (of_type, value)


# To how many of the field types each column can be fed; none where its values, or its type, fit nowhere.
FITTING = {
    "null": 16,
    "bool": 1,
    "int8": 5,
    "int16": 4,
    "int32": 4,
    "int64": 3,
    "uint8": 4,
    "uint16": 4,
    "uint32": 3,
    "uint64": 2,
    "small integers": 5,
    "float": 2,
    "double": 0,
    "small numbers": 2,
    "decimal": 2,
    "decimal256": 1,
    "plain string": 1,
    "large string": 1,
    "string view": 1,
    "categories": 1,
    "date": 1,
    "date64": 1,
    "timestamp ms": 1,
    "timestamp us": 1,
    "timestamp ns": 1,
    "timestamp with zone": 1,
    "timestamp with an unknown zone": 1,
    "timestamp at the edges": 1,
    "plain strings": 1,
    "large list": 1,
    "list of categories": 1,
    "list of nulls": 5,
    "list of bools": 1,
    "integers": 2,
    "pairs of integers": 5,
    "floats": 1,
    "pairs of floats": 2,
    "list of times": 1,
}
