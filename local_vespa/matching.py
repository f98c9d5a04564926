"""Runs the tree of a query on a table: which rows match, and the terms that rank features ask for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from . import yql
from .deadline import NEVER, Deadline
from .errors import ILLEGAL_QUERY, QueryError, unsupported
from .index.analysis import idf
from .index.table import Table
from .index.vector_index import VectorColumn
from .matching_terms import MatchedTerm, NearestTerm, TermMatcher, beats_heap_threshold
from .tensors import Tensor


@dataclass
class Matching:
    """The result: bool [rows] and the terms in the order of the query."""

    mask: np.ndarray
    terms: list[MatchedTerm]


SCHEMA_NAME = "sddocname"  # every document has its type's name in this field


class Matcher:
    """Matches one query on one table. `inputs` are its query tensors; `cluster` is named in errors; `language` is that
    of words that name none."""

    def __init__(
        self, table: Table, inputs: Mapping[str, Tensor], cluster: str, language: str = yql.ENGLISH,
        deadline: Deadline = NEVER,
    ) -> None:  # fmt: skip
        self.table, self.inputs, self.cluster, self.deadline = table, inputs, cluster, deadline
        self.terms: list[MatchedTerm] = []
        self._order: dict[int, MatchedTerm] = {}
        self._leaves = TermMatcher(table, language)

    def run(self, where: yql.Node) -> Matching:
        """Matches the tree. Raises QueryError, and OutOfTime."""
        self._collect(where)
        mask = self._match(where, self.table.live.copy(), True)
        return Matching(mask, self.terms)

    def _collect(self, node: yql.Node) -> None:
        """Makes the terms in the order in which they are written (matching visits them in another)."""
        if isinstance(node, yql.Not):
            return
        if isinstance(node, yql.Term):
            if node.annotations.get("ranked", True) is not False:
                term = self._order[id(node)] = self._made(node)
                if isinstance(node, yql.Near):
                    term.words = [self._made(node) for _ in node.words]
                self.terms += term.words or [term]
            return
        for child in yql.children(node):
            self._collect(child)

    @staticmethod
    def _made(node: yql.Term) -> MatchedTerm:
        single = getattr(node, "text", getattr(node, "value", None))
        return MatchedTerm(
            values=tuple(getattr(node, "values", ())) if single is None else (single,),
            label=node.annotations.get("label") or getattr(node, "label", None),
            weight=int(node.annotations.get("weight", 100)),
            significance=node.annotations.get("significance"),
        )

    def _match(self, node: yql.Node, allowed: np.ndarray, ranked: bool) -> np.ndarray:
        """bool [rows]: what the node matches among the allowed rows."""
        self.deadline.check()
        match node:
            case yql.Always():
                return allowed.copy() if node.value else np.zeros_like(allowed)
            case yql.And():
                return self._and(node.children, allowed, ranked)
            case yql.WeakAnd():
                return self._weak_and(node, allowed, ranked)
            case yql.Or():
                mask = np.zeros_like(allowed)
                for child in node.children:
                    mask |= self._alternative(child, allowed, ranked)
                return mask
            case yql.Not():
                return allowed & ~self._match(node.child, allowed, False)
            case yql.Rank():
                mask = self._match(node.first, allowed, ranked)
                for other in node.others:
                    self._alternative(other, allowed, ranked)
                return mask
            case yql.NonEmpty():
                return self._match(node.child, allowed, ranked)
            case yql.NearestNeighbor():
                return self._nearest(node, allowed)
            case yql.Term():
                return self._term(node) & allowed
        raise QueryError(ILLEGAL_QUERY, unsupported(f"the query operator {type(node).__name__}"))

    def _and(self, parts: tuple[yql.Node, ...], allowed: np.ndarray, ranked: bool) -> np.ndarray:
        """Filters first: a nearestNeighbor looks for its hits among what all other parts leave."""
        near = [part for part in parts if has_nearest(part)]
        for part in parts:
            if not has_nearest(part):
                allowed = self._match(part, allowed, ranked)
        found = [self._match(part, allowed, ranked) for part in near]
        return np.logical_and.reduce(found) if found else allowed

    def _alternative(self, node: yql.Node, allowed: np.ndarray, ranked: bool) -> np.ndarray:
        """What one of several branches matches. The words of a branch that wants all of them rank only where it
        matches, those of a weakAnd only where it has not passed the document over: Vespa unpacks no others."""
        mask = self._match(node, allowed, ranked)
        if isinstance(node, yql.And | yql.WeakAnd):
            for leaf in yql.leaves(node):
                if (term := self._order.get(id(leaf))) is not None:
                    term.confine(mask)
        return mask

    def _frequency(self, node: yql.Node, matched: np.ndarray) -> int:
        """How many documents Vespa expects a branch of a weakAnd to match."""
        match node:
            case yql.And():
                return min((self._frequency(child, matched) for child in node.children), default=0)
            case yql.Or():
                return min(self.table.count + 1, sum(self._frequency(child, matched) for child in node.children))
        term = self._order.get(id(node))
        hits = list(term.hits.values()) if term else []
        return hits[0].document_frequency if hits else int(np.count_nonzero(matched))

    def _weak_and(self, node: yql.WeakAnd, allowed: np.ndarray, ranked: bool) -> np.ndarray:
        """bool [rows]: like OR, but a row is passed over when its terms cannot lift it among the best
        (weak_and_search.cpp). Vespa's hits depend on the order in which it sees rows, so this sees them in the same
        one: that of their documents."""
        masks = [self._alternative(child, allowed, ranked) for child in node.children]  # bool [rows] a child
        mask = np.logical_or.reduce(masks) if masks else np.zeros_like(allowed)
        if len(masks) < 2:
            return mask

        # The score of a candidate, int64 [candidates]: the weights of its terms times their inverse document
        # frequency, in Vespa's fixed-point integers (a millionth, plus one so that no term counts for nothing). A
        # branch such as the AND of `t-shirt` has no weight.
        candidates = np.flatnonzero(mask)
        scores = np.zeros(len(candidates), np.int64)
        total = self.table.count + 1
        for child, found in zip(node.children, masks, strict=True):
            frequency = self._frequency(child, found)
            weight = int(child.annotations.get("weight", 100)) if isinstance(child, yql.Term) else 0
            scores += np.where(found[candidates], int(1e6 * weight * idf(frequency, total)) + 1, 0)

        # A candidate is a hit while its score reaches the threshold, which rises to the target-th best so far.
        target = 100 if node.target_hits is None else node.target_hits
        kept = candidates[beats_heap_threshold(scores.tolist(), target, 1, strictly=False)]
        passed = np.zeros_like(allowed)
        passed[kept] = True
        return passed

    def _nearest(self, node: yql.NearestNeighbor, allowed: np.ndarray) -> np.ndarray:
        target = node.target_hits if node.target_hits is not None else node.total_target_hits
        hits = f",targetHits={target}" if target is not None else ""
        what = f"NEAREST_NEIGHBOR {{field={node.field},queryTensorName={node.input}{hits}}}"
        known = self.table.schema.fields.get(node.field)
        mask = np.zeros_like(allowed)
        if known is None:
            return mask
        if not known.attribute:
            raise QueryError(ILLEGAL_QUERY, f"{what} field is not an attribute", self.cluster)
        if known.type.tensor is None:
            raise QueryError(ILLEGAL_QUERY, f"{what} field is not a tensor", self.cluster)
        if target is None:
            raise QueryError(ILLEGAL_QUERY, f"{what} must have either targetHits or totalTargetHits set", self.cluster)
        if target < 1:
            raise QueryError(ILLEGAL_QUERY, f"{what} has invalid targetHits {target}: Must be >= 1", self.cluster)
        column = self.table.columns[node.field]
        if not isinstance(column, VectorColumn):
            raise QueryError(ILLEGAL_QUERY, unsupported(f"nearestNeighbor over {known.type}"), self.cluster)
        tensor = self.inputs.get(node.input)
        if tensor is None:
            raise QueryError(
                ILLEGAL_QUERY,
                f"{what} requires a tensor rank feature named 'query({node.input})' but this is not present",
                self.cluster,
            )
        if tensor.type.dimensions != known.type.tensor.dimensions:
            raise QueryError(
                ILLEGAL_QUERY,
                f"{what} field type {known.type} does not match query type {tensor.type}",
                self.cluster,
            )
        vector = tensor.array
        rows = column.nearest(vector, target, allowed, node.approximate)
        if node.distance_threshold is not None and len(rows):
            distance, _ = column.distances(vector, rows)
            rows = rows[distance <= node.distance_threshold]
        if (term := self._order.get(id(node))) is not None:
            term.nearest = NearestTerm(node.field, vector, rows)
        mask[rows] = True
        return mask

    def _term(self, node: yql.Term) -> np.ndarray:
        """bool [rows] of a leaf, and its hits for ranking."""
        mask = np.zeros(len(self.table.ids), bool)
        if node.field == SCHEMA_NAME:
            return self.table.live & (getattr(node, "text", None) == self.table.schema.name)
        term = self._order.get(id(node)) or MatchedTerm()
        for searched in self.table.schema.searched(node.field) or ():
            hits = self._leaves.in_field(node, searched, term)
            term.hits[searched.name] = hits
            mask[hits.rows] = True
        if len(term.hits) > 1:  # a term of a fieldset is as frequent as it is in all its fields together
            total = min(self.table.count, sum(h.document_frequency for h in term.hits.values()))
            term.hits = {name: replace(h, frequency=total) for name, h in term.hits.items()}
        return mask & self.table.live


def has_nearest(node: yql.Node) -> bool:
    """Whether a nearestNeighbor is in the tree."""
    return isinstance(node, yql.NearestNeighbor) or any(map(has_nearest, yql.children(node)))
