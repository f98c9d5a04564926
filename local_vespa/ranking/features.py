"""Rank features: one table of what exists, how it is written, its type (checked at deploy), and its values for the
candidates of a query.

A feature is added by one line of FEATURES: its name, how many arguments it takes, a function of its type and one of its
value.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from ..deadline import NEVER, Deadline
from ..errors import unsupported
from ..expressions import Evaluator, RankingError, Reference, Value, infer_type, parse_feature, string_number
from ..index.attributes import MultiColumn, StringColumn
from ..index.distance_metrics import NO_DISTANCE
from ..index.table import Table
from ..index.vector_index import VectorColumn
from ..matching_terms import MatchedTerm, NearestTerm
from ..package.rank_profiles import Profile
from ..package.schema import Field, Schema
from ..tensors import DOUBLE, Tensor, TensorType
from .native_rank import NativeRank
from .onnx_models import OnnxRunner, onnx_inputs, onnx_output

FRESH_SECONDS = 3 * 30 * 24 * 3600  # freshness's default maxAge
ONNX_BATCH = 1024  # candidates in one run of a model


@dataclass(frozen=True)
class RankContext:
    """What the features of one query over one document type are computed from."""

    table: Table
    profile: Profile
    terms: list[MatchedTerm]
    inputs: Mapping[str, Tensor]
    constants: Mapping[str, Tensor]
    onnx: Mapping[str, OnnxRunner]
    deadline: Deadline = NEVER  # of the answer
    soft: Deadline = NEVER  # of the first phase: what it has ranked by then is what was found


class Features:
    """The features of some candidate rows; `evaluator` evaluates the profile's expressions over them. `scores` are
    those of earlier phases, float64 [rows], by the name of their feature."""

    def __init__(self, context: RankContext, rows: np.ndarray, scores: Mapping[str, np.ndarray] | None = None) -> None:
        self.context, self.rows, self.scores = context, rows, scores or {}
        self.evaluator = Evaluator(context.profile.functions, self.resolve, len(rows))
        self._native: NativeRank | None = None

    def resolve(self, reference: Reference) -> Value:
        """The value of one feature. Raises RankingError."""
        return _known(reference, self.context.constants).value(self, reference)

    @property
    def native(self) -> NativeRank:
        """The native features, which share what they compute."""
        if self._native is None:
            context = self.context
            self._native = NativeRank(context.table, context.terms, self.rows, context.deadline)
        return self._native

    def attribute(self, name: str) -> Value:
        """attribute(name) of each row."""
        column = self.context.table.columns[name]
        if isinstance(column, StringColumn):
            return Value.scalar(np.array([string_number(text) for text in column.strings(self.rows)]))
        if isinstance(column, MultiColumn):
            raise RankingError(unsupported(f"attribute({name}) of an array or weighted set"))
        return column.feature(self.rows)

    def nearest(self, reference: Reference) -> list[tuple[NearestTerm, VectorColumn]]:
        """The query's nearestNeighbor terms that a feature names by their field or label, each with its column."""
        *by, name = reference.arguments
        found = []
        for term in self.context.terms:
            near = term.nearest
            if near is None or (term.label if by == ["label"] else near.field) != name:
                continue
            column = self.context.table.columns[near.field]
            assert isinstance(column, VectorColumn)
            found.append((near, column))
        return found


def first_phase(context: RankContext, rows: np.ndarray) -> np.ndarray:
    """First-phase scores, float64 [rows]: of nativeRank where there is no expression. NaN and infinities of both signs
    are the lowest (match_thread.cpp)."""
    if not context.profile.ranks:
        return np.zeros(len(rows))
    if context.profile.first is None:
        return NativeRank(context.table, context.terms, rows, context.deadline).feature("nativeRank", ())
    scores = Features(context, rows).evaluator.evaluate(context.profile.first.expression).scores(len(rows))
    return np.where(np.isfinite(scores), scores, -np.inf)


# Types: what a package may write


