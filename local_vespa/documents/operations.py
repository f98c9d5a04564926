"""Document operations: from the JSON of a request to an operation, and what it does to a document."""

from __future__ import annotations

import math
from collections.abc import Mapping, Set
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import DocumentError, unsupported
from ..package.schema import INTEGERS, Field, FieldType, Schema
from ..tensors import Tensor, TensorError, update_tensor
from .selection import Selection, SelectionError, parse_selection
from .values import Fields, field_of, parse_field, parse_fields, parse_scalar, parse_value, token

ARITHMETIC = ("increment", "decrement", "multiply", "divide")


@dataclass(frozen=True)
class Operation:
    """One write. `fields` are values of a put, or of an update [(field, operation, JSON)]."""

    kind: str  # put, update, remove
    id: str
    schema: Schema
    fields: Any = None
    condition: Selection | None = None
    create: bool = False


def read_put(
    schema: Schema, id: str, body: Any, condition: Selection | None = None, create: bool | None = None
) -> Operation:
    """A put of a request's JSON; what the URL says of condition and create goes before the body's. Raises DocumentError
    400."""
    fields = parse_fields(schema, id, _fields(body))
    _derive(schema, fields, set(fields))
    return Operation("put", id, schema, fields, *_options(body, condition, create))


def read_update(
    schema: Schema, id: str, body: Any, condition: Selection | None = None, create: bool | None = None
) -> Operation:
    """An update of a request's JSON; everything that does not depend on the document is checked here."""
    updates = []
    for name, operations in _fields(body).items():
        if "{" in name or "[" in name or "." in name:
            raise DocumentError(400, unsupported(f"the field path update '{name}'"))
        field = field_of(schema, name)
        if not isinstance(operations, dict):
            raise DocumentError(400, f"Error in '{name}': Expected an object of operations")
        for operation, value in operations.items():
            updates.append((name, operation, _checked(schema, id, field, operation, value)))
    return Operation("update", id, schema, updates, *_options(body, condition, create))


def read_selection(text: str | None) -> Selection | None:
    """A parsed selection, if there is one. Raises DocumentError 400."""
    if text is None:
        return None
    try:
        return parse_selection(text)
    except SelectionError as e:
        raise DocumentError(400, str(e)) from e


def _options(body: dict[str, Any], condition: Selection | None, create: bool | None) -> tuple[Selection | None, bool]:
    """condition and create of a write: as given, else those of the body (JsonReader.readSingleDocumentStreaming)."""
    own, makes = body.get("condition"), body.get("create", False)
    if own is not None and not isinstance(own, str):
        raise DocumentError(400, "expected string value for condition, got " + token(own))
    if not isinstance(makes, bool):
        raise DocumentError(400, f"failed parsing document: Current token ({token(makes)}) not of boolean type")
    return condition or read_selection(own or None), makes if create is None else create


def _fields(body: Any) -> dict[str, Any]:
    if not isinstance(body, dict) or "fields" not in body:
        raise DocumentError(400, 'document is missing the required "fields" field')
    if not isinstance(body["fields"], dict):
        raise DocumentError(400, 'Expected "fields" to be an object')
    return body["fields"]


def _checked(schema: Schema, id: str, field: Field, operation: str, value: Any) -> Any:
    """The argument of an update operation, parsed where that can be done without the document."""
    name, kind = field.name, field.type
    if operation == "assign":
        return None if value is None else parse_field(schema, id, name, value)
    if kind.tensor is not None and operation in ("modify", "add", "remove"):
        try:
            update_tensor(Tensor.empty(kind.tensor), operation, value)
        except TensorError as e:
            raise DocumentError(400, f"Error in '{name}': {e}") from e
        return value
    if operation in ("add", "remove") and kind.collection:
        try:
            if not isinstance(value, (list, dict)):
                raise ValueError(f"Expected start of composite, got {token(value)}")
            if operation == "remove" and kind.collection == "weightedset" and isinstance(value, dict):
                return {parse_scalar(kind.scalar, k): 0 for k in value}
            return parse_value(kind, value)
        except ValueError as e:
            raise DocumentError(400, f"Error in '{name}': {e}") from e
    if operation in ARITHMETIC:
        if not kind.is_number or kind.collection or kind.scalar == "bool":
            raise DocumentError(400, f"Error in '{name}': Expected a numeric field, but it is {kind}")
        try:
            return float(parse_scalar("double", value))
        except ValueError as e:
            raise DocumentError(400, f"Error in '{name}': {e}") from e
    if operation == "match" and kind.collection and kind.tensor is None:
        return _checked_match(field, value)
    raise DocumentError(400, f"Error in '{name}': Operation '{operation}' not implemented.")


