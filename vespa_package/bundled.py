"""The application package and its variants that come with this distribution: in a checkout the folders at its root, in
an installation a copy inside this one (setup.py).
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from mrse_model.errors import InputError

FOLDERS = ("vespa_app", "variants")


def bundled(name: str) -> Path:
    """The folder `vespa_app` or `variants` as it came, without a model. Not to be written to."""
    here = Path(__file__).resolve().parent
    for root in (here / "bundle", here.parent):
        if (root / name).is_dir():
            return root / name
    raise InputError(f"this installation has no {name}", file=here, fix="Install mrse-vespa again")


def write_package(folder: str | Path, names: tuple[str, ...] = FOLDERS) -> list[Path]:
    """Copies the package and the variants into a folder, which is made if it is not there, and returns what it wrote.

    Raises InputError where one of them is there already: nothing is written then.
    """
    targets = [Path(folder) / name for name in names]
    for target in targets:
        if target.exists():
            raise InputError("the file or folder exists already", file=target, fix="Move it, or give another folder")
    Path(folder).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".mrse-init-") as work:  # all of it or nothing
        for target in targets:
            shutil.copytree(bundled(target.name), Path(work) / target.name, ignore=shutil.ignore_patterns("models"))
        for target in targets:
            (Path(work) / target.name).rename(target)
    return targets


def require_package(app: str | Path) -> None:
    """Raises InputError where a folder is no application package."""
    if not (Path(app) / "services.xml").is_file():
        fix = "Give its folder, or run: mrse init, which writes one"
        raise InputError("no services.xml: not an application package", file=app, fix=fix)