@dataclass(frozen=True)
class Asked:
    """A feature where a package writes it: in which schema, profile and phase (first, second, global, match,
    summary)."""

    reference: Reference
    schema: Schema
    profile: Profile
    onnx: Mapping[str, OnnxRunner]
    phase: str

    @property
    def name(self) -> str:
        """The last argument."""
        return self.reference.arguments[-1]

    @property
    def field(self) -> Field | None:
        """The field of that name."""
        return self.schema.fields.get(self.name)

    def attribute(self) -> Field:
        """That field, which has to be an attribute."""
        if self.field is None or not self.field.attribute:
            raise self.error(f"'{self.name}' is not an attribute of schema '{self.schema.name}'")
        return self.field

    def error(self, problem: str) -> RankingError:
        return RankingError(f"rank feature {self.reference}: {problem}")


def feature_type(
    reference: Reference, schema: Schema, profile: Profile, onnx: Mapping[str, OnnxRunner], phase: str
) -> TensorType:
    """The type of a feature in a phase (first, second, global, match, summary). Raises RankingError for one that
    does not exist, or that this engine does not have."""
    if reference.output is not None and reference.name not in ("onnx", "onnxModel"):
        raise RankingError(unsupported(f"the output '{reference.output}' of the rank feature {reference}"))
    return _known(reference, profile.constants).type(Asked(reference, schema, profile, onnx, phase))


def _number(asked: Asked) -> TensorType:
    return DOUBLE


def _attribute_type(asked: Asked) -> TensorType:
    kind = asked.attribute().type
    if kind.collection:
        raise RankingError(unsupported(f"attribute({asked.name}) of type {kind} in rank expressions"))
    return kind.tensor or DOUBLE


def _query_type(asked: Asked) -> TensorType:
    declared = asked.profile.inputs.get(asked.name)
    return declared.type if declared else DOUBLE


def _constant_type(asked: Asked) -> TensorType:
    name = _constant_name(asked.reference)
    if name not in asked.profile.constants:
        raise asked.error(f"there is no constant '{name}'")
    return asked.profile.constants[name].type


def _matches_type(asked: Asked) -> TensorType:
    if asked.field is None:
        raise asked.error(f"'{asked.name}' is not an index field of schema '{asked.schema.name}'")
    return DOUBLE


def _bm25_type(asked: Asked) -> TensorType:
    if asked.field is None or not asked.field.text:
        raise asked.error(f"'{asked.name}' is not an index field of schema '{asked.schema.name}'")
    if not asked.field.bm25:
        raise RankingError(unsupported(f"{asked.reference} without 'index: enable-bm25' on the field"))
    return DOUBLE


def _nearness_type(asked: Asked) -> TensorType:
    *by, name = asked.reference.arguments
    if by == ["label"]:
        return DOUBLE
    if by not in ([], ["field"]):
        raise RankingError(unsupported(f"the rank feature {asked.reference}"))
    if asked.field is None or not asked.field.attribute or asked.field.type.tensor is None:
        raise asked.error(f"'{name}' is not a tensor attribute")
    return DOUBLE


def _raw_score_type(asked: Asked) -> TensorType:
    asked.attribute()
    return DOUBLE


def _moment_type(asked: Asked) -> TensorType:
    if asked.field is None or not asked.field.attribute or asked.field.type.scalar != "long":
        raise asked.error(f"'{asked.name}' is not a long attribute")
    return DOUBLE


def _native_type(asked: Asked) -> TensorType:
    for name in asked.reference.arguments:
        if name not in asked.schema.fields:
            raise asked.error(f"there is no field '{name}'")
    return DOUBLE


def _score_type(*phases: str) -> Callable[[Asked], TensorType]:
    """The score of an earlier phase: only in these phases."""

    def check(asked: Asked) -> TensorType:
        second = asked.reference.name == "secondPhase"
        if asked.phase not in phases or (second and asked.profile.second is None):
            where = " in first-phase" if asked.phase == "first" else ""
            raise RankingError(unsupported(f"the rank feature {asked.reference}{where}"))
        return DOUBLE

    return check


def _onnx_type(asked: Asked) -> TensorType:
    if asked.name not in asked.profile.onnx:
        raise asked.error(f"there is no onnx-model '{asked.name}'")
    model = asked.profile.onnx[asked.name]
    runner = asked.onnx[model.file]

    def type_of(reference: Reference) -> TensorType:
        return feature_type(reference, asked.schema, asked.profile, asked.onnx, asked.phase)

    sources = {
        name: infer_type(parse_feature(source), type_of, asked.profile.functions)
        for name, source in onnx_inputs(model, runner).items()
    }
    return runner.output_type(onnx_output(model, runner, asked.reference.output), sources)


