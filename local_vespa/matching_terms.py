"""The terms of a query: what ranking knows of each, and which rows one matches in one field."""

from __future__ import annotations

import heapq
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from . import yql
from .errors import ILLEGAL_QUERY, INVALID_PARAMETER, QueryError, unsupported
from .index.analysis import Hits, normalized, tokens, union
from .index.attributes import MultiColumn, NumberColumn, StringColumn
from .index.table import Table
from .index.text_index import TextIndex
from .package.schema import Field
from .patterns import FuzzyMatcher, Pattern, PatternError
from .yql.languages import language_of

_RANGE = re.compile(r"([\[<])\s*(-?[\d.eE+]*)\s*;\s*(-?[\d.eE+]*)\s*([\]>])")
_LIMIT = re.compile(r"([<>])(=?)\s*(-?[\d.][\d.eE+-]*)")


@dataclass
class MatchedTerm:
    """A term of the query that ranks: its hits in each field it searches. `nearest` is set for a nearestNeighbor."""

    hits: dict[str, Hits] = field(default_factory=dict)
    label: str | None = None
    weight: int = 100
    significance: float | None = None
    values: tuple[str | int | float, ...] = ()  # what it looks for in attributes
    scores: dict[str, np.ndarray] = field(default_factory=dict)  # raw scores of all rows, of weighted operators
    phrases: dict[str, list[tuple[str, ...]]] = field(default_factory=dict)  # what it looks for in each text field
    nearest: NearestTerm | None = None
    words: list[MatchedTerm] = field(default_factory=list)  # of near and onear: each word ranks as a term of its own

    def confine(self, mask: np.ndarray) -> None:
        """Lets it rank in some rows (bool [rows]) alone; it is as frequent as before."""
        self.hits = {name: hits.within(mask) for name, hits in self.hits.items()}
        self.scores = {name: np.where(mask, scores, 0.0) for name, scores in self.scores.items()}
        if self.nearest is not None:
            self.nearest = replace(self.nearest, rows=self.nearest.rows[mask[self.nearest.rows]])
        for word in self.words:
            word.confine(mask)


@dataclass(frozen=True)
class NearestTerm:
    """A nearestNeighbor of the query: its field and vector."""

    field: str
    vector: np.ndarray
    rows: np.ndarray


