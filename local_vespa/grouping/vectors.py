"""Expressions over documents: their values for all matched documents, single or several each."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from .ast import Attribute, Bucket, Call, Constant, Expression, GroupingError

_UNSET_INT = -(2**31)
_NO_BUCKET = (np.nan, np.nan)  # one object: NaN is equal to nothing else, but groups are distinguished by equality
_MATH: dict[str, Callable[..., Any]] = {
    "acos": np.arccos, "acosh": np.arccosh, "asin": np.arcsin, "asinh": np.arcsinh, "atan": np.arctan,
    "atanh": np.arctanh, "cbrt": np.cbrt, "cos": np.cos, "cosh": np.cosh, "exp": np.exp, "floor": np.floor,
    "hypot": np.hypot, "log": np.log, "log10": np.log10, "log1p": np.log1p, "pow": np.power, "sin": np.sin,
    "sinh": np.sinh, "sqrt": np.sqrt, "tan": np.tan, "tanh": np.tanh,
}  # fmt: skip
_MOMENTS = -67_768_040_609_740_800, 67_768_036_191_676_799  # the years that gmtime can count
_TIME: dict[str, Callable[[time.struct_time], int]] = {
    "dayofmonth": lambda t: t.tm_mday,
    "dayofweek": lambda t: (t.tm_wday + 1) % 7,  # 0 is Sunday
    "dayofyear": lambda t: t.tm_yday - 1,
    "hourofday": lambda t: t.tm_hour,
    "minuteofhour": lambda t: t.tm_min,
    "monthofyear": lambda t: t.tm_mon,
    "secondofminute": lambda t: t.tm_sec,
    "year": lambda t: t.tm_year,
}


@dataclass(frozen=True)
class Column:
    """An attribute's values of the matched documents, in their order.

    `kind`: int (byte, int, long), float (float, double), string, bool. One value a document (None: never set), or,
    where `multi`, a list of them (array elements, keys of a weighted set). `unset` is what a never set integer counts
    as: the least value of its type."""

    kind: str
    values: Sequence[Any]
    multi: bool = False
    unset: int = _UNSET_INT


@dataclass(frozen=True)
class Vector:
    """Values of an expression: `values[k]` belongs to the document `rows[k]`; rows ascend. `kind` is int, float,
    string, bool or bucket (pairs of limits, None for no bucket)."""

    kind: str
    rows: np.ndarray
    values: np.ndarray

    @cached_property
    def _in_order(self) -> bool:
        return bool((self.rows == np.arange(len(self.rows))).all())

    def one_each(self, rows: np.ndarray) -> bool:
        """Whether each of some documents has just one value, at its own place."""
        return self._in_order and (len(rows) == 0 or int(rows.max()) < len(self.rows))

    def select(self, rows: np.ndarray) -> np.ndarray:
        """The values of some documents (a document may be there twice)."""
        if self.one_each(rows):
            return self.values[rows]
        first, last = np.searchsorted(self.rows, rows), np.searchsorted(self.rows, rows, "right")
        places = [np.arange(a, b) for a, b in zip(first, last, strict=True)]
        return self.values[np.concatenate(places)] if places else self.values[:0]


def objects(values: Sequence[Any]) -> np.ndarray:
    """An array of Python objects, whatever they are."""
    array = np.empty(len(values), object)
    array[:] = values
    return array


class Vectors:
    """Evaluates expressions over documents, each once."""

    def __init__(self, size: int, column: Callable[[str], Column], relevance: np.ndarray) -> None:
        self.size, self.column, self.relevance = size, column, relevance
        self.known: dict[Expression, Vector] = {}

    def of(self, expression: Expression) -> Vector:
        """The values of an expression. Raises GroupingError for a function that this engine does not have."""
        if expression not in self.known:
            self.known[expression] = self._evaluate(expression)
        return self.known[expression]

    def _single(self, kind: str, values: np.ndarray) -> Vector:
        return Vector(kind, np.arange(self.size), values)

    def _evaluate(self, expression: Expression) -> Vector:
        if isinstance(expression, Attribute):
            return self._attribute(expression.name)
        if isinstance(expression, Constant):
            value = expression.value
            if isinstance(value, str):
                return self._single("string", objects([value] * self.size))
            return self._single("float" if isinstance(value, float) else "int", np.full(self.size, value))
        assert isinstance(expression, Call)
        name, arguments = expression.name, expression.arguments
        if name in ("add", "sub", "mul", "div", "mod", "min", "max", "avg", "and", "or", "xor") and len(arguments) > 1:
            return self._arithmetic(name, [self.of(argument) for argument in arguments])
        match name, arguments:
            case "relevance", ():
                return self._single("float", self.relevance)
            case "now", ():
                return self._single("int", np.full(self.size, int(time.time())))
            case "neg", (inner,):
                vector = self.of(inner)
                return Vector(vector.kind, vector.rows, -_numbers(vector, name))
            case "predefined", (inner, *buckets):
                vector = self.of(inner)
                return Vector("bucket", vector.rows, _predefined(vector, buckets))
            case "fixedwidth", (inner, Constant(width)) if not isinstance(width, str):
                vector = self.of(inner)
                return Vector("bucket", vector.rows, _fixed_width(vector, width))
            case "size", (inner,):
                return self._single("int", np.bincount(self.of(inner).rows, minlength=self.size))
            case "strlen", (inner,):
                return self._map(self.of(inner), "int", lambda v: len(_string(v).encode()))
            case "tostring", (inner,):
                return self._map(self.of(inner), "string", _string)
            case "tolong", (inner,):
                vector = self.of(inner)
                if vector.kind == "string":
                    return self._map(vector, "int", _leading_integer)
                return Vector("int", vector.rows, as_integers(_numbers(vector, name)))
            case "todouble", (inner,):
                vector = self.of(inner)
                if vector.kind == "string":
                    return self._map(vector, "float", lambda v: float(_leading_integer(v)))
                return Vector("float", vector.rows, _numbers(vector, name).astype(np.float64))
            case "strcat", _ if len(arguments) > 1:
                parts = [self.of(argument) for argument in arguments]
                if any(len(part.rows) != self.size for part in parts):
                    raise GroupingError("strcat of a field with several values is not supported by this engine")
                joined = ["".join(map(_string, row)) for row in zip(*(p.values.tolist() for p in parts), strict=True)]
                return self._single("string", objects(joined))
            case "time.date", (inner,):
                return self._map(self._moments(inner, name), "string", _date)
        if name.startswith("math.") and name[5:] in _MATH and 1 <= len(arguments) <= 2:
            vectors = [self.of(argument) for argument in arguments]
            with np.errstate(all="ignore"):
                values = _MATH[name[5:]](*(_numbers(v, name).astype(np.float64) for v in vectors))
            return Vector("float", vectors[0].rows, values)
        if name.startswith("time.") and name[5:] in _TIME and len(arguments) == 1:
            part = _TIME[name[5:]]
            return self._map(self._moments(arguments[0], name), "int", lambda v: part(time.gmtime(v)))
        raise GroupingError(f"the grouping expression '{expression}' is not supported by this engine")

    def _moments(self, expression: Expression, name: str) -> Vector:
        """Seconds that have a date: an attribute that was never set is the least integer, and has none."""
        vector = self.of(expression)
        if vector.kind == "string":
            vector = self._map(vector, "int", _leading_integer)
        return Vector("int", vector.rows, np.clip(as_integers(_numbers(vector, name)), *_MOMENTS))

    def _map(self, vector: Vector, kind: str, function: Callable[[Any], Any]) -> Vector:
        dtype: Any = {"int": np.int64, "float": np.float64}.get(kind, object)
        values = objects([function(v) for v in vector.values.tolist()])
        return Vector(kind, vector.rows, values.astype(dtype))

    def _attribute(self, name: str) -> Vector:
        column = self.column(name)
        unset: Any = {"int": column.unset, "float": np.nan, "string": "", "bool": False}[column.kind]
        dtype: Any = {"int": np.int64, "float": np.float64, "bool": bool}.get(column.kind, object)
        if not column.multi:
            filled = [unset if value is None else value for value in column.values]
            values = objects(filled) if dtype is object else np.array(filled, dtype)
            return self._single(column.kind, values)
        flat = [value for row in column.values for value in (row or ())]
        counts = [len(row or ()) for row in column.values]
        values = objects(flat) if dtype is object else np.array(flat, dtype)
        return Vector(column.kind, np.repeat(np.arange(self.size), counts), values)

    def _arithmetic(self, name: str, vectors: list[Vector]) -> Vector:
        if any(len(v.rows) != self.size for v in vectors):
            raise GroupingError(f"{name} of a field with several values is not supported by this engine")
        whole = all(v.kind in ("int", "bool") for v in vectors)
        values = [_numbers(v, name).astype(np.int64 if whole else np.float64) for v in vectors]
        return self._single("int" if whole else "float", combine(name, values))


def combine(name: str, values: Sequence[Any]) -> Any:
    """Numbers (arrays or scalars) under an operator of the grouping language; division by zero is 0, integers are
    divided towards zero."""
    result = values[0]
    with np.errstate(all="ignore"):
        for value in values[1:]:
            result = _COMBINE[name](result, value)
    if name == "avg":
        whole = np.asarray(result).dtype.kind == "i"
        return np.trunc(result / len(values)).astype(np.int64) if whole else result / len(values)
    return result


def _divide(a: Any, b: Any) -> Any:
    safe = np.where(b == 0, 1, b)
    if np.asarray(a).dtype.kind == "i" and np.asarray(b).dtype.kind == "i":
        quotient = np.sign(a) * np.sign(safe) * (np.abs(a) // np.abs(safe))
    else:
        quotient = a / safe
    return np.where(b == 0, 0, quotient)


_COMBINE: dict[str, Callable[[Any, Any], Any]] = {
    "add": np.add,
    "and": lambda a, b: np.bitwise_and(as_integers(a), as_integers(b)),
    "avg": np.add,
    "div": _divide,
    "max": np.fmax,
    "min": np.fmin,
    "mod": lambda a, b: np.where(b == 0, 0, np.fmod(a, np.where(b == 0, 1, b))),
    "mul": np.multiply,
    "or": lambda a, b: np.bitwise_or(as_integers(a), as_integers(b)),
    "sub": np.subtract,
    "xor": lambda a, b: np.bitwise_xor(as_integers(a), as_integers(b)),
}


def _numbers(vector: Vector, name: str) -> np.ndarray:
    if vector.kind in ("string", "bucket"):
        raise GroupingError(f"{name} takes numbers, not a {vector.kind}")
    return vector.values.astype(np.int64) if vector.kind == "bool" else vector.values


def as_integers(values: Any) -> np.ndarray:
    """Numbers as integers: halves away from zero, NaN the least one."""
    values = np.asarray(values)
    if values.dtype.kind in "ib":
        return values.astype(np.int64)
    whole = np.sign(values) * np.floor(np.abs(values) + 0.5)
    return np.where(np.isnan(values), -(2.0**63), np.clip(np.nan_to_num(whole), -(2.0**63), 2.0**63 - 1024)).astype(
        np.int64
    )


def _predefined(vector: Vector, buckets: Sequence[Expression]) -> np.ndarray:
    limits = [(b.low, b.high) for b in buckets if isinstance(b, Bucket)]
    strings = isinstance(limits[0][0], str) or isinstance(limits[0][1], str)
    if strings != (vector.kind == "string"):
        raise GroupingError("The buckets are not of the type of the expression")
    values = vector.values
    if not strings and not any(isinstance(end, float) for limit in limits for end in limit):
        values = as_integers(values)
    found = objects([None] * len(values))
    for low, high in reversed(limits):
        inside = np.array([low <= v < high for v in values.tolist()], bool)
        for k in np.flatnonzero(inside):
            found[k] = (low, high)
    return found


def _fixed_width(vector: Vector, width: int | float) -> np.ndarray:
    if vector.kind == "string":
        raise GroupingError("fixedwidth takes numbers, not a string")
    values = vector.values
    if vector.kind == "float":
        with np.errstate(all="ignore"):
            low = np.floor(values / width) * width if width > 0 else values
            high = (np.floor(values / width) + 1) * width if width > 0 else values
        ends = zip(low.tolist(), high.tolist(), strict=True)
        return objects([_NO_BUCKET if a != a else (a, b) for a, b in ends])
    step = int(width)
    return objects([_whole_bucket(value, step) for value in _numbers(vector, "fixedwidth").tolist()])


def _whole_bucket(value: int, step: int) -> tuple[int, int]:
    """The bucket of an integer; at the ends of the 64 bits a bucket is cut off (fixedwidthbucketfunctionnode.cpp)."""
    if step <= 0:
        return value, value
    low = value // step * step
    return max(low, -(1 << 63)), min(low + step, (1 << 63) - 1)


def _string(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"  # what C++ prints
    return str(value).lower() if isinstance(value, bool) else str(value)


def _leading_integer(value: str) -> int:
    digits = value.strip()
    end = 1 if digits[:1] in "+-" else 0
    while end < len(digits) and digits[end].isdecimal():
        end += 1
    if not digits[:end].strip("+-"):
        return 0
    return min(max(int(digits[:end][:25]), -(1 << 63)), (1 << 63) - 1)  # as strtoll


def _date(value: int) -> str:
    moment = time.gmtime(value)
    return f"{moment.tm_year}-{moment.tm_mon}-{moment.tm_mday}"
