"""What a search gives back, read from Vespa's answer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from retrieval.filters import COLLAPSED, WITHOUT
from retrieval.profiles import FOUND_BY


@dataclass(frozen=True)
class Hit:
    """An item found. score: the rank profile's. features: its match-features. queues: which recall queues found it →
    its rank in each from 1 on, None where ranks were not asked for; {} for a profile without queues. pinned: put here
    by a rule, not by its score. team: the profile that picked it, of two that are interleaved (`interleave`).
    """

    item_id: str
    title: str
    category: list[str]
    score: float
    fields: dict[str, Any]
    features: dict[str, float]
    queues: dict[str, int | None] = field(default_factory=dict)
    pinned: bool = False
    team: str = ""


@dataclass(frozen=True)
class Bucket:
    """A facet's value, or the range [low, high), and how many matches have it."""

    value: str | float | bool | None
    count: int
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Fallback:
    """A step that could not be taken. step: history, images, embedder, model, words. reason: one sentence."""

    step: str
    reason: str


@dataclass(frozen=True)
class Coverage:
    """share: of the documents that were searched, 0 to 1. reason: why not all, "" where all were."""

    share: float = 1.0
    reason: str = ""

    @property
    def full(self) -> bool:
        return not self.reason


@dataclass(frozen=True)
class SearchResult:
    """total: items that matched: of nearest neighbours these are the candidates asked for, not all that are alike.
    seconds: of all. stages: seconds by stage (history, vector, search). clicks: events that counted. query: as it was
    searched. fallbacks: what could not be done as asked.
    """

    hits: list[Hit]
    total: int
    seconds: float
    clicks: int
    profile: str = ""
    query: str = ""
    offset: int = 0
    facets: dict[str, list[Bucket]] = field(default_factory=dict)
    coverage: Coverage = Coverage()
    fallbacks: list[Fallback] = field(default_factory=list)
    stages: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Explanation:
    """Why an item stands where it does. hit: the item, its score by the rank profile explain. shares: what the score
    loses without each part (docs/rank-profiles.md). queues: its rank in each recall queue that finds it. clicks: events
    that counted.
    """

    hit: Hit
    shares: dict[str, float]
    queues: dict[str, int]
    clicks: int
    fallbacks: list[Fallback]


def read_hits(answer: dict[str, Any]) -> list[Hit]:
    """The hits in order."""
    return [_hit(raw) for raw in answer["root"].get("children", []) if not str(raw.get("id", "")).startswith("group:")]


def read_total(answer: dict[str, Any]) -> int:
    return int(answer["root"].get("fields", {}).get("totalCount", 0))


def read_coverage(answer: dict[str, Any]) -> Coverage:
    """What Vespa says of how much it searched, errors of a part included."""
    root = answer["root"]
    found = root.get("coverage") or {}
    share = float(found.get("coverage", 100)) / 100
    documents, degraded = found.get("documents"), found.get("degraded") or {}
    active = found.get("activeDocs") or found.get("active")
    if documents is not None and active:
        share = min(share, documents / active)
    reasons = [name for name, yes in degraded.items() if yes]
    if errors := root.get("errors"):
        reasons.append(str(errors[0].get("message") or errors[0].get("summary")))
    if share < 1 and not reasons:
        reasons.append("not all nodes answered")
    return Coverage(share, ", ".join(reasons))


def read_collapsed(answer: dict[str, Any], name: str) -> list[Hit]:
    """The best hit of each value of a field and those without a value, by score: of the group lists (`filters.tail`),
    or of the plain hits where these were not asked for.

    A hit of a group list has no match-features: they are taken from the plain hits, as far as those go.
    """
    plain, lists = read_hits(answer), _group_lists(answer)
    if not any(groups.get("label") == COLLAPSED for groups in lists):
        firsts: dict[Any, Hit] = {}
        for hit in plain:
            firsts.setdefault(hit.fields.get(name) or ("", hit.item_id), hit)
        return list(firsts.values())
    known = {hit.item_id: hit for hit in plain}
    best: list[Hit] = []
    for groups in lists:
        label = groups.get("label")
        for group in groups.get("children", []):
            # beside the bucket of empty strings is one of all the rest, without limits
            if (label == WITHOUT and "limits" in group) or (label == COLLAPSED and group.get("value")):
                best += [_hit(raw) for found in group.get("children", []) for raw in found.get("children", [])]
    return sorted((known.get(hit.item_id, hit) for hit in best), key=lambda hit: -hit.score)


def _group_lists(answer: dict[str, Any]) -> list[dict[str, Any]]:
    """The group lists of the answer's `group:root`, in the order of the request."""
    lists: list[dict[str, Any]] = []
    for child in answer["root"].get("children", []):
        if str(child.get("id", "")).startswith("group:root"):
            lists += child.get("children", [])
    return lists


def read_facets(answer: dict[str, Any], names: list[str]) -> dict[str, list[Bucket]]:
    """The facets' buckets: facet i is the i-th group list of the answer's `group:root`."""
    lists = _group_lists(answer)
    return {
        name: [_bucket(group) for group in found.get("children", [])] for name, found in zip(names, lists, strict=False)
    }


def _bucket(group: dict[str, Any]) -> Bucket:
    count = int(group.get("fields", {}).get("count()", 0))
    limits = group.get("limits")
    if limits:
        return Bucket(None, count, _bound(limits.get("from")), _bound(limits.get("to")))
    value, kind = group.get("value"), str(group.get("id", "")).split(":")[1:2]
    if kind == ["bool"]:
        return Bucket(str(value).lower() == "true", count)
    if kind in (["long"], ["double"]):
        return Bucket(_bound(value), count)
    return Bucket(value, count)


def _bound(text: Any) -> float | None:
    """An end of a range, None where it is open. Vespa writes the least and greatest of its type for open ends."""
    try:
        number = float(text)
    except (TypeError, ValueError):
        return None
    return number if abs(number) < 1e18 else None


def _hit(raw: dict[str, Any]) -> Hit:
    fields = raw.get("fields", {})
    features = {k: v for k, v in fields.get("matchfeatures", {}).items() if isinstance(v, (int, float))}
    return Hit(
        item_id=fields.get("item_id", raw.get("id", "")),
        title=fields.get("title", ""),
        category=fields.get("category", []),
        score=float(raw.get("relevance", 0.0)),
        fields={k: v for k, v in fields.items() if k not in ("matchfeatures", "sddocname", "documentid")},
        features=features,
        queues={queue: None for feature, queue in FOUND_BY.items() if features.get(feature, 0.0) > 0},
    )
