"""Rank features: what exists (checked at deploy) and its values for the candidates of a query."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ..errors import DeployError, unsupported
from ..expressions import Evaluator, RankingError, Reference, Value, infer_type, parse_feature, string_number
from ..index.attributes import MultiColumn, StringColumn
from ..index.table import Table
from ..index.vector_index import NO_DISTANCE, VectorColumn
from ..matching import MatchedTerm, NearestTerm
from ..package.rank_profiles import Profile
from ..package.schema import OnnxModel, Schema
from ..tensors import DOUBLE, Tensor, TensorType
from .native_rank import NativeRank
from .onnx_models import OnnxRunner

SCORES = ("firstPhase", "secondPhase", "relevanceScore")
NATIVE = ("nativeRank", "nativeFieldMatch", "nativeProximity", "nativeAttributeMatch")
FRESH_SECONDS = 3 * 30 * 24 * 3600  # freshness's default maxAge


@dataclass(frozen=True)
class RankContext:
    """What the features of one query over one document type are computed from."""

    table: Table
    profile: Profile
    terms: list[MatchedTerm]
    inputs: Mapping[str, Tensor]
    constants: Mapping[str, Tensor]
    onnx: Mapping[str, OnnxRunner]


class Features:
    """The features of some candidate rows; `evaluator` evaluates the profile's expressions over them."""

    def __init__(self, context: RankContext, rows: np.ndarray, scores: Mapping[str, np.ndarray] | None = None) -> None:
        self.context, self.rows, self._scores = context, rows, scores or {}
        self.evaluator = Evaluator(context.profile.functions, self.resolve, len(rows))
        self._native: NativeRank | None = None

    def resolve(self, reference: Reference) -> Value:
        """The value of one feature. Raises RankingError."""
        name, arguments, context = reference.name, reference.arguments, self.context
        match name, arguments:
            case "attribute", (field,):
                return self._attribute(field)
            case "query", (field,):
                return Value.shared(context.inputs.get(field) or _missing_input(context.profile, field))
            case "constant", (field,):
                return Value.shared(context.constants[field])
            case _, () if name in context.constants:
                return Value.shared(context.constants[name])
            case "bm25", (field,):
                return Value.scalar(self._bm25(field))
            case (("closeness" | "distance"), _):
                return Value.scalar(
                    self._nearness(name, "field" if len(arguments) == 1 else arguments[0], arguments[-1])
                )
            case "rawScore", (field,):
                return Value.scalar(self._raw_score("field", field))
            case "itemRawScore", (label,):
                return Value.scalar(self._raw_score("label", label))
            case "matches", (field,):
                return Value.scalar(self._matches(field))
            case (("onnx" | "onnxModel"), (model,)):
                return self._onnx(context.profile.onnx[model], reference.output)
            case "now", ():
                return Value.scalar(float(int(time.time())))
            case "age", (field,):
                return Value.scalar(np.maximum(0.0, int(time.time()) - self._attribute(field).scores(len(self.rows))))
            case "freshness", (field,):
                age = np.maximum(0.0, int(time.time()) - self._attribute(field).scores(len(self.rows)))
                return Value.scalar(np.maximum(0.0, 1 - age / FRESH_SECONDS))
            case _, fields if name in NATIVE:
                self._native = self._native or NativeRank(context.table, context.terms, self.rows)
                return Value.scalar(self._native.feature(name, fields))
            case _, () if name in SCORES:
                return Value.scalar(self._score(name))
        raise RankingError(unsupported(f"the rank feature {reference}"))

    def _score(self, name: str) -> np.ndarray:
        """The score of an earlier phase: as it was given, or computed."""
        if name not in self._scores and name == "secondPhase":
            assert self.context.profile.second is not None
            earlier = Features(self.context, self.rows, self._scores)
            return earlier.evaluator.evaluate(self.context.profile.second.expression).scores(len(self.rows))
        return self._scores[name] if name in self._scores else first_phase(self.context, self.rows)

    def _attribute(self, name: str) -> Value:
        column = self.context.table.columns[name]
        if isinstance(column, StringColumn):
            return Value.scalar(np.array([string_number(text) for text in column.strings(self.rows)]))
        if isinstance(column, MultiColumn):
            raise RankingError(unsupported(f"attribute({name}) of an array or weighted set"))
        return column.feature(self.rows)

    def _bm25(self, name: str) -> np.ndarray:
        table = self.context.table
        hits = [term.hits[name] for term in self.context.terms if name in term.hits]
        return table.texts[name].bm25(hits, self.rows, table.live, table.count)

    def _matches(self, name: str) -> np.ndarray:
        found = np.zeros(len(self.rows), bool)
        for term in self.context.terms:
            if name in term.hits:
                found |= np.isin(self.rows, term.hits[name].rows)
        return found.astype(np.float64)

    def _nearness(self, what: str, by: str, name: str) -> np.ndarray:
        """Closeness or distance to the nearest of the query's vectors that search a field or have a label, computed for
        every candidate, found by the operator or not."""
        best: np.ndarray | None = None
        for near in self._nearest(by, name):
            column = self.context.table.columns[near.field]
            assert isinstance(column, VectorColumn)
            distance, closeness = column.distances(near.vector, self.rows)
            if what == "distance":
                best = distance if best is None else np.minimum(best, distance)
            else:
                best = closeness if best is None else np.maximum(best, closeness)
        if best is None:
            return np.full(len(self.rows), NO_DISTANCE if what == "distance" else 0.0)
        return best

    def _nearest(self, by: str, name: str) -> list[NearestTerm]:
        found = [(t.nearest, t.label) for t in self.context.terms if t.nearest is not None]
        return [near for near, label in found if (near.field if by == "field" else label) == name]

    def _raw_score(self, by: str, name: str) -> np.ndarray:
        """What the operators on a field, or with a label, gave the rows that they found."""
        scores = np.zeros(len(self.rows))
        for near in self._nearest(by, name):
            column = self.context.table.columns[near.field]
            assert isinstance(column, VectorColumn)
            closeness = column.distances(near.vector, self.rows)[1]
            scores += np.where(np.isin(self.rows, near.rows), closeness, 0.0)
        for term in self.context.terms:
            for field, own in term.scores.items():
                if (field if by == "field" else term.label) == name:
                    scores += own[self.rows]
        return scores

    def _onnx(self, model: OnnxModel, output: str | None) -> Value:
        """A model's output: once where no input depends on the document, else for all candidates in batches."""
        runner = self.context.onnx[model.file]
        inputs = {
            name: self.evaluator.feature(parse_feature(source)) for name, source in onnx_inputs(model, runner).items()
        }
        name = onnx_output(model, runner, output)
        kind = runner.output_type(name, {n: v.type for n, v in inputs.items()})
        if all(len(v.cells) == 1 for v in inputs.values()):
            found = runner.run({n: v.cells[0] for n, v in inputs.items()}, [name])[name]
            return Value.shared(Tensor.dense(kind, found.reshape(kind.shape)))
        n = len(self.rows)
        if n == 0:
            return Value.dense(kind, np.empty((0, *kind.shape), kind.dtype))
        if runner.batches() and all(v.cells.shape[1] == 1 for v in inputs.values()):
            stacked = {k: np.broadcast_to(v.cells, (n, *v.cells.shape[1:]))[:, 0] for k, v in inputs.items()}
            rows = [
                runner.run({k: v[i : i + 1024] for k, v in stacked.items()}, [name])[name] for i in range(0, n, 1024)
            ]
            return Value.dense(kind, np.concatenate(rows).reshape(n, *kind.shape))
        each = [
            runner.run({k: v.cells[i if len(v.cells) > 1 else 0] for k, v in inputs.items()}, [name])[name]
            for i in range(n)
        ]
        return Value.dense(kind, np.stack(each).reshape(n, *kind.shape))


