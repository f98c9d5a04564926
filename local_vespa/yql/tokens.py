"""Tokens of the simple query language (prelude's Tokenizer.java)."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass

_WORD = re.compile(r"[^\W_]+")
_QUOTES = frozenset('"\u201c\u201d\u201e\u201f\u2039\u203a\u00ab\u00bb\u301d\u301e\u301f\uff02')
_SIGNS = frozenset("-+.,:()[];><!_^*$")
_PLAIN_SIGNS = frozenset("{}")  # those whose full-width form is noise
_NOT_BREAKING = frozenset("\u00a0\u2007\u202f")
_BRACKETS = frozenset("\u3008\u3009\u300a\u300b\u300c\u300d\u300e\u300f\u3010\u3011")  # words to Vespa


@dataclass(frozen=True)
class Token:
    """`kind`: word, number, quote, ' ', ~ (noise), end, or the sign itself. `whole`: a value of a field whose values
    are matched as a whole, with whatever signs it has."""

    kind: str
    text: str
    whole: bool = False


@dataclass(frozen=True)
class Whole:
    """How the value of a field that is matched as a whole ends: before a blank (quotes and a trailing `*` or `!` count
    as signs), or at the terminator of `match: exact`."""

    terminator: str | None = None


WholeField = Callable[[str], Whole | None]


def tokenize(text: str, default: str = "default", whole: WholeField = lambda name: None) -> list[Token]:
    """The tokens of a text, an `end` after them. Letters, digits and apostrophes are words, digits alone a number, a
    symbol is a word of its own. `whole` says of the field before a colon, and of `default`, the field of all other
    text, whether it is matched as a whole."""
    return _Tokenizer(text, default, whole).tokens


def split_words(text: str) -> list[str]:
    """Runs of letters, marks and digits; every symbol such as a trade mark is a word (SimpleTokenType.java)."""
    if text.isascii():
        return _WORD.findall(text)
    found: list[str] = []
    inside = False
    for character in text:
        category = unicodedata.category(character)
        if category == "So":
            found.append(character)
            inside = False
        elif category[0] in "LN" or category in ("Mn", "Mc"):
            if inside:
                found[-1] += character
            else:
                found.append(character)
            inside = True
        else:
            inside = False
    return found


def is_blank(character: str) -> bool:
    """Java's Character.isWhitespace: blanks that break a line, tabs and separators."""
    if character in _NOT_BREAKING:
        return False
    return character in "\t\n\v\f\r\x1c\x1d\x1e\x1f" or unicodedata.category(character)[0] == "Z"


def is_letter(character: str) -> bool:
    """What is a letter to Vespa (CharacterClasses.java): marks and digits of other scripts too."""
    category = unicodedata.category(character)
    if category[0] == "L" or category in ("Mn", "Mc", "Me"):
        return True
    return (category == "Nd" and not character.isascii()) or character in _BRACKETS


