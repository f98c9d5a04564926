"""Queries for a catalogue with little or no search log: spans of an item's own title, description and category.

A description says the same in other words: a span of it, asked for the title, teaches what a title alone cannot.
A stand-in: it teaches the towers which words belong together, not how users ask. Commands say so when they use it.
"""

from __future__ import annotations

import numpy as np

from mrse_model.data.scripts import joined, parts

SPANS = 0.75  # share of the queries that are words in a row; the others are words from all over the title
LONGEST_SPAN = 4  # words; users ask in few
KEPT = 0.5  # share of the title's words that word dropout leaves
WITH_CATEGORY = 0.5  # share of the queries that name the narrowest category
DESCRIPTION = (
    "spans of 1 to 4 words of the item's own title and description, or half of the title's words (in scripts without "
    "spaces 2 to 16 characters), half of them with its category"
)
MAX_PSEUDO_SHARE, DENSE = 0.8, 1.5
MIN_TAUGHT, REPEATS = 0.1, 2.5
MAX_MIXED = 400_000  # pseudo-queries beside real ones, of a large catalogue


def share_of_pseudo(pairs: int, items: int) -> float:
    """The share of a batch that is pseudo-queries, where real queries give so many pairs of a query and its item: 0.8
    with few of them, falling to 0 at DENSE pairs an item; 1 with none.

    >>> [round(share_of_pseudo(pairs, 1000), 2) for pairs in (0, 40, 740, 1500)]
    [1.0, 0.78, 0.41, 0.0]
    """
    if not pairs:
        return 1.0
    return max(0.0, MAX_PSEUDO_SHARE * (1 - pairs / items / DENSE))


def taught_share(pairs: int, made: int) -> float:
    """The same where a teacher says how right each item of a batch is, for so many pseudo-queries: in one pass over
    these a real pair comes REPEATS times, or few of them are learnt by heart (dev/LOG.md). MIN_TAUGHT at least: the
    teacher knows more of the catalogue than any log.

    >>> [round(taught_share(pairs, 2000), 2) for pairs in (0, 40, 740, 20_000)]
    [1.0, 0.95, 0.52, 0.1]
    """
    return max(MIN_TAUGHT, made / (made + REPEATS * pairs))


def pseudo_queries(
    title: str, category: list[str], count: int, rng: np.random.Generator, description: str = ""
) -> list[str]:
    """At most `count` distinct queries made of a title's words, or every second one of the description's where there
    is one, and the narrowest category; at least one. In scripts without spaces parts of 2 to 4 characters stand for
    words.

    >>> pseudo_queries("Mug", [], 3, np.random.default_rng(0))
    ['mug']
    """
    queries: dict[str, None] = {}
    for number in range(count):
        text = description if number % 2 and description.strip() else title
        words = parts(text.lower(), rng)
        if rng.random() < SPANS:
            length = min(int(rng.integers(1, LONGEST_SPAN + 1)), len(words))
            start = int(rng.integers(len(words) - length + 1))
            kept = list(range(start, start + length))
        else:
            kept = [at for at in range(len(words)) if rng.random() < KEPT] or [int(rng.integers(len(words)))]
        query = joined(words, kept)
        if category and rng.random() < WITH_CATEGORY:
            query += " " + category[-1].lower()
        queries[query] = None
    return list(queries)
