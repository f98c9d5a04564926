"""nativeRank, Vespa's default ranking of text: field match, proximity and attribute match, as searchlib's
features/native* compute them with their default tables and weights."""

from __future__ import annotations

import math

import numpy as np

from ..deadline import NEVER, Deadline
from ..index.attributes import MultiColumn
from ..index.table import Table
from ..matching_terms import MatchedTerm

_X = np.arange(256)
FIRST_OCCURRENCE = 8000 * np.exp(-_X / 12.5)
OCCURRENCES = 1500 * np.log(1 + _X / 19) + 4000
FORWARD, REVERSE = 500 * np.exp(-_X / 3), 400 * np.exp(-_X / 3)
MIN_LENGTH, WINDOW, CONNECTED = 6, 4, 0.1
FIELD_MATCH, PROXIMITY, ATTRIBUTE_MATCH = 100, 25, 100
CORPUS = 1e6


def significance(term: MatchedTerm, total: int) -> float:
    """How rare a term is, 0.5 to 1 (calculate_legacy_significance)."""
    if term.significance is not None:
        return float(term.significance)
    frequency = max((h.document_frequency for h in term.hits.values()), default=0)
    scaled = min(max(1.0, frequency * CORPUS / max(1, total)), CORPUS)
    return 0.5 + 0.5 * (math.log(CORPUS) - math.log(scaled)) / math.log(CORPUS)


