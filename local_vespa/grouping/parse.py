"""Grouping text to `ast.GroupingRequest`."""

from __future__ import annotations

import re
from typing import Any

from .ast import (
    AGGREGATORS,
    ARITHMETIC,
    LEVELS,
    Attribute,
    Bucket,
    Call,
    Constant,
    Expression,
    GroupingError,
    GroupingRequest,
    Operation,
    Output,
    check_level,
)

_TOKEN = re.compile(
    r"""\s*(?:(?P<number>-?\d+\.?\d*(?:[eE][+-]?\d+)?)|(?P<name>[A-Za-z_$][\w$]*(?:\.[A-Za-z_]\w*)*)"""
    r"""|(?P<text>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')|(?P<mark>[-+*/%(),<>\[\];]))"""
)
_INFIX = {"+": ("add", 1), "-": ("sub", 1), "*": ("mul", 2), "/": ("div", 2), "%": ("mod", 2)}
_KNOWN = ("fixedwidth", "predefined", "neg", "summary", "size", *AGGREGATORS, *ARITHMETIC)
MAX_DEPTH = 50


def parse_grouping(text: str) -> tuple[GroupingRequest, ...]:
    """The requests of a grouping text (several may be separated by `;` or `|`). Raises GroupingError with the position."""
    parser = _Parser(text)
    found = []
    while True:
        start = parser.at
        root = parser.operation(parser.name())
        _resolve(root, 1)
        found.append(GroupingRequest(root, text[start : parser.at].strip()))
        if not parser.take(";") and not parser.take("|"):
            break
    if text[parser.at :].strip():
        raise parser.error("unexpected text")
    return tuple(found)


def _resolve(operation: Operation, level: int) -> None:
    """Checks that every expression applies where it stands (GroupingOperation.resolveLevel)."""
    if operation.each:
        level -= 1
    if level < 0:
        raise GroupingError(f"Operation 'each' can not be applied to {LEVELS[0]}.")
    if operation.group is not None:
        if level == 0:
            raise GroupingError("Can not group single hit.")
        check_level(operation.group, 0)
        level += 1
    if level > 2:
        raise GroupingError("Can not operate on list of list of groups.")
    if operation.order and level != 2:
        raise GroupingError(f"Can not order {LEVELS[level]} content.")
    for expression in operation.order:
        check_level(expression, 1)
    for output in operation.outputs:
        if isinstance(output.expression, Call) and output.expression.name == "summary":
            if level != 0:
                raise GroupingError(f"Expression '{output.expression}' not applicable for {LEVELS[level]}.")
        elif level == 2 and output.expression != Call("count"):
            raise GroupingError(f"Expression '{output.expression}' not applicable for {LEVELS[level]}.")
        elif level < 2:
            check_level(output.expression, level)
    for child in operation.children:
        _resolve(child, level)


