"""Reads the syntax of schema and profile files into statements; what they mean is in `schema` and `profiles`.

The language is nested statements: `header`, `header: value` to the end of the line, or `header { … }`. Braces in a
value balance; a `}` too many ends it. That is all that the lexer of Vespa (SchemaParser.jj) requires of the parts
used here.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from ..errors import DeployError


class BraceError(DeployError):
    """Braces that do not balance, with their line; lines count from 1."""

    def __init__(self, problem: str, file: str, line: int) -> None:
        super().__init__(f"Invalid application package: {file}:{line}: {problem}")
        self.problem, self.file, self.line = problem, file, line


@dataclass(frozen=True)
class Statement:
    """One statement. `value` is the text after the colon, `body` the raw text between the braces; `file` and `line`
    (from 1) say where it stands, `start` and `end` which characters of the file it is, `inside` where its body begins.
    """

    header: str
    value: str | None
    body: str | None
    file: str
    line: int
    start: int = 0
    end: int = 0
    inside: int = 0

    @cached_property
    def words(self) -> list[str]:
        return self.header.split()

    @property
    def keyword(self) -> str:
        return self.words[0]

    @cached_property
    def children(self) -> list[Statement]:
        """The statements of the body."""
        return parse_statements(self.body or "", self.file, self.line, self.inside)

    def integer(self, text: str | None = None) -> int:
        """The statement's value (or a text in it) as a number that is not negative. Raises DeployError."""
        text = (self.value or "") if text is None else text
        try:
            number = int(text)
        except ValueError:
            number = -1
        if number < 0:
            raise self.error(f"'{self.keyword}' is a whole number, not '{text}'")
        return number

    def items(self) -> list[str]:
        """The features of `match-features: a b` or of its block form: split at white space outside parentheses."""
        found, depth, word = [], 0, ""
        for c in f"{self.value or ''} {self.body or ''} ":
            depth += (c == "(") - (c == ")")
            if c.isspace() and depth == 0:
                if word:
                    found.append(word)
                word = ""
            elif not c.isspace():
                word += c
        return found

    def settings(self) -> dict[str, str]:
        """`attribute: fast-search` and `attribute { fast-search \\n distance-metric: angular }` alike, as a dict."""
        if self.value is not None:
            return dict.fromkeys(self.value.split(), "")
        return {child.header: (child.value if child.value is not None else child.body or "") for child in self.children}

    def error(self, problem: str) -> DeployError:
        return DeployError(f"Invalid application package: {self.file}:{self.line}: {problem}")


def without_comments(text: str) -> str:
    """The text with blanks for each `# comment`, so that every character stays at its place; a `#` in double quotes
    stays."""
    lines = []
    for line in text.split("\n"):
        quoted = False
        for i, c in enumerate(line):
            if c == '"':
                quoted = not quoted
            elif c == "#" and not quoted:
                line = line[:i] + " " * (len(line) - i)
                break
        lines.append(line)
    return "\n".join(lines)


def parse_statements(text: str, file: str, line: int = 1, offset: int = 0) -> list[Statement]:
    """The statements of a text without comments, which stands at `offset` in its file. Raises BraceError."""
    statements: list[Statement] = []
    at, end = 0, len(text)
    while at < end:
        while at < end and text[at].isspace():
            line += text[at] == "\n"
            at += 1
        if at == end:
            break
        start, depth = at, 0
        while at < end and (depth > 0 or text[at] not in ":{}\n"):
            depth += (text[at] in "(<") - (text[at] in ")>")
            at += 1
        header = text[start:at].strip()
        if at < end and text[at] == "\n":  # the block may open on the next line
            ahead = at
            while ahead < end and text[ahead].isspace():
                ahead += 1
            if ahead < end and text[ahead] == "{" and header:
                line += text.count("\n", at, ahead)
                at = ahead
        if at < end and text[at] == "}":
            raise BraceError("Encountered '}' without its '{'", file, line)
        begin, inside = start, 0
        value = body = None
        if at < end and text[at] == ":":
            start, at = at + 1, _value_end(text, at + 1)
            value = text[start:at].strip()
        elif at < end and text[at] == "{":
            close = _closing(text, at)
            if close < 0:
                raise BraceError(f"'{header} {{' is never closed", file, line)
            body, inside = text[at + 1 : close], at + 1
            at = close + 1
        if header:
            span = (offset + begin, offset + at, offset + inside)
            statements.append(Statement(" ".join(header.split()), value, body, file, line, *span))
        line += (value or "").count("\n") + (body or "").count("\n")
    return statements


def _value_end(text: str, at: int) -> int:
    """Where the value that starts at `at` ends: at the end of the line, or before a `}` that closes the statement."""
    depth = 0
    while at < len(text):
        c = text[at]
        if (c == "}" and depth == 0) or (c == "\n" and depth == 0):
            return at
        depth += (c == "{") - (c == "}")
        at += 1
    return at


def _closing(text: str, at: int) -> int:
    depth = 0
    for i in range(at, len(text)):
        depth += (text[i] == "{") - (text[i] == "}")
        if depth == 0:
            return i
    return -1
