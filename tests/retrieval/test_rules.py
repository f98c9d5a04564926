"""A shop's rules, and the draft of two profiles."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mrse_model.errors import InputError
from retrieval.interleave import of_team, sign_test, team_draft
from retrieval.results import Hit
from retrieval.rules import QueryRule, Rules
from retrieval.searcher import SearchRequest

GOOD = """
[synonyms]
kicks = "trainers"
"Evening  Gown" = "evening dress"
[[queries]]
query = ["Red Kicks", "scarlet trainers"]
pinned = ["b", "a"]
buried = ["z"]
"""


def read(folder: Path, text: str) -> Rules:
    file = folder / "rules.toml"
    file.write_text(text)
    return Rules.read(file)


def test_words_are_replaced_and_items_found_by_the_query_in_any_spelling(tmp_path) -> None:
    rules = read(tmp_path, GOOD)
    assert rules.rewritten("my EVENING gown and kicks") == "my evening dress and trainers"
    assert rules.rewritten("kickstand  gown") == "kickstand  gown", "whole words, and phrases as a whole"
    for text in ("red kicks", " RED  trainers ", "Scarlet Kicks"):
        asked = rules.applied(SearchRequest(text, hits=3))
        assert (asked.pinned, asked.buried, asked.hits) == (("b", "a"), ("z",), 3), text
    assert rules.applied(SearchRequest("blue kicks")) == SearchRequest("blue trainers")
    assert rules.queries["red trainers"] == QueryRule(("b", "a"), ("z",))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[synonym]\na = 'b'", "field synonym: unknown table"),
        ("[synonyms]\na = 3", "field synonyms.a: must be a non-blank string"),
        ("[synonyms]\n'a' = 'b'\n' A ' = 'c'", "the phrase occurs twice"),
        ("[synonyms]\na = 'b'\nb = 'c'", "'b' has a synonym of its own"),
        ("[queries]\nquery = 'a'", "must be a list of tables"),
        ("[[queries]]\nquery = 'a'\npin = ['x']", "field queries 1.pin: unknown key"),
        ("[[queries]]\nquery = 'a'", "neither pinned nor buried"),
        ("[[queries]]\npinned = ['x']", "field queries 1.query: must be a non-blank string"),
        ("[[queries]]\nquery = 'a'\npinned = 'x'", "must be a list of item ids"),
        ("[[queries]]\nquery = 'a'\npinned = ['x', 'x']", "an item occurs twice"),
        ("[[queries]]\nquery = 'a'\npinned = ['x']\nburied = ['x']", "'x' is pinned and buried"),
        ("[[queries]]\nquery = ['a', ' A']\npinned = ['x']", "' A' occurs twice"),
        ("queries = [", "cannot be read"),
    ],
)
def test_a_file_that_is_wrong_is_refused(tmp_path, text, says) -> None:
    with pytest.raises(InputError) as found:
        read(tmp_path, text)
    assert says in str(found.value) and "rules.toml" in str(found.value)


def hits(ids: str) -> list[Hit]:
    return [Hit(one, one, [], 0.0, {}, {}) for one in ids]


ORDERS = st.permutations("abcdef")


@settings(max_examples=60, deadline=None)
@given(ORDERS, ORDERS, st.text(max_size=4), st.integers(1, 6))
def test_a_draft_takes_the_best_of_each_in_turn(one, two, seed, length) -> None:
    lists = of_team(hits("".join(one)), "one"), of_team(hits("".join(two)), "two")
    drafted = team_draft(*lists, length, seed)
    ids = [hit.item_id for hit in drafted]
    assert len(set(ids)) == len(ids) == length
    assert abs(sum(hit.team == "one" for hit in drafted) - sum(hit.team == "two" for hit in drafted)) <= 1
    for at, hit in enumerate(drafted):  # what its profile has above it is in the list already
        order = one if hit.team == "one" else two
        assert set(order[: order.index(hit.item_id)]) <= set(ids[:at])
    assert team_draft(*lists, 6, seed)[:length] == drafted, "a longer list goes on with the shorter"


def test_what_is_buried_is_drafted_behind_both_lists() -> None:
    lists = of_team(hits("abcdef"), "one"), of_team(hits("axy"), "two")  # the second ends with its buried items
    for seed in "123456":
        whole = "".join(hit.item_id for hit in team_draft(*lists, 9, seed, last={"x", "y", "b"}))
        assert sorted(whole[:5]) == list("acdef") and sorted(whole[5:]) == list("bxy")
        assert "".join(hit.item_id for hit in team_draft(*lists, 7, seed, last={"x", "y", "b"})) == whole[:7]


def test_the_coin_is_fair_and_a_short_list_ends() -> None:
    lists = of_team(hits("ab"), "one"), of_team(hits("ba"), "two")
    first = [team_draft(*lists, 2, str(n))[0].team for n in range(400)]
    assert 150 < first.count("one") < 250
    assert len(team_draft(*lists, 9, "x")) == 2
    assert sign_test(0, 0) == 1.0 and sign_test(12, 3) == sign_test(3, 12) == pytest.approx(0.0352, abs=1e-4)