class _Tokenizer:
    def __init__(self, text: str, default: str, whole: WholeField) -> None:
        self.text, self.whole = text, whole
        self.tokens: list[Token] = []
        self.open = 0  # parentheses that are not closed yet
        everything = whole(default)
        current, at = everything, 0
        while at < len(text):
            if current is not None:
                at, current = self._value(at, current), everything
                if at >= len(text):
                    break
            character = text[at]
            if character == "'" or is_letter(character) or (character.isascii() and character.isdigit()):
                at = self._word(at)
                continue
            token = self._sign(character)
            if token.kind == ":":
                current = self._field_before(everything)
            self.open = max(0, self.open + (token.kind == "(") - (token.kind == ")"))
            self.tokens.append(token)
            if token.kind == "word" and character > "\uffff":
                self.tokens.append(Token("~", ""))  # the second half of a surrogate pair, to Vespa
            at += 1
        self.tokens.append(Token("end", ""))

    @staticmethod
    def _sign(character: str) -> Token:
        if unicodedata.category(character) == "So":
            return Token("word", character)
        if is_blank(character):
            return Token(" ", " ")
        if character in _QUOTES:
            return Token("quote", '"')
        # full-width signs count as the plain ones
        sign = unicodedata.normalize("NFKC", character) if "\uff00" < character < "\uff60" else character
        if sign in _SIGNS or character in _PLAIN_SIGNS:
            return Token(sign, sign)
        return Token("~", character)

    def _word(self, start: int) -> int:
        """Reads a word or number; the position after it."""
        at = start
        while at < len(self.text):
            character = self.text[at]
            if not (character == "'" or is_letter(character) or (character.isascii() and character.isdigit())):
                break
            at += 1
        word = self.text[start:at]
        self.tokens.append(Token("~" if not word.strip("'") else "number" if word.isdecimal() else "word", word))
        return at

    def _field_before(self, otherwise: Whole | None) -> Whole | None:
        """How the value after a colon is read: by the field before it, if it is one."""
        name = ""
        for token in reversed(self.tokens):
            if token.kind not in ("word", "number", "_", "."):
                break
            name = token.text + name
        return (self.whole(name) if name else None) or otherwise

    def _value(self, start: int, how: Whole) -> int:
        """Reads a value that is matched as a whole; the position after it."""
        if how.terminator is not None:
            end = self.text.find(how.terminator, start)
            end = len(self.text) if end < 0 else end
            self.tokens.append(Token("word", self.text[start:end], whole=True))
            return end + len(how.terminator)
        return self._heuristic_value(start)

    def _heuristic_value(self, start: int) -> int:
        """A value up to a blank, or in quotes; `*` before it, `*`, `!` and `)` after it are signs
        (consumeHeuristicExact)."""
        text, at = self.text, start
        while at < len(text) and is_blank(text[at]):
            at += 1
        if (quoted := self._quoted_value(at)) is not None:
            return quoted
        star = at < len(text) and text[at] in "*\uff0a"
        first = at + star
        if first < len(text) and text[first] == '"' and star and (end := self._closing_quote(first)) is not None:
            self.tokens += [Token("*", "*"), Token("word", text[first + 1 : end], whole=True)]
            return end + 1
        end = first
        unclosed = first < len(text) and text[first] == '"'  # a quote that nothing closes is a sign like others
        while end < len(text) and not is_blank(text[end]):
            ends = end > first and text[end] in "!*\uff0a)"
            if ends and ((text[end] != ")" or self.open > 0) if unclosed else self._ends_value(end)):
                break
            end += 1
        if end == first:  # nothing but a star, or nothing at all
            value = text[at:first] if star else text[start:end]
            self.tokens.append(Token("word", value, whole=True))
            return end
        if star:
            self.tokens.append(Token("*", "*"))
        self.tokens.append(Token("word", text[first:end], whole=True))
        return end

    def _quoted_value(self, at: int) -> int | None:
        end = self._closing_quote(at) if at < len(self.text) and self.text[at] == '"' else None
        if end is None:
            return None
        self.tokens.append(Token("word", self.text[at + 1 : end], whole=True))
        return end + 1

    def _closing_quote(self, opening: int) -> int | None:
        """The quote that ends the value which begins with the one at `opening`; None if there is none."""
        end = self.text.find('"', opening + 1)
        while end >= 0 and not self._ends_value(end + 1):
            end = self.text.find('"', end + 1)
        return end if end >= 0 else None

    def _ends_value(self, at: int) -> bool:
        """Whether nothing but signs that may follow a value stands between `at` and the next blank: one `*`, one `!`
        with a number or several `!`, parentheses that were opened before."""
        text, star, bang, opened = self.text, True, True, self.open
        while at < len(text) and not is_blank(text[at]):
            character = text[at]
            at += 1
            if character == "!" and bang:
                bang, several = False, False
                while at < len(text) and text[at] == "!":
                    at, several = at + 1, True
                while not several and at < len(text) and text[at].isdigit():
                    at += 1
            elif character in "*\uff0a" and star:
                star = False
            elif character == ")" and opened:
                opened -= 1
            else:
                return False
        return True


class Tokens:
    """A position in a list of tokens. Looking for a token passes over spaces, unless told not to."""

    def __init__(self, tokens: list[Token]) -> None:
        self.all, self.position = tokens, 0

    def more(self) -> bool:
        return self.position < len(self.all) - 1

    def peek(self, ahead: int = 0) -> Token:
        """The token here or further on, spaces counted."""
        return self.all[min(self.position + ahead, len(self.all) - 1)]

    def next(self) -> Token:
        """The next token that is no space."""
        self.skip_spaces()
        token = self.all[self.position]
        self.position += token.kind != "end"
        return token

    def skip_spaces(self) -> None:
        while self.all[self.position].kind == " ":
            self.position += 1

    def at(self, *kinds: str, spaces: bool = True) -> bool:
        """Whether the next token is of one of these kinds."""
        ahead = self.position
        while spaces and self.all[ahead].kind == " ":
            ahead += 1
        return self.all[ahead].kind in kinds

    def skip(self, kind: str, *, spaces: bool = True) -> bool:
        """Passes over one token of a kind; whether it was there."""
        if not self.at(kind, spaces=spaces):
            return False
        if spaces:
            self.skip_spaces()
        self.position += 1
        return True

    def skip_all(self, *kinds: str, spaces: bool = True) -> bool:
        """Passes over all tokens of some kinds; whether there was one."""
        found = False
        while self.more() and self.at(*kinds, spaces=spaces):
            if spaces:
                self.skip_spaces()
            self.position += 1
            found = True
        return found
