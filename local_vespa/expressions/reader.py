"""Reads the text of a ranking expression token by token."""

from __future__ import annotations

import re

from .ast import RankingError

_TOKEN = re.compile(
    r"""\s*(?:(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)|(?P<name>[A-Za-z_@$][\w@$]*)"""
    r"""|(?P<text>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')"""
    r"""|(?P<mark>\|\||&&|[=!~<>]=|[-+*/%^<>!(),.:{}\[\]]))"""
)


class Reader:
    """A position in a text, and how deep the parser is in it."""

    def __init__(self, text: str) -> None:
        self.text, self.at, self.depth = text, 0, 0

    def error(self, problem: str) -> RankingError:
        return RankingError(f"Could not parse '{self.text}': {problem} at position {self.at}")

    def _match(self) -> re.Match[str] | None:
        return _TOKEN.match(self.text, self.at)

    def peek(self, mark: str) -> bool:
        found = self._match()
        return found is not None and (found["mark"] == mark or found["name"] == mark)

    def take(self, mark: str) -> bool:
        if self.peek(mark):
            self.at = self._match().end()  # type: ignore[union-attr]
            return True
        return False

    def need(self, mark: str) -> None:
        if not self.take(mark):
            raise self.error(f"expected '{mark}'")

    def name(self) -> str:
        found = self._match()
        if found is None or found["name"] is None:
            raise self.error("expected a name")
        self.at = found.end()
        return found["name"]

    def end(self) -> None:
        if self.text[self.at :].strip():
            raise self.error("unexpected text")

    def label(self) -> str:
        match = self._match()
        if match is None or match["mark"] is not None:
            raise self.error("expected a label")
        self.at = match.end()
        return match["text"][1:-1] if match["text"] else match["number"] or match["name"]

    def skip_literal(self) -> None:
        depth = 0
        while self.at < len(self.text):
            c = self.text[self.at]
            depth += (c in "{[") - (c in "}]")
            self.at += 1
            if depth == 0 and c in "}]":
                return
        raise self.error("a tensor literal is never closed")

    def arguments(self) -> tuple[str, ...]:
        """The arguments of a feature as text without blanks, from behind the opening parenthesis on."""
        found, depth, start = [], 0, self.at
        quote = ""
        while self.at < len(self.text):
            c = self.text[self.at]
            self.at += 1
            if quote:
                quote = "" if c == quote else quote
            elif c in "\"'":
                quote = c
            elif c in "([{":
                depth += 1
            elif c in ")]}" and depth:
                depth -= 1
            elif c in ",)":
                found.append(self.text[start : self.at - 1].strip())
                start = self.at
                if c == ")":
                    return tuple(self.plain(a) for a in found if a)
        raise self.error("expected ')'")

    @staticmethod
    def plain(argument: str) -> str:
        """An argument in its canonical form: quotes around a plain word do not count."""
        if argument[0] == argument[-1] and argument[0] in "\"'" and re.fullmatch(r"[\w@.-]+", argument[1:-1]):
            return argument[1:-1]
        return argument if argument[0] in "\"'" else re.sub(r"\s+", "", argument)

    def names(self) -> tuple[str, ...]:
        """`, a, b)`: names up to the closing parenthesis."""
        found = []
        while not self.take(")"):
            self.need(",")
            found.append(self.name())
        return tuple(found)

    def group(self) -> tuple[str, ...]:
        """A name, or several in parentheses."""
        if not self.take("("):
            return (self.name(),)
        return (self.name(), *self.names())
