"""Tokens of the simple query language (prelude's Tokenizer.java)."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass

_QUOTES = frozenset('"\u201c\u201d\u201e\u201f\u2039\u203a\u00ab\u00bb\u301d\u301e\u301f\uff02')
_SIGNS = frozenset("-+.,:()[]{};><!_^*$")


@dataclass(frozen=True)
class Token:
    """`kind`: word, number, quote, ' ', ~ (noise), end, or the sign itself."""

    kind: str
    text: str


def tokenize(text: str) -> list[Token]:
    """The tokens of a text, an `end` after them. Letters, digits and apostrophes are words, digits alone a number."""
    tokens: list[Token] = []
    at = 0
    while at < len(text):
        start = at
        while at < len(text) and _in_word(text[at]):
            at += 1
        if at > start:
            word = text[start:at]
            kind = "~" if not word.strip("'") else "number" if word.isdecimal() else "word"
            tokens.append(Token(kind, word))
            continue
        character = text[at]
        at += 1
        sign = unicodedata.normalize("NFKC", character)  # full-width signs count as the plain ones
        if character.isspace() or character in "\u3001\u3002":
            tokens.append(Token(" ", " "))
        elif character in _QUOTES:
            tokens.append(Token("quote", '"'))
        elif sign in _SIGNS:
            tokens.append(Token(sign, sign))
        else:
            tokens.append(Token("~", character))
    tokens.append(Token("end", ""))
    return tokens


def _in_word(character: str) -> bool:
    return character == "'" or character.isalnum() or unicodedata.category(character) in ("Mn", "Mc", "So")


class Tokens:
    """A position in a list of tokens. Looking for a token passes over spaces, unless told not to."""

    def __init__(self, tokens: list[Token]) -> None:
        self.all, self.position = tokens, 0

    def more(self) -> bool:
        return self.all[self.position].kind != "end"

    def peek(self, ahead: int = 0) -> Token:
        return self.all[min(self.position + ahead, len(self.all) - 1)]

    def next(self) -> Token:
        self.skip_spaces()
        token = self.all[self.position]
        self.position += token.kind != "end"
        return token

    def skip_spaces(self) -> None:
        while self.all[self.position].kind == " ":
            self.position += 1

    def at(self, kind: str, *, spaces: bool = True) -> bool:
        ahead = self.position
        while spaces and kind != " " and self.all[ahead].kind == " ":
            ahead += 1
        return self.all[ahead].kind == kind

    def skip(self, kind: str, *, spaces: bool = True) -> bool:
        if not self.at(kind, spaces=spaces):
            return False
        if spaces:
            self.skip_spaces()
        self.position += 1
        return True

    def skip_quotes(self, *, spaces: bool = True) -> bool:
        found = False
        while self.skip("quote", spaces=spaces):
            found = True
        return found
