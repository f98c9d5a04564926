"""Schema and rank profiles against the manifest and against themselves."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from pathlib import Path

from mrse_model.errors import InputError
from mrse_model.serving.manifest import Manifest
from mrse_model.serving.mix import ALPHA_FILE, POPULARITY_FILE, read_mix
from vespa_package.fields import INT8, VECTOR_FIELDS
from vespa_package.schema import Field, OnnxUse, Profile, Schema, missing_constants

LINEAR = "hybrid_linear"
BUILT_IN = {"firstPhase", "secondPhase"}


def check_item_schema(item: Schema, manifest: Manifest) -> Iterator[InputError]:
    """The vector fields hold what the model makes, and can be searched."""
    for name in VECTOR_FIELDS:
        field = item.fields.get(name)
        wanted = f"tensor<bfloat16>(x[{manifest.dims}])"
        if field is None:
            yield InputError("the field is missing", file=item.file, field=name, fix=f"Add: field {name} type {wanted}")
            continue
        size = re.search(r"x\[(\d+)\]", field.type)
        if not size or int(size[1]) != manifest.dims:
            yield InputError(
                f"type {field.type}, and the model makes {manifest.dims} dimensions",
                file=item.file, field=name, fix=f"Change the type to {wanted}",
            )  # fmt: skip
        if "paged" in field.options and field.has_hnsw:
            yield InputError(
                "a paged attribute with an HNSW index reads the disk at every step of the graph",
                file=item.file, field=name, fix="Remove paged, or put the graph over bits as variants/compact",
            )  # fmt: skip
        if name == "text_feature":
            continue
        int8 = item.fields.get(name + INT8)
        if int8 is not None:
            yield from _check_int8(int8, manifest)
        derived = [f for f in item.fields.values() if f.has_hnsw and re.search(rf"input {name}\b", f.indexing)]
        if not field.has_hnsw and not derived and int8 is None:
            yield InputError(
                "no HNSW index, so every search would be exact",
                file=item.file,
                field=name,
                fix="Add: index { hnsw { … } }",
            )
        if field.has_hnsw and _metric(field) != manifest.distance_metric:
            yield InputError(
                f"distance-metric {_metric(field)}, and the model is made for {manifest.distance_metric}",
                file=item.file, field=name, fix=f"Write: attribute {{ distance-metric: {manifest.distance_metric} }}",
            )  # fmt: skip
    for name in ("item_id", "title"):
        if name not in item.fields:
            yield InputError("the field is missing", file=item.file, field=name, fix=f"Add: field {name} type string")
    if "model_version" not in item.fields:
        yield InputError(
            "the field is missing, so vectors of two models could mix",
            file=item.file, field="model_version", fix="Add: field model_version type string, an attribute",
        )  # fmt: skip
    for fieldset, names in item.fieldsets.items():
        for name in names:
            if name not in item.fields:
                yield InputError(
                    f"fieldset {fieldset} names a field that is not there",
                    file=item.file, field=name, fix="Remove it from the fieldset, or add the field",
                )  # fmt: skip


def check_language(schema: Schema) -> Iterator[InputError]:
    """Warnings: texts whose language nothing says, so that Vespa guesses it from each document's words."""
    guessed = []
    for field in schema.fields.values():
        if field.sets_language:
            break
        if field.is_text and "stemming none" not in field.options:
            guessed.append(field.name)
    if guessed:
        yield InputError(
            f"nothing sets the language of {', '.join(guessed)}: Vespa guesses it from each document's words, and "
            "stems some as another language's",
            file=schema.file,
            field=guessed[0],
            fix='Add above it: field language type string { indexing: (input language || "en") | set_language }',
        )


def check_mix(schema: Schema, models: Path) -> Iterator[InputError]:
    """Warnings: what training chose for the hybrid, and a profile of an earlier version does not read."""
    profile = schema.profiles.get(LINEAR)
    if profile is None or not (models / ALPHA_FILE).is_file() or not (models / POPULARITY_FILE).is_file():
        return
    weight, popularity = read_mix(models)
    chosen = {ALPHA_FILE: weight, POPULARITY_FILE: popularity or None}
    read = {Path(file).name for some in schema.profiles.values() for file in some.constants.values()}
    for name, value in chosen.items():
        if value is not None and name not in read:
            yield InputError(
                f"training chose {value:g} in {name}, and no rank profile reads it",
                file=profile.file, fix=f"Take {profile.file.name} as mrse init writes it into an empty folder",
            )  # fmt: skip


