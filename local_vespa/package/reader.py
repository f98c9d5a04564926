"""An application package: read from a zip or a folder, into everything that the engine runs.

Reading checks all that can be checked without documents; `application` checks the models and rank profiles.
"""

from __future__ import annotations

import io
import lzma
import re
import struct
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path, PurePosixPath

from ..errors import DeployError
from .query_profiles import QueryProfile, read_query_profiles
from .rank_profiles import Profile, read_profiles
from .schema import Schema, read_schema
from .sd import Statement, parse_statements, without_comments
from .services import Services, read_services
from .xml_files import parse_xml

MAX_FILES = 10_000
MAX_BYTES = 4 << 30
# Whatever zipfile raises on wrong bytes.
_BAD_ZIP = (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, ValueError, LookupError, OSError,
            OverflowError, struct.error, zlib.error, lzma.LZMAError)  # fmt: skip
MAX_RATIO = 200  # a zip that unpacks to more than this times its size is a bomb


@dataclass(frozen=True)
class Package:
    """A package that was read without error. `files` are its files by path."""

    files: Mapping[str, bytes]
    services: Services
    schemas: dict[str, Schema]
    profiles: dict[str, dict[str, Profile]]
    query_profiles: dict[str, QueryProfile]
    overrides: frozenset[str] = frozenset()

    @property
    def models(self) -> dict[str, str]:
        """ONNX files under models/ by the name under which model evaluation serves them."""
        paths = [p for p in self.files if p.startswith("models/") and p.endswith(".onnx")]
        return {PurePosixPath(p[7:]).with_suffix("").as_posix().replace("/", "_"): p for p in sorted(paths)}


def files_of_zip(data: bytes) -> dict[str, bytes]:
    """The files of a zipped package. Raises DeployError on a bad zip, on paths out of it, and on zip bombs."""
    files: dict[str, bytes] = {}
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = [e for e in archive.infolist() if not e.is_dir()]
            total = sum(e.file_size for e in entries)
            if len(entries) > MAX_FILES or total > MAX_BYTES or total > max(64 << 20, MAX_RATIO * len(data)):
                raise DeployError(
                    f"Invalid application package: it unpacks to {len(entries)} files of {total} bytes; at most "
                    f"{MAX_FILES} files, {MAX_BYTES} bytes and {MAX_RATIO} times the size of the zip are accepted"
                )
            for entry in entries:
                path = PurePosixPath(entry.filename.replace("\\", "/"))
                if path.is_absolute() or ".." in path.parts or ":" in entry.filename:
                    raise DeployError(
                        f"Invalid application package: the path '{entry.filename}' leads out of the package"
                    )
                with archive.open(entry) as stream:
                    content = stream.read(entry.file_size + 1)
                if len(content) != entry.file_size:
                    raise DeployError(f"Invalid application package: '{entry.filename}' is longer than it says")
                files[str(path)] = content
    except DeployError:
        raise
    except _BAD_ZIP as e:
        raise DeployError(f"Invalid application package: not a zip file that can be read: {e}") from e
    return _unwrapped(files)


def _unwrapped(files: dict[str, bytes]) -> dict[str, bytes]:
    """A zip may hold the package in one folder, such as `application/`, as `vespa` and Maven make it."""
    if "services.xml" in files:
        return files
    folders = {p[: -len("services.xml")] for p in files if p.endswith("/services.xml") and p.count("/") == 1}
    if len(folders) == 1:
        folder = folders.pop()
        return {p[len(folder) :]: data for p, data in files.items() if p.startswith(folder)}
    return files


def zip_folder(folder: Path) -> bytes:
    """A package folder as a zip, as `vespa deploy` makes one: hidden files stay out."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(folder.rglob("*")):
            relative = path.relative_to(folder)
            if path.is_file() and not any(part.startswith(".") for part in relative.parts):
                archive.write(path, relative.as_posix())
    return buffer.getvalue()


def read_package(files: Mapping[str, bytes]) -> Package:
    """Everything in a package. Raises DeployError."""
    if "services.xml" not in files:
        raise DeployError("Invalid application package: services.xml does not exist in application package")
    services = read_services(files["services.xml"])
    texts = {}
    for path in sorted(files):
        if re.fullmatch(r"(schemas|searchdefinitions)/[^/]+\.sd", path):
            texts[path] = parse_statements(without_comments(_text(files, path)), path)
    schemas = _schemas(texts)
    for document in services.documents:
        if document.name not in schemas:
            raise DeployError(
                f"Invalid application package: Could not find schema '{document.name}' listed in the content cluster "
                f"'{services.cluster}': schemas/{document.name}.sd does not exist"
            )
    profiles = {}
    for name, schema in schemas.items():
        statements: list[Statement] = []
        for path in sorted(files):
            if re.fullmatch(rf"(schemas|searchdefinitions)/{re.escape(name)}/([^/]+/)*[^/]+\.profile", path):
                statements += parse_statements(without_comments(_text(files, path)), path)
        profiles[name] = read_profiles(schema, statements)
    queries = {p: d for p, d in files.items() if re.fullmatch(r"search/query-profiles/([^/]+/)?[^/]+\.xml", p)}
    used = {d.name for d in services.documents}
    return Package(
        files,
        services,
        {n: s for n, s in schemas.items() if n in used},
        {n: p for n, p in profiles.items() if n in used},
        read_query_profiles(queries),
        _overrides(files),
    )


def _text(files: Mapping[str, bytes], path: str) -> str:
    try:
        return files[path].decode()
    except UnicodeDecodeError as e:
        raise DeployError(f"Invalid application package: {path} is not UTF-8: {e}") from e


def _schemas(texts: dict[str, list[Statement]]) -> dict[str, Schema]:
    """The schemas, each after those that it inherits."""
    waiting = dict(texts)
    schemas: dict[str, Schema] = {}
    while waiting:
        ready = [
            path
            for path, statements in waiting.items()
            if not ({PurePosixPath(p).stem for p in waiting if p != path} & set(_bases(statements)))
        ]
        if not ready:
            raise DeployError(f"Invalid application package: schemas inherit each other: {', '.join(waiting)}")
        for path in ready:
            schema = read_schema(waiting.pop(path), schemas)
            schemas[schema.name] = schema
    return schemas


def _bases(statements: list[Statement]) -> list[str]:
    found = []
    for statement in [*statements, *(c for s in statements for c in s.children if c.keyword == "document")]:
        words = statement.header.replace(",", " ").split()
        found += words[words.index("inherits") + 1 :] if "inherits" in words else []
    return found


def _overrides(files: Mapping[str, bytes]) -> frozenset[str]:
    """The ids that validation-overrides.xml allows today."""
    if "validation-overrides.xml" not in files:
        return frozenset()
    allowed = set()
    for element in parse_xml(files["validation-overrides.xml"], "validation-overrides.xml").findall("allow"):
        try:
            until = date.fromisoformat(element.get("until", ""))
        except ValueError as e:
            raise DeployError(f"Invalid application package: validation-overrides.xml: {e}") from e
        if until > date.today() + timedelta(days=30):
            raise DeployError(
                f"Invalid application package: validation-overrides is invalid: allow '{element.text}' until {until}"
                " is too far in the future: Max 30 days is allowed"
            )
        if date.today() < until:
            allowed.add((element.text or "").strip())
    return frozenset(allowed)
