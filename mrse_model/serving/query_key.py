"""A query's text, cut and cleaned, and the key by which two queries are the same: one rule for feeders and searches."""

from __future__ import annotations

import unicodedata

from mrse_model.errors import InputError

MAX_CHARACTERS = 256  # the tower reads 14 tokens, of up to 16 characters each


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
        raise InputError("the query is blank", field="query", fix="Give at least one word")
    return kept


def _legal(character: str) -> bool:
    return unicodedata.category(character) not in ("Cc", "Cs", "Co", "Cn", "Zl", "Zp")


def key_of(text: str) -> str:
    """What makes two queries the same, to caches and to "clicked for this query": NFKC, lower case, single spaces. The
    model's tokenizer sees no difference either.

    >>> key_of("  Red   DRESS ")
    'red dress'
    """
    return " ".join(unicodedata.normalize("NFKC", text).lower().split())
