"""Vectors as the hexadecimal cells of Vespa's document JSON: a sixth of the bytes of a list, and a hundredth of the
time.
"""

from __future__ import annotations

import numpy as np

from mrse_model.serving.exported_model import INT8_SCALE

CELLS = {"int8": ">i1", "bfloat16": ">u2", "float": ">f4", "double": ">f8"}  # cell type of a tensor → its bytes


def int8_hex(vectors: np.ndarray) -> list[str]:
    """Unit vectors float32 [n, d] to n strings of 2d hex digits: cells round(127 x), so one scale for all items.

    Source: Vespa, document JSON format, "tensor": hex digits of the cells; two for an int8.

    >>> int8_hex(np.array([[1.0, -1.0, 0.1]], np.float32))
    ['7f810d']
    """
    cells = np.rint(np.nan_to_num(vectors) * INT8_SCALE).clip(-127, 127).astype(np.int8)
    return [row.tobytes().hex() for row in cells]


def bfloat16_hex(vectors: np.ndarray) -> list[str]:
    """float32 [n, d] to n strings of 4d hex digits: big-endian bfloat16 cells, rounded to nearest even.

    Source: Vespa, document JSON format, "tensor": hex digits of the cells. bfloat16 is the upper half of a float32.

    >>> bfloat16_hex(np.array([[1.0, -2.0, 0.1]], np.float32))
    ['3f80c0003dcd']
    """
    return [row.hex() for row in bfloat16_bytes(vectors)]


def bfloat16_bytes(vectors: np.ndarray) -> list[bytes]:
    """float32 [n, d] to n strings of 2d bytes: the same cells as bytes."""
    bits = np.ascontiguousarray(vectors, "<f4").view(np.uint32)
    rounded = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(">u2")
    return [row.tobytes() for row in rounded]


def from_bfloat16(cells: bytes) -> np.ndarray:
    """Big-endian bfloat16 cells to float32 [d]."""
    return (np.frombuffer(cells, ">u2").astype(np.uint32) << 16).view(np.float32)


def from_hex(digits: str, cells: str) -> np.ndarray:
    """The cells of a vector as Vespa renders them, [d], in numbers of their type (bfloat16: float32). cells: of CELLS.

    >>> from_hex("7f81", "int8").tolist(), from_hex("3f80c000", "bfloat16").tolist()
    ([127, -127], [1.0, -2.0])
    """
    data = bytes.fromhex(digits)
    return from_bfloat16(data) if cells == "bfloat16" else np.frombuffer(data, CELLS[cells])