# Values: float64 [rows], or a tensor each


def _query(features: Features, reference: Reference) -> Value:
    (name,), profile = reference.arguments, features.context.profile
    given = features.context.inputs.get(name)
    if given is None:
        declared = profile.inputs.get(name)
        given = Tensor.empty(DOUBLE) if declared is None else declared.default or Tensor.empty(declared.type)
    return Value.shared(given)


def _constant(features: Features, reference: Reference) -> Value:
    return Value.shared(features.context.constants[_constant_name(reference)])


def _constant_name(reference: Reference) -> str:
    """`constant(name)`, or the name alone."""
    return reference.arguments[0] if reference.arguments else reference.name


def _bm25(features: Features, reference: Reference) -> Value:
    (name,), table = reference.arguments, features.context.table
    hits = [term.hits[name] for term in features.context.terms if name in term.hits]
    return Value.scalar(table.texts[name].bm25(hits, features.rows, table.live, table.count))


def _matches(features: Features, reference: Reference) -> Value:
    (name,) = reference.arguments
    found = np.zeros(len(features.rows), bool)
    for term in features.context.terms:
        if name in term.hits:
            found |= np.isin(features.rows, term.hits[name].rows)
    return Value.scalar(found.astype(np.float64))


def _distance(features: Features, reference: Reference) -> Value:
    """To the nearest of the query's vectors, for every candidate, found by the operator or not."""
    best = np.full(len(features.rows), NO_DISTANCE)
    for near, column in features.nearest(reference):
        best = np.minimum(best, column.distances(near.vector, features.rows)[0])
    return Value.scalar(best)


def _closeness(features: Features, reference: Reference) -> Value:
    """As `_distance`; 0 where no vector of the query is meant."""
    found = [column.distances(near.vector, features.rows)[1] for near, column in features.nearest(reference)]
    return Value.scalar(np.maximum.reduce(found) if found else np.zeros(len(features.rows)))


def _raw_score(features: Features, reference: Reference) -> Value:
    """What the operators on a field, or with a label, gave the rows that they found."""
    scores, by_label = np.zeros(len(features.rows)), reference.name == "itemRawScore"
    if by_label:
        reference = Reference(reference.name, ("label", *reference.arguments))
    for near, column in features.nearest(reference):
        closeness = column.distances(near.vector, features.rows)[1]
        scores += np.where(np.isin(features.rows, near.rows), closeness, 0.0)
    for term in features.context.terms:
        for field, own in term.scores.items():
            if (term.label if by_label else field) == reference.arguments[-1]:
                scores += own[features.rows]
    return Value.scalar(scores)


def _now(features: Features, reference: Reference) -> Value:
    return Value.scalar(float(int(time.time())))


def _age(features: Features, reference: Reference) -> Value:
    moments = features.attribute(reference.arguments[0]).scores(len(features.rows))
    return Value.scalar(np.maximum(0.0, int(time.time()) - moments))


def _freshness(features: Features, reference: Reference) -> Value:
    age = _age(features, reference).scores(len(features.rows))
    return Value.scalar(np.maximum(0.0, 1 - age / FRESH_SECONDS))


def _native(features: Features, reference: Reference) -> Value:
    return Value.scalar(features.native.feature(reference.name, reference.arguments))


def _score(features: Features, reference: Reference) -> Value:
    """The score of an earlier phase: as it was given, or computed (for match- and summary-features)."""
    name, profile, n = reference.name, features.context.profile, len(features.rows)
    if name in features.scores:
        return Value.scalar(features.scores[name])
    if name == "secondPhase":
        assert profile.second is not None
        earlier = Features(features.context, features.rows, features.scores)
        return Value.scalar(earlier.evaluator.evaluate(profile.second.expression).scores(n))
    return Value.scalar(first_phase(features.context, features.rows))


