"""Typed texts, drawn at random, against the trees that Vespa's own parsers make of them (data/typed_text.json)."""

from __future__ import annotations

import contextlib
import json
import random
from pathlib import Path
from typing import Any

import pytest

from local_vespa.index.analysis import normalized, tokens
from local_vespa.yql import QueriedField, Whole, YqlError, ast, parse_user_text
from local_vespa.yql.tokens import Tokens

CASES = json.loads((Path(__file__).parents[1] / "data" / "typed_text.json").read_text(encoding="utf-8"))
FIELDS = {
    "default": QueriedField(),
    "title": QueriedField(),
    "colour": QueriedField(text=False, whole=Whole()),
    "price": QueriedField(text=False),
}
Tree = list[Any]


def joined(kind: str, children: list[Tree]) -> Tree:
    """A composite with those of its own kind in its place, as Vespa's canonical trees are."""
    return [kind, *(inner for child in children for inner in (child[1:] if child[0] == kind else [child]))]


def ours(node: ast.Node | None) -> Tree:
    """A tree of this engine in the form of `theirs`."""
    match node:
        case ast.WeakAnd():
            return ["WeakAnd", *map(ours, node.children)]
        case ast.Or():
            return joined("Or", [ours(child) for child in node.children])
        case ast.Rank():
            return ["Rank", ours(node.first), *map(ours, node.others)]
        case ast.Always():
            return ["True"]
        case ast.And(children=(first, ast.Not(), *_)):
            excluded = [ours(child.child) for child in node.children[1:] if isinstance(child, ast.Not)]
            return ["Not", ours(first), *excluded]
        case ast.And():
            return joined("And", [ours(child) for child in node.children])
    assert isinstance(node, ast.Term)
    weight = [w for w in (node.annotations.get("weight", 100),) if w != 100]
    match node:
        case ast.Range():
            return ["Range", node.field, *weight]
        case ast.Phrase():
            return ["Phrase", *weight, *(word for text in node.words for word in of_words(node, text, []))]
        case ast.Word(match="word"):
            words = of_words(node, node.text, weight)
            return words[0] if len(words) == 1 else ["Phrase", *words]
        case ast.Word():
            kind = {"whole": "Word", "prefix": "Prefix", "suffix": "Suffix", "substring": "Substring"}[node.match]
            return [kind, node.field, normalized(node.text, False, FIELDS[node.field].text), *weight]
    raise AssertionError(node)


def of_words(node: ast.Term, text: str, weight: list[int]) -> list[Tree]:
    """The words of a text as the field has them."""
    if FIELDS[node.field].text or node.annotations.get("linguistics"):
        return [["Word", node.field, word, *weight] for word in tokens(text) or [text]]
    return [["Word", node.field, text.lower() if FIELDS[node.field].whole else text, *weight]]


def theirs(tree: Tree) -> Tree:
    """A tree of Vespa without what makes no difference: whether a number is a word, where a word was split."""
    kind, *rest = tree
    kind = {"AndSegment": "And", "PhraseSegment": "Phrase", "ExactString": "Word", "Int": "Word"}.get(kind, kind)
    weight = [part for part in rest if isinstance(part, int)]
    children = [theirs(part) for part in rest if isinstance(part, list)]
    if tree[0] == "Int" and tree[2][0] in "<>[":
        return ["Range", tree[1], *weight]
    if kind in ("And", "Or"):
        return joined(kind, children)
    if kind == "Phrase":  # the weight of a phrase stands at its words too
        words = joined(kind, [[child[0], *(p for p in child[1:] if not isinstance(p, int))] for child in children])
        return [kind, *weight, *words[1:]]
    return [kind, *(part for part in rest if isinstance(part, str)), *weight, *children] if children else [kind, *rest]


@pytest.mark.parametrize("start", range(0, len(CASES), 50))
def test_typed_texts_mean_what_they_mean_to_vespa(start):
    differing = {}
    for grammar, index, text, tree in CASES[start : start + 50]:
        try:
            found = parse_user_text(text, grammar, index, FIELDS.get, language="en")
        except YqlError:
            found = None
        made = None if found is None else ours(found)
        if made != (None if tree is None else theirs(tree)):
            differing[grammar, index, text] = made, tree
    assert not differing


# How long a text takes: counted in looks at its tokens, of texts that repeat a few signs

SIGNS = [*"""title: colour: { } " ( ) [ ] ; * - + a 1 : ! < . _""".split(), " "]  # noqa: SIM905
DRAWN = ["".join(random.Random(seed).choices(SIGNS, k=1 + seed % 5)) for seed in range(200)]
LONG_ONCE = ["title:{", "title: ", "_", "(+", "-(", "+(-(", 'title:"', "title:{a "]


@pytest.mark.parametrize("grammar", ["weakAnd", "any", "web"])
def test_the_work_of_a_text_is_linear(grammar, monkeypatch):
    looks, at = 0, Tokens.at

    def counted(self, *kinds, **more):
        nonlocal looks
        looks += 1
        assert looks < 500_000
        return at(self, *kinds, **more)

    def work(text):
        nonlocal looks
        looks = 0
        with contextlib.suppress(YqlError):
            parse_user_text(text, grammar, "title", FIELDS.get)
        return looks

    monkeypatch.setattr(Tokens, "at", counted)
    slow = {}
    for signs in LONG_ONCE + DRAWN:
        short, long = work(signs * 40), work(signs * 80)
        if long > max(3000, 2.7 * short):
            slow[signs] = short, long
    assert not slow
