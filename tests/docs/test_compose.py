"""deploy/compose.yaml: what its search container runs, with stand-ins for pip and for the service (no Docker here)."""

from __future__ import annotations

import os
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer

from mrse_cli.main import app
from retrieval.service.settings import Settings

ROOT = Path(__file__).resolve().parents[2]


def test_the_search_container_starts_a_service_with_a_key(tmp_path: Path) -> None:
    yaml: Any = pytest.importorskip("yaml")
    services = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text("utf-8"))["services"]
    shell = [part.replace("$$", "$").replace("/tmp/", f"{tmp_path}/") for part in services["search"]["command"]]
    for name in ("pip", "mrse"):
        (tmp_path / name).write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" >{tmp_path}/{name}.arguments\n', "utf-8")
        (tmp_path / name).chmod(0o755)
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "MRSE_KEY": "a secret of the shop"}
    subprocess.run(shell, cwd=ROOT, env=environment, check=True)

    packages = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]["packages"]
    folders = {name.removesuffix("*").rstrip(".") for name in packages["find"]["include"]}
    assert folders | {"vespa_app", "variants", "setup.py"} <= {path.name for path in (tmp_path / "source").iterdir()}
    assert f"{tmp_path}/source[web]" in (tmp_path / "pip.arguments").read_text("utf-8").splitlines()

    name, *arguments = (tmp_path / "mrse.arguments").read_text("utf-8").splitlines()
    command = typer.main.get_command(app).commands[name]  # type: ignore[attr-defined]
    given = command.make_context(name, arguments).params  # an unknown option raises
    settings = Settings.read(given["settings"], endpoint=given["endpoint"], address=given["address"])
    assert [key.key for key in settings.keys] == ["a secret of the shop"] and not settings.loopback
