"""Ranking profiles as a table: what each finds (its YQL), how a user's history counts, which inputs it takes.

A profile of one's own is one more row: deploy `schemas/item/mine.profile` and search with
`RankProfile("mine", recall=("query", "words"))`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from mrse_model.errors import InputError
from retrieval.filters import NAME
from retrieval.query_text import WORDS

Recall = Literal["query", "words", "clicks", "images"]
USERS = ("vector", "inputs", "none")
LABELS = {"query": "q2i", "clicks": "i2i", "images": "image"}  # the queues, as their rank profiles name them
FOUND_BY = {"from_query": "q2i", "from_clicks": "i2i", "from_images": "image"}  # match-features of three_queues


@dataclass(frozen=True)
class RankProfile:
    """name: of the rank profile in Vespa. recall: what finds its candidates: nearest neighbours of the query vector,
    words, the neighbours of the clicked items, those of their images. user: how a history counts: `vector`, the query
    vector is the tower's with the history; `inputs`, the profile runs the tower itself; `none`. sorted_by: the profile
    that scores its candidates in a search that is sorted, "" for itself: Vespa sorts, and groups, by no global phase.
    """

    name: str
    recall: tuple[Recall, ...] = ("query",)
    user: Literal["vector", "inputs", "none"] = "vector"
    exact: bool = False
    sorted_by: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not NAME.fullmatch(self.name):
            raise InputError(f"not a rank profile name: {self.name!r}", field="profile")
        object.__setattr__(self, "recall", tuple(self.recall))
        for name, values, known in (("recall", self.recall, get_args(Recall)), ("user", (self.user,), USERS)):
            if not values or not set(values) <= set(known):
                problem = f"{name} of {self.name} cannot be {', '.join(map(str, values)) or 'empty'}"
                raise InputError(problem, field="profile", fix="Take of " + ", ".join(known))

    @property
    def takes_vector(self) -> bool:
        return self.recall != ("words",)

    @property
    def labelled(self) -> bool:
        return "clicks" in self.recall or "images" in self.recall


TABLE = {
    profile.name: profile
    for profile in (
        RankProfile("ann"),
        RankProfile("exact", exact=True),
        RankProfile("bm25", ("words",), user="none"),
        RankProfile("hybrid", ("query", "words"), sorted_by="ann"),
        RankProfile("hybrid_linear", ("query", "words"), sorted_by="ann"),
        RankProfile("three_queues", ("query", "clicks", "images")),
        RankProfile("query_tower", user="inputs"),
    )
}


def profile_of(name: str | RankProfile, own: Sequence[RankProfile] = ()) -> RankProfile:
    """A row of the table, or of one's own. Raises InputError that lists them."""
    if isinstance(name, RankProfile):
        return name
    table = TABLE | {profile.name: profile for profile in own}
    if name not in table:
        raise InputError(f"unknown profile {name!r}", field="profile", fix="Take one of " + ", ".join(table))
    return table[name]


def matching(
    profile: RankProfile,
    *,
    words: bool,
    queues: Sequence[str],
    target_hits: int,
    exact: bool,
    suffix: str = "",
) -> str:
    """The YQL condition that finds a profile's candidates.

    words: whether the text has any. queues: of "clicks" and "images", those that have a query vector; each finds half
    of target_hits. suffix: of the second set of vectors (mrse migrate).
    """
    approximate = ", approximate: false" if exact or profile.exact else ""

    def nearest(field: str, vector: str, recall: str) -> str:
        label = f'label: "{LABELS[recall]}", ' if profile.labelled else ""
        hits = target_hits if recall == "query" else max(target_hits // 2, 1)
        return f"({{{label}targetHits: {hits}{approximate}}}nearestNeighbor({field}{suffix}, {vector}))"

    terms = []
    for recall in profile.recall:
        if recall == "query":
            terms.append(nearest("embedding", "q", recall))
        elif recall == "words" and words:
            terms.append(f"({WORDS})" if len(profile.recall) > 1 else WORDS)
        elif recall == "clicks" and recall in queues:
            terms.append(nearest("embedding", "i2i", recall))
        elif recall == "images" and recall in queues:
            terms.append(nearest("image_embedding", "image", recall))
    return terms[0] if len(terms) == 1 else f"({' or '.join(terms)})"