def _checked_match(field: Field, value: Any) -> tuple[Any, str, Any]:
    """Which element of an array (its index) or weighted set (its value), the operation, and its argument."""
    name, kind = field.name, field.type
    if not isinstance(value, dict) or len(value) != 2 or "element" not in value:
        raise DocumentError(400, f"Error in '{name}': Expected an 'element' and one operation in a 'match' update")
    ((operation, argument),) = ((k, v) for k, v in value.items() if k != "element")
    scalar = kind.scalar if kind.collection == "array" else "int"
    if operation not in ("assign", *ARITHMETIC) or (operation != "assign" and scalar in ("string", "bool")):
        raise DocumentError(400, f"Error in '{name}': Operation '{operation}' not implemented.")
    try:
        element = parse_scalar("int" if kind.collection == "array" else kind.scalar, value["element"])
        return element, operation, parse_scalar(scalar if operation == "assign" else "double", argument)
    except ValueError as e:
        raise DocumentError(400, f"Error in '{name}': {e}") from e


def _matched(kind: FieldType, value: Any, element: Any, operation: str, argument: Any) -> Any:
    """An array or weighted set with one element changed; one that is not there stays so."""
    if kind.collection == "array":
        if value is None or not 0 <= element < len(value):
            return value
        old, scalar = value[element], kind.scalar
    elif value is None or element not in value:
        return value
    else:
        old, scalar = value[element], "int"
    new = argument if operation == "assign" else _arithmetic(scalar, operation, old, argument)
    if kind.collection == "array":
        return [*value[:element], new, *value[element + 1 :]]
    return {**value, element: new}


def apply_update(updates: list[tuple[str, str, Any]], schema: Schema, fields: Mapping[str, Any]) -> Fields:
    """The fields after an update. Raises DocumentError 400."""
    new = dict(fields)
    for name, operation, value in updates:
        kind, old = schema.fields[name].type, new.get(name)
        if operation == "assign":
            new[name] = value
        elif operation == "match":
            new[name] = _matched(kind, old, *value)
        elif kind.tensor is not None:
            if old is None and operation == "remove":
                continue
            try:
                new[name] = update_tensor(Tensor.empty(kind.tensor) if old is None else old, operation, value)
            except TensorError as e:
                raise DocumentError(400, f"Error in '{name}': {e}") from e
        elif kind.collection == "array":
            kept = list(old or [])
            new[name] = kept + value if operation == "add" else [v for v in kept if v not in value]
        elif kind.collection:
            weights = dict(old or {})
            new[name] = weights | value if operation == "add" else {k: w for k, w in weights.items() if k not in value}
        elif old is not None:
            new[name] = _arithmetic(kind.scalar, operation, old, value)
    _derive(schema, new, {name for name, _, _ in updates})
    return {name: value for name, value in new.items() if value is not None}


def _derive(schema: Schema, fields: Fields, written: Set[str]) -> None:
    """Sets the fields that are made of others that were written: the bits of a vector (binarize | pack_bits: 1 where a
    cell is above 0), and joined texts. What an update does not write is no part of the text. A field that is cleared
    leaves behind what was made of it, as in Vespa, whose indexing does not run then.
    """
    for field in schema.fields.values():
        if field.made_of is not None and not written.isdisjoint(field.made_of.inputs):
            text = field.made_of.text({name: fields.get(name) for name in written})
            if text is not None:
                fields[field.name] = text
        vector = fields.get(field.packs) if field.packs is not None and field.packs in written else None
        if vector is not None and field.type.tensor is not None:
            bits = np.packbits(vector.cells.reshape(-1) > 0).view(np.int8)
            fields[field.name] = Tensor.dense(field.type.tensor, bits)


def _arithmetic(kind: str, operation: str, old: float, value: float) -> float | int:
    match operation:
        case "increment":
            result = old + value
        case "decrement":
            result = old - value
        case "multiply":
            result = old * value
        case _:
            result = old / value if value else float(np.float64(old) / np.inf)
    if kind in ("float", "double"):
        return parse_scalar(kind, float(result))
    if math.isnan(result):
        return 0
    limit = 1 << (INTEGERS[kind] - 1)  # beyond it the value stays at the end of its range, as a cast in Java does
    return -limit if result <= -limit else limit - 1 if result >= limit else int(result)
