"""What a schema says, as data, and the reader of `schemas/<name>.sd`. Ranking is read by `profiles`.

What this engine does not do is refused here, at deploy, with its file and line.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ..errors import DeployError, unsupported
from ..tensors import TensorError, TensorType
from ..yql.languages import ENGLISH, UNKNOWN, language_of
from .sd import Statement

INTEGERS = {"byte": 8, "int": 32, "long": 64}
SCALARS = ("string", "bool", "float", "double", *INTEGERS)
METRICS = ("euclidean", "angular", "dotproduct", "prenormalized-angular", "hamming")
_ALTERNATIVE = re.compile(r"""input\s+(\w+)|["']([\w-]+)["']""")  # of a language
HNSW_LINKS = 16  # Vespa's default
_PART = re.compile(  # of a joined text: a field, a literal, or the elements of an array
    r"""\s*
    (?: input \s+ (\w+)
      | "([^"]*)"
      | \( \( input \s+ (\w+) \s* \| \s* join \s+ "([^"]*)" \) \s* \|\| \s* "" \)
    ) \s* (\.|$)""",
    re.VERBOSE,
)
_PACKED = re.compile(r"\s*input\s+(\w+)\s*\|\s*binarize\s*\|\s*pack_bits\s*\|")
_COLLECTION = re.compile(r"(array|weightedset)\s*<\s*(\w+)\s*>")


@dataclass(frozen=True)
class FieldType:
    """A field's type: a scalar name, an array or weightedset of one, or a tensor (then `tensor` is set)."""

    scalar: str
    collection: str = ""
    tensor: TensorType | None = None

    def __str__(self) -> str:
        if self.tensor is not None:
            return str(self.tensor)
        return f"{self.collection}<{self.scalar}>" if self.collection else self.scalar

    @property
    def is_number(self) -> bool:
        return self.tensor is None and self.scalar != "string"

    @classmethod
    def parse(cls, text: str) -> FieldType:
        """The type written so. Raises DeployError without file and line."""
        text = text.strip()
        if text.startswith("tensor"):
            try:
                return cls("tensor", tensor=TensorType.parse(text))
            except TensorError as e:
                raise DeployError(str(e)) from e
        if text.endswith("[]"):
            text = f"array<{text[:-2]}>"
        match = _COLLECTION.fullmatch(text)
        collection, scalar = (match[1], match[2]) if match else ("", text)
        if scalar not in SCALARS or (collection == "weightedset" and scalar in ("bool", "float", "double")):
            raise DeployError(unsupported(f"fields of type {text}"))
        return cls(scalar, collection)


@dataclass(frozen=True)
class LanguageRule:
    """`(input a || input b || "en") | set_language`: the value of the first of these fields that a document has, else
    `otherwise`."""

    inputs: tuple[str, ...]
    otherwise: str | None = None

    @classmethod
    def parse(cls, expression: str) -> LanguageRule:
        """Raises ValueError for anything but inputs and a literal at the end, joined by ||."""
        inputs, otherwise = [], None
        for part in expression.strip().removeprefix("(").removesuffix(")").split("||"):
            found = _ALTERNATIVE.fullmatch(part.strip())
            if found is None or otherwise is not None:
                raise ValueError(expression)
            if found[1]:
                inputs.append(found[1])
            else:
                otherwise = found[2]
        return cls(tuple(inputs), otherwise)

    def language(self, fields: Mapping[str, object]) -> str:
        """The language of a document's texts. English where Vespa would guess it."""
        value = next((fields[name] for name in self.inputs if fields.get(name) is not None), self.otherwise)
        try:
            found = language_of(None if value is None else str(value))
        except ValueError:
            found = UNKNOWN
        return ENGLISH if found == UNKNOWN else found


@dataclass(frozen=True)
class TextRule:
    """`input a . " " . ((input b | join " ") || "") | index`: a text of other fields, one after another. parts: (field,
    literal, delimiter of an array's elements), of which a part has its field or its literal.
    """

    parts: tuple[tuple[str, str, str | None], ...]

    @classmethod
    def parse(cls, expression: str) -> TextRule:
        """Raises ValueError for another expression."""
        parts, at = [], 0
        while at < len(expression):
            found = _PART.match(expression, at)
            if found is None or (found.end() == len(expression)) != (found[5] == ""):
                raise ValueError(expression)
            parts.append((found[1] or found[3] or "", found[2] or "", found[4]))
            at = found.end()
        if not any(name for name, _, _ in parts):
            raise ValueError(expression)
        return cls(tuple(parts))

    @property
    def inputs(self) -> tuple[str, ...]:
        return tuple(name for name, _, _ in self.parts if name)

    def text(self, fields: Mapping[str, Any]) -> str | None:
        """The text of a document; None where it lacks a field that has no alternative, as in Vespa (CatExpression)."""
        out = []
        for name, literal, delimiter in self.parts:
            value = fields.get(name) if name else literal
            if value is None and delimiter is None:
                return None
            out.append(value if isinstance(value, str) else (delimiter or "").join(value or ()))
        return "".join(out)


@dataclass(frozen=True)
class Field:
    """One field of a document type."""

    name: str
    type: FieldType
    index: bool = False
    attribute: bool = False
    summary: bool = False
    bm25: bool = False
    filter: bool = False
    cased: bool = False
    exact: bool = False
    exact_terminator: str | None = None  # of `match: exact`, where typed text names the field
    stemming: bool = True
    normalizing: bool = True
    metric: str = "euclidean"
    hnsw: tuple[int, int] | None = None
    weight: int = 100
    paged: bool = False
    sets_language: LanguageRule | None = None
    language: LanguageRule | None = None  # of its words, set by a field before it
    packs: str | None = None  # the tensor field whose signs it holds as bits
    made_of: TextRule | None = None  # the fields whose text it indexes

    @property
    def links(self) -> int | None:
        """Links of a node of its HNSW index; None where it has none."""
        if self.type.tensor is None or not self.index:
            return None
        return self.hnsw[0] if self.hnsw else HNSW_LINKS

    @property
    def in_document(self) -> bool:
        """Whether it is fed, and not made of other fields."""
        return self.packs is None and self.made_of is None

    @property
    def text(self) -> bool:
        """Whether its words are indexed."""
        return self.index and self.type.scalar == "string" and self.type.tensor is None


@dataclass(frozen=True)
class OnnxModel:
    """`onnx-model name { file: … }`: where inputs come from, and under which names outputs are known."""

    name: str
    file: str
    inputs: dict[str, str] = field(default_factory=dict)
    outputs: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Constant:
    """`constant name type: value` or `file: …`. `value` is the literal; exactly one of the two is set."""

    name: str
    type: TensorType
    value: str | None = None
    file: str | None = None


@dataclass(frozen=True)
class Schema:
    """A document type with everything but its rank profiles."""

    name: str
    fields: dict[str, Field]
    fieldsets: dict[str, tuple[str, ...]]
    summaries: dict[str, dict[str, str]]
    onnx: dict[str, OnnxModel]
    constants: dict[str, Constant]
    profiles: tuple[Statement, ...] = ()

    def searched(self, name: str) -> tuple[Field, ...] | None:
        """The fields that a query means by a name: the field, or those of the fieldset; None where there is neither."""
        if name in self.fieldsets:
            return tuple(self.fields[f] for f in self.fieldsets[name])
        if name in self.fields:
            return (self.fields[name],)
        if name == "default":
            return ()
        return None


def read_schema(statements: list[Statement], others: dict[str, Schema]) -> Schema:
    """The schema of a file's statements. `others` are schemas already read, which this one may inherit.
    Raises DeployError."""
    top = [s for s in statements if s.keyword in ("schema", "search")]
    if len(top) != 1 or len(statements) != 1:
        raise (statements[0] if statements else Statement("", None, None, "schema", 1)).error(
            "a schema file holds one 'schema name { … }'"
        )
    schema = top[0]
    name = schema.words[1] if len(schema.words) > 1 else ""
    fields: dict[str, Field] = {}
    fieldsets: dict[str, tuple[str, ...]] = {}
    summaries: dict[str, dict[str, str]] = {}
    onnx: dict[str, OnnxModel] = {}
    constants: dict[str, Constant] = {}
    profiles: list[Statement] = []
    bases = set(_inherited(schema))
    documents = [c for c in schema.children if c.keyword == "document"]
    if len(documents) != 1:
        raise schema.error("a schema has exactly one document")
    name = name or documents[0].words[1]
    if documents[0].words[1:2] not in ([name], []):
        raise schema.error(f"the document of schema '{name}' must have its name")
    for base in [*bases, *_inherited(documents[0])]:
        if base not in others:
            raise schema.error(f"schema '{name}' inherits '{base}', which is not in the package")
        fields.update(others[base].fields)
        fieldsets.update(others[base].fieldsets)
        if base in bases:
            summaries.update(others[base].summaries)
            onnx.update(others[base].onnx)
            constants.update(others[base].constants)
            profiles.extend(others[base].profiles)
    stemming = next((c.value for c in schema.children if c.keyword == "stemming"), "best") != "none"
    rule = next((f.sets_language for f in reversed(fields.values()) if f.sets_language), None)
    for statement in documents[0].children:
        if statement.keyword != "field":
            raise statement.error(unsupported(f"'{statement.keyword}' in a document"))
        found = read_field(statement, stemming)
        if found.made_of is not None:
            raise statement.error(unsupported(f"'input' in a field of the document ({found.name})"))
        rule = found.sets_language or rule
        fields[found.name] = replace(found, language=rule) if found.text else found
    for statement in schema.children:
        match statement.keyword:
            case "document":
                pass
            case "fieldset":
                listed = next((c.value for c in statement.children if c.header == "fields"), None) or ""
                fieldsets[statement.words[1]] = tuple(f.strip() for f in listed.split(",") if f.strip())
            case "document-summary":
                summaries[statement.words[1]] = read_summary(statement, summaries)
            case "onnx-model":
                model = read_onnx_model(statement)
                onnx[model.name] = model
            case "constant":
                constant = read_constant(statement)
                constants[constant.name] = constant
            case "constants":
                constants |= {c.name: c for c in read_constants(statement)}
            case "rank-profile":
                profiles.append(statement)
            case "stemming":
                pass
            case "field":
                found = read_field(statement, stemming)
                if found.packs is not None:
                    _check_packed(found, fields.get(found.packs), statement)
                elif found.made_of is not None:
                    _check_made(found, fields, statement)
                    found = replace(found, language=rule)
                else:
                    what = f"a field outside the document ({found.name}) but packed bits and joined texts"
                    raise statement.error(unsupported(what))
                fields[found.name] = found
            case "raw-as-base64-in-summary":
                pass
            case other:
                raise statement.error(unsupported(f"'{other}' in a schema"))
    for made in fields.values():
        for source in made.sets_language.inputs if made.sets_language else ():
            if source not in fields:
                raise schema.error(f"For schema '{name}', field '{made.name}': input field '{source}' does not exist")
    for fieldset, members in fieldsets.items():
        for member in members:
            if member not in fields:
                raise schema.error(f"For schema '{name}': Field set '{fieldset}': field '{member}' does not exist")
    return Schema(name, fields, fieldsets, summaries, onnx, constants, tuple(profiles))


def _inherited(statement: Statement) -> list[str]:
    words = statement.header.replace(",", " ").split()
    return words[words.index("inherits") + 1 :] if "inherits" in words else []


def read_field(statement: Statement, stemming: bool = True) -> Field:
    """`field name type t { … }`; `stemming` is the schema's, which a field may override."""
    words = statement.header.split(None, 3)
    if len(words) != 4 or words[2] != "type":
        raise statement.error("expected 'field name type …'")
    try:
        kind = FieldType.parse(words[3])
    except DeployError as e:
        raise statement.error(str(e)) from e
    made: dict[str, object] = {"name": words[1], "type": kind, "stemming": stemming}
    for child in statement.children:
        settings = child.settings()
        match child.keyword:
            case "indexing":
                made |= _indexing(child, words[1])
            case "index":
                for key in settings:
                    if key == "enable-bm25":
                        made["bm25"] = True
                    elif key == "hnsw":
                        inner = {c.header: c.value or "" for s in child.children if s.header == key for c in s.children}
                        known = {"max-links-per-node": str(HNSW_LINKS), "neighbors-to-explore-at-insert": "200"}
                        for option in set(inner) - set(known) - {"multi-threaded-indexing"}:
                            raise child.error(unsupported(f"the hnsw setting '{option}'"))
                        both = {**known, **inner}
                        made["hnsw"] = (
                            child.integer(both["max-links-per-node"]),
                            child.integer(both["neighbors-to-explore-at-insert"]),
                        )
                    else:
                        raise child.error(unsupported(f"the index setting '{key}' (field {words[1]})"))
            case "attribute":
                for key, value in settings.items():
                    if key == "distance-metric":
                        if value not in METRICS:
                            raise child.error(unsupported(f"the distance metric '{value}'"))
                        made["metric"] = value
                    elif key == "paged":
                        made["paged"] = True
                    elif key not in ("fast-search", "fast-access", "fast-rank"):
                        raise child.error(unsupported(f"the attribute setting '{key}' (field {words[1]})"))
            case "match":
                for key in settings:
                    if key == "cased":
                        made["cased"] = True
                    elif key in ("word", "exact"):
                        made["exact"] = True
                        if key == "exact":
                            made.setdefault("exact_terminator", "@@")
                    elif key == "exact-terminator":
                        made["exact_terminator"] = (settings[key] or "@@").strip('"')
                    elif key not in ("text", "uncased"):
                        raise child.error(unsupported(f"'match: {key}' (field {words[1]})"))
            case "rank":
                for key in settings:
                    if key != "filter":
                        raise child.error(unsupported(f"'rank: {key}' (field {words[1]})"))
                    made["filter"] = True
            case "stemming":
                made["stemming"] = child.value != "none"
            case "normalizing":
                made["normalizing"] = child.value != "none"
            case "weight":
                made["weight"] = child.integer(child.value or "100")
            case "dictionary" if set(settings) <= {"btree", "hash", "uncased"}:
                pass
            case "summary" if not settings:
                made["summary"] = True
            case other:
                raise child.error(unsupported(f"'{other}' in a field ({words[1]})"))
    made_field = Field(**made)  # type: ignore[arg-type]
    _check_field(made_field, statement)
    return made_field


def _indexing(statement: Statement, name: str) -> dict[str, object]:
    """What an indexing statement of a field sets."""
    made: dict[str, object] = {}
    text = statement.value or (statement.body or "").strip().rstrip(";")
    if packed := _PACKED.match(text):
        made["packs"], text = packed[1], text[packed.end() :]
    if joined := _joined(text):
        made["made_of"], text = joined, "index"
    computed: LanguageRule | None = None  # the value that flows through the statement, where it is not the field's own
    for number, part in enumerate(re.split(r"(?<!\|)\|(?!\|)", text)):
        part = part.strip()
        if part == "set_language":
            made["sets_language"] = computed or LanguageRule((name,))
        elif part in ("index", "attribute", "summary") and computed in (None, LanguageRule((name,))):
            made[part] = True
        elif number == 0 and "set_language" in text:
            try:
                computed = LanguageRule.parse(part)
            except ValueError:
                raise statement.error(unsupported(f"'{part}' in an indexing statement (field {name})")) from None
        else:
            raise statement.error(unsupported(f"'{part}' in an indexing statement (field {name})"))
    return made


def _joined(text: str) -> TextRule | None:
    """The rule of a statement that indexes a text of other fields."""
    expression, bar, last = text.rpartition("|")
    if not bar or last.strip() != "index" or expression.rstrip().endswith("|"):
        return None
    try:
        return TextRule.parse(expression.strip())
    except ValueError:
        return None


def _check_made(found: Field, fields: Mapping[str, Field], statement: Statement) -> None:
    """A text of strings, and of arrays of strings that are joined."""
    assert found.made_of is not None
    for name, _, delimiter in found.made_of.parts:
        if name and name not in fields:
            raise statement.error(f"field '{found.name}': input field '{name}' does not exist")
        wanted = FieldType("string", "" if delimiter is None else "array")
        if name and fields[name].type != wanted:
            raise statement.error(unsupported(f"joining {fields[name].type} {name} into {found.name}"))
    if found.type != FieldType("string"):
        raise statement.error(unsupported(f"a text of other fields as {found.type} (field {found.name})"))


def _check_packed(found: Field, source: Field | None, statement: Statement) -> None:
    """The bits of a vector: an int8 for each eight of its cells."""
    cells = source.type.tensor if source else None
    own = found.type.tensor
    if cells is None or own is None or cells.mapped or len(cells.shape) != 1 or own.cell != "int8":
        raise statement.error(unsupported(f"packing '{found.packs}' into {found.type} (field {found.name})"))
    if own.mapped or own.shape != (cells.shape[0] // 8,) or cells.shape[0] % 8:
        raise statement.error(f"Field '{found.name}': {found.type} does not hold the bits of {cells}")


def _check_field(found: Field, statement: Statement) -> None:
    kind = found.type
    if kind.tensor is not None and found.index and not found.attribute:
        raise statement.error(f"Field '{found.name}': A tensor that is an index must be an attribute too")
    if kind.tensor is None and found.index and kind.scalar != "string":
        raise statement.error(
            f"Field '{found.name}': index is only possible for strings and tensors, not {kind}; use attribute"
        )
    if kind.tensor is not None and found.index and (kind.tensor.mapped or len(kind.tensor.indexed) != 1):
        raise statement.error(unsupported(f"an index on {kind} (field {found.name}); only tensor(x[n])"))
    if found.bm25 and not found.text:
        raise statement.error(f"Field '{found.name}': enable-bm25 needs an indexed string")
    if found.text and found.attribute:
        raise statement.error(unsupported(f"both index and attribute on the string {found.name}"))
    if found.text and (found.exact or found.cased):
        raise statement.error(unsupported(f"match exact, word or cased on the index {found.name}; use an attribute"))
    if kind.tensor is not None and found.metric == "hamming" and kind.tensor.cell != "int8":
        raise statement.error(unsupported(f"hamming distance on {kind} (field {found.name}); only int8"))


def read_summary(statement: Statement, known: dict[str, dict[str, str]]) -> dict[str, str]:
    """`document-summary name [inherits a] { … }` as {name in the summary: field}."""
    fields: dict[str, str] = {}
    for base in _inherited(statement):
        if base not in known and base != "default":
            raise statement.error(f"document-summary inherits '{base}', which does not exist")
        fields.update(known.get(base, {}))
    for child in statement.children:
        if child.keyword == "summary" and len(child.words) >= 2:
            source = child.words[1]
            for inner in child.children:
                if inner.keyword == "source" and inner.value:
                    source = inner.value.strip()
                else:
                    raise inner.error(unsupported(f"'{inner.keyword}' in a summary field"))
            fields[child.words[1]] = source
        elif child.keyword not in ("from-disk", "omit-summary-features"):
            raise child.error(unsupported(f"'{child.keyword}' in a document-summary"))
    return fields


def read_onnx_model(statement: Statement) -> OnnxModel:
    """`onnx-model name { file: … input a: … output b: … }`."""
    file, inputs, outputs = "", {}, {}
    for child in statement.children:
        name = child.words[1].strip('"') if len(child.words) > 1 else ""
        if child.keyword == "file":
            file = (child.value or "").strip()
        elif child.keyword == "input":
            inputs[name] = (child.value or "").strip()
        elif child.keyword == "output":
            outputs[name] = (child.value or "").strip()
        elif child.keyword not in (
            "gpu-device", "intraop-threads", "interop-threads", "execution-mode", "optimize-model",
        ):  # fmt: skip
            raise child.error(unsupported(f"'{child.keyword}' in an onnx-model"))
    if not file:
        raise statement.error("an onnx-model needs a 'file'")
    return OnnxModel(statement.words[1], file, inputs, outputs)


def read_constant(statement: Statement) -> Constant:
    """`constant name { file: …  type: … }` or `constant name type: value`."""
    if statement.value is not None:
        return read_inline_constant(statement.header.split(None, 1)[1], statement.value, statement)
    settings = {c.header: c.value or "" for c in statement.children}
    if "file" not in settings or "type" not in settings:
        raise statement.error("a constant needs 'file' and 'type'")
    return Constant(statement.words[1], _tensor_type(settings["type"], statement), file=settings["file"].strip())


def read_constants(statement: Statement) -> list[Constant]:
    """`constants { name type: value … }`."""
    return [read_inline_constant(c.header, c.value, c) for c in statement.children]


def read_inline_constant(header: str, value: str | None, statement: Statement) -> Constant:
    """`name [type]: literal` or `name type: file: path`; the type is double where there is none."""
    words = header.split(None, 1)
    kind = _tensor_type(words[1] if len(words) > 1 else "double", statement)
    if value is None:
        raise statement.error(f"the constant '{words[0]}' has no value")
    if value.startswith("file:"):
        return Constant(words[0], kind, file=value[5:].strip())
    return Constant(words[0], kind, value=value)


def _tensor_type(text: str, statement: Statement) -> TensorType:
    try:
        return TensorType.parse(text.strip())
    except TensorError as e:
        raise statement.error(str(e)) from e
