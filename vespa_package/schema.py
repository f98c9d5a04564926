"""What checks, feeders and sizing need of .sd and .profile files: a tolerant view over `local_vespa.package.sd`.

What it does not know it passes over. The judge of the grammar is Vespa's own code (`mrse validate --vespa`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from local_vespa.package.sd import BraceError, Statement, parse_statements, without_comments
from mrse_model.errors import InputError


@dataclass(frozen=True)
class Field:
    """type: without spaces. options: all but indexing, on one line. in_document: it is fed, not derived."""

    name: str
    type: str
    indexing: str
    options: str
    file: Path
    in_document: bool = True

    @property
    def is_attribute(self) -> bool:
        return "attribute" in self.indexing

    @property
    def is_text(self) -> bool:
        """Whether its words are indexed."""
        of_words = self.type in ("string", "array<string>", "string[]")
        return of_words and re.search(r"\bindex\b", self.indexing) is not None

    @property
    def sets_language(self) -> bool:
        return "set_language" in self.indexing

    @property
    def metric(self) -> str | None:
        """The distance metric that is written, None for none."""
        found = re.search(r"distance-metric (\S+)", self.options)
        return found[1] if found else None

    @property
    def has_hnsw(self) -> bool:
        return "hnsw" in self.options


@dataclass(frozen=True)
class OnnxUse:
    """An onnx-model block: graph input → function or feature, graph output → name in expressions."""

    file: str
    inputs: dict[str, str]
    outputs: dict[str, str]


@dataclass(frozen=True)
class Profile:
    """One rank profile as written, without what it inherits."""

    name: str
    file: Path
    inherits: tuple[str, ...]
    inputs: dict[str, str]
    functions: dict[str, str]
    phases: dict[str, str]
    match_features: tuple[str, ...]
    onnx: dict[str, OnnxUse]
    constants: dict[str, str] = field(default_factory=dict)  # those whose values are in a file → the file


@dataclass(frozen=True)
class Schema:
    name: str
    file: Path
    fields: dict[str, Field]
    fieldsets: dict[str, list[str]]
    onnx_models: dict[str, OnnxUse] = field(default_factory=dict)
    profiles: dict[str, Profile] = field(default_factory=dict)

    def ancestors(self, profile: Profile) -> list[Profile]:
        """The profile and all that it inherits, the first parent with its own before the second; passes over a parent
        that is unknown or repeats."""
        found: list[Profile] = []
        waiting = [profile]
        while waiting:
            if (next_one := waiting.pop()) not in found:
                found.append(next_one)
                waiting += [self.profiles[name] for name in reversed(next_one.inherits) if name in self.profiles]
        return found

    def inputs(self, profile: Profile) -> dict[str, str]:
        """All query inputs that a profile declares or inherits: name → tensor type or double."""
        return {k: v for p in reversed(self.ancestors(profile)) for k, v in p.inputs.items()}

    def functions(self, profile: Profile) -> dict[str, str]:
        return {k: v for p in reversed(self.ancestors(profile)) for k, v in p.functions.items()}

    def onnx(self, profile: Profile) -> dict[str, OnnxUse]:
        return self.onnx_models | {k: v for p in reversed(self.ancestors(profile)) for k, v in p.onnx.items()}


def read_statements(text: str, file: Path) -> list[Statement]:
    """The statements of a file's text. Raises InputError where a brace is missing or too many."""
    try:
        statements = parse_statements(without_comments(text), str(file))
        for statement in statements:
            _read_blocks(statement)
    except BraceError as error:
        open_ = "never closed" in error.problem
        problem, fix = ("a { is never closed", "Add the missing }") if open_ else ("a } without its {", "Remove it")
        raise InputError(problem, file=file, row=error.line - 1, fix=fix) from None
    return statements


def _read_blocks(statement: Statement) -> None:
    """Reads all blocks but expressions, so that a wrong brace deep inside is found here."""
    for child in statement.children:
        if child.keyword != "expression":
            _read_blocks(child)


def children(statement: Statement, keyword: str) -> list[Statement]:
    """Those of its statements that start with this word."""
    return [child for child in statement.children if child.keyword == keyword]


def text_of(statement: Statement, keyword: str) -> str:
    """The value of the first of its statements that starts with this word, or what stands in its block; on one line."""
    for child in children(statement, keyword):
        return " ".join((child.value or child.body or "").split())
    return ""


