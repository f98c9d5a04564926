"""Tensor types: `tensor<bfloat16>(item{},x[128])`, parsed, printed and compared as Vespa does."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..errors import unsupported


class TensorError(ValueError):
    """A tensor type, literal or update that Vespa would refuse; the message says why."""


CELL_TYPES = ("double", "float", "bfloat16", "int8")
MAX_CELLS = 1 << 24  # of a block; one more than this is a mistake or an attack
HEX_DIGITS = {"double": 16, "float": 8, "bfloat16": 4, "int8": 2}
_STORED: dict[str, type[np.generic]] = {
    "double": np.float64,
    "float": np.float32,
    "bfloat16": np.float32,
    "int8": np.int8,
}
_TYPE = re.compile(r"\s*tensor\s*(?:<\s*(\w+)\s*>)?\s*\(\s*(.*?)\s*\)\s*", re.DOTALL)
_DIMENSION = re.compile(r"([A-Za-z_]\w*|\d+)\s*(?:\{\s*\}|\[\s*(\d*)\s*\])")


@dataclass(frozen=True, order=True)
class Dimension:
    """One dimension: mapped (labels are strings) where `size` is None, else indexed with that many cells."""

    name: str
    size: int | None = None

    @property
    def mapped(self) -> bool:
        return self.size is None

    def __str__(self) -> str:
        return f"{self.name}{{}}" if self.size is None else f"{self.name}[{self.size}]"


@dataclass(frozen=True)
class TensorType:
    """A cell type and dimensions sorted by name; without dimensions it is a double.

    >>> print(TensorType.parse("tensor<float>(y{}, x[3])"))
    tensor<float>(x[3],y{})
    """

    cell: str = "double"
    dimensions: tuple[Dimension, ...] = ()

    @classmethod
    def parse(cls, text: str) -> TensorType:
        """The type written so; `double` and `float` are scalars. Raises TensorError."""
        if text.strip() in ("double", "float", "tensor()"):
            return cls()
        match = _TYPE.fullmatch(text)
        if not match:
            raise TensorError(f"Invalid tensor type '{text}'")
        cell = match[1] or "double"
        if cell not in CELL_TYPES:
            raise TensorError(
                f"Invalid tensor type '{text}': cell type is one of {', '.join(CELL_TYPES)}, not '{cell}'"
            )
        dimensions = []
        for part in match[2].split(",") if match[2] else []:
            found = _DIMENSION.fullmatch(part.strip())
            if not found or found[2] == "":
                raise TensorError(f"Invalid tensor type '{text}': cannot read the dimension '{part.strip()}'")
            dimensions.append(Dimension(found[1], int(found[2]) if found[2] else None))
        return cls.of(cell, dimensions)

    @classmethod
    def of(cls, cell: str, dimensions: list[Dimension] | tuple[Dimension, ...]) -> TensorType:
        """A type of these dimensions in any order. Raises TensorError on a name given twice, an empty dimension, or
        more than MAX_CELLS cells."""
        names = [d.name for d in dimensions]
        if len(set(names)) != len(names):
            raise TensorError(f"Invalid tensor type: a dimension is given twice in {', '.join(names)}")
        if any(d.size == 0 for d in dimensions):
            raise TensorError("Invalid tensor type: an indexed dimension has at least one cell")
        if math.prod(d.size for d in dimensions if d.size is not None) > MAX_CELLS:
            sizes = ",".join(map(str, dimensions))
            raise TensorError(unsupported(f"more than {MAX_CELLS} cells in a tensor, as ({sizes}) would have"))
        return cls(cell if dimensions else "double", tuple(sorted(dimensions)))

    @cached_property
    def mapped(self) -> tuple[Dimension, ...]:
        """The mapped dimensions, by name."""
        return tuple(d for d in self.dimensions if d.mapped)

    @cached_property
    def indexed(self) -> tuple[Dimension, ...]:
        """The indexed dimensions, by name."""
        return tuple(d for d in self.dimensions if not d.mapped)

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """Sizes of the indexed dimensions: the shape of a block."""
        return tuple(d.size for d in self.dimensions if d.size is not None)

    @property
    def block_size(self) -> int:
        """Cells in a block (a dense tensor is one block)."""
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def is_scalar(self) -> bool:
        return not self.dimensions

    @property
    def dtype(self) -> type[np.generic]:
        """What numpy holds the cells in; bfloat16 is float32 with its low 16 bits zero."""
        return _STORED[self.cell]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(d.name for d in self.dimensions)

    def dimension(self, name: str) -> Dimension | None:
        return next((d for d in self.dimensions if d.name == name), None)

    def __str__(self) -> str:
        cell = "" if self.cell == "double" else f"<{self.cell}>"
        return f"tensor{cell}({','.join(map(str, self.dimensions))})"


DOUBLE = TensorType()
