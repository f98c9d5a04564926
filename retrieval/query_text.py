"""What a user typed, as words: cut first, then cleaned; never a query language.

The words go to Vespa as a parameter under `{grammar: "tokenize"}userInput(@query)`: no operator, field name, quote or
wildcard in them means anything. `-dress`, `price:<20` and `red*` are the words dress, price, 20 and red.
"""

from __future__ import annotations

from mrse_model.serving.query_key import MAX_CHARACTERS, cleaned, key_of

__all__ = ["MAX_CHARACTERS", "WORDS", "cleaned", "has_words", "key_of"]

WORDS = '{grammar: "tokenize"}userInput(@query)'


def has_words(text: str) -> bool:
    """Whether there is a letter or a digit in it; punctuation alone is answered by vectors.

    >>> has_words("-- !?"), has_words("t-shirt")
    (False, True)
    """
    return any(character.isalnum() for character in text)
