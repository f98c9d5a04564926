"""Why is an item not found, or found where it is: one check after the other, each with what to do.

from retrieval.why import why

for check in why(searcher, "red dress", "i17", filters=[Filter.parse("price<=50")]):
    print(check)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mrse_model.errors import InputError
from retrieval.backend import DEADLINE, Deadline
from retrieval.filters import Filter, where
from retrieval.profiles import RankProfile, profile_of
from retrieval.query_text import cleaned, has_words
from retrieval.results import SearchResult, read_hits
from retrieval.searcher import MAX_HITS, Searcher


@dataclass(frozen=True)
class Check:
    """name: index, model, filter, words, vectors or profile. ok: whether it lets the item through. says: one line."""

    name: str
    ok: bool
    says: str

    def __str__(self) -> str:
        return f"{'yes' if self.ok else 'NO '}  {self.name}: {self.says}"


def why(
    searcher: Searcher,
    query: str,
    item_id: str,
    *,
    profile: str | RankProfile | None = None,
    filters: Sequence[Filter] = (),
    user: str | None = None,
    hits: int = 10,
    target_hits: int = 200,
    timeout: float = DEADLINE,
) -> list[Check]:
    """Goes the way of a search for one item and says at each step whether the item gets through. Words and vectors are
    asked with the filters that let it through.

    hits: of the search in question. Ranks are looked for among the first MAX_HITS. It ends early where the index does
    not hold the item. Raises as `Searcher.search`.
    """
    fields = _document(searcher, item_id, timeout)
    if fields is None:
        return [Check("index", False, f"it holds no item {item_id!r}: feed it (mrse feed items)")]
    checks = [Check("index", True, f"it holds {item_id!r}, {fields.get('title', '')!r}")]
    checks.append(_model(searcher, fields))
    passed: list[Filter] = []
    for one in filters:
        passes = _document(searcher, item_id, timeout, one) is not None
        passed += [one] * passes
        has = f"{one.field} of the item is {fields[one.field]!r}" if one.field in fields else f"it has no {one.field}"
        shown = "|".join(map(str, one.values))
        checks.append(Check("filter", passes, f"{one.field}{one.operator}{shown}: {has}"))
    asked: dict[str, Any] = {"filters": passed, "timeout": timeout, "strict": True}
    if has_words(cleaned(query)):
        found = searcher.search(query, profile="bm25", hits=MAX_HITS, **asked)
        rank = _rank(found, item_id)
        says = f"rank {rank} of {found.total} by bm25" if rank else "none of the query's words is in its text"
        if not rank and found.total > MAX_HITS:
            says = f"not among the first {MAX_HITS} of {found.total} by bm25"
        checks.append(Check("words", bool(rank), says))
    near = searcher.search(query, profile="exact", user=user, hits=MAX_HITS, target_hits=MAX_HITS, **asked)
    by_vectors = _rank(near, item_id)
    says = f"rank {by_vectors} by similarity, without HNSW" if by_vectors else f"not among the nearest {MAX_HITS}"
    checks.append(Check("vectors", bool(by_vectors), says))
    if len(passed) < len(filters):
        return [*checks, Check("profile", False, "a filter keeps it out; words and vectors are without that filter")]
    profile = profile or searcher.profile
    found = searcher.search(query, profile=profile, user=user, hits=MAX_HITS, target_hits=target_hits, **asked)
    rank = _rank(found, item_id)
    says = _verdict(found, rank, by_vectors if profile_of(profile).takes_vector else 0, hits, target_hits)
    checks.append(Check("profile", bool(rank) and rank <= hits, says))
    return checks


def _document(searcher: Searcher, item_id: str, timeout: float, only: Filter | None = None) -> dict[str, Any] | None:
    """The item's fields; None where it is not there, or a filter keeps it out."""
    condition, parameters = where([only.checked(searcher.fields)] if only else [])
    yql = " and ".join(["select * from item where item_id contains @wanted", *([condition] if condition else [])])
    body = parameters | {"yql": yql, "wanted": item_id, "hits": 1, "ranking": "unranked"}
    answer = searcher.backend.run(searcher.backend.ask(body, Deadline(timeout)))
    return next((hit.fields for hit in read_hits(answer) if hit.item_id == item_id), None)


def _model(searcher: Searcher, fields: dict[str, Any]) -> Check:
    held = fields.get("model_version")
    if held is None:
        return Check("model", False, "it has no vectors: feed it with a model (mrse feed items)")
    if searcher.producer is None:
        return Check("model", True, f"its vectors are of {held}")
    version = searcher.producer.model_version
    says = f"its vectors are of {held}" + ("" if held == version else f", the query's of {version}: feed it again")
    return Check("model", held == version, says)


def _rank(found: SearchResult, item_id: str) -> int:
    """From 1 on; 0 for an item that is not among the hits."""
    return next((rank for rank, hit in enumerate(found.hits, 1) if hit.item_id == item_id), 0)


def _verdict(found: SearchResult, rank: int, by_vectors: int, hits: int, target_hits: int) -> str:
    if rank and rank <= hits:
        return f"rank {rank} of {found.total} by {found.profile}"
    if rank:
        return f"rank {rank} of {found.total} by {found.profile}: below the {hits} hits of a page"
    if by_vectors > target_hits:
        return f"not a candidate: {by_vectors} by similarity, and {target_hits} target hits: raise --target-hits"
    if by_vectors:
        return f"not a candidate of {found.profile}, though near: HNSW missed it, or the profile recalls otherwise"
    return f"not a candidate of {found.profile}"


def explained(searcher: Searcher, query: str, found: SearchResult, **options: Any) -> dict[str, dict[str, float]]:
    """For each hit what its score loses without each part of the query tower: item id → part → share."""
    shares: dict[str, dict[str, float]] = {}
    for hit in found.hits:
        try:
            shares[hit.item_id] = searcher.explain(query, hit.item_id, **options).shares
        except InputError as error:
            raise InputError(f"no explanation of {hit.item_id!r}: {error.problem}", fix=error.fix) from error
    return shares
