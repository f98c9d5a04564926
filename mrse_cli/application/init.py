"""`mrse init`: the application package and its variants into a folder, to change and to deploy."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mrse_cli.config import Config
from mrse_cli.console import console


def init(
    folder: Annotated[Path, typer.Argument(help="Where vespa_app/ and variants/ are written.")] = Path("."),
    config: Config = None,
) -> None:
    """Write the application package and its variants into a folder; mrse export puts a model into the package.

    Example: mrse init shop
    """
    from vespa_package.bundled import write_package

    for path in write_package(folder):
        console().print(f"wrote {path}")