def first_phase(context: RankContext, rows: np.ndarray) -> np.ndarray:
    """First-phase scores, float64 [rows]; NaN counts as the lowest. Without an expression it is nativeRank."""
    if not context.profile.ranks:
        return np.zeros(len(rows))
    if context.profile.first is None:
        return NativeRank(context.table, context.terms, rows).feature("nativeRank", ())
    scores = Features(context, rows).evaluator.evaluate(context.profile.first.expression).scores(len(rows))
    return np.where(np.isnan(scores), -np.inf, scores)


def onnx_inputs(model: OnnxModel, runner: OnnxRunner) -> dict[str, str]:
    """Where each input of a model comes from; one that is not listed is the query input of its name. Raises
    DeployError."""
    for name in model.inputs:
        if name not in runner.inputs:
            raise DeployError(
                f"onnx-model '{model.name}': the model {model.file} has no input '{name}'; "
                f"it has {', '.join(runner.inputs)}"
            )
    return {name: model.inputs.get(name, f"query({name})") for name in runner.inputs}


def onnx_output(model: OnnxModel, runner: OnnxRunner, asked: str | None) -> str:
    """The model's own name of the output that a feature asks for (the only or first one where it asks for none)."""
    if asked is None:
        return next(iter(runner.outputs))
    own = next((name for name, known in model.outputs.items() if known == asked), asked)
    if own not in runner.outputs:
        raise DeployError(
            f"onnx-model '{model.name}': the model {model.file} has no output '{asked}'; "
            f"it has {', '.join(runner.outputs)}"
        )
    return own


