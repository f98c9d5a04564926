"""Reads tensors from documents (JSON) and from query parameters (literals or JSON)."""

from __future__ import annotations

from typing import Any

from .types import TensorType
from .values import Tensor


def parse_document_tensor(type: TensorType, value: Any) -> Tensor:
    """The tensor that a document field of this type gets from parsed JSON: a list, a hex string, `values`, `cells`,
    `blocks` (both forms) or the mapped short form. Cells that `cells` leaves out of a dense tensor are 0.
    Raises TensorError with Vespa's words (TensorReader.java)."""
    raise NotImplementedError


def parse_query_tensor(type: TensorType, value: Any) -> Tensor:
    """The tensor of a query parameter `input.query(x)`: a literal (`[1,2]`, `{{x:0}:1}`, `{a:[..]}`,
    `tensor(x[2]):[1,2]`, hex), a number, or JSON as in documents. A dense literal that is too short is zero padded.
    Raises TensorError: `Could not parse '…' as a tensor of type …: …`."""
    raise NotImplementedError
