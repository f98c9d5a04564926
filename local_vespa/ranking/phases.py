"""First, second and global phase over the candidates of one document type."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .features import Features, RankContext, first_phase


@dataclass
class Ranked:
    """Candidates that are left with their relevance, in any order, and how many documents count as found. `matched` are
    all rows and their relevance before the global phase: a content node makes its groups of them."""

    rows: np.ndarray
    relevance: np.ndarray
    total: int
    matched: tuple[np.ndarray, np.ndarray]


def rank(context: RankContext, rows: np.ndarray, wanted: int) -> Ranked:
    """Runs the phases of the context's profile. `wanted` is offset + hits."""
    profile = context.profile
    scores = first_phase(context, rows)
    total = len(rows)
    if profile.first is not None and profile.first.drop_limit is not None:
        keep = scores > profile.first.drop_limit
        rows, scores = rows[keep], scores[keep]
        total = len(rows)
    first = scores
    second_phase: np.ndarray | None = None
    if profile.second is not None and len(rows):
        best = _best(scores, profile.second.count)
        features = Features(context, rows[best], {"firstPhase": first[best]})
        again = _scores(features.evaluator.evaluate(profile.second.expression).scores(len(best)))
        scores = _rescaled(scores, best, again)
        second_phase = np.zeros(len(rows))
        second_phase[best] = again
        if profile.second.drop_limit is not None:
            keep = scores > profile.second.drop_limit
            rows, scores, first, second_phase = rows[keep], scores[keep], first[keep], second_phase[keep]
            total = len(rows)
    matched = rows, scores
    if profile.globally is not None and len(rows):
        # the container gets this many hits and reranks the best of them
        gathered = _best(scores, max(wanted, profile.globally.count))
        rows, scores, first = rows[gathered], scores[gathered], first[gathered]
        best = _best(scores, profile.globally.count)
        known = {"firstPhase": first[best], "relevanceScore": scores[best]}
        if second_phase is not None:
            known["secondPhase"] = second_phase[gathered][best]
        features = Features(context, rows[best], known)
        again = _scores(features.evaluator.evaluate(profile.globally.expression).scores(len(best)))
        scores = _rescaled(scores, best, again)
        if profile.globally.drop_limit is not None:
            keep = scores > profile.globally.drop_limit
            total -= int((~keep).sum())
            rows, scores = rows[keep], scores[keep]
    return Ranked(rows, scores, total, matched)


def _scores(scores: np.ndarray) -> np.ndarray:
    return np.where(np.isnan(scores), -np.inf, scores)


def _best(scores: np.ndarray, count: int) -> np.ndarray:
    """Indices of the greatest scores, in descending order."""
    return np.argsort(-scores, kind="stable")[:count]


def _rescaled(scores: np.ndarray, best: np.ndarray, again: np.ndarray) -> np.ndarray:
    """All scores after some were computed anew: where the worst of those fell, the rest is moved below it
    (first_phase_rescorer.cpp, RangeAdjuster.java)."""
    new = scores.copy()
    if len(best) and len(best) < len(scores):
        before, after = scores[best], again
        if before.min() > after.min():
            scale = max(1.0, after.max() - after.min()) / max(1.0, before.max() - before.min())
            new = scores * scale + (after.min() - before.min() * scale)
    new[best] = again
    return new
