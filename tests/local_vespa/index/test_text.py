"""Words, and the inverted index against counting by hand."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from local_vespa.index import text_index as inverted
from local_vespa.index.analysis import idf, tokens, union
from local_vespa.index.stemming import EXACT
from local_vespa.index.text_index import TextIndex

LIVE = np.ones(1000, bool)


def index_of(*texts):
    index = TextIndex(True, True)
    for text in texts:
        index.append(text)
    return index


needs_kstem = pytest.mark.skipif(not EXACT, reason="KrovetzStemmer is not installed (it needs a C++ compiler)")


@needs_kstem
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The TANKS, wicking!", ["the", "tank", "wick"]),
        ("hoodies hoodie", ["hoody", "hoodie"]),
        ("pants", ["pants"]),
        ("later wolves", ["late", "wolve"]),  # Vespa's own
        ("T-shirt's", ["t", "shirt", "s"]),
        ("Café naïve", ["cafe", "naive"]),
        ("EverCool™ tee®", ["evercool", "tm", "tee", "®"]),
        ("snake_case", ["snake", "case"]),
        ("", []),
    ],
)
def test_words_are_vespas(text, expected):
    assert tokens(text) == expected


@pytest.mark.parametrize(
    ("language", "text", "expected"),  # what Vespa's own tokenizer makes of them (OpenNlpLinguistics)
    [
        ("ar", "\u0623\u062d\u0630\u064a\u0629", "\u0627\u0654\u062d\u0630"),
        ("ca", "sabates vestits", "sabat vest"),
        ("da", "skoene kjoler", "skoen kjol"),
        ("de", "läuferinnen Schuhe winseln abenteuer System bäuerin", "lauf schuh winsel abenteu system bau"),
        ("el", "παπουτσια φορεματα", "παπουτσ φορεμ"),
        ("es", "zapatos deportivas", "zapat deport"),
        ("fi", "kengät mekkoja", "keng meko"),
        ("fr", "chaussures robes élégantes", "chaussur rob eleg"),
        ("ga", "bróga", "broga"),
        ("hu", "cipők ruhák", "cip ruh"),
        ("id", "sepatunya bajunya", "sepatu baju"),
        ("it", "scarpe donne", "scarp donn"),
        ("nb", "skoene kjoler", "skoen kjol"),
        ("nl", "schoenen jurken", "schoen jurk"),
        ("nn", "skoene", "skoen"),
        ("pt", "sapatos vestidos", "sapat vest"),
        ("ro", "pantofi rochii", "pantof roch"),
        ("ru", "ботинки платья", "ботинк плат"),
        ("sv", "skorna klänningar", "skorn klanning"),
        ("tr", "ayakkabılar elbiseler", "ayakkabı elbise"),
    ],
)
def test_stems_of_other_languages_are_vespas(language, text, expected):
    assert " ".join(tokens(text, language=language)) == expected


@needs_kstem
@pytest.mark.parametrize("language", ["ja", "pl"])
def test_a_language_without_stems_of_its_own_has_the_english_ones(language):
    assert tokens("running shoes", language=language) == tokens("running shoes")


def test_each_text_is_stemmed_in_its_own_language():
    index = TextIndex(True, True)
    for language in ("en", "de"):
        index.append("Schuhen", language)
    assert index.word("schuh", LIVE).rows.tolist() == [1]


def test_without_stemming_and_normalizing():
    assert tokens("Tanks Café", stemming=False, normalizing=False) == ["tanks", "café"]


words = st.lists(st.sampled_from(["red", "blue", "warm", "hat", "shoe"]), max_size=8).map(" ".join)


@settings(max_examples=60, deadline=None)
@given(st.lists(words, min_size=1, max_size=12), st.lists(st.booleans(), min_size=12, max_size=12))
def test_bm25_is_the_formula(texts, alive):
    index, live = index_of(*texts), np.array(alive[: len(texts)])
    rows = np.flatnonzero(live)
    scores = index.bm25([index.word("red", live), index.word("hat", live)], rows, live, len(rows))
    lengths = {r: len(texts[r].split()) for r in rows}
    counted = [n for n in lengths.values() if n]
    for row, score in zip(rows, scores, strict=True):
        expected = 0.0
        for word in ("red", "hat"):
            frequency = sum(word in texts[r].split() for r in rows)
            count = texts[row].split().count(word)
            if count:
                weight = math.log(1 + (len(rows) - frequency + 0.5) / (frequency + 0.5))
                norm = 1.2 * (0.25 + 0.75 * lengths[row] / (sum(counted) / len(counted)))
                expected += weight * count * 2.2 / (count + norm)
        assert score == pytest.approx(expected, abs=1e-9)


def test_phrases_count_and_take_the_rarest_words_frequency():
    index = index_of("red hat red hat", "hat red", "red", "red hat")
    hits = index.phrase(("red", "hat"), LIVE)
    assert hits.rows.tolist() == [0, 3] and hits.counts.tolist() == [2, 1] and hits.first.tolist() == [0, 0]
    assert hits.document_frequency == 3  # hat, not red with 4


def test_a_phrase_does_not_cross_elements():
    index = TextIndex(True, True)
    index.append(["red", "hat"])
    index.append(["red hat"])
    assert index.phrase(("red", "hat"), LIVE).rows.tolist() == [1]


@pytest.mark.parametrize(
    ("distance", "ordered", "rows"), [(2, False, [0, 1]), (2, True, [0]), (1, True, []), (4, True, [0, 2])]
)
def test_near(distance, ordered, rows):
    index = index_of("red x hat", "hat x red", "red x x x hat")
    assert index.near((("red",), ("hat",)), distance, ordered, LIVE).tolist() == rows


_POSITIONS = st.lists(st.integers(0, 12), max_size=4).map(sorted)


@given(st.lists(_POSITIONS, min_size=1, max_size=3), st.integers(0, 6), st.booleans())
def test_near_is_a_choice_of_one_position_each(lists, reach, ordered):
    expected = any(
        max(chosen) - min(chosen) <= reach and (not ordered or all(a < b for a, b in itertools.pairwise(chosen)))
        for chosen in itertools.product(*lists)
    )
    assert inverted._within(tuple(lists), reach, ordered) == expected


@pytest.mark.parametrize("ordered", [False, True])
def test_near_in_a_long_text_looks_at_each_position_once(ordered):
    far = list(range(200_000)), list(range(1_000_000, 1_200_000))  # all pairs of them: hours
    assert not inverted._within(far, 5, ordered)


def test_near_counts_from_the_start_of_a_phrase():
    index = index_of("red hat box", "red hat x box", "hat red box")
    assert index.near((("red", "hat"), ("box",)), 2, True, LIVE).tolist() == [0]
    assert index.near((("red", "hat"), ("box",)), 3, True, LIVE).tolist() == [0, 1]


def test_words_that_count_as_one_add_up():
    index = index_of("red hat", "red", "hat", "blue")
    both = union([index.word("red", LIVE), index.word("hat", LIVE)])
    assert both.rows.tolist() == [0, 1, 2] and both.counts.tolist() == [2, 1, 1] and both.document_frequency == 2


def test_dead_rows_are_not_found():
    index, live = index_of("red", "red"), np.array([False, True])
    assert index.word("red", live).rows.tolist() == [1]


def test_idf_is_clamped():
    assert idf(0, 0) == idf(1, 1) == pytest.approx(math.log(1 + 0.5 / 1.5))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(words, max_size=3), max_size=30), st.integers(1, 20), st.sampled_from([1 << 16, 1 << 34]))
def test_segments_find_what_a_search_through_the_texts_finds(rows, flush, apart):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inverted, "FLUSH", flush)
        patch.setattr(inverted, "ELEMENT", apart)
        index = TextIndex(False, False)
        for texts in rows:
            index.append(texts)
    assert index.lengths.tolist() == [sum(len(t.split()) for t in texts) for texts in rows]
    for phrase in (("red",), ("hat",), ("red", "hat"), ("red", "red"), ("warm", "blue", "hat")):
        places = [
            [
                element * apart + at
                for element, text in enumerate(texts)
                for at in range(len(text.split()))
                if tuple(text.split()[at : at + len(phrase)]) == phrase
            ]
            for texts in rows
        ]
        assert index.positions(phrase, np.arange(len(rows))) == places
        hits = index.phrase(phrase, LIVE)
        assert hits.rows.tolist() == [row for row, found in enumerate(places) if found]
        assert hits.counts.tolist() == [len(found) for found in places if found]
        assert hits.first.tolist() == [found[0] for found in places if found]