def _check_int8(field: Field, manifest: Manifest) -> Iterator[InputError]:
    """A field of whole numbers beside a vector field: its type, its graph, its metric."""
    wanted = {
        "type": (field.type, f"tensor<int8>(x[{manifest.dims}])"),
        "index": ("hnsw" if field.has_hnsw else "none", "hnsw"),
        "distance-metric": (_metric(field), manifest.distance_metric),
    }
    for what, (found, right) in wanted.items():
        if found != right:
            yield InputError(
                f"{what} {found}, and whole numbers of this model's vectors need {right}",
                file=field.file, field=field.name, fix="Write the field as variants/int8/schemas/item.sd has it",
            )  # fmt: skip


def _metric(field: Field) -> str:
    return field.metric or "euclidean"  # Vespa's default


def check_profiles(schema: Schema, app: Path, manifest: Manifest) -> Iterator[InputError]:
    """Each rank profile: what it inherits, reads and runs is there."""
    for profile in schema.profiles.values():
        if profile.file.suffix == ".profile":
            if not profile.file.read_text("utf-8").lstrip().startswith("rank-profile"):
                yield InputError(
                    "the file does not start with rank-profile, and Vespa refuses a comment before it",
                    file=profile.file, row=0, fix="Move the comment into the braces",
                )  # fmt: skip
            if profile.file.stem != profile.name:
                yield InputError(
                    f"holds the rank profile {profile.name}", file=profile.file, fix=f"Rename it {profile.name}.profile"
                )
        unknown = [name for name in profile.inherits if name not in {*schema.profiles, "default"}]
        for name in unknown:
            yield InputError(
                f"inherits {name}, which is no rank profile of schema {schema.name}",
                file=profile.file, fix=f"Take one of: {', '.join(sorted(schema.profiles))}",
            )  # fmt: skip
        if unknown:
            continue
        yield from _check_features(schema, profile)
        for name, use in profile.onnx.items():
            yield from _check_onnx(schema, profile, name, use, app, manifest)
        yield from missing_constants([profile], app)
        yield from _check_folding(schema, profile)
        yield from _check_tokens(profile, manifest)


def _check_features(schema: Schema, profile: Profile) -> Iterator[InputError]:
    expressions = profile.functions | profile.phases | {"match-features": " ".join(profile.match_features)}
    inputs, functions, onnx = schema.inputs(profile), schema.functions(profile), schema.onnx(profile)

    def wrong(where: str, problem: str, fix: str) -> InputError:
        return InputError(problem, file=profile.file, field=where, fix=fix)

    for where, expression in expressions.items():
        for name in re.findall(r"\bquery\((\w+)\)", expression):
            if name not in inputs:
                yield wrong(where, f"query({name}) is not declared", f"Declare it in inputs: query({name}) TYPE")
        for name in re.findall(r"\battribute\((\w+)\)", expression):
            if name not in schema.fields or not schema.fields[name].is_attribute:
                attributes = [field.name for field in schema.fields.values() if field.is_attribute]
                yield wrong(where, f"attribute({name}) is no attribute of {schema.file.name}", _right(name, attributes))
        for name in re.findall(r"\b(?:closeness|distance)\(\s*field\s*,\s*(\w+)\s*\)", expression):
            if name not in schema.fields:
                yield wrong(
                    where, f"closeness of {name}, which is no field of {schema.file.name}", _right(name, schema.fields)
                )
        for name in re.findall(r"\bbm25\((\w+)\)", expression):
            if name not in schema.fields or "enable-bm25" not in schema.fields[name].options:
                yield wrong(
                    where, f"bm25({name}): no field with BM25 of that name", "Add to the field: index: enable-bm25"
                )
        for name, output in re.findall(r"\bonnx\((\w+)\)\.(\w+)", expression):
            if name not in onnx or output not in onnx[name].outputs.values():
                yield wrong(
                    where, f"onnx({name}).{output} is not declared", "Add it as an output of an onnx-model block"
                )
    for name in profile.match_features:
        if "(" not in name and name not in {*functions, *BUILT_IN}:
            yield wrong(
                "match-features", f"{name} is no function of this profile", _right(name, functions) + ", or define it"
            )


