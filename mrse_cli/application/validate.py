"""`mrse validate`: does the package hold together, with no server and no Java; --vespa asks Vespa's own code."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mrse_cli.config import Config
from mrse_model.data.contract import ItemsFile
from vespa_package.checks import vespa_java as judge
from vespa_package.checks.all import validate as find_problems
from vespa_package.checks.all import warnings
from vespa_package.checks.items import columns_not_fed
from vespa_package.fields import DocumentType


def validate(
    app: Annotated[Path, typer.Argument(help="Application package folder.")] = Path("vespa_app"),
    items: Annotated[
        Path | None, typer.Option(help="Check the columns of this items.parquet against the schema.")
    ] = None,
    title: Annotated[str, typer.Option(help="Column of items to read as the title.")] = "title",
    vespa: Annotated[bool, typer.Option(help="Also check with Vespa's own code (needs Java 17 and Maven).")] = False,
    config: Config = None,
) -> None:
    """Check manifest, schemas, services, query profiles and Parquet columns against each other.

    Prints every problem with its file and its fix, and exits with 2 if there is one; a warning alone is exit code 0.

    Example: mrse validate vespa_app --items data/items.parquet
    """
    problems = find_problems(app, items, title)
    if vespa:
        problems += judge.judge(app)
    for problem in problems:
        typer.echo(str(problem), err=True)
    if problems:
        typer.echo(f"{len(problems)} problem{'s' * (len(problems) > 1)} in {app}", err=True)
        raise typer.Exit(2)
    for warning in warnings(app):
        typer.echo(f"warning: {warning}", err=True)
    unfed = columns_not_fed(ItemsFile(items, title=title), DocumentType.load(app)) if items is not None else []
    if unfed:
        typer.echo(f"{items}: {', '.join(unfed)}: not fed, item.sd has no such field")
    typer.echo(f"{app}: no problem found" + (", and Vespa accepts it" if vespa else ""))
