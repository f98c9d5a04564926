"""Rank profiles as data: read from statements, inheritance resolved."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from ..errors import unsupported
from ..expressions import Function, RankingError, RankingNode, Reference, parse_expression, parse_feature
from ..tensors import Tensor, TensorError, TensorType, parse_query_tensor
from .schema import Constant, OnnxModel, Schema, read_constants, read_onnx_model
from .sd import Statement

# Settings that tune how an approximate or parallel search runs. This engine is exact or nearly so and runs in one
# thread, so they change nothing about which answer is right.
TUNING = {
    "num-threads-per-search", "min-hits-per-thread", "num-search-partitions", "termwise-limit", "approximate-threshold",
    "post-filter-threshold", "filter-first-threshold", "filter-first-exploration", "exploration-slack",
    "prefetch-tensors", "target-hits-max-adjustment-factor", "ignore-default-rank-features", "rank-features",
    "filter-threshold", "strict",
}  # fmt: skip


@dataclass(frozen=True)
class Input:
    """`query(name) type: default`. Without a default a missing tensor is empty and a missing number 0."""

    type: TensorType
    default: Tensor | None = None


@dataclass(frozen=True)
class Phase:
    """One phase's expression. `count` hits are reranked; hits at or below `drop_limit` are dropped."""

    expression: RankingNode
    text: str
    count: int = 100
    drop_limit: float | None = None


@dataclass(frozen=True)
class Profile:
    """A rank profile with all that it inherits."""

    name: str
    inputs: dict[str, Input] = field(default_factory=dict)
    functions: dict[str, Function] = field(default_factory=dict)
    first: Phase | None = None
    second: Phase | None = None
    globally: Phase | None = None
    match_features: tuple[Reference, ...] = ()
    summary_features: tuple[Reference, ...] = ()
    onnx: dict[str, OnnxModel] = field(default_factory=dict)
    constants: dict[str, Constant] = field(default_factory=dict)
    properties: dict[str, str] = field(default_factory=dict)
    statement: Statement | None = None

    @property
    def ranks(self) -> bool:
        return self.name != "unranked"


def read_profiles(schema: Schema, files: list[Statement]) -> dict[str, Profile]:
    """All rank profiles of a schema: those in its file, those in `schemas/<name>/*.profile`, `default` and `unranked`.
    Raises DeployError."""
    found: dict[str, Statement] = {}
    for statement in [*schema.profiles, *files]:
        if statement.keyword != "rank-profile":
            raise statement.error(f"expected a rank-profile, found '{statement.keyword}'")
        found[statement.words[1]] = statement
    basis = Profile("default", onnx=schema.onnx, constants=schema.constants)
    done: dict[str, Profile] = {"unranked": replace(basis, name="unranked")}

    def resolve(name: str, asked: Statement | None, path: tuple[str, ...]) -> Profile:
        if name in done:
            return done[name]
        if name in path:
            raise found[name].error(f"rank-profile '{name}' inherits itself: {' -> '.join((*path, name))}")
        if name not in found:
            if name == "default":
                done[name] = basis
                return basis
            assert asked is not None
            raise asked.error(
                f"rank-profile '{path[-1] if path else name}' inherits '{name}', but this is not found in "
                f"schema '{schema.name}'"
            )
        statement = found[name]
        words = statement.header.replace(",", " ").split()
        bases = words[3:] if words[2:3] == ["inherits"] else []
        parents = [resolve(b, statement, (*path, name)) for b in bases] or [basis]
        try:
            done[name] = _read(statement, _merged(name, parents), {p.name: p for p in parents})
        except (RankingError, TensorError) as e:
            raise statement.error(f"rank profile '{name}' of schema '{schema.name}': {e}") from e
        return done[name]

    for name in ["default", *found]:
        resolve(name, None, ())
    return done


def _merged(name: str, parents: list[Profile]) -> Profile:
    """What a profile has from its parents; a later parent's value does not override an earlier one's."""
    merged = parents[0]
    for other in parents[1:]:
        merged = replace(
            merged,
            inputs=other.inputs | merged.inputs,
            functions=other.functions | merged.functions,
            first=merged.first or other.first,
            second=merged.second or other.second,
            globally=merged.globally or other.globally,
            match_features=merged.match_features or other.match_features,
            summary_features=merged.summary_features or other.summary_features,
            onnx=other.onnx | merged.onnx,
            constants=other.constants | merged.constants,
            properties=other.properties | merged.properties,
        )
    return replace(merged, name=name)


