"""Stems of words, as Vespa's: KStem for English and every language without an algorithm of its own, by the package
KrovetzStemmer; Snowball for the others, by the package snowballstemmer 2.2 (OpenNlpTokenizer.java).

KrovetzStemmer comes as source and needs a C++ compiler. Without it the engine still runs, with Harman's plural rules
(1991) instead, says so in its log, and may then match other words than Vespa does.
"""

from __future__ import annotations

import re
import threading
from functools import cache

import snowballstemmer

try:
    from krovetzstemmer import Stemmer
except ImportError:
    Stemmer = None

EXACT = Stemmer is not None  # whether English stems are Vespa's
WARNING = (
    "KrovetzStemmer is not installed: English words are stemmed by plural rules only, not as Vespa does it. "
    'With a C++ compiler: pip install "mrse-vespa[stemming]"'
)
# Language codes with a Snowball algorithm. English has one too, but Vespa uses KStem unless it is configured otherwise.
SNOWBALL = {
    "ar": "arabic", "ca": "catalan", "da": "danish", "nl": "dutch", "fi": "finnish", "fr": "french", "de": "german",
    "el": "greek", "hu": "hungarian", "id": "indonesian", "ga": "irish", "it": "italian", "nb": "norwegian",
    "nn": "norwegian", "pt": "portuguese", "ro": "romanian", "ru": "russian", "es": "spanish", "sv": "swedish",
    "tr": "turkish",
}  # fmt: skip
_GERMAN_DIGRAPH = re.compile(r"(?<![aeiouyq])ue|ae|oe")
_BETWEEN_VOWELS = re.compile(r"(?<=[aeiouy])[uy](?=[aeiouy])")  # where u and y are consonants
_lock = threading.Lock()  # a stemmer keeps the word it works on


def stem(word: str, language: str = "en") -> str:
    """The stem of a word in lower case and without accents; the word itself where nothing of it would be left."""
    with _lock:
        if language in SNOWBALL:
            return _snowball(word, language) or word
        if EXACT and word in _VESPAS_OWN:
            return _VESPAS_OWN[word]
        return (_english(word) or word) if word.isascii() else word


def _snowball(word: str, language: str) -> str:
    stemmer = _stemmer(SNOWBALL[language])
    if language != "de":
        return str(stemmer.stemWord(word))
    # The German algorithm in Vespa is younger than the package's: it takes ae for ä, and knows -erin, -ln and system.
    if word.endswith("system"):
        return word
    word = _GERMAN_DIGRAPH.sub(lambda found: found[0][0], word)
    start = _first_region(word)
    for ending, left in (("erinnen", ""), ("erin", ""), ("lns", "l"), ("ln", "l")):
        if word.endswith(ending) and len(word) - len(ending) + (ending[0] == "l") >= start:
            word = word.removesuffix(ending) + left
            break
    return str(stemmer.stemWord(word))


def _first_region(word: str) -> int:
    """Where R1 of a German word begins: after the first consonant after a vowel, three letters in at least."""
    found = re.search(r"[aeiouy][^aeiouy]", _BETWEEN_VOWELS.sub("w", word))
    return max(3, found.end()) if found else len(word)


@cache
def _stemmer(algorithm: str) -> snowballstemmer.basestemmer.BaseStemmer:
    return snowballstemmer.stemmer(algorithm)


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


# Words that Vespa's KStem stems otherwise than the package, of 117,000 that were tried.
_VESPAS_OWN = {
    "arbutus": "arbutu", "arbutuses": "arbutuse", "bal": "bal", "basal": "base", "bowstring": "bowstr", "fiance": "fie",
    "hal": "hal", "hals": "hal", "housewives": "housewive", "later": "late", "lioness": "lio", "mal": "mal",
    "midwives": "midwive", "parentheses": "parenthese", "ral": "ral", "sal": "sal", "testes": "test", "theses": "these",
    "thieves": "thieve", "weber": "web", "wharves": "wharve", "wolves": "wolve", "yourselves": "yourselve",
}  # fmt: skip
_english = Stemmer().stem if Stemmer is not None else plural_stem
