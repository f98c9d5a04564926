"""Builds a deployable package from vespa_app/ and a folder of variants/ that holds only what differs.

A `.sd` or `.profile` of a variant, and what variants.toml lists under `merge`, is a fragment, laid over the file of the
package (`overlay` has the rules): a field that is added to item.sd is in every variant. Any other file replaces the
package's.
"""

from __future__ import annotations

import shutil
import tomllib
from dataclasses import dataclass
from pathlib import Path

from mrse_model.errors import InputError
from vespa_package.bundled import require_package
from vespa_package.overlay import merge_services, merge_statements

CATALOGUE = "variants.toml"
MARK = ".mrse-variant"  # in a built package: it can be built again in the same place. Hidden files are not deployed


@dataclass(frozen=True)
class Variant:
    """name: its folder. about: one line. drop: files of the default package that it does without. merge: further
    fragments.
    """

    name: str
    about: str
    drop: tuple[str, ...] = ()
    merge: tuple[str, ...] = ()


def list_variants(variants: str | Path) -> dict[str, Variant]:
    """Reads `variants`/variants.toml."""
    path = Path(variants) / CATALOGUE
    if not path.is_file():
        fix = "Give the folder variants/ with --variants, or run: mrse init, which writes one"
        raise InputError("the list of variants is missing", file=path, fix=fix)
    try:
        raw = tomllib.loads(path.read_text("utf-8"))
        return {
            name: Variant(name, str(entry["about"]), tuple(entry.get("drop", ())), tuple(entry.get("merge", ())))
            for name, entry in raw.items()
        }
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, TypeError, KeyError) as error:
        fix = 'Write a table per variant: [name] about = "…", drop = [files], merge = [files]'
        raise InputError(f"not a list of variants: {error}", file=path, fix=fix) from None


def build_variant(app: str | Path, variants: str | Path, name: str, out: str | Path) -> Path:
    """Writes the package `app` with `variants`/`name` over it into the folder `out` and returns `out`.

    `out` is new, empty, or an earlier build, which is replaced. Raises InputError for an unknown name, for another
    folder, or for a fragment that does not fit.
    """
    app, variants, out = Path(app), Path(variants), Path(out)
    known = list_variants(variants)
    if name not in known:
        raise InputError(
            f"unknown variant {name!r}", file=variants / CATALOGUE, fix=f"Take one of: {', '.join(sorted(known))}"
        )
    require_package(app)
    if out.exists() and any(out.iterdir()):
        if not (out / MARK).is_file():
            raise InputError("the folder is not empty", file=out, fix="Name a new one, or empty it")
        if out.resolve() == app.resolve():
            raise InputError("the output folder is the package itself", file=out, fix="Give another --out")
        shutil.rmtree(out)
    out.mkdir(parents=True, exist_ok=True)
    (out / MARK).write_text(f"{name}\n", "utf-8")  # first: what a full disk leaves half-done can be built again
    shutil.copytree(app, out, dirs_exist_ok=True, ignore=shutil.ignore_patterns(MARK))
    for file in known[name].drop:
        (out / file).unlink(missing_ok=True)
    folder = variants / name
    for source in sorted(path for path in folder.rglob("*") if path.is_file()):
        path = source.relative_to(folder)
        target = out / path
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.is_file():
            shutil.copy2(source, target)
        elif source.suffix in (".sd", ".profile"):
            merged = merge_statements(_read(target), _read(source), target, source)
            target.write_text(merged, "utf-8")
        elif path.as_posix() in known[name].merge:
            target.write_text(merge_services(target, source), "utf-8")
        else:
            shutil.copy2(source, target)
    return out


def built_as(app: str | Path) -> str | None:
    """The variant that a folder was built as; None for a package as it was written."""
    mark = Path(app) / MARK
    return mark.read_text("utf-8").strip() if mark.is_file() else None


def _read(file: Path) -> str:
    return file.read_text("utf-8")
