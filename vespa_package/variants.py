"""Builds a deployable package from vespa_app/ and a folder of variants/ that holds only what differs."""

from __future__ import annotations

import shutil
import tomllib
from dataclasses import dataclass
from pathlib import Path

from mrse_model.errors import InputError

CATALOGUE = "variants.toml"


@dataclass(frozen=True)
class Variant:
    """name: its folder. about: one line. drop: files of the default package that it does without."""

    name: str
    about: str
    drop: tuple[str, ...]


def list_variants(variants: str | Path) -> dict[str, Variant]:
    """Reads `variants`/variants.toml."""
    path = Path(variants) / CATALOGUE
    if not path.is_file():
        raise InputError("no variants here", file=path, fix="Name the folder variants/ of this repository")
    raw = tomllib.loads(path.read_text("utf-8"))
    return {name: Variant(name, entry["about"], tuple(entry["drop"])) for name, entry in raw.items()}


def build_variant(app: str | Path, variants: str | Path, name: str, out: str | Path) -> Path:
    """Writes the package `app` with the files of `variants`/`name` over it into the new folder `out` and returns `out`.

    Raises InputError for an unknown name, or when `out` exists and is not empty.
    """
    app, variants, out = Path(app), Path(variants), Path(out)
    known = list_variants(variants)
    if name not in known:
        raise InputError(
            f"no variant {name!r}", file=variants / CATALOGUE, fix=f"Take one of: {', '.join(sorted(known))}"
        )
    if out.exists() and any(out.iterdir()):
        raise InputError("the folder is not empty", file=out, fix="Name a new one, or empty it")
    shutil.copytree(app, out, dirs_exist_ok=True)
    for file in known[name].drop:
        (out / file).unlink()
    shutil.copytree(variants / name, out, dirs_exist_ok=True)
    return out
