"""XML files of an application package."""

from __future__ import annotations

from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from ..errors import DeployError, unsupported


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
