"""What a query says, as data: the tree of `where`, and the clauses around it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ..grouping.ast import GroupingRequest

Annotations = Mapping[str, Any]


@dataclass(frozen=True)
class Node:
    """A node of the query tree. `annotations` are those written before the operator ({label: "a", ranked: false})."""

    annotations: Annotations = dataclasses.field(default_factory=dict, kw_only=True)


@dataclass(frozen=True)
class Always(Node):
    """`true` or `false`."""

    value: bool


@dataclass(frozen=True)
class And(Node):
    children: tuple[Node, ...]


@dataclass(frozen=True)
class Or(Node):
    children: tuple[Node, ...]


@dataclass(frozen=True)
class Not(Node):
    """Everything that `child` does not match; its words are not ranked."""

    child: Node


@dataclass(frozen=True)
class Rank(Node):
    """Matches what `first` matches; `others` only give rank features."""

    first: Node
    others: tuple[Node, ...]


@dataclass(frozen=True)
class NonEmpty(Node):
    """nonEmpty(child): an empty child (a blank phrase) is an error 400."""

    child: Node


@dataclass(frozen=True)
class Term(Node):
    """A leaf that searches a field or fieldset."""

    field: str


@dataclass(frozen=True)
class Word(Term):
    """`field contains "text"`; `match` is word, prefix, suffix, substring or whole. The text is as written: the
    searcher tokenises it by the field (more tokens are a phrase), but for `whole`: a number in typed text, or a value,
    which a text field holds as one word or not at all."""

    text: str
    match: str = "word"


@dataclass(frozen=True)
class Phrase(Term):
    """Words one after another; not `explicit` where a grammar and not a quote or phrase() made it."""

    words: tuple[str, ...]
    explicit: bool = True


@dataclass(frozen=True)
class Near(Term):
    """near / onear: all words within `distance` positions (default 2), in order where `ordered`."""

    words: tuple[str, ...]
    distance: int = 2
    ordered: bool = False


@dataclass(frozen=True)
class Equiv(Term):
    """Words and phrases that count as one term."""

    children: tuple[Node, ...]


@dataclass(frozen=True)
class Fuzzy(Term):
    text: str
    max_edit_distance: int = 2
    prefix_length: int = 0
    prefix: bool = False


@dataclass(frozen=True)
class Regex(Term):
    """`field matches "pattern"`"""

    pattern: str


@dataclass(frozen=True)
class Uri(Term):
    text: str


@dataclass(frozen=True)
class SameElement(Term):
    children: tuple[Node, ...]


@dataclass(frozen=True)
class Equals(Term):
    """`field = value` with a number or a boolean."""

    value: float | int | bool


@dataclass(frozen=True)
class Range(Term):
    """Numbers between two limits; -inf and inf are open ends. Also `<`, `<=`, `>`, `>=`."""

    low: float | int
    high: float | int
    low_inclusive: bool = True
    high_inclusive: bool = True
    hit_limit: int | None = None


@dataclass(frozen=True)
class In(Term):
    """`field in (…)`: any of these values, all strings or all integers."""

    values: tuple[str | int, ...]


@dataclass(frozen=True)
class WeightedSet(Term):
    """Matches any token; raw score is the weight of the best match."""

    tokens: tuple[tuple[str | int, int], ...]


@dataclass(frozen=True)
class DotProduct(Term):
    tokens: tuple[tuple[str | int, int], ...]


@dataclass(frozen=True)
class Wand(Term):
    tokens: tuple[tuple[str | int, int], ...]
    target_hits: int = 10
    score_threshold: float = 0.0
    threshold_boost_factor: float = 1.0


@dataclass(frozen=True)
class WeakAnd(Node):
    children: tuple[Node, ...]
    target_hits: int | None = None


@dataclass(frozen=True)
class NearestNeighbor(Term):
    """nearestNeighbor(field, input); `input` is the name x of query(x). Every other annotation is in `annotations`."""

    input: str
    target_hits: int | None = None
    total_target_hits: int | None = None
    approximate: bool = True
    distance_threshold: float | None = None
    explore_additional_hits: int = 0
    label: str | None = None


@dataclass(frozen=True)
class UserInput(Node):
    """Text that a user typed, to be parsed by `simple.parse_user_text`: userInput(…), userQuery() and text(…).
    `grammar` and `default_index` are None for a userQuery() of a request that does not say."""

    text: str
    grammar: str | None = None
    default_index: str | None = None
    language: str | None = None
    allow_empty: bool = False


@dataclass(frozen=True)
class OrderBy:
    """One criterion; `field` may be "[relevance]" or "[docid]" . `function` is "uca" or "lowercase" or None."""

    field: str
    ascending: bool = True
    function: str | None = None
    annotations: Annotations = dataclasses.field(default_factory=dict)


@dataclass(frozen=True)
class Query:
    """A YQL statement. `fields` is empty for `*`, `sources` for `sources *`; `timeout` in seconds.

    `limit` counts from the first hit, before the offset: `limit 12 offset 9` is hits 3, offset 9; `offset 9` alone is
    hits 10. Both are None where the statement says neither."""

    fields: tuple[str, ...]
    sources: tuple[str, ...]
    where: Node
    order_by: tuple[OrderBy, ...] = ()
    hits: int | None = None
    offset: int | None = None
    timeout: float | None = None
    grouping: tuple[GroupingRequest, ...] = ()


def children(node: Node) -> tuple[Node, ...]:
    """The nodes under an operator; none under a leaf."""
    match node:
        case And() | Or() | WeakAnd():
            return node.children
        case Not() | NonEmpty():
            return (node.child,)
        case Rank():
            return (node.first, *node.others)
    return ()


def nodes(node: Node) -> Iterator[Node]:
    """A node and all below it."""
    yield node
    for child in children(node):
        yield from nodes(child)


def leaves(node: Node) -> Iterator[Term]:
    """All terms of a tree."""
    return (found for found in nodes(node) if isinstance(found, Term))
