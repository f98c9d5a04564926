"""Field values: from JSON, to JSON, and as the store keeps them.

A document's fields are a dict of Python values: str, int, float, bool, a list (array), a dict of weights (weighted
set), a Tensor.
"""

from __future__ import annotations

import math
import re
from collections.abc import Container, Mapping
from typing import Any

import numpy as np
import orjson

from ..errors import DocumentError
from ..package.schema import INTEGERS, Field, FieldType, Schema
from ..tensors import Tensor, TensorError, TensorType, parse_document_tensor, render

MIN_INTEGER = {kind: -(1 << bits - 1) for kind, bits in INTEGERS.items()}

Fields = dict[str, Any]


# What Text.isTextCharacter (vespajlib) does not take for text: control characters, surrogates, and some that are none.
_NOT_TEXT = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufdd0-\ufddf"
    + "".join(f"{chr(plane + 0xFFFE)}{chr(plane + 0xFFFF)}" for plane in range(0x10000, 0x110000, 0x10000))
    + "]"
)
MAX_ID_LENGTH = 0x10000


def illegal_character(text: str) -> str | None:
    """The first character that Vespa takes neither in a string nor in a document id, as `0xC`."""
    found = _NOT_TEXT.search(text)
    return f"0x{ord(found[0]):X}" if found else None


def check_id(id: str) -> None:
    """Raises DocumentError 400 for a document id that Vespa refuses (IdString.java)."""
    if len(id) > MAX_ID_LENGTH:
        raise DocumentError(400, f"Document id length {len(id)} is longer than max length of {MAX_ID_LENGTH}")
    if found := illegal_character(id):
        raise DocumentError(400, f"Unparseable id '{id}': Contains illegal code point {found}")


def parse_scalar(kind: str, value: Any) -> Any:
    """A JSON value as a scalar of that kind. Raises ValueError in the words of Java's parsers."""
    if kind == "string":
        if isinstance(value, str):
            if found := illegal_character(value):
                raise ValueError(f"The string field value contains illegal code point {found}")
            return value
        if isinstance(value, (bool, int, float)):
            return str(value).lower() if isinstance(value, bool) else str(value)
    elif kind == "bool":
        if isinstance(value, bool):
            return value
        if value in ("true", "false"):
            return value == "true"
        if isinstance(value, int):
            return bool(value)
    elif kind in INTEGERS:
        if isinstance(value, (int, str)) and not isinstance(value, bool):
            try:
                number = int(value)
            except ValueError:
                raise ValueError(f'For input string: "{value}"') from None
            bits = INTEGERS[kind]
            if not -(1 << (bits - 1)) <= number < 1 << (bits - 1):
                raise ValueError(f'Value out of range. Value:"{number}"')
            return number
        if isinstance(value, float):
            raise ValueError(f'For input string: "{value}"')
    elif isinstance(value, (int, float, str)) and not isinstance(value, bool):
        try:
            real = float(value)
        except ValueError:
            raise ValueError(f'For input string: "{value}"') from None
        return float(str(np.float32(real))) if kind == "float" else real
    raise ValueError(f"Expected a value of type {kind}, but got {_excerpt(value)}")


def token(value: Any) -> str:
    """What Jackson calls the token that a JSON value begins with."""
    match value:
        case None:
            return "VALUE_NULL"
        case bool():
            return f"VALUE_{str(value).upper()}"
        case dict():
            return "START_OBJECT"
        case list():
            return "START_ARRAY"
    return {int: "VALUE_NUMBER_INT", float: "VALUE_NUMBER_FLOAT"}.get(type(value), "VALUE_STRING")


def _excerpt(value: Any) -> str:
    """The start of a JSON value, for messages."""
    try:
        return orjson.dumps(value).decode()[:80]
    except TypeError:  # nested too deeply for orjson, or an integer too large for it
        return f"a {type(value).__name__}"


def parse_value(kind: FieldType, value: Any) -> Any:
    """A JSON value of a field. Raises ValueError or TensorError."""
    if kind.tensor is not None:
        return parse_document_tensor(kind.tensor, value)
    if not kind.collection:
        return parse_scalar(kind.scalar, value)
    if kind.collection == "array":
        if not isinstance(value, list):
            raise ValueError(f"Expected an array, but got {_excerpt(value)}")
        return [parse_scalar(kind.scalar, v) for v in value]
    if not isinstance(value, dict):
        raise ValueError(f"Expected start of JSON object, got {token(value)}")
    return {parse_scalar(kind.scalar, k): parse_scalar("int", w) for k, w in value.items()}


def parse_field(schema: Schema, document_id: str, name: str, value: Any) -> Any:
    """The value of a named field in a put or an assign. Raises DocumentError 400."""
    kind = field_of(schema, name).type
    try:
        return parse_value(kind, value)
    except (ValueError, TensorError) as e:
        raise DocumentError(
            400, f"In document '{document_id}': Could not parse field '{name}' of type {kind}: {e}"
        ) from e