def read_schemas(app: Path) -> dict[str, Schema]:
    """All schemas of a package with their profiles. Raises InputError for a file that cannot be read at all."""
    files = sorted((app / "schemas").glob("*.sd"))
    if not files:
        fix = "Name the folder that has services.xml, or run: mrse init, which writes one"
        raise InputError("no schema in this package", file=app / "schemas", fix=fix)
    return {schema.name: schema for schema in map(read_schema, files)}


def read_schema(file: Path) -> Schema:
    """One schema with its profiles. Raises InputError for a file that is none."""
    top = read_statements(file.read_text("utf-8"), file)
    schema = next((s for s in top if s.keyword in ("schema", "search")), None)
    document = next(iter(children(schema, "document")), None) if schema else None
    if schema is None or document is None or len(schema.words) < 2:
        raise InputError("no schema with a document in it", file=file, fix="Write: schema NAME { document NAME { … } }")
    name = schema.words[1]
    fields = [_field(s, file) for s in children(document, "field")]
    fields += [replace(_field(s, file), in_document=False) for s in children(schema, "field")]
    fieldsets = {_name(s): text_of(s, "fields").replace(",", " ").split() for s in children(schema, "fieldset")}
    profiles = [_profile(s, file) for s in children(schema, "rank-profile")]
    for extra in sorted((file.parent / name).glob("*.profile")):
        statements = read_statements(extra.read_text("utf-8"), extra)
        profiles += [_profile(s, extra) for s in statements if s.keyword == "rank-profile"]
    onnx = {_name(s): _onnx(s) for s in children(schema, "onnx-model")}
    return Schema(name, file, {f.name: f for f in fields}, fieldsets, onnx, {p.name: p for p in profiles})


def missing_constants(profiles: Iterable[Profile], app: Path) -> Iterator[InputError]:
    """The files of constants that the package `app` lacks: an export of an earlier version has not all of them."""
    for profile in profiles:
        for name, file in profile.constants.items():
            if not (app / file).is_file():
                of_model = file.startswith("models/")
                fix = f"Run: mrse export CHECKPOINT --app {app}" if of_model else "Add it, or remove the constant"
                yield InputError(f"{file} is not in the package", file=profile.file, field=name, fix=fix)


def _name(statement: Statement) -> str:
    """The second word of `field NAME …`, `rank-profile NAME …`. Raises InputError where it is missing."""
    if len(statement.words) < 2:
        raise InputError(
            f"{statement.keyword} without a name", file=statement.file, row=statement.line - 1, fix="Give it a name"
        )
    return statement.words[1]


def _field(statement: Statement, file: Path) -> Field:
    name, kind = _name(statement), "".join(statement.words[3:])
    options = " ".join(_flat(child) for child in statement.children if child.header != "indexing")
    return Field(name, kind, text_of(statement, "indexing"), options, file)


def _flat(statement: Statement) -> str:
    inner = " ".join(_flat(child) for child in statement.children)
    return " ".join(f"{statement.header} {statement.value or ''} {inner}".split())


def _profile(statement: Statement, file: Path) -> Profile:
    words = statement.words
    features = [s for name in ("match-features", "summary-features") for s in children(statement, name)]
    inputs = {}
    for child in [c for block in children(statement, "inputs") for c in block.children]:
        match = re.match(r"query\((\w+)\)\s*(.*)", child.header)
        if match:
            inputs[match[1]] = match[2].replace(" ", "") or "double"
    return Profile(
        name=_name(statement),
        file=file,
        inherits=tuple("".join(words[3:]).split(",")) if len(words) > 3 else (),
        inputs=inputs,
        functions={function_name(s): text_of(s, "expression") for s in children(statement, "function")},
        phases={p: text_of(phase, "expression") for p in PHASES for phase in children(statement, p)},
        match_features=tuple(feature for s in features for feature in s.items()),
        onnx={_name(s): _onnx(s) for s in children(statement, "onnx-model")},
        constants=_constants(statement),
    )


def _constants(statement: Statement) -> dict[str, str]:
    """`constants { NAME TYPE: file: FILE }`."""
    found = [child for block in children(statement, "constants") for child in block.children]
    files = {child.words[0]: (child.value or "").partition("file:")[2].strip() for child in found}
    return {name: file for name, file in files.items() if file}


def function_name(statement: Statement) -> str:
    """f of `function f(x)` and of `function inline f(x)`."""
    return statement.header.split("(")[0].split()[-1]


PHASES = ("first-phase", "second-phase", "global-phase")


def _onnx(statement: Statement) -> OnnxUse:
    inputs, outputs = (
        {port.header.split(" ", 1)[1].strip('"'): port.value or "" for port in children(statement, kind)}
        for kind in ("input", "output")
    )
    return OnnxUse(text_of(statement, "file"), inputs, outputs)
