"""YQL text to `ast.Query`: what the raw operators mean (YqlParser.java)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from ..errors import unsupported
from ..grouping.ast import GroupingError, GroupingRequest
from ..grouping.parse import parse_grouping
from . import ast
from .errors import YqlError
from .parameters import read_list, read_weighted_set
from .raw import Raw, RawStatement, parse_raw, split_pipe

_DEFAULT_HITS = 10
_INT = 1 << 31  # annotations are Java's Integer
_BOUNDS = {None: (True, True), "open": (False, False), "leftOpen": (False, True), "rightOpen": (True, False)}
_FLIPPED = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "=": "="}
_OF_LEAVES: dict[str, type] = {
    "id": int, "label": str, "ranked": bool, "significance": float, "stem": bool, "weight": int,
}  # fmt: skip
_OF_TEXTS = dict.fromkeys(("all", "any", "raw", "segment", "web"), ()) | dict.fromkeys(("near", "oNear"), ("distance",))
_TYPES: dict[type, str] = {bool: "a boolean", int: "an integer", float: "a number", str: "a string"}


def parse_yql(yql: str, parameters: Mapping[str, Any]) -> ast.Query:
    """The statement, with every `@name` looked up in the request's parameters. userQuery() takes `model.queryString`
    or `query` from there, `model.type` and `model.defaultIndex` with it.

    Raises YqlError: syntax, an unknown operator or annotation value, a missing parameter, too deep nesting."""
    statement, pipe = split_pipe(yql)
    raw = parse_raw(statement)
    if raw.where is None:
        raise YqlError("Expected operator FILTER: the statement has no 'where'")
    if not raw.sources:
        raise YqlError("Argument 0 of FILTER must not be null: the statement has no 'from'")
    reader = _Reader(parameters)
    where = reader.node(raw.where, {})
    hits, offset = reader.window(raw)
    timeout = reader.whole(raw.timeout, "timeout")
    return ast.Query(
        fields=raw.fields,
        sources=() if raw.sources == ("*",) else raw.sources,
        where=where,
        order_by=tuple(reader.order(*entry) for entry in raw.order),
        hits=hits,
        offset=offset,
        timeout=None if timeout is None else timeout / 1000,
        grouping=_grouping(pipe),
    )


def _grouping(pipe: str | None) -> tuple[GroupingRequest, ...]:
    if pipe is None:
        return ()
    try:
        return parse_grouping(pipe)
    except GroupingError as error:
        raise YqlError(str(error)) from None


class Given(str):
    """Text of a request's parameter: it is read as what its place takes, where a literal must be of that type."""


