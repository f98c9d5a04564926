"""A package with two sets of vectors, of an old model and of a new one: what a migration deploys on its way.

The second set is named `…_next`: fields, rank profiles, ONNX models, embedders. `feeders.migration` has the steps.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from local_vespa.package.sd import Statement
from mrse_model.errors import InputError
from mrse_model.serving.manifest import Manifest
from mrse_model.serving.mix import ALPHA_FILE, POPULARITY_FILE, mix_constant
from vespa_package.fields import MODEL_FIELDS
from vespa_package.overlay import line_end
from vespa_package.schema import Schema, read_schema, read_statements

SUFFIX = "_next"
# What the package runs, and the constants of its hybrid.
IN_VESPA = ("query_text.onnx", "query_tower.onnx", "query_experts.onnx", "tokenizer.json", ALPHA_FILE, POPULARITY_FILE)
EXPORTED = (*IN_VESPA, "item_tower.onnx", "manifest.json")


def plain_package(app: Path, models: Path, out: Path) -> Path:
    """Writes `app` with the exported model of `models` into the new folder `out`."""
    Manifest.load(models)
    shutil.copytree(app, out, ignore=shutil.ignore_patterns("models"))
    (out / "models").mkdir()
    for name in EXPORTED:
        copy_exported(models, name, out / "models" / name)
    return out


def copy_exported(models: Path, name: str, out: Path) -> None:
    """Copies a file of an exported model. An export from before popularity was a part of the mix gives it no weight."""
    if name == POPULARITY_FILE and not (models / name).is_file():
        out.write_text(mix_constant(0) + "\n", "utf-8")
    else:
        shutil.copy2(models / name, out)


def double_package(app: Path, models: Path, next_models: Path, out: Path, *, serve_next: bool) -> Path:
    """Writes `app` with a second set of vectors, rank profiles and embedders, named `…_next`, into the new folder
    `out`.

    models, next_models: the exports behind the two sets. serve_next: which of them the query profiles use. Raises
    InputError when a part of the package is not as this needs it.
    """
    Manifest.load(next_models)
    plain_package(app, models, out)
    for name in IN_VESPA:
        copy_exported(next_models, name, out / "models" / f"next_{name}")
    file = out / "schemas" / "item.sd"
    fields = versioned_fields(read_schema(file))
    names = "|".join(fields)
    _rewrite(out / "services.xml", _double_components)
    _rewrite(file, lambda text: _double_schema(text, file, fields))
    for profile in sorted((out / "schemas" / "item").glob("*.profile")):
        text = profile.read_text("utf-8")
        [statement] = read_statements(text, profile)
        profile.with_stem(profile.stem + SUFFIX).write_text(_next_profile(text, statement, names) + "\n", "utf-8")
    if serve_next:
        for profile in sorted((out / "search" / "query-profiles").glob("*.xml")):
            _rewrite(profile, lambda text: _next_query_profile(text, names))
    return out


def versioned_fields(item: Schema) -> list[str]:
    """The fields of a schema that a model makes: the vectors, the version, and what Vespa derives from the vectors."""
    made = [name for name in MODEL_FIELDS if name in item.fields]
    derived = [
        field.name
        for field in item.fields.values()
        if field.name not in made and set(re.findall(r"\binput (\w+)", field.indexing)) & set(made)
    ]
    return [*made, *derived]


def _rewrite(file: Path, change: Callable[[str], str]) -> None:
    text = file.read_text("utf-8")
    try:
        file.write_text(change(text), "utf-8")
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        raise InputError(str(error), file=file, fix="Migrate by hand: docs/feeding.md has the steps") from None


def _double_components(text: str) -> str:
    """A second embedder and tokenizer after the first ones."""

    def twice(found: re.Match[str]) -> str:
        second = found[0].replace(f'id="{found[1]}"', f'id="{found[1]}{SUFFIX}"').replace("models/", "models/next_")
        return f"{found[0]}\n\n    {second}"

    changed, n = re.subn(r'<component id="(text\w*|tokenizer)".*?</component>', twice, text, flags=re.DOTALL)
    if n < 2:
        raise ValueError("no components text and tokenizer")
    return changed


def _double_schema(text: str, file: Path, fields: Sequence[str]) -> str:
    """Each of these fields a second time after the first, also in summaries; rank profiles of the schema file too."""
    names = "|".join(fields)
    [schema] = read_statements(text, file)
    inserted: list[tuple[int, str]] = []
    for block in (schema, *(s for s in schema.children if s.keyword in ("document", "document-summary"))):
        for statement in block.children:
            copied = text[text.rfind("\n", 0, statement.start) + 1 : line_end(text, statement)]
            if statement.keyword in ("field", "summary") and statement.words[1:2] and statement.words[1] in fields:
                header = rf"\b({statement.keyword}\s+{statement.words[1]})\b"
                copied = re.sub(header, rf"\1{SUFFIX}", copied, count=1)
                copied = re.sub(rf"\b(input|source:) *({names})\b", rf"\1 \2{SUFFIX}", copied)
                inserted.append((line_end(text, statement), "\n" + copied))
            elif statement.keyword == "rank-profile":
                inserted.append((line_end(text, statement), "\n  " + _next_profile(text, statement, names)))
    for place, copied in sorted(inserted, reverse=True):
        text = text[:place] + copied + text[place:]
    return text


def _next_profile(text: str, profile: Statement, names: str) -> str:
    """A rank profile over the second set of vectors."""
    _, name, *rest = profile.words
    parents = [parent for parent in "".join(rest).removeprefix("inherits").split(",") if parent]
    inherits = ", ".join(parent if parent == "default" else parent + SUFFIX for parent in parents)
    body = text[profile.inside : profile.end]
    body = re.sub(rf"(\b(?:attribute|closeness|distance|rawScore)\(|\(field, ?)({names})\)", rf"\1\2{SUFFIX})", body)
    body = re.sub(r"(onnx-model |onnx\()(\w+)", rf"\1\2{SUFFIX}", body)
    for constant in re.findall(r"^ *(\w+) [^\n:]*: *file: *models/", body, re.MULTILINE):  # in a file of the model
        body = re.sub(rf"\b{constant}\b(?!\.json)", constant + SUFFIX, body)
    body = body.replace("file: models/", "file: models/next_")
    return f"rank-profile {name}{SUFFIX}{' inherits ' + inherits if inherits else ''} {{{body}"


def _next_query_profile(text: str, names: str) -> str:
    """A query profile that embeds with the second model and searches its vectors."""
    text = re.sub(r'(<field name="ranking">)(\w+)', rf"\1\2{SUFFIX}", text)
    text = re.sub(r"embed\((text\w*|tokenizer),", rf"embed(\1{SUFFIX},", text)
    text = re.sub(rf"(nearestNeighbor\()({names}),", rf"\1\2{SUFFIX},", text)
    return re.sub(rf"\b({names}) contains", rf"\1{SUFFIX} contains", text)
