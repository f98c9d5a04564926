"""Cells as hexadecimal digits: big-endian bits, one cell after the other."""

from __future__ import annotations

import re

import numpy as np

from .types import HEX_DIGITS, TensorError, TensorType

_BIG_ENDIAN = {2: ">i1", 4: ">u2", 8: ">f4", 16: ">f8"}


def decode_hex(text: str, type: TensorType) -> np.ndarray:
    """The cells of one block of a type, flat. Digits of another cell type are converted, but not to int8, as in
    HexEncoding.java. Raises TensorError on a length that does not fit."""
    size = type.block_size
    wrong = f"Unexpected hex length: Expected {size * HEX_DIGITS[type.cell]} hex digits for {type} but got {len(text)}"
    if len(text) % size:
        raise TensorError(wrong)
    digits = len(text) // size
    if digits not in _BIG_ENDIAN:
        raise TensorError(f"Unexpected hex digits per cell: Expecting 2, 4, 8 or 16, but was {digits}")
    if type.cell == "int8" and digits != HEX_DIGITS["int8"]:
        raise TensorError(wrong)
    if bad := re.search(r"[^0-9a-fA-F]", text):
        raise TensorError(f"Invalid digit '{bad[0]}' at index {bad.start()} in input {text}")
    cells = np.frombuffer(bytes.fromhex(text), _BIG_ENDIAN[digits])
    if digits == HEX_DIGITS["bfloat16"]:
        return (cells.astype(np.uint32) << 16).view(np.float32)
    return cells


def encode_hex(cells: np.ndarray, cell: str) -> str:
    """Cells of a cell type (flat or of any shape) as upper-case hexadecimal digits."""
    if cell == "bfloat16":
        bits = (np.ascontiguousarray(cells, np.float32).view(np.uint32) >> 16).astype(">u2")
        return bits.tobytes().hex().upper()
    return np.ascontiguousarray(cells).astype(_BIG_ENDIAN[HEX_DIGITS[cell]]).tobytes().hex().upper()
