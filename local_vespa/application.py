"""A deployed application: the package with its models loaded and every rank profile checked."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import orjson

from .documents.retention import Retention
from .errors import DeployError, unsupported
from .expressions import RankingError, RankingNode, Reference, infer_type
from .package.rank_profiles import Phase, Profile
from .package.reader import Package, files_of_zip, read_package
from .package.schema import Constant, Field, Schema
from .ranking.features import feature_type
from .ranking.onnx_models import Embedders, OnnxRunner
from .tensors import Tensor, TensorError, TensorType, parse_document_tensor, parse_query_tensor


class Application:
    """What one generation runs. Raises DeployError for a package that Vespa or this engine refuses."""

    def __init__(self, zipped: bytes, generation: int = 0) -> None:
        self.generation = generation
        self.package: Package = read_package(files_of_zip(zipped))
        files = self.package.files
        self.cluster = self.package.services.cluster
        self.retention = Retention(self.package.services)
        self.schemas = self.package.schemas
        self.embedders = Embedders(self.package.services.components, files)
        for component in self.embedders.known:  # loads them, so that a bad model is refused now
            assert component
        self.onnx: dict[str, OnnxRunner] = {}
        self.models: dict[str, OnnxRunner] = {}
        if self.package.services.model_evaluation:
            self.models = {name: self._load(path, files) for name, path in self.package.models.items()}
        self.constants: dict[tuple[str, str], dict[str, Tensor]] = {}
        for schema, profiles in self.package.profiles.items():
            for profile in profiles.values():
                self._check(self.schemas[schema], profile, files)

    @property
    def warnings(self) -> list[str]:
        """What a deployment of it should say."""
        found = []
        for schema in self.schemas.values():
            guessed = [f.name for f in schema.fields.values() if f.text and f.stemming and f.language is None]
            if guessed:
                found.append(
                    f"Schema '{schema.name}': nothing sets the language of {', '.join(guessed)}. Vespa guesses it from "
                    "each document's text; local_vespa takes it for English. A field before the first text field says "
                    'it: field language type string { indexing: (input language || "en") | set_language }'
                )
        return found

    def _load(self, path: str, files: Mapping[str, bytes]) -> OnnxRunner:
        if path not in files:
            raise DeployError(f"Invalid application package: The file '{path}' of an onnx-model does not exist")
        if path not in self.onnx:
            self.onnx[path] = OnnxRunner(path, files[path])
        return self.onnx[path]

    def _check(self, schema: Schema, profile: Profile, files: Mapping[str, bytes]) -> None:
        """Loads what a profile needs and infers the type of all its expressions."""
        where = f"rank profile '{profile.name}' of schema '{schema.name}'"
        try:
            for model in profile.onnx.values():
                self._load(model.file, files)
            self.constants[schema.name, profile.name] = {
                c.name: self._constant(c, files) for c in profile.constants.values()
            }
            phases: list[tuple[str, Phase | None]] = [
                ("first", profile.first), ("second", profile.second), ("global", profile.globally),
            ]  # fmt: skip
            for phase, expression in phases:
                if expression is None:
                    continue
                kind = self._type(expression.expression, schema, profile, phase)
                if not kind.is_scalar:
                    raise RankingError(f"The {phase}-phase expression must produce a double, but is {kind}")
            for phase, features in (("match", profile.match_features), ("summary", profile.summary_features)):
                for feature in features:
                    self._type(feature, schema, profile, phase)
            for key in profile.properties:
                raise RankingError(unsupported(f"the rank property '{key}'"))
        except (RankingError, TensorError, DeployError) as e:
            file = f"{profile.statement.file}:{profile.statement.line}: " if profile.statement else ""
            raise DeployError(f"Invalid application package: {file}In {where}: {e}") from e

    def _type(self, node: RankingNode, schema: Schema, profile: Profile, phase: str) -> TensorType:
        def type_of(reference: Reference) -> TensorType:
            return feature_type(reference, schema, profile, self.onnx, phase)

        return infer_type(node, type_of, profile.functions)

    def _constant(self, constant: Constant, files: Mapping[str, bytes]) -> Tensor:
        if constant.value is not None:
            return parse_query_tensor(constant.type, constant.value)
        if constant.file is None or constant.file not in files:
            raise DeployError(f"The file '{constant.file}' of the constant '{constant.name}' does not exist")
        if not re.search(r"\.json$", constant.file):
            raise DeployError(unsupported(f"constants in {constant.file}; only .json"))
        return parse_document_tensor(constant.type, orjson.loads(files[constant.file]))


@dataclass(frozen=True)
class Changes:
    """What a redeploy does to the data: types whose documents go, fields whose values go, types to build anew in
    memory."""

    removed: frozenset[str]
    dropped: dict[str, frozenset[str]]
    rebuilt: frozenset[str]


def changes(old: Application, new: Application) -> Changes:
    """What deploying `new` after `old` does. Raises DeployError for what Vespa does not do without a validation
    override."""
    removed = frozenset(set(old.schemas) - set(new.schemas))
    for name in sorted(removed):
        _require(
            new, "schema-removal",
            f"Schema '{name}' is removed in content cluster '{old.cluster}'. "
            "This will cause loss of all data in this schema",
        )  # fmt: skip
    if old.cluster != new.cluster:
        _require(
            new, "content-cluster-removal",
            f"Content cluster '{old.cluster}' is removed. This will cause loss of all data in this cluster",
        )  # fmt: skip
    rebuilt, dropped = set(new.schemas) - set(old.schemas), {}
    for name in set(old.schemas) & set(new.schemas):
        before, after = old.schemas[name].fields, new.schemas[name].fields
        lost = set(before) - set(after)
        for field in sorted(set(before) & set(after)):
            if before[field].type != after[field].type:
                _require(
                    new, "field-type-change",
                    f"Document type '{name}': Field '{field}' changed: data type: "
                    f"'{before[field].type}' -> '{after[field].type}'",
                )  # fmt: skip
                lost.add(field)
                continue
            for override, change in _changed_settings(before[field], after[field]):
                _require(new, override, f"Document type '{name}': Field '{field}' changed: {change}")
        if lost:
            dropped[name] = frozenset(lost)
        if before != after:
            rebuilt.add(name)
    return Changes(removed, dropped, frozenset(rebuilt))


def _changed_settings(before: Field, after: Field) -> Iterator[tuple[str, str]]:
    """What a redeployment changes of a field of the same type that Vespa does not do without a validation override,
    with the override: how its words are made, and an HNSW index (IndexingScriptChangeValidator.java,
    AttributeChangeValidator.java)."""
    if before.text != after.text:
        yield "indexing-change", f"{'add' if after.text else 'remove'} index aspect"
    else:
        for setting in ("stemming", "normalizing") if before.text else ():
            if getattr(before, setting) != getattr(after, setting):
                yield "indexing-change", f"{setting} switched {'on' if getattr(after, setting) else 'off'}"
    if before.sets_language != after.sets_language:
        yield "indexing-change", "indexing script: another language is set"
    if before.links and after.links:
        for setting, old, new in (
            ("property 'distance-metric'", before.metric, after.metric),
            ("hnsw index property 'max-links-per-node'", before.links, after.links),
        ):
            if old != new:
                yield (
                    "hnsw-settings-change",
                    f"change {setting} from '{old}' to '{new}'. This requires the hnsw index to be rebuilt during "
                    "initialization, which may take a long time",
                )
    if before.paged and not after.paged:
        yield "paged-setting-removal", "the attribute has setting 'paged' removed"


def _require(new: Application, override: str, problem: str) -> None:
    if override not in new.package.overrides:
        raise DeployError(
            f"Invalid application: {override}: {problem}. To allow this add "
            f"<allow until='yyyy-mm-dd'>{override}</allow> to validation-overrides.xml, see "
            "https://docs.vespa.ai/en/reference/validation-overrides.html"
        )
