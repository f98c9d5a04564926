"""Tensors as Vespa has them: types, values, every JSON and literal form, updates.

    type = TensorType.parse("tensor<bfloat16>(x[128])")
    tensor = parse_document_tensor(type, {"values": "3f80…"})    # documents: JSON
    tensor = parse_query_tensor(type, "[1,2,3]")                 # query parameters: text or JSON
    render(tensor, "short-value")                                # presentation.format.tensors

Everything that Vespa would refuse raises TensorError.
"""

from .parsing import parse_document_tensor, parse_query_tensor
from .rendering import FORMATS, render
from .types import DOUBLE, Dimension, TensorError, TensorType
from .updates import update_tensor
from .values import Tensor, round_cells

__all__ = [
    "DOUBLE",
    "FORMATS",
    "Dimension",
    "Tensor",
    "TensorError",
    "TensorType",
    "parse_document_tensor",
    "parse_query_tensor",
    "render",
    "round_cells",
    "update_tensor",
]