def field_of(schema: Schema, name: str) -> Field:
    """The field of the document. Raises DocumentError 400 for an unknown one."""
    field = schema.fields.get(name)
    if field is None or not field.in_document:
        raise DocumentError(400, f"Field '{name}' is not defined in document type '{schema.name}'")
    return field


def parse_fields(schema: Schema, document_id: str, fields: Any) -> Fields:
    """The fields of a put; null is as if absent. Raises DocumentError 400."""
    if not isinstance(fields, dict):
        raise DocumentError(400, f"In document '{document_id}': Expected 'fields' to be an object")
    return {
        name: parse_field(schema, document_id, name, value)
        for name, value in fields.items()
        if value is not None or field_of(schema, name) is None
    }


def json_value(value: Any, tensors: str) -> Any:
    """A value as JSON, tensors in one of the forms of `format.tensors`."""
    if isinstance(value, Tensor):
        return render(value, tensors)
    if isinstance(value, dict):
        return {str(k): w for k, w in value.items()}
    return value


def is_undefined(field: Field, value: Any) -> bool:
    """Whether an attribute holding this value counts as never set: no value, '', an empty collection, NaN, the least
    integer of its type (isUndefined in searchcommon)."""
    if isinstance(value, Tensor):
        return False
    if value is None or value == "" or value == [] or value == {} or value != value:
        return True
    return not field.type.collection and value == MIN_INTEGER.get(field.type.scalar)


def document_json(schema: Schema, fields: Mapping[str, Any], chosen: frozenset[str] | None, tensors: str) -> Fields:
    """A document as a get or a visit shows it: attributes that were never set are left out, but a bool is false and
    a mapped tensor keeps its empty value. `chosen` names the fields to show."""
    shown: Fields = {}
    for name, field in schema.fields.items():
        if not field.in_document or (chosen is not None and name not in chosen):
            continue
        value = fields.get(name)
        if field.attribute and not isinstance(value, Tensor):
            if field.type.scalar == "bool" and not field.type.collection and value is None:
                value = False
            elif is_undefined(field, value):
                continue
        if value is not None:
            shown[name] = json_value(value, tensors)
    return shown


def encode(fields: Mapping[str, Any]) -> tuple[bytes, bytes]:
    """Fields for the store: JSON (under `t` each tensor's labels and size) and the cells of all tensors, one after
    another."""
    plain: Fields = {}
    tensors: dict[str, list[Any]] = {}
    cells: list[bytes] = []
    for name, value in fields.items():
        if isinstance(value, Tensor):
            cells.append(_packed(value.type, value.cells))
            tensors[name] = [value.labels, len(cells[-1])]
        else:
            plain[name] = _storable(value)
    return orjson.dumps({"f": plain, "t": tensors}), b"".join(cells)


def decode(schema: Schema, plain: bytes, cells: bytes, only: Container[str] | None = None) -> Fields:
    """The fields that `encode` stored, or `only` some; those that the schema no longer has are left out."""
    stored = orjson.loads(plain)
    fields: Fields = {}
    for name, value in stored["f"].items():
        field = schema.fields.get(name) if only is None or name in only else None
        if field is not None and field.type.tensor is None:
            fields[name] = _restored(field.type, value)
    at = 0
    for name, (labels, size) in stored["t"].items():
        field = schema.fields.get(name) if only is None or name in only else None
        if field is not None and field.type.tensor is not None:
            fields[name] = _unpacked(field.type.tensor, tuple(tuple(block) for block in labels), cells[at : at + size])
        at += size
    return fields


def _storable(value: Any) -> Any:
    """A value as JSON that loses nothing: infinities and NaN, which JSON lacks, as text."""
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, list) and value and isinstance(value[0], float):
        return [_storable(v) for v in value]
    return [[_storable(k), w] for k, w in value.items()] if isinstance(value, dict) else value


def _restored(kind: FieldType, value: Any) -> Any:
    """What `_storable` was given."""
    if kind.collection == "weightedset":
        keys = ((float(k) if kind.scalar in ("float", "double") else k, w) for k, w in value)
        return dict(keys)
    if kind.scalar in ("float", "double") and value is not None:
        return [float(v) for v in value] if kind.collection else float(value)
    return value


def _packed(kind: TensorType, cells: np.ndarray) -> bytes:
    if kind.cell == "bfloat16":
        return (np.ascontiguousarray(cells, "<f4").view("<u4") >> 16).astype("<u2").tobytes()
    return np.ascontiguousarray(cells).tobytes()


def _unpacked(kind: TensorType, labels: tuple[tuple[str, ...], ...], data: bytes) -> Tensor:
    if kind.cell == "bfloat16":
        flat = (np.frombuffer(data, "<u2").astype("<u4") << 16).view("<f4")
    else:
        flat = np.frombuffer(data, kind.dtype)
    return Tensor(kind, labels, flat.reshape(len(labels), *kind.shape))
