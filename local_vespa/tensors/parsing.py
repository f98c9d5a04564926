"""Reads tensors from documents (JSON) and from query parameters (literals or JSON)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np

from .cells import put_cells, read_address
from .hexadecimal import decode_hex
from .literal import parse_literal
from .types import TensorError, TensorType
from .values import Tensor

_SPECIAL = {"infinity": np.inf, "+infinity": np.inf, "inf": np.inf, "+inf": np.inf, "-infinity": -np.inf}
_SPECIAL |= {"-inf": -np.inf, "nan": np.nan, "+nan": np.nan, "-nan": -np.nan}


def parse_document_tensor(type: TensorType, value: Any) -> Tensor:
    """The tensor that a document field of this type gets from parsed JSON: a list, a hex string, `values`, `cells`,
    `blocks` (both forms) or the mapped short form. Cells that `cells` leaves out of a dense tensor are 0.
    Raises TensorError with Vespa's words (TensorReader.java)."""
    if isinstance(value, str) and not type.mapped:
        if not value:
            raise TensorError(f"Bad string input for tensor with type {type}")
        return Tensor.dense(type, decode_hex(value, type))
    if not isinstance(value, (dict, list)):
        raise TensorError(f"Expected start of composite, got {json.dumps(value)}")
    return read_json(type, value, short_allowed=False)


def parse_query_tensor(type: TensorType, value: Any) -> Tensor:
    """The tensor of a query parameter `input.query(x)`: a literal (`[1,2]`, `{{x:0}:1}`, `{a:[..]}`,
    `tensor(x[2]):[1,2]`, hex), a number, or JSON as in documents. A dense literal that is too short is zero padded.
    Raises TensorError: `Could not parse '…' as a tensor of type …: …`."""
    if isinstance(value, list) and len(type.dimensions) == 1 and type.shape == (len(value),) and _all_numbers(value):
        return Tensor.dense(type, np.array(value, np.float64))
    text = value if isinstance(value, str) else json.dumps(value)
    try:
        return parse_literal(type, text)
    except TensorError as error:
        problem = error
    try:  # JSON is legal too, and says no more than the literal if it fails
        return read_json(type, json.loads(text, parse_constant=_refuse), short_allowed=True)
    except (ValueError, RecursionError):
        raise TensorError(f"Could not parse '{text}' as a tensor of type {type}: {problem}") from None


def read_json(type: TensorType, value: Any, *, short_allowed: bool) -> Tensor:
    """A tensor from its JSON; `short_allowed`: fewer values than a dense tensor or block has are zero padded, null
    is NaN (queries, JsonFormat.java), else refused (documents, TensorReader.java)."""
    fields = value if isinstance(value, dict) else {}
    cells = fields.get("cells")
    if "cells" in fields and not (_is_number(cells) or (isinstance(cells, list) and cells and _is_number(cells[0]))):
        return _from_cells(type, cells)
    if "values" in fields and not type.mapped:
        return _from_values(type, fields["values"], short_allowed)
    if isinstance(fields.get("blocks"), (list, dict)):
        return _from_blocks(type, fields["blocks"], short_allowed)
    inner = value
    while isinstance(inner, list) and inner:
        inner = inner[0]
    if isinstance(value, list) and isinstance(inner, dict):
        return _from_cells(type, value)
    if not type.mapped:
        return _from_values(type, value, short_allowed)
    if type.indexed:
        return _from_blocks(type, value, short_allowed)
    return _from_cells(type, value)


def read_cells(type: TensorType, cells: Any) -> Iterator[tuple[tuple[str, ...], float]]:
    """The cells of `cells` JSON: each address, in the order of all dimensions, and its value."""
    if isinstance(cells, list):
        for cell in cells:
            if not isinstance(cell, dict) or "address" not in cell:
                raise TensorError("Expected an object in a tensor 'cells' array to contain an 'address' field")
            if "value" not in cell:
                raise TensorError("Expected an object in a tensor 'cells' array to contain a 'value' field")
            yield read_address(type.dimensions, cell["address"], type), _number(cell["value"])
    elif isinstance(cells, dict):
        for label, number in cells.items():
            if len(type.dimensions) != 1:
                raise TensorError(f"Expected a tensor with a single dimension but got '{type}'")
            yield (label,), _number(number)
    else:
        raise TensorError("Expected 'cells' to contain an array or an object")


def _from_cells(type: TensorType, cells: Any) -> Tensor:
    return put_cells(type, read_cells(type, cells))


def _from_values(type: TensorType, values: Any, short_allowed: bool) -> Tensor:
    if isinstance(values, str):
        if not values:
            raise TensorError("The 'values' string does not contain any values")
        return Tensor.dense(type, decode_hex(values, type))
    if not isinstance(values, list):
        raise TensorError("Expected 'values' to be an array")
    if not values:
        raise TensorError("The 'values' array does not contain any values")
    return Tensor.dense(type, _block(type, values, short_allowed, "values"))


def _from_blocks(type: TensorType, blocks: Any, short_allowed: bool) -> Tensor:
    if not type.mapped or not type.indexed:
        raise TensorError("The 'blocks' field can only be used with mixed tensors with bound dimensions. "
                          "Use 'cells' or 'values' instead")  # fmt: skip
    result: dict[tuple[str, ...], np.ndarray] = {}
    if isinstance(blocks, dict):
        if len(type.mapped) != 1:
            raise TensorError(f"Expected a tensor with a single dimension but got '{type}'")
        for label, values in blocks.items():
            result[(label,)] = _block(type, values, short_allowed, f"{{{type.mapped[0].name}:{label}}}")
    elif isinstance(blocks, list):
        for block in blocks:
            if not isinstance(block, dict) or "address" not in block:
                raise TensorError("Expected a 'blocks' array object to contain an object 'address'")
            if "values" not in block:
                raise TensorError("Expected a 'blocks' array object to contain an array 'values'")
            labels = read_address(type.mapped, block["address"], type)
            result[labels] = _block(type, block["values"], short_allowed, ",".join(labels))
    else:
        raise TensorError("Expected 'blocks' to contain an array or an object")
    return Tensor.of_blocks(type, result)


def _block(type: TensorType, values: Any, short_allowed: bool, where: str) -> np.ndarray:
    """The cells of one block from a (nested) list or a hex string, flat."""
    if isinstance(values, str):
        return decode_hex(values, type)
    if not isinstance(values, list):
        raise TensorError("Expected a block to contain an array of values")
    flat = values
    if not _all_numbers(values):
        flat = [_number(v, null_allowed=short_allowed) for v in _flatten(values)]
    size = type.block_size
    if len(flat) > size or (len(flat) < size and not short_allowed):
        at = "" if where == "values" else f"At {where}: "
        raise TensorError(f"{at}Expected {size} values, but got {len(flat)}")
    result = np.zeros(size)
    result[: len(flat)] = flat
    return result


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def _flatten(values: list[Any]) -> Iterator[Any]:
    for value in values:
        if isinstance(value, list):
            yield from _flatten(value)
        else:
            yield value


def _all_numbers(values: list[Any]) -> bool:
    return set(map(type, values)) <= {float, int}


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _number(value: Any, *, null_allowed: bool = False) -> float:
    if _is_number(value):
        return float(value)
    if isinstance(value, str):
        if value.lower() in _SPECIAL:
            return _SPECIAL[value.lower()]
        try:
            return float(value)
        except ValueError:
            pass
    if value is None and null_allowed:
        return np.nan
    raise TensorError(f"Expected a number but got '{value}'")
