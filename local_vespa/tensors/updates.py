"""Partial updates of a tensor field: modify, add and remove."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .cells import read_index
from .parsing import parse_document_tensor, read_cells, read_json
from .types import Dimension, TensorError, TensorType
from .values import Tensor, round_cells

_MODIFY: dict[str, Callable[[float, float], float]] = {
    "replace": lambda old, new: new,
    "add": lambda old, new: old + new,
    "multiply": lambda old, new: old * new,
}


def update_tensor(tensor: Tensor, operation: str, value: Any) -> Tensor:
    """The tensor after one update operation of a document, given its JSON.

    `modify`: {"operation": "replace" | "add" | "multiply", "cells" | "blocks": …, "create": bool}. `add`: cells or
    blocks. `remove`: {"addresses": […]}.

    `assign` is parse_document_tensor. A missing field is Tensor.empty(type) for `add`, and for a `modify` with
    `create`; every other update leaves it missing. Raises TensorError."""
    if not isinstance(value, dict):
        raise TensorError(f"A tensor update '{operation}' takes an object")
    if operation == "modify":
        return _modify(tensor, value)
    if operation not in ("add", "remove"):
        raise TensorError(f"Operation '{operation}' not implemented.")
    if not tensor.type.mapped:
        article = "An add" if operation == "add" else "A remove"
        raise TensorError(f"{article} update takes a tensor with at least one sparse dimension, not '{tensor.type}'")
    return _add(tensor, value) if operation == "add" else _remove(tensor, value)


def _add(tensor: Tensor, value: dict[str, Any]) -> Tensor:
    added = parse_document_tensor(tensor.type, value)
    if not added.labels:
        raise TensorError("Add update does not contain tensor cells")
    new = added.blocks()
    kept = {labels: block for labels, block in tensor.blocks().items() if labels not in new}
    return Tensor.of_blocks(tensor.type, {**new, **kept})


def _remove(tensor: Tensor, value: dict[str, Any]) -> Tensor:
    addresses = value.get("addresses")
    if not isinstance(addresses, list) or not addresses:
        raise TensorError("Remove update does not contain tensor addresses")
    names = [d.name for d in tensor.type.mapped]
    for address in addresses:
        if not isinstance(address, dict):
            raise TensorError("Expected an object in 'addresses'")
        for name in address:
            if name not in tensor.type.names:
                raise TensorError(f"{tensor.type} does not contain dimension '{name}'")
            if name not in names:
                raise TensorError(f"Indexed dimension address '{name}' should not be specified in remove update")
        if address.keys() != addresses[0].keys():
            raise TensorError("All addresses of a remove update have the same dimensions")

    def removed(labels: tuple[str, ...]) -> bool:
        here = dict(zip(names, labels, strict=True))
        return any(all(here[name] == str(label) for name, label in address.items()) for address in addresses)

    kept = {labels: block for labels, block in tensor.blocks().items() if not removed(labels)}
    return Tensor.of_blocks(tensor.type, kept)


def _modify(tensor: Tensor, value: dict[str, Any]) -> Tensor:
    unknown = value.keys() - {"operation", "cells", "blocks", "addresses", "create"}
    if unknown:
        raise TensorError(f"Unknown JSON string '{min(unknown)}' in modify update")
    if "operation" not in value:
        raise TensorError("Modify update does not contain an operation")
    if value["operation"] not in _MODIFY:
        raise TensorError(f"Unknown operation '{value['operation']}' in modify update")
    create = value.get("create", False)
    if not isinstance(create, bool):
        raise TensorError(f"Unknown value '{create}' for 'create' in modify update")
    join, default = _MODIFY[value["operation"]], 1.0 if value["operation"] == "multiply" else 0.0
    blocks = {labels: np.array(block, np.float64) for labels, block in tensor.blocks().items()}
    for labels, index, number in _modified_cells(tensor.type, value):
        if labels not in blocks:
            if not create:
                continue
            blocks[labels] = np.full(tensor.type.shape, default)
        blocks[labels][index] = join(float(blocks[labels][index]), number)
    cells = np.array(list(blocks.values()), np.float64).reshape((len(blocks), *tensor.type.shape))
    return Tensor(tensor.type, tuple(blocks), round_cells(tensor.type.cell, cells, nearest=True))


def _modified_cells(type: TensorType, value: dict[str, Any]) -> list[tuple[tuple[str, ...], tuple[int, ...], float]]:
    """The cells of a modify update: labels of the mapped dimensions, index in the block, number."""
    cells = []
    if "blocks" in value:
        given = read_json(type, {"blocks": value["blocks"]}, short_allowed=False)
        for labels, block in given.blocks().items():
            cells += [(labels, index, float(block[index])) for index in np.ndindex(*type.shape)]
    elif "cells" in value or "addresses" in value:
        sparse = TensorType(type.cell, tuple(Dimension(d.name) for d in type.dimensions))
        for address, number in read_cells(sparse, value.get("cells", value.get("addresses"))):
            pairs = list(zip(address, type.dimensions, strict=True))
            labels = tuple(a for a, d in pairs if d.mapped)
            index = tuple(read_index(d, a, type) for a, d in pairs if not d.mapped)
            cells.append((labels, index, number))
    else:
        raise TensorError("Modify update does not contain tensor cells")
    return cells
