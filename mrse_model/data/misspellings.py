"""Queries as users mistype them: one edit each. Training learns from them beside the right ones, so that a misspelt
word, or a part number written with a space, lies near the right one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

SHORTEST = 4  # letters and digits of a word that is misspelt: "tv" without a letter is another word
Edit = Callable[[str, np.random.Generator], str | None]


def misspelt(text: str, rng: np.random.Generator) -> str:
    """The text with one edit: a character dropped, doubled or swapped with its neighbour, two words joined, or one
    split. As it was where no word is long enough.

    >>> misspelt("refrigerator", np.random.default_rng(4))
    'refrigeratro'
    """
    for number in rng.permutation(len(EDITS)):
        found = EDITS[number](text, rng)
        if found is not None and found != text:
            return found
    return text


def misspelt_all(texts: Sequence[str], seed: int) -> list[str]:
    """Each text with an edit of its own: the same for the same seed, whatever the other texts are."""
    return [misspelt(text, np.random.default_rng([seed, row])) for row, text in enumerate(texts)]


def _within_word(text: str, rng: np.random.Generator, last: int) -> int | None:
    """A position in a word of enough letters, but not its first. last: so many of its last characters are left out."""
    positions: list[int] = []
    start = 0
    for word in text.split(" "):
        if sum(c.isalnum() for c in word) >= SHORTEST:
            positions += range(start + 1, start + len(word) - last)
        start += len(word) + 1
    return int(rng.choice(positions)) if positions else None


def _drop(text: str, rng: np.random.Generator) -> str | None:
    at = _within_word(text, rng, 0)
    return None if at is None else text[:at] + text[at + 1 :]


def _double(text: str, rng: np.random.Generator) -> str | None:
    at = _within_word(text, rng, 0)
    return None if at is None else text[: at + 1] + text[at:]


def _swap(text: str, rng: np.random.Generator) -> str | None:
    at = _within_word(text, rng, 1)
    return None if at is None else text[:at] + text[at + 1] + text[at] + text[at + 2 :]


def _join(text: str, rng: np.random.Generator) -> str | None:
    spaces = [at for at, c in enumerate(text) if c == " "]
    if not spaces:
        return None
    at = int(rng.choice(spaces))
    return text[:at] + text[at + 1 :]


def _split(text: str, rng: np.random.Generator) -> str | None:
    at = _within_word(text, rng, 1)
    return None if at is None else text[: at + 1] + " " + text[at + 1 :]


EDITS: tuple[Edit, ...] = (_drop, _double, _swap, _join, _split)
