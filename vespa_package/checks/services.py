"""services.xml and the query profiles against the package, the schemas and the manifest."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

from mrse_model.errors import InputError
from mrse_model.serving.manifest import Manifest
from vespa_package.overlay import read_xml
from vespa_package.schema import Schema


def check_services(app: Path, schemas: dict[str, Schema], manifest: Manifest) -> Iterator[InputError]:
    """Components point at files that are there with the options that this model needs; documents are schemas."""
    file = app / "services.xml"
    root = read_xml(file)
    embedders = [c for c in root.iter("component") if c.get("type") == "hugging-face-embedder"]
    if not embedders:
        yield InputError(
            "no hugging-face-embedder", file=file, field="component text",
            fix="Add the component text of the default package: query profiles call embed(text, @query)",
        )  # fmt: skip
    for component in embedders:
        yield from _check_embedder(component, file, manifest)
    for component in root.iter("component"):
        for element in component.iter():
            path = element.get("path")
            if path and not (app / path).is_file():
                yield InputError(
                    f"{path} is not in the package", file=file, field=f"component {component.get('id')}",
                    fix="Run: mrse export, or correct the path",
                )  # fmt: skip
    documents = {d.get("type", ""): d for d in root.iter("document")}
    for name, document in documents.items():
        if name not in schemas:
            yield InputError(
                f"document type {name} has no schema", file=file, field=f"document {name}",
                fix=f"Take one of: {', '.join(schemas)}, or add schemas/{name}.sd",
            )  # fmt: skip
            continue
        for used in re.findall(rf"\b{name}\.(\w+)", document.get("selection", "")):
            found = schemas[name].fields.get(used)
            if found is None or not found.is_attribute:
                yield InputError(
                    f"the selection reads {name}.{used}, which is no attribute", file=file, field=f"document {name}",
                    fix="Garbage collection needs an attribute: correct the name, or add indexing: attribute",
                )  # fmt: skip
    for name in schemas.keys() - documents.keys():
        yield InputError(
            f"schema {name} is in no content cluster", file=file, field="documents",
            fix=f'Add: <document type="{name}" mode="index"/>',
        )  # fmt: skip
    for feature, needed_by in (("search", "queries"), ("document-api", "feeding")):
        if next(root.iter(feature), None) is None:
            yield InputError(f"no <{feature}/>", file=file, fix=f"Add it to a container: {needed_by} need it")


def _check_embedder(component: ElementTree.Element, file: Path, manifest: Manifest) -> Iterator[InputError]:
    model = component.find("transformer-model")
    path = model.get("path", "") if model is not None else ""
    graph = next((m for m in manifest.models.values() if path == f"models/{m.file}"), None)
    wanted = {"pooling-strategy": "none", "normalize": "true", "max-tokens": str(manifest.query_tokens)}
    defaults = {
        "pooling-strategy": "mean",
        "normalize": "false",
        "max-tokens": "512",
        "transformer-output": "last_hidden_state",
    }
    if component.findtext("transformer-output", "").strip().endswith("_int8"):  # whole numbers, not unit vectors
        del wanted["normalize"]
    elif graph:
        wanted["transformer-output"] = graph.outputs[0].name
    reasons = {
        "pooling-strategy": "the graph pools by itself: its output has two dimensions",
        "normalize": f"{manifest.distance_metric} takes unit vectors",
        "max-tokens": "the model was trained with that many tokens",
        "transformer-output": f"that is the output of {path}",
    }
    for option, right in wanted.items():
        found = component.findtext(option, defaults[option]).strip()
        if found != right:
            yield InputError(
                f"{option} is {found}, and {reasons[option]}", file=file, field=f"component {component.get('id')}",
                fix=f"Write <{option}>{right}</{option}>",
            )  # fmt: skip
    if component.find("transformer-token-type-ids") is None and graph and len(graph.inputs) < 3:
        yield InputError(
            "no empty <transformer-token-type-ids/>, and the graph has no such input", file=file,
            field=f"component {component.get('id')}", fix="Add <transformer-token-type-ids/>",
        )  # fmt: skip


def check_query_profiles(app: Path, schemas: dict[str, Schema], manifest: Manifest) -> Iterator[InputError]:
    """Each query profile: parents, rank profile, embedders, inputs and the fields of its YQL are there."""
    components = {c.get("id") for c in read_xml(app / "services.xml").iter("component")}
    files = sorted((app / "search" / "query-profiles").glob("*.xml"))
    profiles, broken = {}, False
    for file in files:
        try:
            profiles[file.stem] = read_xml(file)
        except InputError as error:
            broken = True
            yield error
    item = schemas["item"]
    for name, root in profiles.items():
        file = app / "search" / "query-profiles" / f"{name}.xml"
        if root.get("id") != name:
            yield InputError(f"id is {root.get('id')}", file=file, fix=f'Write id="{name}", as the file is named')
        parent = root.get("inherits")
        if parent and parent not in profiles and not broken:
            yield InputError(
                f"inherits {parent}, which is not there", file=file, fix=f"Take one of: {', '.join(sorted(profiles))}"
            )
            continue
        fields: dict[str, str] = {}
        written = [root]
        while (above := profiles.get(written[-1].get("inherits", ""))) is not None and above not in written:
            written.append(above)
        for level in reversed(written):
            fields |= {f.get("name", ""): (f.text or "").strip() for f in level.iter("field")}
        yield from _check_query(file, fields, item, components, manifest)


def check_query_language(app: Path, schemas: dict[str, Schema]) -> Iterator[InputError]:
    """Warnings: documents say their language and queries do not, so that the two may be stemmed differently."""
    if not any(field.sets_language for schema in schemas.values() for field in schema.fields.values()):
        return
    file = app / "search" / "query-profiles" / "default.xml"
    names = {field.get("name") for field in read_xml(file).iter("field")} if file.is_file() else set()
    if not names & {"model.language", "language", "model.locale", "locale"}:
        yield InputError(
            "queries do not say their language, and Vespa guesses it from a few words",
            file=file,
            field="model.language",
            fix='Add to the query profile default: <field name="model.language">en</field>',
        )


def _check_query(
    file: Path, fields: dict[str, str], item: Schema, components: set[str | None], manifest: Manifest
) -> Iterator[InputError]:
    ranking, yql = fields.get("ranking") or fields.get("ranking.profile"), fields.get("yql", "")
    if ranking and ranking not in item.profiles:
        yield InputError(
            f"ranking {ranking} is no rank profile of schema item", file=file, field="ranking",
            fix=f"Take one of: {', '.join(sorted(item.profiles))}",
        )  # fmt: skip
        return
    inputs = item.inputs(item.profiles[ranking]) if ranking else {}
    for field, value in fields.items():
        feature = re.fullmatch(r"(?:ranking\.features\.|input\.)query\((\w+)\)", field)
        if not feature:
            continue
        if field.startswith("input."):
            yield InputError(
                "the short name works in requests only", file=file, field=field,
                fix=f"Write ranking.features.query({feature[1]})",
            )  # fmt: skip
        if feature[1] not in inputs:
            yield InputError(
                f"rank profile {ranking} declares no query({feature[1]})", file=file, field=field,
                fix="Declare it in inputs of the rank profile, or remove the field",
            )  # fmt: skip
        embedder = re.match(r"embed\(\s*(\w+)\s*,", value)
        if embedder and inputs.get(feature[1], "") == f"tensor<int8>(x[{manifest.dims}])":
            yield InputError(
                f"embed() into {inputs[feature[1]]} makes bits of the vector", file=file, field=field,
                fix=f"Declare query({feature[1]}) as tensor<float>(x[{manifest.dims}]), as variants/int8 does",
            )  # fmt: skip
        if embedder and embedder[1] not in components:
            yield InputError(
                f"embed({embedder[1]}, …): services.xml has no such component", file=file, field=field,
                fix=f"Take one of: {', '.join(sorted(str(c) for c in components))}",
            )  # fmt: skip
    if re.search(r"%\{", yql):
        yield InputError(
            "YQL with a substituted value: user text could become a query", file=file, field="yql",
            fix="Refer to the parameter: userInput(@query), embed(text, @query)",
        )  # fmt: skip
    for name in re.findall(r"@(\w+)", yql):
        if name == "query" and not re.search(r"userInput\(\s*@query", yql):
            yield InputError("@query outside userInput", file=file, field="yql", fix="Write userInput(@query)")
    for target, vector in re.findall(r"nearestNeighbor\(\s*(\w+)\s*,\s*(\w+)\s*\)", yql):
        found = item.fields.get(target)
        if found is None or not found.has_hnsw:
            yield InputError(
                f"nearestNeighbor over {target}, which has no HNSW index in item.sd", file=file, field="yql",
                fix=f"Take one of: {', '.join(f.name for f in item.fields.values() if f.has_hnsw)}",
            )  # fmt: skip
        elif vector not in inputs:
            yield InputError(
                f"nearestNeighbor by {vector}, and rank profile {ranking} declares no query({vector})",
                file=file, field="yql", fix="Name an input of the rank profile",
            )  # fmt: skip
        elif inputs[vector].split(">")[-1] != found.type.split(">")[-1]:
            yield InputError(
                f"nearestNeighbor of {target} {found.type} by query({vector}) {inputs[vector]}",
                file=file, field="yql", fix="Declare the input with the dimensions of the field",
            )  # fmt: skip