def _onnx(features: Features, reference: Reference) -> Value:
    """A model's output: once where no input depends on the document, else for all candidates in batches.

    An input is [1 | candidates, *its own shape]. A model whose own first dimension is open takes the candidates of a
    batch on it; any other model runs once a candidate."""
    model = features.context.profile.onnx[reference.arguments[0]]
    runner = features.context.onnx[model.file]
    inputs = {
        name: features.evaluator.feature(parse_feature(source)) for name, source in onnx_inputs(model, runner).items()
    }
    output = onnx_output(model, runner, reference.output)
    kind = runner.output_type(output, {n: v.type for n, v in inputs.items()})
    if all(len(v.cells) == 1 for v in inputs.values()):
        found = runner.run({n: v.cells[0] for n, v in inputs.items()}, [output])[output]
        return Value.shared(Tensor.dense(kind, found.reshape(kind.shape)))
    n = len(features.rows)
    if n == 0:
        return Value.dense(kind, np.empty((0, *kind.shape), kind.dtype))
    if runner.batches() and all(v.cells.shape[1] == 1 for v in inputs.values()):
        stacked = {k: np.broadcast_to(v.cells, (n, *v.cells.shape[1:]))[:, 0] for k, v in inputs.items()}
        batches = [slice(start, start + ONNX_BATCH) for start in range(0, n, ONNX_BATCH)]
        parts = [runner.run({k: v[batch] for k, v in stacked.items()}, [output])[output] for batch in batches]
        return Value.dense(kind, np.concatenate(parts).reshape(n, *kind.shape))
    each = [
        runner.run({k: v.cells[i if len(v.cells) > 1 else 0] for k, v in inputs.items()}, [output])[output]
        for i in range(n)
    ]
    return Value.dense(kind, np.stack(each).reshape(n, *kind.shape))


# The table


@dataclass(frozen=True)
class RankFeature:
    """One rank feature. `type` raises RankingError for arguments that are wrong in a package; `value` is its value for
    all rows of a `Features`."""

    arguments: range
    type: Callable[[Asked], TensorType]
    value: Callable[[Features, Reference], Value]


_NONE, _ONE, _ANY = range(1), range(1, 2), range(1 << 16)
_CONSTANT = RankFeature(_ONE, _constant_type, _constant)
_ONNX = RankFeature(_ONE, _onnx_type, _onnx)
_NATIVE = RankFeature(_ANY, _native_type, _native)
FEATURES: dict[str, RankFeature] = {
    "age": RankFeature(_ONE, _moment_type, _age),
    "attribute": RankFeature(_ONE, _attribute_type, lambda features, asked: features.attribute(asked.arguments[0])),
    "bm25": RankFeature(_ONE, _bm25_type, _bm25),
    "closeness": RankFeature(range(1, 3), _nearness_type, _closeness),
    "constant": _CONSTANT,
    "distance": RankFeature(range(1, 3), _nearness_type, _distance),
    "firstPhase": RankFeature(_NONE, _score_type("second", "global", "match", "summary"), _score),
    "freshness": RankFeature(_ONE, _moment_type, _freshness),
    "itemRawScore": RankFeature(_ONE, _number, _raw_score),
    "matches": RankFeature(_ONE, _matches_type, _matches),
    "nativeAttributeMatch": _NATIVE,
    "nativeFieldMatch": _NATIVE,
    "nativeProximity": _NATIVE,
    "nativeRank": _NATIVE,
    "now": RankFeature(_NONE, _number, _now),
    "onnx": _ONNX,
    "onnxModel": _ONNX,
    "query": RankFeature(_ONE, _query_type, _query),
    "rawScore": RankFeature(_ONE, _raw_score_type, _raw_score),
    "relevanceScore": RankFeature(_NONE, _score_type("global"), _score),
    "secondPhase": RankFeature(_NONE, _score_type("global", "match", "summary"), _score),
}


def _known(reference: Reference, constants: Mapping[str, object]) -> RankFeature:
    """The entry of a feature; a constant may be written by its name alone. Raises RankingError."""
    if not reference.arguments and reference.name in constants:
        return _CONSTANT
    found = FEATURES.get(reference.name)
    if found is None or len(reference.arguments) not in found.arguments:
        raise RankingError(unsupported(f"the rank feature {reference}"))
    return found
