"""From model A to model B without downtime: packages with two sets of vectors, and the backfill between them.

    1 both, A serves    fields embedding_next … beside embedding …; B's vectors are assigned to the former
    2 both, B serves    the query profiles turn to the new fields; B's vectors are assigned to the old ones
    3 B twice           the new model also under the old names, which no query profile uses
    4 B twice           the query profiles turn back to the old fields, which hold B's vectors now
    5 plain             the second set goes: the package as it was, with model B

Each step only turns to what every node had before it, since containers and content nodes do not take a new package at
the same instant: so no query fails and none meets vectors of two models. Vespa adds and removes fields without a
restart or a re-feed. The price: two writes an item and, meanwhile, the memory of two sets of vectors.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

from mrse_model.errors import InputError
from mrse_model.serving.manifest import Manifest
from vespa_package.fields import MODEL_FIELDS

SUFFIX = "_next"
IN_VESPA = ("query_text.onnx", "query_tower.onnx", "query_experts.onnx", "tokenizer.json")  # what the package runs
EXPORTED = (*IN_VESPA, "item_tower.onnx", "manifest.json")


def plain_package(app: Path, models: Path, out: Path) -> Path:
    """Writes `app` with the exported model of `models` into the new folder `out`."""
    Manifest.load(models)
    shutil.copytree(app, out, ignore=shutil.ignore_patterns("models"))
    (out / "models").mkdir()
    for name in EXPORTED:
        shutil.copy2(models / name, out / "models" / name)
    return out


def double_package(app: Path, models: Path, next_models: Path, out: Path, *, serve_next: bool) -> Path:
    """Writes `app` with a second set of vectors, rank profiles and embedders, named `…_next`, into the new folder
    `out`.

    models, next_models: the exports behind the two sets. serve_next: which of them the query profiles use. Raises
    InputError when a part of the package is not as this needs it.
    """
    Manifest.load(next_models)
    plain_package(app, models, out)
    for name in IN_VESPA:
        shutil.copy2(next_models / name, out / "models" / f"next_{name}")
    schema = out / "schemas" / "item.sd"
    fields = versioned_fields(schema.read_text("utf-8"))
    names = "|".join(fields)
    _rewrite(out / "services.xml", _double_components)
    _rewrite(schema, lambda text: _double_fields(text, fields))
    for profile in sorted((out / "schemas" / "item").glob("*.profile")):
        profile.with_stem(profile.stem + SUFFIX).write_text(_next_profile(profile.read_text("utf-8"), names), "utf-8")
    if serve_next:
        for profile in sorted((out / "search" / "query-profiles").glob("*.xml")):
            _rewrite(profile, lambda text: _next_query_profile(text, names))
    return out


def versioned_fields(schema: str) -> list[str]:
    """The fields of item.sd that a model makes: the vectors, what Vespa derives from them, and the version."""
    made = [name for name in MODEL_FIELDS if re.search(rf"^ *field {name} type ", schema, re.MULTILINE)]
    derived = rf"^ *field (\w+) type [^{{]*\{{[^}}]*\bindexing: *input (?:{'|'.join(made)})\b"
    return [*made, *re.findall(derived, schema, re.MULTILINE)]


def _rewrite(file: Path, change: Callable[[str], str]) -> None:
    text = file.read_text("utf-8")
    try:
        file.write_text(change(text), "utf-8")
    except ValueError as error:
        raise InputError(str(error), file=file, fix="Migrate by hand: docs/serving.md has the steps") from None


def _double_components(text: str) -> str:
    """A second embedder and tokenizer after the first ones."""

    def twice(found: re.Match[str]) -> str:
        second = found[0].replace(f'id="{found[1]}"', f'id="{found[1]}{SUFFIX}"').replace("models/", "models/next_")
        return f"{found[0]}\n\n    {second}"

    changed, n = re.subn(r'<component id="(text\w*|tokenizer)".*?</component>', twice, text, flags=re.DOTALL)
    if n < 2:
        raise ValueError("no components text and tokenizer")
    return changed


def _double_fields(text: str, fields: list[str]) -> str:
    """Each of these fields a second time; the summary of vectors too."""
    names = "|".join(fields)
    for name in fields:
        start = re.search(rf"^ *field {name} type ", text, re.MULTILINE)
        if start is None:
            raise ValueError(f"no field {name}")
        end, depth = text.index("{", start.end()) + 1, 1
        if text[start.end() :].startswith("tensor"):  # a mapped dimension has braces of its own
            end = re.compile(r"\)\s*\{").search(text, start.end()).end()  # type: ignore[union-attr]
        while depth:
            end += 1
            depth += {"{": 1, "}": -1}.get(text[end - 1], 0)
        block = text[start.start() : end].replace(f"field {name} ", f"field {name}{SUFFIX} ")
        block = re.sub(rf"\binput ({names})\b", rf"input \1{SUFFIX}", block)
        text = text[:end] + "\n" + block + text[end:]
    return re.sub(rf"^( *)summary ({names}) \{{ \}}", rf"\g<0>\n\1summary \2{SUFFIX} {{ }}", text, flags=re.MULTILINE)


def _next_profile(text: str, names: str) -> str:
    """A rank profile over the second set of vectors."""
    text = re.sub(r"(rank-profile|inherits) (\w+)", rf"\1 \2{SUFFIX}", text)
    text = re.sub(rf"(attribute\(|\(field, ?)({names})\)", rf"\1\2{SUFFIX})", text)
    text = re.sub(r"(onnx-model |onnx\()(\w+)", rf"\1\2{SUFFIX}", text)
    return text.replace("file: models/", "file: models/next_")


def _next_query_profile(text: str, names: str) -> str:
    """A query profile that embeds with the second model and searches its vectors."""
    text = re.sub(r'(<field name="ranking">)(\w+)', rf"\1\2{SUFFIX}", text)
    text = re.sub(r"embed\((text\w*|tokenizer),", rf"embed(\1{SUFFIX},", text)
    text = re.sub(rf"(nearestNeighbor\()({names}),", rf"\1\2{SUFFIX},", text)
    return re.sub(rf"\b({names}) contains", rf"\1{SUFFIX} contains", text)
