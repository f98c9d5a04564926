"""What a user typed, as words: cut first, then cleaned; never a query language.

The words go to Vespa as a parameter under `{grammar: "tokenize"}userInput(@query)`: no operator, field name, quote or
wildcard in them means anything. `-dress`, `price:<20` and `red*` are the words dress, price, 20 and red.
"""

from __future__ import annotations

import unicodedata

from mrse_model.errors import InputError

MAX_CHARACTERS = 256  # the tower reads 14 tokens, of up to 16 characters each
WORDS = '{grammar: "tokenize"}userInput(@query)'


def cleaned(text: str) -> str:
    """The text cut to MAX_CHARACTERS, without control characters, surrogates and non-characters, in single spaces.

    Raises InputError when nothing is left.

    >>> cleaned("  red\\x0c dress\\ud800 ")
    'red dress'
    """
    some = text[: 4 * MAX_CHARACTERS]  # before anything else: a text of a megabyte costs what one of a line does
    kept = "".join(character if _legal(character) else " " for character in some)
    kept = " ".join(kept.split())[:MAX_CHARACTERS].rstrip()
    if not kept:
        raise InputError("the query is blank", field="query", fix="Write what you look for")
    return kept


def _legal(character: str) -> bool:
    return unicodedata.category(character) not in ("Cc", "Cs", "Co", "Cn", "Zl", "Zp")


def has_words(text: str) -> bool:
    """Whether there is a letter or a digit in it; punctuation alone is answered by vectors.

    >>> has_words("-- !?"), has_words("t-shirt")
    (False, True)
    """
    return any(character.isalnum() for character in text)


def key_of(text: str) -> str:
    """What makes two queries the same, to caches and to "clicked for this query": NFKC, lower case, single spaces. The
    model's tokenizer sees no difference either.

    >>> key_of("  Red   DRESS ")
    'red dress'
    """
    return " ".join(unicodedata.normalize("NFKC", text).lower().split())
