"""English stems: KStem, as Vespa's (com.yahoo.language.simple.kstem), by the package KrovetzStemmer.

That package comes as source and needs a C++ compiler. Without it the engine still runs, with Harman's plural rules
(1991) instead, says so in its log, and may then match other words than Vespa does.
"""

from __future__ import annotations

try:
    from krovetzstemmer import Stemmer
except ImportError:
    Stemmer = None

EXACT = Stemmer is not None  # whether stems are Vespa's
WARNING = (
    "KrovetzStemmer is not installed: English words are stemmed by plural rules only, not as Vespa does it. "
    'With a C++ compiler: pip install "mrse-vespa[stemming]"'
)


def plural_stem(word: str) -> str:
    """Harman's S-stemmer: the first rule that fits.

    >>> [plural_stem(w) for w in ("shoes", "ladies", "dress", "tanks", "bus", "is")]
    ['shoe', 'lady', 'dress', 'tank', 'bus', 'is']
    """
    if len(word) <= 3 or not word.endswith("s"):
        return word
    if word.endswith("ies") and not word.endswith(("eies", "aies")):
        return word[:-3] + "y"
    if word.endswith("es") and not word.endswith(("aes", "ees")):
        return word[:-1]
    return word if word.endswith(("us", "ss")) else word[:-1]


stem = Stemmer().stem if Stemmer is not None else plural_stem