def _missing_input(profile: Profile, name: str) -> Tensor:
    declared = profile.inputs.get(name)
    if declared is None:
        return Tensor.empty(DOUBLE)
    return declared.default or Tensor.empty(declared.type)


def feature_type(
    reference: Reference, schema: Schema, profile: Profile, onnx: Mapping[str, OnnxRunner], phase: str
) -> TensorType:
    """The type of a feature in a phase (first, second, global, match, summary). Raises RankingError for one that
    does not exist, or that this engine does not have."""
    name, arguments = reference.name, reference.arguments
    field = schema.fields.get(arguments[-1]) if arguments else None
    if reference.output is not None and name not in ("onnx", "onnxModel"):
        raise RankingError(unsupported(f"the output '{reference.output}' of the rank feature {reference}"))
    match name, arguments:
        case "attribute", (asked,):
            if field is None or not field.attribute:
                raise RankingError(f"rank feature {reference}: '{asked}' is not an attribute of schema '{schema.name}'")
            if field.type.collection:
                raise RankingError(unsupported(f"attribute({asked}) of type {field.type} in rank expressions"))
            return field.type.tensor or DOUBLE
        case "query", (asked,):
            return profile.inputs[asked].type if asked in profile.inputs else DOUBLE
        case "constant", (asked,):
            if asked not in profile.constants:
                raise RankingError(f"rank feature {reference}: there is no constant '{asked}'")
            return profile.constants[asked].type
        case _, () if name in profile.constants:
            return profile.constants[name].type
        case ("bm25", (asked,)) | ("matches", (asked,)):
            if field is None or (name == "bm25" and not field.text):
                raise RankingError(
                    f"rank feature {reference}: '{asked}' is not an index field of schema '{schema.name}'"
                )
            if name == "bm25" and not field.bm25:
                raise RankingError(unsupported(f"{reference} without 'index: enable-bm25' on the field"))
            return DOUBLE
        case ("closeness" | "distance", ("label", _)) | ("itemRawScore", (_,)):
            return DOUBLE
        case "rawScore", (asked,):
            if field is None or not field.attribute:
                raise RankingError(f"rank feature {reference}: '{asked}' is not an attribute")
            return DOUBLE
        case "closeness" | "distance", ("field", _) | (_,):
            if field is None or not field.attribute or field.type.tensor is None:
                raise RankingError(f"rank feature {reference}: '{arguments[-1]}' is not a tensor attribute")
            return DOUBLE
        case (("onnx" | "onnxModel"), (model,)):
            if model not in profile.onnx:
                raise RankingError(f"rank feature {reference}: there is no onnx-model '{model}'")
            runner = onnx[profile.onnx[model].file]
            sources = {
                n: _source_type(source, schema, profile, onnx, phase)
                for n, source in onnx_inputs(profile.onnx[model], runner).items()
            }
            return runner.output_type(onnx_output(profile.onnx[model], runner, reference.output), sources)
        case (("age" | "freshness"), (asked,)):
            if field is None or not field.attribute or field.type.scalar != "long":
                raise RankingError(f"rank feature {reference}: '{asked}' is not a long attribute")
            return DOUBLE
        case "now", ():
            return DOUBLE
        case _, names if name in NATIVE:
            for asked in names:
                if asked not in schema.fields:
                    raise RankingError(f"rank feature {reference}: there is no field '{asked}'")
            return DOUBLE
        case "firstPhase", () if phase != "first":
            return DOUBLE
        case "secondPhase", () if phase in ("global", "match", "summary") and profile.second is not None:
            return DOUBLE
        case "relevanceScore", () if phase == "global":
            return DOUBLE
    raise RankingError(unsupported(f"the rank feature {reference}" + (" in first-phase" if name in SCORES else "")))


def _source_type(
    source: str, schema: Schema, profile: Profile, onnx: Mapping[str, OnnxRunner], phase: str
) -> TensorType:
    return infer_type(parse_feature(source), lambda r: feature_type(r, schema, profile, onnx, phase), profile.functions)
