"""Reads services.xml and the query profiles of an application package."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from ..errors import DeployError, unsupported


@dataclass(frozen=True)
class Component:
    """An embedder or tokenizer. `settings` are its child elements: text, or the path of a file in the package."""

    id: str
    type: str
    settings: dict[str, str]


@dataclass(frozen=True)
class DocumentType:
    """`<document type mode global selection>` of the content cluster."""

    name: str
    selection: str | None = None


@dataclass(frozen=True)
class Services:
    """What services.xml asks for."""

    cluster: str
    documents: tuple[DocumentType, ...]
    components: dict[str, Component] = field(default_factory=dict)
    search: bool = False
    document_api: bool = False
    model_evaluation: bool = False
    collect_every: float = 0  # seconds between two rounds of garbage collection; 0: none


# Settings of a cluster that say on what machines and how parallel it runs: nothing of them changes an answer.
_MACHINERY = {
    "nodes", "min-redundancy", "redundancy", "engine", "tuning", "group", "dispatch", "resource-limits", "http",
    "client-authorize",
    "clients", "accesslog", "config", "threadpool", "zookeeper", "include", "coverage-policy", "cluster-controller",
    "max-document-size",
}  # fmt: skip
COLLECT_EVERY = 3600  # seconds, Vespa's default
_EMBEDDERS = ("hugging-face-embedder", "hugging-face-tokenizer")


def parse_xml(data: bytes, file: str) -> Element:
    """The root element. Raises DeployError on bad XML and on a DOCTYPE (entities could make it grow without end)."""
    if b"<!DOCTYPE" in data or b"<!ENTITY" in data:
        raise DeployError(f"Invalid application package: {file}: a DOCTYPE is not allowed")
    try:
        root = ElementTree.fromstring(data)
    except ElementTree.ParseError as e:
        raise DeployError(f"Invalid application package: Error in {file}: {e}") from e
    for element in root.iter():
        if isinstance(element.tag, str) and element.tag.startswith("{"):
            raise DeployError(f"Invalid application package: {file}: {unsupported('XML namespaces (preprocessing)')}")
    return root


def read_services(data: bytes) -> Services:
    """The services. Raises DeployError on what this engine does not run."""
    root = parse_xml(data, "services.xml")
    if root.tag != "services":
        raise DeployError(f"Invalid application package: services.xml: expected <services>, found <{root.tag}>")
    containers = [*root.findall("container"), *root.findall("jdisc")]
    contents = root.findall("content")
    for element in root:
        if element.tag not in ("container", "jdisc", "content", "admin"):
            raise DeployError(unsupported(f"<{element.tag}> in services.xml"))
    if len(contents) != 1:
        raise DeployError(unsupported(f"{len(contents)} content clusters; exactly one"))
    components: dict[str, Component] = {}
    flags = dict.fromkeys(("search", "document_api", "model_evaluation"), False)
    for container in containers:
        for element in container:
            if element.tag == "component":
                component = _component(element)
                components[component.id] = component
            elif element.tag.replace("-", "_") in flags:
                if element.tag == "search" and len(element):
                    raise DeployError(unsupported(f"<search><{element[0].tag}>: search chains and searchers"))
                flags[element.tag.replace("-", "_")] = True
            elif element.tag not in _MACHINERY:
                raise DeployError(unsupported(f"<{element.tag}> in a container"))
    cluster, documents, every = _content(contents[0])
    return Services(cluster, documents, components, collect_every=every, **flags)


def _content(content: Element) -> tuple[str, tuple[DocumentType, ...], float]:
    documents: list[DocumentType] = []
    every = 0.0
    for element in content:
        if element.tag == "documents":
            if element.get("garbage-collection") == "true":
                every = _seconds(element.get("garbage-collection-interval", str(COLLECT_EVERY)))
            for document in element:
                if document.tag != "document":
                    raise DeployError(unsupported(f"<{document.tag}> in <documents>"))
                if document.get("mode", "index") != "index":
                    raise DeployError(unsupported(f"documents in mode {document.get('mode')}; only index"))
                documents.append(DocumentType(document.get("type", ""), document.get("selection")))
        elif element.tag not in _MACHINERY:
            raise DeployError(unsupported(f"<{element.tag}> in a content cluster"))
    return content.get("id", "content"), tuple(documents), every


def _component(element: Element) -> Component:
    kind = element.get("type") or element.get("class") or element.get("id") or ""
    if kind not in _EMBEDDERS:
        raise DeployError(unsupported(f"components of type '{kind}'; only {' and '.join(_EMBEDDERS)}"))
    settings: dict[str, str] = {}
    for child in element:
        if child.tag == "prepend":
            settings |= {f"prepend-{c.tag}": c.text or "" for c in child}
            continue
        if child.get("url") or (child.get("model-id") and not child.get("path")):
            raise DeployError(unsupported(f"models by url or model-id (component {element.get('id')}); use path"))
        settings[child.tag] = child.get("path") or (child.text or "").strip()
    return Component(element.get("id", ""), kind, settings)


@dataclass(frozen=True)
class QueryProfile:
    """`search/query-profiles/<id>.xml` with what it inherits; `fixed` names fields that a request cannot override."""

    id: str
    fields: dict[str, str]
    fixed: frozenset[str] = frozenset()


def read_query_profiles(files: Mapping[str, bytes]) -> dict[str, QueryProfile]:
    """The query profiles in files {path in the package: content}. Raises DeployError."""
    roots = {}
    for path, data in files.items():
        root = parse_xml(data, path)
        if root.tag == "query-profile-type":
            continue  # the rank profiles' inputs are what types query features
        if root.tag != "query-profile":
            raise DeployError(f"Invalid application package: {path}: expected <query-profile>")
        for element in root:
            if element.tag not in ("field", "description"):
                raise DeployError(unsupported(f"<{element.tag}> in a query profile ({path})"))
        roots[root.get("id", "")] = (path, root)
    done: dict[str, QueryProfile] = {}

    def resolve(id: str, path: tuple[str, ...]) -> QueryProfile:
        if id in done:
            return done[id]
        if id not in roots or id in path:
            raise DeployError(
                f"Invalid application package: Could not resolve query profile '{id}' inherited by '{path[-1]}'"
            )
        root = roots[id][1]
        fields: dict[str, str] = {}
        fixed: set[str] = set()
        for base in (root.get("inherits") or "").split():
            inherited = resolve(base, (*path, id))
            fields = inherited.fields | fields
            fixed |= inherited.fixed
        for element in root.findall("field"):
            if len(element):
                raise DeployError(unsupported(f"nested query profiles (field {element.get('name')} of '{id}')"))
            name = element.get("name", "")
            fields[name] = (element.text or "").strip()
            if element.get("overridable") == "false":
                fixed.add(name)
        done[id] = QueryProfile(id, fields, frozenset(fixed))
        return done[id]

    for id in roots:
        resolve(id, ())
    return done


def _seconds(text: str) -> float:
    """The interval of garbage collection. Raises DeployError."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < math.inf:
        raise DeployError(f"Invalid application package: garbage-collection-interval is in seconds, not '{text}'")
    return seconds
