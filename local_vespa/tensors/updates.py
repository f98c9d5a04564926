"""Partial updates of a tensor field: modify, add and remove."""

from __future__ import annotations

from typing import Any

from .values import Tensor


def update_tensor(tensor: Tensor, operation: str, value: Any) -> Tensor:
    """The tensor after one update operation of a document, given its JSON: `modify` ({"operation": "replace" | "add" |
    "multiply", "cells" | "blocks": …, "create": bool}), `add` (cells or blocks) or `remove` ({"addresses": […]}).
    `assign` is parse_document_tensor. A missing field's tensor is Tensor.empty(type). Raises TensorError."""
    raise NotImplementedError