class _Parser:
    def __init__(self, text: str) -> None:
        self.text, self.at, self.depth = text, 0, 0

    def error(self, problem: str) -> GroupingError:
        return GroupingError(f"Could not parse grouping '{self.text}': {problem} at position {self.at}")

    def unsupported(self, what: str) -> GroupingError:
        return GroupingError(f"local_vespa does not support {what} in grouping; see local_vespa/LIMITS.md")

    def _match(self) -> re.Match[str] | None:
        return _TOKEN.match(self.text, self.at)

    def peek(self, mark: str) -> bool:
        found = self._match()
        return found is not None and found["mark"] == mark

    def take(self, mark: str) -> bool:
        if mark == "|":
            found = re.compile(r"\s*\|").match(self.text, self.at)
        else:
            found = self._match() if self.peek(mark) else None
        if found is not None:
            self.at = found.end()
        return found is not None

    def need(self, mark: str) -> None:
        if not self.take(mark):
            raise self.error(f"expected '{mark}'")

    def name(self) -> str:
        found = self._match()
        if found is None or found["name"] is None:
            raise self.error("expected a name")
        self.at = found.end()
        return found["name"]

    def integer(self) -> int:
        """A number, or 0 for `inf`."""
        found = self._match()
        if found is not None and found["name"] == "inf":
            self.at = found.end()
            return 0
        if found is None or found["number"] is None or not found["number"].isdigit():
            raise self.error("expected a positive integer")
        self.at = found.end()
        return int(found["number"])

    def operation(self, name: str) -> Operation:
        """`all(…)` or `each(…)`, behind its name."""
        if name not in ("all", "each"):
            raise self.error("expected all(…) or each(…)")
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise self.error("nested too deeply")
        self.need("(")
        made: dict[str, Any] = {"each": name == "each"}
        outputs: list[Output] = []
        children: list[Operation] = []
        while not self.take(")"):
            clause = self.name()
            if clause in ("all", "each"):
                children.append(self.operation(clause))
                continue
            self.need("(")
            match clause:
                case "group":
                    made["group"] = self.expression(0)
                case "order":
                    made["order"] = tuple(e for e, _ in self.listed())
                    continue
                case "max":
                    made["max"] = self.integer()
                case "precision":
                    self.integer()  # how exact several nodes are; one node is exact
                case "output":
                    outputs += [Output(e, label) for e, label in self.listed()]
                    continue
                case _:
                    raise self.unsupported(f"'{clause}'")
            self.need(")")
        self.depth -= 1
        found = self._match()
        if found is not None and found["name"] == "as":
            self.at = found.end()
            self.need("(")
            made["label"] = self.name()
            self.need(")")
        return Operation(**made, outputs=tuple(outputs), children=tuple(children))

    def listed(self) -> list[tuple[Expression, str | None]]:
        """Expressions, each with its label, up to the closing parenthesis."""
        found: list[tuple[Expression, str | None]] = []
        while not self.take(")"):
            if found:
                self.need(",")
            expression, label = self.expression(0), None
            match = self._match()
            if match is not None and match["name"] == "as":
                self.at = match.end()
                self.need("(")
                label = self.name()
                self.need(")")
            found.append((expression, label))
        return found

    def expression(self, least: int) -> Expression:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise self.error("nested too deeply")
        left = self.primary()
        while (found := self._match()) is not None:
            number = found["number"]
            name, level = _INFIX.get(found["mark"] or ("-" if number and number[0] == "-" else ""), ("", -1))
            if level < 0 or level < least:
                break
            if number:  # `a -1` is read as a and the number -1
                self.at = found.start() + self.text[found.start() :].index("-") + 1
            else:
                self.at = found.end()
            left = Call(name, (left, self.expression(level + 1)))
        self.depth -= 1
        return left

    def primary(self) -> Expression:
        found = self._match()
        if found is None:
            raise self.error("unexpected text" if self.text[self.at :].strip() else "unexpected end")
        if found["mark"] == "-":
            self.at = found.end()
            return Call("neg", (self.primary(),))
        if found["mark"] == "(":
            self.at = found.end()
            inner = self.expression(0)
            self.need(")")
            return inner
        if found["mark"]:
            raise self.error(f"unexpected '{found['mark']}'")
        self.at = found.end()
        if found["number"]:
            text = found["number"]
            return Constant(int(text) if re.fullmatch(r"-?\d+", text) else float(text))
        if found["text"]:
            return Constant(re.sub(r"\\(.)", r"\1", found["text"][1:-1]))
        name = found["name"]
        if name == "bucket":
            return self.bucket()
        if self.take("("):
            if name not in _KNOWN:
                raise self.unsupported(f"the function '{name}'")
            return self.call(name, [e for e, _ in self.listed()])
        return Attribute(name)

    def call(self, name: str, arguments: list[Expression]) -> Expression:
        counts = {"fixedwidth": 2, "neg": 1, "count": 0, "size": 1, **dict.fromkeys(AGGREGATORS[1:], 1)}
        if name in counts and len(arguments) != counts[name]:
            raise self.error(f"{name} takes {counts[name]} arguments, not {len(arguments)}")
        if name == "size":
            raise self.unsupported("the function 'size'")
        if name in ARITHMETIC and len(arguments) < 2:
            raise self.error(f"{name} takes at least two arguments")
        if name == "predefined" and (len(arguments) < 2 or not all(isinstance(a, Bucket) for a in arguments[1:])):
            raise self.error("predefined takes an expression and buckets")
        return Call(name, tuple(arguments))

    def bucket(self) -> Bucket:
        """`bucket(0, 30)`, `bucket[0, 30>`, `bucket<0, 30]`"""
        found = self._match()
        if found is None or found["mark"] not in ("(", "[", "<"):
            raise self.error("expected the limits of a bucket")
        self.at = found.end()
        low = self.limit()
        high = low
        if self.take(","):
            high = self.limit()
        close = next((c for c in ")]>" if self.take(c)), None)
        if close is None:
            raise self.error("a bucket is not closed")
        if low == high:
            return Bucket(low, high, True, True)
        return Bucket(low, high, found["mark"] != "<", close == "]")

    def limit(self) -> int | float | str:
        found = self._match()
        sign = 1.0
        if found is not None and found["mark"] == "-":
            self.at = found.end()
            found, sign = self._match(), -1.0
        if found is None or found["mark"]:
            raise self.error("expected a limit")
        self.at = found.end()
        if found["name"] in ("inf", "infinity"):
            return sign * float("inf")
        if found["number"]:
            return int(found["number"]) if re.fullmatch(r"-?\d+", found["number"]) else float(found["number"])
        if found["text"]:
            return found["text"][1:-1]
        raise self.error("expected a limit")
