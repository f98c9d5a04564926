"""Tensor literals: `[1,2]`, `{{x:a}:1}`, `{a:[1,2]}`, `tensor(x[2]):[1,2]`, hex digits. TensorParser.java is the
model, down to what it lets pass."""

from __future__ import annotations

import re

import numpy as np

from .cells import put_cells, read_address
from .hexadecimal import decode_hex
from .types import HEX_DIGITS, TensorError, TensorType
from .values import Tensor

_EXPECTED = "Expected a number, hex string, or a string starting by {, [ or tensor(...)"
_STOP = re.compile(r"[\s,\]}:]")
_HEX = re.compile(r"[0-9a-fA-F]*")
_FLOAT = re.compile(r"[+-]?(NaN|Infinity|(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?)")


def parse_literal(type: TensorType, text: str) -> Tensor:
    """The tensor of a type from a literal. Raises TensorError with the position."""
    text = text.strip()
    order = list(type.names)
    if text.startswith("tensor"):
        spec, colon, value = text.partition(":")
        if not colon:
            raise TensorError("Expected ':' after 'tensor'")
        written = TensorType.parse(spec)
        if written != type:
            raise TensorError(f"Got tensor with type string '{spec}', but was passed type {type}")
        order = re.findall(r"(\w+)\s*[\[{]", spec)
        text = value.strip()
    reader = _Reader(type, text, order)
    if text.startswith("{"):
        inner = text[1:].lstrip()
        if type.is_scalar or inner.startswith(("{", "}")):
            return reader.mapped()
        if not type.mapped:
            raise TensorError(f"No suitable dimension in {type} for a tensor on the mixed form")
        return reader.mixed()
    if text.startswith("["):
        if type.mapped:
            raise TensorError("The dense tensor form requires a dense type")
        if type.is_scalar:
            raise TensorError("Expected a number")
        return Tensor.dense(type, reader.block())
    if type.is_scalar:
        return Tensor.dense(type, np.array(_parse_number(text, "Expected a number")))
    if not _HEX.fullmatch(text):
        raise TensorError(_EXPECTED)
    expected = type.block_size * HEX_DIGITS[type.cell]
    if type.mapped or len(text) != expected:
        raise TensorError(f"Expected {expected} hex digits, but got {len(text)}")
    return Tensor.dense(type, reader.block())


def _parse_number(text: str, problem: str) -> float:
    if not _FLOAT.fullmatch(text.strip()):
        raise TensorError(problem)
    return float(text)


class _Reader:
    """A position in a text of values."""

    def __init__(self, type: TensorType, text: str, order: list[str]) -> None:
        self.type, self.text, self.order, self.position = type, text, order, 0

    def mapped(self) -> Tensor:
        """{{x:a,y:b}:1, …}"""
        cells: list[tuple[tuple[str, ...], float]] = []
        self._consume("{")
        while not self._at("}"):
            address = {}
            if self._skip("{"):
                while not self._skip("}"):
                    self._space()
                    name = self._until_stop()
                    self._consume(":")
                    address[name] = self._label()
                    self._skip(",")
                self._consume(":")
            else:
                self._skip(":")
            labels = read_address(self.type.dimensions, address, self.type)
            cells.append((labels, self._number()))
            if not self._skip(","):
                break
        if not self._skip("}"):
            raise TensorError("A mapped tensor string must end by '}'")
        self._space()
        if self.position < len(self.text):
            raise TensorError(f"Garbage after mapped tensor string: {self.text[self.position :]}")
        return put_cells(self.type, cells)

    def mixed(self) -> Tensor:
        """{a:[1,2], b:{c:[3,4]}}: labels of the mapped dimensions from the outside in, as deep as there are."""
        mapped = [name for name in self.order if any(d.name == name for d in self.type.mapped)]
        natural = [mapped.index(d.name) for d in self.type.mapped]
        blocks: dict[tuple[str, ...], np.ndarray] = {}

        def subspace(labels: tuple[str, ...]) -> None:
            if len(labels) >= len(mapped):
                raise TensorError("Too many nested {label:...} levels")
            labels = (*labels, self._label())
            self._consume(":")
            if self._skip("{"):
                subspace(labels)
                while self._skip(","):
                    subspace(labels)
                self._consume("}")
                return
            if len(labels) < len(mapped):
                raise TensorError("Not enough nested {label:...} levels")
            cells = self.block() if self.type.indexed else np.array(self._number())
            blocks[tuple(labels[n] for n in natural)] = cells

        self._consume("{")
        subspace(())
        while self._skip(","):
            subspace(())
        self._consume("}")
        return Tensor.of_blocks(self.type, blocks)

    def block(self) -> np.ndarray:
        """Values of one block: nested as the dimensions, one flat list, or hex digits. Returns the shape of a block."""
        self._space()
        if not self._at("["):
            return decode_hex(self._until_stop(), self.type).reshape(self.type.shape)
        rest = self.text[self.position + 1 :]
        first = rest.find("[")
        nested = 0 <= first < rest.find("]") if "]" in rest else False
        order = [name for name in self.order if any(d.name == name for d in self.type.indexed)]
        sizes = {d.name: d.size or 0 for d in self.type.indexed}
        shape = [sizes[name] for name in order]
        cells = np.zeros(int(np.prod(shape)))
        if not nested:
            self._consume("[")
        for n in range(len(cells)):
            edge = _edges(n, shape) if nested else 0
            for _ in range(edge):
                self._consume("[")
            cells[n] = self._number()
            for _ in range(_edges(n + 1, shape) if nested else 0):
                self._consume("]")
            if n + 1 < len(cells):
                self._consume(",")
        if not nested:
            self._consume("]")
        return np.moveaxis(cells.reshape(shape), [order.index(d.name) for d in self.type.indexed], range(len(shape)))

    def _number(self) -> float:
        self._space()
        start = self.position
        word = self._until_stop()
        name = "FLOAT" if self.type.cell == "float" else self.type.cell.upper()
        return _parse_number(word, f"At value position {start}: '{word}' is not a valid {name}")

    def _label(self) -> str:
        for quote in "'\"":
            if self._skip(quote):
                end = self.text.find(quote, self.position)
                if end < 0:
                    raise TensorError(
                        f"At value position {self.position}: A label quoted by {quote} must end by another"
                    )
                label = self.text[self.position : end]
                self.position = end + 1
                return label
        return self._until_stop()

    def _until_stop(self) -> str:
        found = _STOP.search(self.text, self.position)
        end = found.start() if found else len(self.text)
        word = self.text[self.position : end]
        self.position = end
        return word

    def _space(self) -> None:
        while self.position < len(self.text) and self.text[self.position].isspace():
            self.position += 1

    def _at(self, character: str) -> bool:
        self._space()
        return self.text[self.position : self.position + 1] == character

    def _skip(self, character: str) -> bool:
        found = self._at(character)
        self.position += found
        return found

    def _consume(self, character: str) -> None:
        if not self._skip(character):
            got = f"'{self.text[self.position]}'" if self.position < len(self.text) else "the end of the string"
            raise TensorError(f"At value position {self.position}: Expected a '{character}' but got {got}")


def _edges(n: int, shape: list[int]) -> int:
    """How many dimensions, from the innermost, start at the flat index n."""
    count = 0
    for size in reversed(shape):
        if n % size:
            break
        count += 1
        n //= size
    return count