class TermMatcher:
    """Matches leaves of a query in the fields of one table. `language` is that of words that name none."""

    def __init__(self, table: Table, language: str = yql.ENGLISH) -> None:
        self.table, self.language = table, language
        self._known: dict[tuple[str, tuple[str, ...]], Hits] = {}  # by field and words: a long text repeats its words

    def in_field(self, node: yql.Term, searched: Field, term: MatchedTerm) -> Hits:
        """The rows that a leaf matches in a field; what ranking asks for is noted in its term. Raises QueryError."""
        if searched.text:
            return self._in_text(node, searched, term)
        if searched.attribute and searched.type.tensor is None:
            rows = np.flatnonzero(self._in_attribute(node, searched, term) & self.table.live)
            return Hits.once(rows)
        raise QueryError(
            INVALID_PARAMETER,
            f"Could not create query from YQL: Field '{searched.name}' is neither an index nor an attribute that can "
            "be searched",
        )

    def _in_text(self, node: yql.Term, searched: Field, term: MatchedTerm) -> Hits:
        index = self.table.texts[searched.name]
        stemming = index.stemming and node.annotations.get("stem", True) is not False
        language = self._language(node)

        def words(*texts: str) -> tuple[str, ...]:
            if language == yql.UNKNOWN:  # words are neither split nor stemmed
                return tuple(normalized(text, False, index.normalizing) for text in texts)
            return tuple(t for text in texts for t in tokens(text, stemming, index.normalizing, language))

        match node:
            case yql.Word(match="whole" | "prefix"):
                # A prefix too: a text index has no prefixes, and looks the letters up as a word.
                return self._phrase(index, (normalized(node.text, False, index.normalizing),), searched, term)
            case yql.Word() if node.match == "word" or len(words(node.text)) < 2:
                return self._phrase(index, words(node.text), searched, term)
            case yql.Range():
                return Hits.none()  # `<5` is looked up as a word, which no text has
            case yql.Phrase():
                return self._phrase(index, words(*node.words), searched, term)
            case yql.Near():
                return self._near(node, index, tuple(map(words, node.words)), searched, term)
            case yql.Equiv():
                return union([self._in_text(child, searched, term) for child in node.children])  # type: ignore[arg-type]
            case yql.In() | yql.WeightedSet():
                values = node.values if isinstance(node, yql.In) else tuple(t for t, _ in node.tokens)
                return union([self._phrase(index, words(str(v)), searched, term) for v in values])
            case yql.Equals():
                return self._phrase(index, words(str(node.value)), searched, term)
        if isinstance(node, yql.Fuzzy):
            problem = f"Fuzzy items require a string attribute field, but '{searched.name}' is not"
            raise QueryError(ILLEGAL_QUERY, problem)
        what = f"{type(node).__name__}" + (f" with match {node.match}" if isinstance(node, yql.Word) else "")
        raise QueryError(ILLEGAL_QUERY, unsupported(f"{what} on the index '{searched.name}'"))

    def _language(self, node: yql.Term) -> str:
        """The language of a leaf's words; a tag that Vespa does not know counts for nothing."""
        try:
            named = language_of(node.annotations.get("language"))
        except ValueError as e:
            raise QueryError(INVALID_PARAMETER, f"Could not create query from YQL: {e}") from e
        return self.language if named == yql.UNKNOWN else named

    def _phrase(self, index: TextIndex, words: tuple[str, ...], searched: Field, term: MatchedTerm) -> Hits:
        if not words:
            return Hits.none()
        term.phrases.setdefault(searched.name, []).append(words)
        known = self._known.get((searched.name, words))
        if known is None:
            known = self._known[searched.name, words] = index.phrase(words, self.table.live)
        return known

    def _near(
        self, node: yql.Near, index: TextIndex, parts: tuple[tuple[str, ...], ...], searched: Field, term: MatchedTerm
    ) -> Hits:
        """The rows; each part of it, a word or the phrase of one that is split, ranks as a term of its own where the
        whole matches."""
        if not all(parts):
            return Hits.none()
        rows = index.near(parts, node.distance, node.ordered, self.table.live)
        for ranked, part in zip(term.words, parts, strict=False):
            hits = index.phrase(part, self.table.live)
            keep = np.isin(hits.rows, rows)
            ranked.phrases[searched.name] = [part]
            frequency = hits.document_frequency
            ranked.hits[searched.name] = Hits(hits.rows[keep], hits.counts[keep], hits.first[keep], frequency)
        return Hits.once(rows)

    def _in_attribute(self, node: yql.Term, searched: Field, term: MatchedTerm) -> np.ndarray:
        column = self.table.columns[searched.name]
        assert isinstance(column, (NumberColumn, StringColumn, MultiColumn))
        numbers = searched.type.is_number
        match node:
            case yql.Word(match="word" | "whole"):
                text = node.text
                if node.annotations.get("linguistics"):
                    text = normalized(text, language=self._language(node))
                return self._number_word(column, text) if numbers else column.equal([text])  # type: ignore[union-attr]
            case yql.Word() if not numbers:
                text = column.fold(node.text)  # type: ignore[union-attr]
                test = {"prefix": str.startswith, "suffix": str.endswith, "substring": str.__contains__}[node.match]
                return column.where(lambda value: test(value, text))  # type: ignore[union-attr]
            case yql.Fuzzy() if not numbers:
                like = FuzzyMatcher(column.fold(node.text), node.max_edit_distance, node.prefix_length, node.prefix)  # type: ignore[union-attr]
                return column.where(like.is_near)  # type: ignore[union-attr]
            case yql.Phrase() if not numbers:
                return column.equal([" ".join(node.words)])  # type: ignore[union-attr]
            case yql.Equiv():
                parts = [self._in_attribute(child, searched, term) for child in node.children]  # type: ignore[arg-type]
                return np.logical_or.reduce(parts)
            case yql.In():
                return self._any_of(column, node.values, numbers)
            case yql.WeightedSet() | yql.DotProduct() | yql.Wand():
                return self._weighted(node, searched, term)
            case yql.Equals():
                if not numbers:
                    return column.equal([str(node.value)])  # type: ignore[union-attr]
                value = _exact(node.value)
                return column.between(value, value)  # type: ignore[union-attr]
            case yql.Range() if numbers:
                if node.hit_limit is not None:
                    raise QueryError(ILLEGAL_QUERY, unsupported("hitLimit on a range"))
                low, high = _exact(node.low), _exact(node.high)
                return column.between(low, high, node.low_inclusive, node.high_inclusive)  # type: ignore[union-attr]
            case yql.Range():
                return np.zeros(len(self.table.ids), bool)
            case yql.Regex() if not numbers:
                try:
                    return column.where(Pattern(node.pattern, not searched.cased).found_in)  # type: ignore[union-attr]
                except PatternError as e:
                    raise QueryError(INVALID_PARAMETER, f"Could not create query from YQL: {e}") from e
        raise QueryError(
            ILLEGAL_QUERY,
            unsupported(f"{type(node).__name__} on the attribute '{searched.name}' of type {searched.type}"),
        )

    def _weighted(
        self, node: yql.WeightedSet | yql.DotProduct | yql.Wand, searched: Field, term: MatchedTerm
    ) -> np.ndarray:
        """Rows with one token or more, and their raw scores: the sum of weights, times those of the document where
        it has some; of a weightedSet the greatest weight of the query. wand passes rows over as Vespa's does."""
        column, number = self.table.columns[searched.name], searched.type.is_number
        scores = np.zeros(len(self.table.ids))
        mask = np.zeros(len(self.table.ids), bool)
        for token, weight in node.tokens:
            found = self._number_word(column, str(token)) if number else column.equal([str(token)])  # type: ignore[union-attr]
            rows = np.flatnonzero(found & self.table.live)
            mask[rows] = True
            if isinstance(node, yql.WeightedSet):
                scores[rows] = np.maximum(scores[rows], weight)
            elif isinstance(column, MultiColumn) and searched.type.collection == "weightedset":
                key = column.fold(str(token)) if not number else int(token)
                own = ([w for k, w in dict(column.rows[row]).items() if column.fold(k) == key] for row in rows)
                scores[rows] += weight * np.array([sum(w) for w in own], np.float64)
            else:
                scores[rows] += weight
        if isinstance(node, yql.Wand):
            rows = np.flatnonzero(mask)
            threshold = node.score_threshold * node.threshold_boost_factor
            kept = beats_heap_threshold(scores[rows].tolist(), node.target_hits, threshold, strictly=True)
            mask = np.zeros_like(mask)
            mask[rows[kept]] = True
        term.scores[searched.name] = np.where(mask, scores, 0.0)
        return mask

    def _any_of(self, column: Any, values: Sequence[Any], numbers: bool) -> np.ndarray:
        if not numbers:
            return column.equal(values)
        exact = [_exact(v) for v in values]
        if isinstance(column, MultiColumn):
            return column.equal(exact)
        if column.integral:
            exact = [v for v in exact if isinstance(v, int)]
        return np.isin(column.values, np.array(exact, column.values.dtype)) & column.present

    def _number_word(self, column: Any, text: str) -> np.ndarray:
        """A word as a number: `7`, `true`, `<5`, `[1;5]`. What is none matches nothing."""
        text = text.strip()
        if text.lower() in ("true", "false") and column.field.type.scalar == "bool":
            return column.between(text.lower() == "true", text.lower() == "true")
        try:
            if found := _RANGE.fullmatch(text):
                low, high = _exact(found[2] or "-inf"), _exact(found[3] or "inf")
                return column.between(low, high, found[1] == "[", found[4] == "]")
            if found := _LIMIT.fullmatch(text):
                limit = _exact(found[3])
                low, high = (-np.inf, limit) if found[1] == "<" else (limit, np.inf)
                return column.between(low, high, bool(found[2]) or found[1] == "<", bool(found[2]) or found[1] == ">")
            return column.between(_exact(text), _exact(text))
        except ValueError:
            return np.zeros(len(self.table.ids), bool)


def _exact(value: str | float) -> float:
    """A number as it is compared. An integer of 64 bits stays one: as floats, long ids are equal to their neighbours.
    Raises ValueError for a text that is none."""
    try:
        value = int(value) if isinstance(value, str) else value
    except ValueError:
        return float(value)
    if isinstance(value, float) or -(1 << 63) <= value < 1 << 63:
        return value
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def beats_heap_threshold(scores: Sequence[float], target: int, threshold: float, strictly: bool) -> list[int]:
    """Indices of the scores that, seen in turn, reach the threshold (or lie above it, `strictly`); after every fourth
    of them it rises to the target-th best so far."""
    kept: list[int] = []
    heap: list[float] = []  # the best `target` scores that have been counted, least first
    waiting: list[float] = []
    for i, score in enumerate(scores):
        if score < threshold or (strictly and score <= threshold):
            continue
        kept.append(i)
        waiting.append(score)
        if len(waiting) == 4:
            for s in waiting:
                if len(heap) < target:
                    heapq.heappush(heap, s)
                elif heap:
                    heapq.heappushpop(heap, s)
            waiting = []
            if heap and len(heap) == target:
                threshold = max(threshold, heap[0])
    return kept
