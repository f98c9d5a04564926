"""Reads the query profiles of an application package."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..errors import DeployError, unsupported
from .xml_files import parse_xml


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
