"""The application package as a zip, as `vespa deploy` makes it: without hidden files and what .vespaignore names."""

from __future__ import annotations

import fnmatch
import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

from mrse_model.errors import InputError


def zip_package(folder: Path) -> bytes:
    """The files of a package, zipped, in a stable order. Raises InputError when it is no application package."""
    if not (folder / "services.xml").is_file():
        raise InputError("no services.xml: not an application package", file=folder, fix="Give its folder")
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in package_files(folder):
            archive.write(file, file.relative_to(folder).as_posix())
    return out.getvalue()


def package_files(folder: Path) -> Iterator[Path]:
    """The files that are deployed. A line of .vespaignore is a path or a pattern of paths; a folder takes all below
    it.
    """
    ignore = folder / ".vespaignore"
    lines = ignore.read_text("utf-8").splitlines() if ignore.is_file() else []
    patterns = [line.strip().strip("/") for line in lines if line.strip() and not line.startswith("#")]
    for file in sorted(folder.rglob("*")):
        parts = file.relative_to(folder).parts
        hidden = any(part.startswith(".") for part in parts)
        levels = ["/".join(parts[:n]) for n in range(1, len(parts) + 1)]
        ignored = any(fnmatch.fnmatch(level, pattern) for level in levels for pattern in patterns)
        if file.is_file() and not hidden and not ignored:
            yield file
