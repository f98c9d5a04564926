"""Scripts without spaces between words (Chinese, Japanese, Thai, Lao, Khmer, Burmese): where such a text may be cut.

No dictionary: a text is cut where its script changes, and else at random between characters that readers see as one
(UAX #29 without its tables), which is enough to make queries of its parts.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

import numpy as np

KATAKANA = "\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff\uff66-\uff9f"
HIRAGANA_AND_HAN = "\u3005-\u3007\u3041-\u309f\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
SOUTH_EAST = "\u0e00-\u0e7f\u0e80-\u0eff\u1000-\u109f\u1780-\u17ff"  # Thai, Lao, Burmese, Khmer
UNSPACED = re.compile(f"[{KATAKANA}{HIRAGANA_AND_HAN}{SOUTH_EAST}]")
RUNS = re.compile(f"[{KATAKANA}]+|[{HIRAGANA_AND_HAN}]+|[{SOUTH_EAST}]+|[^{KATAKANA}{HIRAGANA_AND_HAN}{SOUTH_EAST}]+")
BELONGS_TO_THE_ONE_BEFORE = frozenset("ーｰﾞﾟ々ぁぃぅぇぉっゃゅょァィゥェォッャュョｧｨｩｪｫｯｬｭｮ\u0e33\u0eb3")  # beside marks
BELONGS_TO_THE_NEXT = frozenset("เแโใไ\u0ec0\u0ec1\u0ec2\u0ec3\u0ec4")  # Thai and Lao vowels that are written first
SHORTEST, LONGEST = 2, 4  # characters of a part


def is_unspaced(text: str) -> bool:
    """Whether a text has characters of a script without spaces between its words."""
    return UNSPACED.search(text) is not None


def parts(text: str, rng: np.random.Generator) -> list[tuple[str, bool]]:
    """The words of a text, and for each whether a space stands before it.

    A word of white space's making that holds an unspaced script falls into parts of 2 to 4 characters, at other points
    each time; other words stay whole, and nothing is drawn from `rng` for them.

    >>> parts("red dress", np.random.default_rng(0))
    [('red', True), ('dress', True)]
    >>> [word for word, _ in parts("iPhone用ケース", np.random.default_rng(0))]
    ['iPhone', '用', 'ケース']
    """
    found: list[tuple[str, bool]] = []
    for word in text.split():
        if not is_unspaced(word):
            found.append((word, True))
            continue
        spans = [span for run in RUNS.findall(word) for span in _cut(run, rng)]
        found += [(span, number == 0) for number, span in enumerate(spans)]
    return found


def joined(words: list[tuple[str, bool]], kept: Sequence[int]) -> str:
    """Some words of `parts`, by ascending position, as a text: with a space where one stood, or where words are left
    out.

    >>> joined([("夏季", True), ("红色", False), ("连衣裙", False)], [0, 1])
    '夏季红色'
    >>> joined([("夏季", True), ("红色", False), ("连衣裙", False)], [0, 2])
    '夏季 连衣裙'
    """
    text, before = "", -1
    for at in kept:
        word, space = words[at]
        text += (" " if text and (space or at != before + 1) else "") + word
        before = at
    return text


def _cut(run: str, rng: np.random.Generator) -> list[str]:
    if not is_unspaced(run):
        return [run]
    characters = _characters(run)
    found, start = [], 0
    while start < len(characters):
        length = int(rng.integers(SHORTEST, LONGEST + 1))
        found.append("".join(characters[start : start + length]))
        start += length
    return found


def _characters(run: str) -> list[str]:
    """What a reader sees as one character each: with its marks, and with the vowel that is written before it."""
    found: list[str] = []
    for letter in run:
        mark = unicodedata.category(letter)[0] == "M" or letter in BELONGS_TO_THE_ONE_BEFORE
        if found and (mark or found[-1][-1] in BELONGS_TO_THE_NEXT):
            found[-1] += letter
        else:
            found.append(letter)
    return found