def _right(name: str, names: Iterable[str]) -> str:
    """The name that was probably meant."""
    near = get_close_matches(name, names, n=1)
    return f"Write the name {near[0]}" if near else f"Write a name of: {', '.join(sorted(names))}"


def _check_onnx(
    schema: Schema, profile: Profile, name: str, use: OnnxUse, app: Path, manifest: Manifest
) -> Iterator[InputError]:
    where = f"onnx-model {name}"
    if not (app / use.file).is_file():
        yield InputError(f"{use.file} is not in the package", file=profile.file, field=where, fix="Run: mrse export")
        return
    model = next((m for m in manifest.models.values() if f"models/{m.file}" == use.file), None)
    if model is None:
        return  # a model of the user's own
    inputs, outputs = {p.name: p for p in model.inputs}, {p.name for p in model.outputs}
    for port in use.inputs.keys() - inputs.keys():
        yield InputError(
            f"{use.file} has no input {port}", file=profile.file, field=where, fix=f"Its inputs: {', '.join(inputs)}"
        )
    for port in inputs.keys() - use.inputs.keys():
        yield InputError(
            f"input {port} of {use.file} is not mapped", file=profile.file, field=where, fix=f"Add: input {port}: …"
        )
    for port in use.outputs.keys() - outputs:
        yield InputError(
            f"{use.file} has no output {port}",
            file=profile.file, field=where, fix=f"Its outputs: {', '.join(sorted(outputs))}",
        )  # fmt: skip
    functions, declared = schema.functions(profile), schema.inputs(profile)
    for port, source in use.inputs.items():
        expression = functions.get(source, source)
        feature = re.fullmatch(r"query\((\w+)\)", expression.strip())
        if feature and feature[1] in declared and port in inputs:
            sizes = re.findall(r"\[(\d+)\]", declared[feature[1]])
            wanted = [str(n) if isinstance(n, int) else None for n in inputs[port].shape]
            if len(sizes) != len(wanted) or any(w and w != s for s, w in zip(sizes, wanted, strict=False)):
                yield InputError(
                    f"query({feature[1]}) is {declared[feature[1]]}, and input {port} of {use.file} is "
                    f"{list(inputs[port].shape)}",
                    file=profile.file, field=where, fix="Declare the input with the sizes of the graph",
                )  # fmt: skip


def _check_folding(schema: Schema, profile: Profile) -> Iterator[InputError]:
    """Functions that this profile gives to an ONNX model, its own or an inherited one, must stay tensors."""
    sources = {(port, source) for use in schema.onnx(profile).values() for port, source in use.inputs.items()}
    for port, source in sorted(sources):
        expression = profile.functions.get(source, "")
        if re.search(r"\*\s*0(\.0*)?\s*$|^\s*0(\.0*)?\s*\*", expression):
            yield InputError(
                f"ONNX input {port} comes from {source} = {expression}, which Vespa folds to the number 0",
                file=profile.file, field=source, fix="Write zeros as a tensor: tensor<float>(d0[1],d1[20])(0)",
            )  # fmt: skip


def _check_tokens(profile: Profile, manifest: Manifest) -> Iterator[InputError]:
    """customTokenInputIds and the token input agree with the tokenizer and the length that the model takes."""
    cls, sep, length = (manifest.special_tokens["cls"], manifest.special_tokens["sep"], manifest.query_tokens)
    for name, expression in profile.functions.items():
        for found in re.findall(r"customTokenInputIds\((\d+),\s*(\d+),\s*(\d+)", expression):
            if tuple(map(int, found)) != (cls, sep, length):
                yield InputError(
                    f"customTokenInputIds({', '.join(found)}, …); the model has CLS {cls}, SEP {sep}, {length} tokens",
                    file=profile.file, field=name, fix=f"Write customTokenInputIds({cls}, {sep}, {length}, …)",
                )  # fmt: skip
    size = re.fullmatch(r"tensor<\w+>\(d0\[(\d+)\]\)", profile.inputs.get("tokens", ""))
    if size and int(size[1]) != length - 2:
        yield InputError(
            f"query(tokens) has {size[1]} tokens, and the model takes {length} tokens with CLS and SEP",
            file=profile.file, field="query(tokens)", fix=f"Declare tensor<float>(d0[{length - 2}])",
        )  # fmt: skip