def _read(statement: Statement, profile: Profile, parents: dict[str, Profile]) -> Profile:
    inputs, functions, onnx = dict(profile.inputs), dict(profile.functions), dict(profile.onnx)
    constants, properties = dict(profile.constants), dict(profile.properties)
    changes: dict[str, Any] = {}
    for child in statement.children:
        match child.keyword:
            case "inputs":
                inputs |= dict(_input(c) for c in child.children)
            case "function" | "macro":
                function = _function(child)
                functions[function.name] = function
            case "first-phase":
                changes["first"] = _phase(child, profile.first)
            case "second-phase":
                changes["second"] = _phase(child, profile.second)
            case "global-phase":
                changes["globally"] = _phase(child, profile.globally)
            case "match-features" | "summary-features":
                key = child.keyword.replace("-", "_")
                base: tuple[Reference, ...] = ()
                for parent in child.words[2:] if "inherits" in child.words else []:
                    if parent not in parents:
                        raise child.error(
                            f"{child.keyword} inherits '{parent}', which '{profile.name}' does not inherit"
                        )
                    base += getattr(parents[parent], key)
                own = tuple(parse_feature(item) for item in child.items())
                changes[key] = tuple(dict.fromkeys(base + own))
            case "onnx-model":
                model = read_onnx_model(child)
                onnx[model.name] = model
            case "constants":
                constants |= {c.name: c for c in read_constants(child)}
            case "rank-properties":
                properties |= {c.header.replace(" ", ""): (c.value or "").strip('" ') for c in child.children}
            case keyword if keyword in TUNING:
                pass
            case keyword:
                raise child.error(unsupported(f"'{keyword}' in a rank profile ({profile.name})"))
    return replace(
        profile, inputs=inputs, functions=functions, onnx=onnx, constants=constants, properties=properties,
        statement=statement, **changes,
    )  # fmt: skip


def _input(statement: Statement) -> tuple[str, Input]:
    """`query(name) type: default`, `query(name)` alone is a double."""
    words = statement.header.split(None, 1)
    name = words[0]
    if name.startswith("query(") and name.endswith(")"):
        name = name[6:-1]
    text = words[1].strip() if len(words) > 1 else "double"
    if text == "string":
        raise statement.error(unsupported("string inputs of rank profiles"))
    kind = TensorType.parse(text)
    default = statement.value if statement.value is not None else statement.body
    if default is None:
        return name, Input(kind, None)
    text = default.strip() if statement.value is not None else f"{{{default}}}"
    return name, Input(kind, Tensor.empty(kind) if text.replace(" ", "") == "{}" else parse_query_tensor(kind, text))


def _function(statement: Statement) -> Function:
    head = statement.header.split(None, 1)[1].removeprefix("inline ")
    name, _, rest = head.partition("(")
    parameters = tuple(p.strip() for p in rest.partition(")")[0].split(",") if p.strip())
    return Function(name.strip(), parameters, parse_expression(_expression(statement)))


def _expression(statement: Statement) -> str:
    """The text of `expression: …` or `expression { … }` in a block."""
    for child in statement.children:
        if child.keyword == "expression":
            text = child.value if child.value is not None else child.body or ""
            if text.strip().startswith("file:"):
                raise child.error(unsupported("expressions in files"))
            return text.strip()
    raise statement.error(f"'{statement.header}' has no expression")


def _phase(statement: Statement, inherited: Phase | None) -> Phase:
    phase = inherited
    for child in statement.children:
        if child.keyword == "expression":
            text = _expression(statement)
            phase = (
                replace(phase, expression=parse_expression(text), text=text)
                if phase
                else Phase(parse_expression(text), text)
            )
    if phase is None:
        raise statement.error(f"'{statement.header}' has no expression")
    for child in statement.children:
        value = (child.value or "").strip()
        match child.keyword:
            case "expression":
                pass
            case "rerank-count" | "total-rerank-count":
                phase = replace(phase, count=child.integer())
            case "rank-score-drop-limit":
                try:
                    phase = replace(phase, drop_limit=float(value))
                except ValueError:
                    raise child.error(f"'{child.keyword}' is a number, not '{value}'") from None
            case "keep-rank-count" | "total-keep-rank-count":
                pass  # how many first-phase scores a node keeps; this engine keeps all
            case keyword:
                raise child.error(unsupported(f"'{keyword}' in {statement.keyword}"))
    return phase
