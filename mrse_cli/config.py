"""`--config FILE.toml`, which every command takes: a table per command whose keys are its options;
flags override it.
"""

from __future__ import annotations

import tomllib
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from mrse_model.errors import InputError


def read_config(context: typer.Context, path: Path | None) -> Path | None:
    """Makes the command's table the defaults of its options. Raises InputError for an unknown table or key.

    A command of several (mrse feed items) reads the table of them all, of which it takes its own options, and then its
    own table: [feed], then [feed.items].
    """
    if path is None:
        return None
    try:
        tables = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})", file=path, field="--config") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"not TOML: {error}", file=path) from None
    contexts: list[Any] = [context]
    while contexts[0].parent is not None and contexts[0].parent.parent is not None:
        contexts.insert(0, contexts[0].parent)
    parent = contexts[0].parent.command if contexts[0].parent else None
    _known(tables, set(getattr(parent, "commands", {contexts[0].info_name: None})), path, "is not a command")
    values: dict[str, Any] = {}
    table: Any = tables
    for level, name in enumerate(str(one.info_name) for one in contexts):
        table = table.get(name, {})
        if not isinstance(table, dict):
            raise InputError("expected a table", file=path, field=name, fix=f"Write [{name}] and its keys below it")
        commands = getattr(contexts[level].command, "commands", {})
        options = _options(context.command)
        others = {option for command in commands.values() for option in _options(command)}
        found = {key.replace("-", "_"): value for key, value in table.items() if key not in commands}
        known = options | others
        _known(found, known, path, f"is not an option of mrse {name}", prefix=f"{name}.")
        values |= {key: value for key, value in found.items() if key in options}
    context.default_map = {**(context.default_map or {}), **values}
    return path


def _options(command: Any) -> set[str]:
    return {str(parameter.name) for parameter in command.params if parameter.name not in ("config", "help")}


def _known(found: dict[str, Any], known: set[str], path: Path, problem: str, prefix: str = "") -> None:
    for key in found:
        if key not in known:
            near = get_close_matches(key, known, n=1)
            fix = f"Did you mean {near[0]}?" if near else "Known: " + ", ".join(sorted(known))
            raise InputError(f"{key!r} {problem}", file=path, field=prefix + key, fix=fix)


Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        help="TOML file with a table for this command; flags override it.",
        is_eager=True,
        callback=read_config,
    ),
]


Preset = Literal["base", "tiny"]  # the paper's sizes, and sizes to try with
