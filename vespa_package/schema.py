"""Reads what `mrse validate` needs from .sd and .profile files. The judge of the grammar is Vespa's own (`--vespa`)."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from mrse_model.errors import InputError


@dataclass(frozen=True)
class Statement:
    """`head: value`, or `head { children }`; line counts from 1."""

    head: str
    value: str
    children: tuple[Statement, ...]
    line: int

    def all(self, first_word: str) -> list[Statement]:
        """The children whose head starts with that word."""
        return [child for child in self.children if child.head.split(" ")[0] == first_word]

    def text(self, head: str) -> str:
        """The value of the child of that head; of a block, what is in it."""
        for child in self.all(head):
            return child.value or " ".join(f"{c.head} {c.value}".strip() for c in child.children)
        return ""


@dataclass(frozen=True)
class Field:
    name: str
    type: str
    indexing: str
    options: str
    file: Path

    @property
    def is_attribute(self) -> bool:
        return "attribute" in self.indexing

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


def read_statements(text: str, file: Path) -> tuple[Statement, ...]:
    """The statements of a file. Raises InputError where a brace is missing or too many."""
    text = re.sub(r"#[^\n]*", "", text)
    statements, end = _block(text, 0, file, nested=False)
    if end < len(text):
        raise InputError("a } without its {", file=file, row=text.count("\n", 0, end), fix="Remove it")
    return statements


def _block(text: str, at: int, file: Path, nested: bool) -> tuple[tuple[Statement, ...], int]:
    found: list[Statement] = []
    while True:
        while at < len(text) and text[at].isspace():
            at += 1
        if at >= len(text):
            if nested:
                raise InputError("a { is never closed", file=file, fix="Add the missing }")
            return tuple(found), at
        if text[at] == "}":
            return tuple(found), at
        line, start, depth = text.count("\n", 0, at) + 1, at, 0
        while at < len(text) and not (depth == 0 and text[at] in "{}:\n"):
            depth += (text[at] in "(<[") - (text[at] in ")>]")
            at += 1
        head = " ".join(text[start:at].split())
        brace = re.compile(r"\s*\{").match(text, at)
        if at < len(text) and text[at] == ":":
            value, at = _value(text, at + 1)
            found.append(Statement(head, value, (), line))
        elif brace:
            children, at = _block(text, brace.end(), file, nested=True)
            found.append(Statement(head, "", children, line))
            at += 1
        else:
            found.append(Statement(head, "", (), line))


def _value(text: str, at: int) -> tuple[str, int]:
    """To the end of the line, or the } that closes the block around it."""
    start, depth = at, 0
    while at < len(text) and text[at] != "\n" and not (text[at] == "}" and depth == 0):
        depth += (text[at] == "{") - (text[at] == "}")
        at += 1
    return text[start:at].strip(), at


def read_schemas(app: Path) -> dict[str, Schema]:
    """All schemas of a package with their profiles. Raises InputError for a file that cannot be read at all."""
    files = sorted((app / "schemas").glob("*.sd"))
    if not files:
        raise InputError("no schema in this package", file=app / "schemas", fix="Name the folder that has services.xml")
    return {schema.name: schema for schema in map(_read_schema, files)}


def _read_schema(file: Path) -> Schema:
    top = read_statements(file.read_text("utf-8"), file)
    schema = next((s for s in top if s.head.startswith("schema ")), None)
    document = next(iter(schema.all("document")), None) if schema else None
    if schema is None or document is None:
        raise InputError("no schema with a document in it", file=file, fix="Write: schema NAME { document NAME { … } }")
    name = schema.head.split(" ")[1]
    fields = [_field(s, file) for s in [*document.all("field"), *schema.all("field")]]
    fieldsets = {s.head.split(" ")[1]: s.text("fields").replace(",", " ").split() for s in schema.all("fieldset")}
    profiles = [_profile(s, file) for s in schema.all("rank-profile")]
    for extra in sorted((file.parent / name).glob("*.profile")):
        statements = read_statements(extra.read_text("utf-8"), extra)
        profiles += [_profile(s, extra) for s in statements if s.head.startswith("rank-profile ")]
    onnx = {s.head.split(" ")[1]: _onnx(s) for s in schema.all("onnx-model")}
    return Schema(name, file, {f.name: f for f in fields}, fieldsets, onnx, {p.name: p for p in profiles})


def _field(statement: Statement, file: Path) -> Field:
    _, name, _, *kind = statement.head.split(" ")
    options = " ".join(_flat(s) for s in statement.children if s.head != "indexing")
    return Field(name, "".join(kind), statement.text("indexing"), options, file)


def _flat(statement: Statement) -> str:
    inner = " ".join(_flat(child) for child in statement.children)
    return " ".join(f"{statement.head} {statement.value} {inner}".split())


def _profile(statement: Statement, file: Path) -> Profile:
    words = statement.head.split(" ")
    phases = {p: statement_of.text("expression") for p in PHASES for statement_of in statement.all(p)}
    features = [s for name in ("match-features", "summary-features") for s in statement.all(name)]
    listed = " ".join(s.value or " ".join(f"{c.head} {c.value}" for c in s.children) for s in features)
    inputs = {}
    for child in [c for block in statement.all("inputs") for c in block.children]:
        match = re.match(r"query\((\w+)\)\s*(.*)", child.head)
        if match:
            inputs[match[1]] = match[2].replace(" ", "") or "double"
    return Profile(
        name=words[1],
        file=file,
        inherits=tuple("".join(words[3:]).split(",")) if len(words) > 3 else (),
        inputs=inputs,
        functions={s.head.split(" ")[-1].split("(")[0]: s.text("expression") for s in statement.all("function")},
        phases=phases,
        match_features=tuple(re.findall(r"\w+(?:\([^)]*\)(?:\.\w+)?)?", listed)),
        onnx={s.head.split(" ")[1]: _onnx(s) for s in statement.all("onnx-model")},
    )


PHASES = ("first-phase", "second-phase", "global-phase")


def _onnx(statement: Statement) -> OnnxUse:
    ports = {kind: {s.head.split(" ", 1)[1]: s.value for s in statement.all(kind)} for kind in ("input", "output")}
    return OnnxUse(statement.text("file"), ports["input"], ports["output"])
