"""The functions of numbers that ranking expressions know, in numpy and over whole arrays (eval/eval/operation.cpp)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

_erf = np.vectorize(__import__("math").erf, otypes=[np.float64])


def _fmod(a: Any, b: Any) -> Any:
    return np.fmod(a, b)


def _int8(a: Any) -> np.ndarray:
    return np.trunc(np.asarray(a)).astype(np.int64).astype(np.int8)


def _bit(a: Any, b: Any) -> Any:
    at = np.trunc(np.asarray(b)).astype(np.int64)
    return np.where((at >= 0) & (at < 8), (_int8(a) >> np.clip(at, 0, 7)) & 1, 0).astype(np.float64)


def _hamming(a: Any, b: Any) -> Any:
    return np.bitwise_count(_int8(a).view(np.uint8) ^ _int8(b).view(np.uint8))


OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "+": np.add,
    "-": np.subtract,
    "*": np.multiply,
    "/": np.divide,
    "%": _fmod,
    "^": np.power,
    "==": np.equal,
    "!=": np.not_equal,
    "~=": lambda a, b: np.abs(a - b) <= 1e-6 * np.maximum(1.0, np.maximum(np.abs(a), np.abs(b))),
    "<": np.less,
    "<=": np.less_equal,
    ">": np.greater,
    ">=": np.greater_equal,
    "&&": lambda a, b: (a != 0) & (b != 0),
    "||": lambda a, b: (a != 0) | (b != 0),
}
BINARY_FUNCTIONS: dict[str, Callable[[Any, Any], Any]] = {
    "pow": np.power,
    "fmod": _fmod,
    "atan2": np.arctan2,
    "ldexp": lambda a, b: a * np.exp2(np.trunc(b)),
    "bit": _bit,
    "hamming": _hamming,
}
# C++'s std::max and std::min: where one side is not a number, the first argument
EXTREMES: dict[str, Callable[[Any, Any], Any]] = {
    "max": lambda a, b: np.where(a < b, b, a),
    "min": lambda a, b: np.where(b < a, b, a),
}
UNARY_FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "abs": np.abs,
    "acos": np.arccos,
    "asin": np.arcsin,
    "atan": np.arctan,
    "ceil": np.ceil,
    "cos": np.cos,
    "cosh": np.cosh,
    "elu": lambda a: np.where(a < 0, np.exp(a) - 1, a),
    "erf": lambda a: _erf(a).astype(np.asarray(a).dtype),
    "exp": np.exp,
    "fabs": np.abs,
    "floor": np.floor,
    "isNan": lambda a: np.isnan(a),
    "log": np.log,
    "log10": np.log10,
    "relu": lambda a: np.where(a > 0, a, 0.0),
    "sigmoid": lambda a: 1 / (1 + np.exp(-a)),
    "sin": np.sin,
    "sinh": np.sinh,
    "sqrt": np.sqrt,
    "square": lambda a: a * a,
    "tan": np.tan,
    "tanh": np.tanh,
}
ALL_BINARY = OPERATORS | BINARY_FUNCTIONS | EXTREMES
