"""`--config FILE.toml` of every command: one table a command, its keys the command's options; flags win over it.
And the settings of the commands that train.
"""

from __future__ import annotations

import tomllib
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mrse_model.errors import InputError

if TYPE_CHECKING:
    from mrse_model.config import Config as TrainingConfig


def read_config(context: typer.Context, path: Path | None) -> Path | None:
    """Makes the command's table the defaults of its options. Raises InputError for an unknown table or key."""
    if path is None:
        return None
    try:
        tables = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise InputError(f"it cannot be read ({error.strerror})", file=path, field="--config") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"not TOML: {error}", file=path) from None
    command = context.info_name or ""
    parent = context.parent.command if context.parent else None
    _known(tables, set(getattr(parent, "commands", {command: None})), path, "is no command")
    table: dict[str, Any] = tables.get(command, {})
    if not isinstance(table, dict):
        raise InputError("not a table", file=path, field=command, fix=f"Write [{command}] and its keys below it")
    options = {parameter.name for parameter in context.command.params if parameter.name not in ("config", "help")}
    values = {key.replace("-", "_"): value for key, value in table.items()}
    _known(values, {name for name in options if name}, path, f"is no option of mrse {command}", prefix=f"{command}.")
    context.default_map = {**(context.default_map or {}), **values}
    return path


def _known(found: dict[str, Any], known: set[str], path: Path, problem: str, prefix: str = "") -> None:
    for key in found:
        if key not in known:
            near = get_close_matches(key, known, n=1)
            fix = f"Did you mean {near[0]}" if near else "It can be: " + ", ".join(sorted(known))
            raise InputError(f"{key!r} {problem}", file=path, field=prefix + key, fix=fix)


Config = Annotated[
    Path | None,
    typer.Option("--config", help="TOML file with a table for this command.", is_eager=True, callback=read_config),
]


def training_config(preset: str, settings: Path | None, threads: int) -> TrainingConfig:
    """What `--preset`, `--settings` and `--threads` say together; the later wins. Raises InputError."""
    from mrse_model.config import overlay, read_config
    from mrse_model.config import preset as named

    chosen = named(preset)
    if settings is not None:
        chosen = read_config(settings, chosen)
    return overlay(chosen, {"train": {"threads": threads}}) if threads else chosen
