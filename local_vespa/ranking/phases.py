"""First, second and global phase over the candidates of one document type.

Scores need not be numbers, and each phase has Vespa's own way with those: the first takes NaN and both infinities for
the lowest score (match_thread.cpp), the second keeps what it computes until the container takes its NaN for the lowest
(LeanHit.java), the global phase keeps NaN, below all numbers (Relevance.java).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .features import Features, RankContext, first_phase

FIRST_ROWS = 1024  # ranked before the first look at the clock


@dataclass
class Ranked:
    """Candidates that are left with their relevance, in any order, and how many documents count as found. `matched` are
    all rows and their relevance before the global phase: a content node makes its groups of them."""

    rows: np.ndarray
    relevance: np.ndarray
    total: int
    matched: tuple[np.ndarray, np.ndarray]
    seen: int | None = None  # up to which row of the table, where time was over before its end


def rank(context: RankContext, rows: np.ndarray, wanted: int) -> Ranked:
    """Runs the phases of the context's profile over candidate rows (int64 [n]). `wanted` is offset + hits.

    `scores` and `first` are float64 [n], in the order of `rows`; `best` are indices into them, best score first."""
    profile = context.profile

    # First phase: every candidate, or as many as there is time for.
    scores = first = _first_phase_in_time(context, rows)
    seen = int(rows[len(scores)]) if len(scores) < len(rows) else None
    rows = rows[: len(scores)]
    total = len(rows)
    if profile.first is not None and profile.first.drop_limit is not None:
        keep = scores > profile.first.drop_limit
        rows, scores, first = rows[keep], scores[keep], first[keep]
        total = len(rows)

    # Second phase: the best rerank-count of them; the others are moved below those.
    second: np.ndarray | None = None
    if profile.second is not None and len(rows):
        context.deadline.check()
        best = _best(scores, profile.second.count)
        features = Features(context, rows[best], {"firstPhase": first[best]})
        again = features.evaluator.evaluate(profile.second.expression).scores(len(best))
        scores = _rescored(scores, best, again)
        second = np.zeros(len(rows))
        second[best] = again
        if profile.second.drop_limit is not None:
            keep = scores > profile.second.drop_limit  # of NaN: false, so it goes
            rows, scores, first, second = rows[keep], scores[keep], first[keep], second[keep]
            total = len(rows)
        scores = np.where(np.isnan(scores), -np.inf, scores)
    matched = rows, scores

    # Global phase: in the container, which has just the hits that it asked for, and reranks the best of them.
    if profile.globally is not None and len(rows):
        context.deadline.check()
        gathered = _best(scores, max(wanted, profile.globally.count))
        rows, scores, first = rows[gathered], scores[gathered], first[gathered]
        best = _best(scores, profile.globally.count)
        known = {"firstPhase": first[best], "relevanceScore": scores[best]}
        if second is not None:
            known["secondPhase"] = second[gathered][best]
        features = Features(context, rows[best], known)
        again = features.evaluator.evaluate(profile.globally.expression).scores(len(best))
        scores = _rescored(scores, best, again)
        if profile.globally.drop_limit is not None:
            drop = scores <= profile.globally.drop_limit  # of NaN: false, so it stays
            total -= int(np.count_nonzero(drop))
            rows, scores = rows[~drop], scores[~drop]
    return Ranked(rows, scores, total, matched, seen)


def _first_phase_in_time(context: RankContext, rows: np.ndarray) -> np.ndarray:
    """First-phase scores of the rows, or of the first of them where the time is over. A part takes twice the rows of
    the one before it: a dear expression is soon interrupted, and a cheap one costs no more. Raises OutOfTime."""
    parts: list[np.ndarray] = []
    start, size = 0, FIRST_ROWS
    while start < len(rows) and not (parts and context.soft.over):
        context.deadline.check()
        parts.append(first_phase(context, rows[start : start + size]))
        start, size = start + size, 2 * size
    return np.concatenate(parts) if parts else np.empty(0)


def _best(scores: np.ndarray, count: int) -> np.ndarray:
    """int64 [at most count]: the indices of the greatest scores, greatest first."""
    return np.argsort(-scores, kind="stable")[:count]


def _rescored(scores: np.ndarray, best: np.ndarray, again: np.ndarray) -> np.ndarray:
    """All scores after those at `best` were computed anew: where the worst of them fell, the rest is moved below it
    (first_phase_rescorer.cpp, RangeAdjuster.java). NaN is in neither range; an infinite range makes NaN of the rest, as
    it does there."""
    new, usable = scores.copy(), again[~np.isnan(again)]
    if len(usable) and len(best) < len(scores):
        before_low, before_high = scores[best].min(), scores[best].max()
        low, high = usable.min(), usable.max()
        if before_low > low:
            with np.errstate(all="ignore"):
                scale = _at_least_one(high - low) / _at_least_one(before_high - before_low)
                new = scores * scale - (before_low * scale - low)
    new[best] = again
    return new


def _at_least_one(width: np.float64) -> np.float64:
    """The width of a range, and NaN where it has none."""
    return np.float64(1.0) if width < 1 else width