class _Reader:
    """Turns raw operators into nodes. Annotations are inherited from the operators around (YqlParser.getAnnotation)."""

    def __init__(self, parameters: Mapping[str, Any]) -> None:
        self.parameters = parameters
        self.calls: dict[str, Callable[[Raw, ast.Annotations], ast.Node]] = {
            "dotProduct": self.weighted(ast.DotProduct),
            "nearestNeighbor": self.nearest_neighbor,
            "nonEmpty": lambda raw, annotations: ast.NonEmpty(
                self.node(self.one(raw), annotations), annotations=annotations
            ),
            "range": self.range,
            "rank": self.rank,
            "userInput": self.user_input,
            "userQuery": self.user_query,
            "wand": self.wand,
            "weakAnd": self.weak_and,
            "weightedSet": self.weighted(ast.WeightedSet),
        }
        self.leaves: dict[str, Callable[[Raw, str, ast.Annotations], ast.Node]] = {
            "equiv": self.equiv,
            "fuzzy": self.fuzzy,
            "near": self.near,
            "onear": self.near,
            "phrase": self.phrase,
            "sameElement": self.same_element,
            "text": self.text,
            "uri": lambda raw, name, annotations: ast.Uri(name, self.string(self.one(raw)), annotations=annotations),
        }

    # clauses

    def window(self, raw: RawStatement) -> tuple[int | None, int | None]:
        """Hits and offset; `limit` counts from the first hit, before the offset."""
        limit, offset = self.whole(raw.limit, "limit"), self.whole(raw.offset, "offset")
        if limit is None:
            return (None, None) if offset is None else (_DEFAULT_HITS, offset)
        hits = limit - (offset or 0)
        if hits < 0 <= limit:
            raise YqlError(f"limit {limit} is below the offset {offset}: limit counts hits from the first one")
        return hits, offset or 0

    def order(self, name: str, ascending: bool, written: dict[str, Raw]) -> ast.OrderBy:
        annotations = self.read_annotations(written, {})
        function = self.annotation(annotations, "function", str)
        if function not in (None, "lowercase", "raw", "uca"):
            raise YqlError(f"Expected lowercase, raw or uca, got {function}.")
        return ast.OrderBy(name, ascending, function, annotations)

    # expressions

    def node(self, raw: Raw, around: ast.Annotations, field: str | None = None) -> ast.Node:
        """The node of an expression; `field` is set inside sameElement."""
        annotations = self.read_annotations(raw.annotations, around)
        match raw.operator:
            case "and" | "or":
                children = tuple(self.node(child, annotations, field) for child in raw.arguments)
                return (ast.And if raw.operator == "and" else ast.Or)(children, annotations=annotations)
            case "not":
                return ast.Not(self.node(raw.arguments[0], annotations, field), annotations=annotations)
            case "literal" if isinstance(raw.arguments[0], bool):
                return ast.Always(raw.arguments[0], annotations=annotations)
            case "literal" | "parameter" if field is not None:
                return self.word(raw, "", annotations)
            case "contains":
                return self.leaf(raw.arguments[1], self.field(raw.arguments[0]), annotations)
            case "matches":
                value = raw.arguments[1]
                inner = self.read_annotations(value.annotations, annotations)
                return ast.Regex(self.field(raw.arguments[0]), self.string(value), annotations=inner)
            case "=" | "<" | "<=" | ">" | ">=":
                return self.compare(raw, annotations)
            case "in":
                return self.contained(raw, annotations)
            case "call":
                if raw.name in self.calls:
                    return self.calls[raw.name](raw, annotations)
                if field is not None:
                    return self.leaf(raw, "", annotations)
                raise YqlError(f"Expected {', '.join(sorted(self.calls))}, got {raw.name}.")
        raise YqlError(f"'{raw.operator}' is not an operator that a query can have here")

    def leaf(self, raw: Raw, name: str, around: ast.Annotations) -> ast.Node:
        """What follows `contains`."""
        annotations = self.read_annotations(raw.annotations, around)
        if raw.operator in ("literal", "parameter"):
            return self.word(raw, name, annotations)
        if raw.operator == "call" and raw.name in self.leaves:
            return self.leaves[raw.name](raw, name, annotations)
        got = raw.name if raw.operator == "call" else raw.operator
        raise YqlError(f"Expected a string, {', '.join(sorted(self.leaves))}, got {got}.")

    def word(self, raw: Raw, name: str, annotations: ast.Annotations) -> ast.Word:
        annotations = self.read_annotations(raw.annotations, annotations)
        text = self.not_empty(raw)
        kinds = [kind for kind in ("prefix", "suffix", "substring") if self.annotation(annotations, kind, bool)]
        if len(kinds) > 1:
            raise YqlError("Only one of prefix, substring and suffix can be set.")
        return ast.Word(name, text, kinds[0] if kinds else "word", annotations=annotations)

    def phrase(self, raw: Raw, name: str, annotations: ast.Annotations) -> ast.Node:
        return ast.Phrase(name, self.words(raw), annotations=annotations)

    def near(self, raw: Raw, name: str, annotations: ast.Annotations) -> ast.Node:
        distance = self.annotation(annotations, "distance", int)
        if distance is not None and distance < 0:
            raise YqlError(f"Can not use negative distance {distance}")
        ordered = raw.name == "onear"
        return ast.Near(name, self.words(raw), 2 if distance is None else distance, ordered, annotations=annotations)

    def words(self, raw: Raw) -> tuple[str, ...]:
        for argument in raw.arguments[1]:
            if argument.operator not in ("literal", "parameter"):
                raise YqlError(f"{raw.name} takes words here, not {argument.operator}: that is not supported")
        return tuple(self.not_empty(argument) for argument in raw.arguments[1])

    def not_empty(self, raw: Raw) -> str:
        text = self.string(raw)
        if not text:
            raise YqlError("The word of a word item cannot be empty")
        return text

    def equiv(self, raw: Raw, name: str, annotations: ast.Annotations) -> ast.Node:
        arguments = raw.arguments[1]
        if len(arguments) < 2:
            raise YqlError(f"Expected 2 or more arguments, got {len(arguments)}.")
        for argument in arguments:
            if argument.operator == "call" and argument.name != "phrase":
                raise YqlError(f"Expected function 'phrase', got '{argument.name}'.")
        return ast.Equiv(
            name, tuple(self.leaf(argument, name, annotations) for argument in arguments), annotations=annotations
        )

    def fuzzy(self, raw: Raw, name: str, annotations: ast.Annotations) -> ast.Node:
        distance, length = (
            self.annotation(annotations, "maxEditDistance", int),
            self.annotation(annotations, "prefixLength", int),
        )
        return ast.Fuzzy(
            name,
            self.string(self.one(raw)),
            2 if distance is None else distance,
            length or 0,
            bool(self.annotation(annotations, "prefix", bool)),
            annotations=annotations,
        )

    def same_element(self, raw: Raw, name: str, annotations: ast.Annotations) -> ast.Node:
        return ast.SameElement(
            name, tuple(self.node(a, annotations, name) for a in raw.arguments[1]), annotations=annotations
        )

    def text(self, raw: Raw, name: str, annotations: ast.Annotations) -> ast.Node:
        return self.input(raw, annotations, self.annotation(annotations, "grammar", str) or "linguistics", name)

    def user_input(self, raw: Raw, annotations: ast.Annotations) -> ast.Node:
        return self.input(
            raw,
            annotations,
            self.annotation(annotations, "grammar", str),
            self.annotation(annotations, "defaultIndex", str),
        )

    def input(self, raw: Raw, annotations: ast.Annotations, grammar: str | None, index: str | None) -> ast.UserInput:
        return ast.UserInput(
            self.string(self.one(raw)),
            grammar or "weakAnd",
            index or "default",
            self.annotation(annotations, "language", str),
            bool(self.annotation(annotations, "allowEmpty", bool)),
            annotations=self.annotations_of_text(annotations, grammar),
        )

    def user_query(self, raw: Raw, annotations: ast.Annotations) -> ast.Node:
        text = self.parameters.get("model.queryString", self.parameters.get("query"))
        grammar = self.parameters.get("model.type", self.parameters.get("type"))
        index = self.parameters.get("model.defaultIndex", self.parameters.get("default-index"))
        if text is None or not str(text).strip():
            return ast.And((), annotations=annotations)  # no query at all
        prefix = "model.type."
        parts = {"grammar." + k[len(prefix) :]: v for k, v in self.parameters.items() if k.startswith(prefix)}
        annotations = {**annotations, **parts}
        return ast.UserInput(
            str(text),
            None if grammar is None else str(grammar),
            None if index is None else str(index),
            annotations=self.annotations_of_text(annotations, None if grammar is None else str(grammar)),
        )

    def rank(self, raw: Raw, annotations: ast.Annotations) -> ast.Node:
        if not raw.arguments[1]:
            return ast.And((), annotations=annotations)  # no query at all
        first, *others = (self.node(argument, annotations) for argument in raw.arguments[1])
        return ast.Rank(first, tuple(others), annotations=annotations)

    def weak_and(self, raw: Raw, annotations: ast.Annotations) -> ast.Node:
        children = tuple(self.node(argument, annotations) for argument in raw.arguments[1])
        return ast.WeakAnd(children, self.target_hits(annotations), annotations=annotations)

    def nearest_neighbor(self, raw: Raw, annotations: ast.Annotations) -> ast.Node:
        field, query = self.arguments(raw, 2)
        approximate = self.annotation(annotations, "approximate", bool)
        return ast.NearestNeighbor(
            self.field(field),
            self.field(query),
            target_hits=self.target_hits(annotations, total=False),
            total_target_hits=self.annotation(annotations, "totalTargetHits", int),
            approximate=True if approximate is None else approximate,
            distance_threshold=self.annotation(annotations, "distanceThreshold", float),
            explore_additional_hits=self.annotation(annotations, "hnsw.exploreAdditionalHits", int) or 0,
            label=self.annotation(annotations, "label", str),
            annotations=annotations,
        )

    def weighted(self, kind: type[ast.WeightedSet] | type[ast.DotProduct]) -> Callable[..., ast.Node]:
        def build(raw: Raw, annotations: ast.Annotations) -> ast.Node:
            field, tokens = self.arguments(raw, 2)
            return kind(self.field(field), self.tokens(tokens), annotations=annotations)

        return build

    def wand(self, raw: Raw, annotations: ast.Annotations) -> ast.Node:
        field, tokens = self.arguments(raw, 2)
        boost = self.annotation(annotations, "thresholdBoostFactor", float)
        return ast.Wand(
            self.field(field),
            self.tokens(tokens),
            self.target_hits(annotations) or 10,
            self.annotation(annotations, "scoreThreshold", float) or 0.0,
            1.0 if boost is None else boost,
            annotations=annotations,
        )

    def tokens(self, raw: Raw) -> tuple[tuple[str | int, int], ...]:
        if raw.operator == "parameter":
            return tuple(read_weighted_set(self.parameter(raw)))
        pairs: list[tuple[Any, Any]] = []
        if raw.operator == "map":
            pairs = [(key, self.constant(value)) for key, value in zip(*raw.arguments, strict=True)]
        elif raw.operator == "array":
            for item in raw.arguments:
                pair = self.constant(item)
                if not isinstance(pair, list) or len(pair) != 2 or not _is_whole(pair[0]):
                    raise YqlError(f"Expected item and weight, got {pair}.")
                pairs.append((pair[0], pair[1]))
        else:
            raise YqlError(f"Expected ARRAY or MAP, got {raw.operator}.")
        for token, weight in pairs:
            if not _is_whole(weight):
                raise YqlError(f"The weight of '{token}' is an integer, not {weight}")
        return tuple(pairs)

    # numbers

    def compare(self, raw: Raw, annotations: ast.Annotations) -> ast.Node:
        left, right = raw.arguments
        operator = raw.operator
        if left.operator != "reference":
            left, right, operator = right, left, _FLIPPED[operator]
        if left.operator != "reference" or right.operator not in ("literal", "parameter", "negative"):
            raise YqlError(
                f"Expected a field and a number, got {raw.arguments[0].operator} and {raw.arguments[1].operator}."
            )
        annotations = self.read_annotations(right.annotations, annotations)
        if operator == "=" and right.operator in ("parameter", "literal"):
            text = self.parameter(right) if right.operator == "parameter" else right.arguments[0]
            if str(text).lower() in ("true", "false"):
                return ast.Equals(left.name, str(text).lower() == "true", annotations=annotations)
        number = self.number(right)
        if operator == "=":
            return ast.Equals(left.name, number, annotations=annotations)
        low, high = (-math.inf, number) if operator in ("<", "<=") else (number, math.inf)
        closed = operator in ("<=", ">=")
        return ast.Range(left.name, low, high, closed, closed, self.hit_limit(annotations), annotations=annotations)

    def range(self, raw: Raw, annotations: ast.Annotations) -> ast.Node:
        field, low, high = self.arguments(raw, 3)
        bounds = self.annotation(annotations, "bounds", str)
        if bounds not in _BOUNDS:
            raise YqlError(f"Expected open, leftOpen or rightOpen, got {bounds}.")
        limits = self.bound(low), self.bound(high)
        return ast.Range(
            self.field(field), *limits, *_BOUNDS[bounds], self.hit_limit(annotations), annotations=annotations
        )

    def bound(self, raw: Raw) -> float | int:
        sign, inner = (-1, raw.arguments[0]) if raw.operator == "negative" else (1, raw)
        if inner.operator == "reference" and inner.name == "Infinity":
            return sign * math.inf
        if inner.operator == "reference":
            raise YqlError(f"Expected a numerical argument (or 'Infinity') to range but got '{inner.name}'")
        return sign * self.number(inner)

    def number(self, raw: Raw) -> float | int:
        if raw.operator == "negative":
            return -self.number(raw.arguments[0])
        value = self.parameter(raw) if raw.operator == "parameter" else raw.arguments[0]
        if isinstance(value, str):
            try:
                return int(value)
            except ValueError:
                pass
            try:
                return float(value)
            except ValueError:
                raise YqlError(f"'{value}' is not a number") from None
        if isinstance(value, bool) or not isinstance(value, (int, float)) or abs(value) == math.inf:
            raise YqlError(f"'{value}' is not a number")
        if isinstance(value, int) and not -(1 << 63) <= value < 1 << 63:
            raise YqlError(f'For input string: "{value}"')
        return value

    def contained(self, raw: Raw, annotations: ast.Annotations) -> ast.Node:
        values: list[Any] = []
        for item in raw.arguments[1]:
            if item.operator == "parameter":
                given = self.parameters.get(item.name)  # one that is not set is an empty list
                values += map(Given, [] if given is None else read_list(given))
            else:
                values.append(item.arguments[0])
        if any(isinstance(v, (bool, float)) for v in values):
            raise YqlError("The in operator takes strings or integers")
        return ast.In(self.field(raw.arguments[0]), tuple(values), annotations=annotations)

    # details

    def arguments(self, raw: Raw, count: int) -> tuple[Raw, ...]:
        found = raw.arguments[1]
        if len(found) != count:
            raise YqlError(f"Expected {count} arguments, got {len(found)}.")
        return found

    def one(self, raw: Raw) -> Raw:
        return self.arguments(raw, 1)[0]

    def field(self, raw: Raw) -> str:
        if raw.operator == "reference":
            return raw.name
        if raw.operator == "literal" and isinstance(raw.arguments[0], str):
            return raw.arguments[0]
        if raw.operator == "parameter":
            return str(self.parameter(raw))
        raise YqlError(f"Expected a name, got {raw.operator}.")

    def string(self, raw: Raw) -> str:
        if raw.operator == "parameter":
            value = self.parameter(raw)
            return str(value).lower() if isinstance(value, bool) else str(value)
        if raw.operator == "literal" and isinstance(raw.arguments[0], str):
            return raw.arguments[0]
        raise YqlError(f"Expected a string, got {raw.arguments[0] if raw.operator == 'literal' else raw.operator}.")

    def parameter(self, raw: Raw) -> Any:
        if self.parameters.get(raw.name) is None:
            raise YqlError(f"Input '{raw.name}' is not set")
        return self.parameters[raw.name]

    def whole(self, value: Any, name: str) -> int | None:
        if value is None:
            return None
        try:
            number = int(self.parameter(value) if isinstance(value, Raw) else value)
        except ValueError:
            raise YqlError(f"{name} takes an integer") from None
        return number

    def constant(self, raw: Raw) -> Any:
        if raw.operator == "literal":
            return raw.arguments[0]
        if raw.operator == "array":
            return [self.constant(item) for item in raw.arguments]
        if raw.operator == "map":
            return {key: self.constant(value) for key, value in zip(*raw.arguments, strict=True)}
        if raw.operator == "parameter":
            value = self.parameter(raw)
            return Given(value) if isinstance(value, str) else value
        raise YqlError(f"Expected a constant, got {raw.operator}.")

    def read_annotations(self, written: Mapping[str, Raw], around: ast.Annotations) -> ast.Annotations:
        if not written:
            return around
        own = {key: value for key, raw in written.items() if (value := self.constant(raw)) is not None}
        if "connectivity" in own:  # it changes nativeProximity
            raise YqlError(unsupported("the annotation 'connectivity'"))
        return {
            **around,
            **own,
            **{key: self.annotation(own, key, kind) for key, kind in _OF_LEAVES.items() if key in own},
        }

    def annotations_of_text(self, annotations: ast.Annotations, grammar: str | None) -> ast.Annotations:
        """With those checked that the operator takes which a user's text becomes."""
        names = _OF_TEXTS.get(grammar or "weakAnd", ("targetHits", "totalTargetHits"))
        return {
            **annotations,
            **{name: self.annotation(annotations, name, int) for name in names if name in annotations},
        }

    def annotation(self, annotations: ast.Annotations, key: str, kind: type) -> Any:
        """An annotation's value, checked; None where it is not set. A parameter's text is read as its kind."""
        value = annotations.get(key)
        if value is None:
            return None
        if isinstance(value, Given) and kind is not str:
            try:
                value = {"true": True, "false": False}[value] if kind is bool else kind(value)
            except (ValueError, KeyError):
                value = None
        if kind is float and isinstance(value, int) and not isinstance(value, bool) and value.bit_length() < 64:
            value = float(value)
        too_large = kind is int and isinstance(value, int) and not -_INT <= value < _INT
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)) or too_large:
            raise YqlError(f"Expected {_TYPES[kind]} for annotation '{key}', got {annotations[key]!r}.")
        return value

    def target_hits(self, annotations: ast.Annotations, *, total: bool = True) -> int | None:
        names = ("targetHits", "targetNumHits", "totalTargetHits") if total else ("targetHits", "targetNumHits")
        return next(
            (hits for hits in (self.annotation(annotations, name, int) for name in names) if hits is not None), None
        )

    def hit_limit(self, annotations: ast.Annotations) -> int | None:
        limit = self.annotation(annotations, "hitLimit", int)
        if limit is not None and (
            self.annotation(annotations, "descending", bool) or self.annotation(annotations, "ascending", bool) is False
        ):
            return -limit
        return limit


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
