"""Reads services.xml of an application package."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from xml.etree.ElementTree import Element

from ..errors import DeployError, unsupported
from .xml_files import parse_xml


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


def _seconds(text: str) -> float:
    """The interval of garbage collection. Raises DeployError."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < math.inf:
        raise DeployError(f"Invalid application package: garbage-collection-interval is in seconds, not '{text}'")
    return seconds
