"""Tensors as JSON, in the forms of `format.tensors`."""

from __future__ import annotations

from typing import Any

from .values import Tensor

FORMATS = ("short", "long", "short-value", "long-value", "hex", "hex-value")


def render(tensor: Tensor, form: str = "short") -> Any:
    """JSON values (dicts, lists, floats) of a tensor in one of FORMATS, as JsonFormat.java writes them. A scalar
    type is rendered with its type too. Raises ValueError on an unknown form."""
    raise NotImplementedError