class NativeRank:
    """The native features of candidate rows. Raises OutOfTime."""

    def __init__(self, table: Table, terms: list[MatchedTerm], rows: np.ndarray, deadline: Deadline = NEVER) -> None:
        self.table, self.terms, self.rows, self.deadline = table, terms, rows, deadline

    def feature(self, name: str, fields: tuple[str, ...]) -> np.ndarray:
        """float64 [rows] of nativeRank, nativeFieldMatch, nativeProximity or nativeAttributeMatch, over some fields
        or all."""
        known = self.table.schema.fields.values()
        texts = [f.name for f in known if f.text and not f.filter and f.weight and (not fields or f.name in fields)]
        attributes = [f.name for f in known if f.attribute and f.weight and (not fields or f.name in fields)]
        match name:
            case "nativeFieldMatch":
                return self.field_match(texts)
            case "nativeProximity":
                return self.proximity(texts)
            case "nativeAttributeMatch":
                return self.attribute_match(attributes)
        parts = FIELD_MATCH * self.field_match(texts) + PROXIMITY * self.proximity(texts)
        parts += ATTRIBUTE_MATCH * self.attribute_match(attributes)
        return parts / (FIELD_MATCH + PROXIMITY + ATTRIBUTE_MATCH)

    def field_match(self, fields: list[str]) -> np.ndarray:
        """How early and how often the terms occur."""
        score, divisor = np.zeros(len(self.rows)), 0.0
        most = 0.5 * (FIRST_OCCURRENCE.max() + OCCURRENCES.max())
        for term in self.terms:
            self.deadline.check()
            weight = significance(term, self.table.count) * term.weight
            for name in fields:
                if name not in term.hits:
                    continue
                field_weight = self.table.schema.fields[name].weight
                divisor += weight * field_weight
                hits = term.hits[name]
                there, at = hits.at(self.rows)
                if not there.any():
                    continue
                length = np.maximum(MIN_LENGTH, self.table.texts[name].lengths[self.rows])
                first = np.where(there, hits.first[at], 0) * 255 // (length - 1)
                often = np.where(there, hits.counts[at], 0) * 255 // length
                boost = FIRST_OCCURRENCE[np.minimum(first, 255)] + OCCURRENCES[np.minimum(often, 255)]
                score += np.where(there, 0.5 * boost * field_weight / most * weight, 0.0)
        return score / divisor if divisor > 0 else score

    def proximity(self, fields: list[str]) -> np.ndarray:
        """How near to each other the terms occur, in pairs of at most WINDOW - 1 terms apart."""
        score, total_weight = np.zeros(len(self.rows)), 0
        most = 0.5 * (FORWARD.max() + REVERSE.max())
        for name in fields:
            terms = [t for t in self.terms if name in t.hits]
            pairs = [
                (a, b, (significance(a, self.table.count) * a.weight + significance(b, self.table.count) * b.weight)
                 * CONNECTED / (j - i))
                for i, a in enumerate(terms)
                for j, b in enumerate(terms)
                if i < j < i + WINDOW and (a.weight or b.weight)
            ]  # fmt: skip
            if not pairs:
                continue
            field_weight, divisor = self.table.schema.fields[name].weight, sum(p[2] for p in pairs)
            total_weight += field_weight
            for a, b, weight in pairs:
                self.deadline.check()
                score += (
                    self._pair(name, a, b) * weight / most * (field_weight / divisor if divisor > 0 else field_weight)
                )
        return score / total_weight if total_weight else score

    def _pair(self, name: str, a: MatchedTerm, b: MatchedTerm) -> np.ndarray:
        both = np.flatnonzero(a.hits[name].at(self.rows)[0] & b.hits[name].at(self.rows)[0])
        # rows without both count as infinitely far: the tables' last entries
        out = np.full(len(self.rows), 0.5 * (FORWARD[-1] + REVERSE[-1]))
        index = self.table.texts[name]

        def positions_of(term: MatchedTerm) -> tuple[list[list[int]], int]:
            each = [index.positions(words, self.rows[both]) for words in term.phrases[name]]
            return [sorted(p for part in lists for p in part) for lists in zip(*each, strict=True)], len(
                term.phrases[name][0]
            )

        if len(both) and a.phrases.get(name) and b.phrases.get(name):
            (first, first_length), (second, second_length) = positions_of(a), positions_of(b)
            for row, x, y in zip(both, first, second, strict=True):
                forward, reverse = _distance(x, y, first_length), _distance(y, x, second_length)
                out[row] = 0.5 * (FORWARD[min(max(forward - 1, 0), 255)] + REVERSE[min(max(reverse - 1, 0), 255)])
        return out

    def attribute_match(self, fields: list[str]) -> np.ndarray:
        """The weights of the attribute values that match, against the greatest in the table."""
        score, divisor = np.zeros(len(self.rows)), 0.0
        for term in self.terms:
            searched = {term.nearest.field: None} if term.nearest is not None else term.hits
            for name in searched:
                if name not in fields:
                    continue
                field = self.table.schema.fields[name]
                divisor += field.weight * term.weight
                rows = term.nearest.rows if term.nearest is not None else term.hits[name].rows
                there = np.isin(self.rows, rows)
                score += np.where(there, self._weights(term, name), 0.0) * field.weight * term.weight / 255
        return score / divisor if divisor > 0 else score

    def _weights(self, term: MatchedTerm, name: str) -> np.ndarray:
        column, field = self.table.columns[name], self.table.schema.fields[name]
        ones = np.ones(len(self.rows))
        if not isinstance(column, MultiColumn) or field.type.collection != "weightedset" or field.filter:
            return ones
        wanted = {column.fold(v) for v in term.values}
        for i, row in enumerate(self.rows):
            matched = [w for k, w in dict(column.rows[row]).items() if column.fold(k) in wanted]
            ones[i] = float(np.clip(max(matched, default=1), -255, 255))
        return ones


def _distance(a: list[int], b: list[int], length: int) -> int:
    """The least way from the end of a term of `length` words to a later start of another
    (termdistancecalculator.cpp)."""
    best, i, j = 1_000_000, 0, 0
    while i < len(a) and j < len(b):
        if a[i] + length - 1 >= b[j]:
            j += 1
        else:
            best = min(best, b[j] - a[i] - length + 1)
            i += 1
    return best
