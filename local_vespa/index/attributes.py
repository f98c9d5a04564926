"""Attributes in memory: one column a field, one row a version of a document.

Rows are only appended; an update is a new row and the old one dies (`Table.live`). Every column can be rebuilt from
the store.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from ..expressions import Value
from ..package.schema import Field
from ..tensors import Tensor, TensorType


class Growing:
    """A numpy array that grows at its end by doubling."""

    def __init__(self, dtype: Any, shape: tuple[int, ...] = ()) -> None:
        self._data = np.zeros((64, *shape), dtype)
        self.n = 0

    def append(self, value: Any) -> None:
        if self.n == len(self._data):
            self._data = np.concatenate([self._data, np.zeros_like(self._data)])
        self._data[self.n] = value
        self.n += 1

    @property
    def view(self) -> np.ndarray:
        """The rows so far; not to be kept over an append."""
        return self._data[: self.n]


class NumberColumn:
    """A number or bool a row. A bool that was never set is false."""

    def __init__(self, field: Field) -> None:
        self.field = field
        self.integral = field.type.scalar not in ("float", "double")
        self._values = Growing(np.int64 if self.integral else np.float64)
        self._set = Growing(bool)

    def append(self, value: Any) -> None:
        self._values.append(0 if value is None else value)
        self._set.append(value is not None or self.field.type.scalar == "bool")

    @property
    def values(self) -> np.ndarray:
        return self._values.view

    @property
    def present(self) -> np.ndarray:
        return self._set.view

    def between(self, low: float, high: float, low_inclusive: bool = True, high_inclusive: bool = True) -> np.ndarray:
        """bool [rows]: which values lie there; one never set does not."""
        values = self._values.view
        above = values >= low if low_inclusive else values > low
        below = values <= high if high_inclusive else values < high
        return above & below & self._set.view

    def feature(self, rows: np.ndarray) -> Value:
        """attribute(name): NaN for a float that was never set, Vespa's smallest value for an integer."""
        values = self._values.view[rows].astype(np.float64)
        if self.field.type.scalar == "float":
            values = values.astype(np.float32).astype(np.float64)
        missing = ~self._set.view[rows]
        if missing.any():
            values[missing] = np.nan
        return Value.scalar(values)


class StringColumn:
    """A string a row, as codes into a dictionary."""

    def __init__(self, field: Field) -> None:
        self.field = field
        self._codes = Growing(np.int32)
        self.values: list[str] = [""]
        self._known: dict[str, int] = {"": 0}
        self._folded: dict[str, list[int]] = {"": [0]}

    def fold(self, text: str) -> str:
        """A value as it is compared."""
        return text if self.field.cased else text.lower()

    def append(self, value: str | None) -> None:
        text = value or ""
        code = self._known.get(text)
        if code is None:
            code = self._known[text] = len(self.values)
            self.values.append(text)
            self._folded.setdefault(self.fold(text), []).append(code)
        self._codes.append(code)

    @property
    def codes(self) -> np.ndarray:
        return self._codes.view

    def equal(self, texts: Iterable[str]) -> np.ndarray:
        """bool [rows]: which values are one of these."""
        codes = [code for text in texts for code in self._folded.get(self.fold(text), ())]
        return np.isin(self._codes.view, codes) if len(codes) != 1 else self._codes.view == codes[0]

    def where(self, accepts: Callable[[str], bool]) -> np.ndarray:
        """bool [rows]: which (compared as `fold` gives them) a function accepts."""
        codes = [code for folded, codes in self._folded.items() if accepts(folded) for code in codes]
        return np.isin(self._codes.view, codes)

    def strings(self, rows: np.ndarray) -> list[str]:
        return [self.values[code] for code in self._codes.view[rows]]


class MultiColumn:
    """An array or a weighted set a row, with the rows of every value."""

    def __init__(self, field: Field) -> None:
        self.field = field
        self.rows: list[list[Any] | dict[Any, int]] = []
        self._found: dict[Any, array[int]] = {}

    def fold(self, value: Any) -> Any:
        return value.lower() if isinstance(value, str) and not self.field.cased else value

    def append(self, value: list[Any] | dict[Any, int] | None) -> None:
        row = len(self.rows)
        self.rows.append(value or [])
        for key in {self.fold(v) for v in value or ()}:
            self._found.setdefault(key, array("I")).append(row)

    def equal(self, values: Iterable[Any]) -> np.ndarray:
        """bool [rows]: which hold one of these."""
        return self._mask(self.fold(v) for v in values)

    def where(self, accepts: Callable[[Any], bool]) -> np.ndarray:
        """bool [rows]: which hold a value that a function accepts."""
        return self._mask(key for key in list(self._found) if accepts(key))

    def between(self, low: float, high: float, low_inclusive: bool = True, high_inclusive: bool = True) -> np.ndarray:
        """bool [rows]: which hold a number in there."""
        return self.where(
            lambda v: (v >= low if low_inclusive else v > low) and (v <= high if high_inclusive else v < high)
        )

    def _mask(self, keys: Iterable[Any]) -> np.ndarray:
        mask = np.zeros(len(self.rows), bool)
        for key in keys:
            found = self._found.get(key)
            if found is not None:
                mask[np.array(found, np.int64)] = True
        return mask


class TensorColumn:
    """A tensor a row with mapped dimensions or of more than one dimension."""

    def __init__(self, type: TensorType) -> None:
        self.type = type
        self.rows: list[Tensor | None] = []

    def append(self, value: Tensor | None) -> None:
        self.rows.append(value)

    def feature(self, rows: np.ndarray) -> Value:
        """attribute(name)."""
        return Value.each(self.type, [self.rows[row] for row in rows])
