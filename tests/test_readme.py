"""What README and docs tell a reader to type exists: commands, their options, make targets, files."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path

import pytest
import typer

from mrse_cli.main import app

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]


def code_lines(page: Path) -> list[str]:
    """The lines of a page's code blocks, continued ones joined, comments off."""
    blocks = re.findall(r"```[a-z]*\n(.*?)```", page.read_text("utf-8"), re.S)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [re.split(r"\s{2,}#|\s#\s", line)[0].strip() for line in lines if line.strip()]


MRSE = [
    (page.name, line) for page in PAGES for line in code_lines(page) if line.startswith(("mrse ", ".venv/bin/mrse "))
]


@pytest.mark.parametrize(("page", "line"), MRSE)
def test_a_command_and_its_options_exist(page: str, line: str) -> None:
    words = shlex.split(line)[1:]
    command = COMMANDS[words[0]]
    if hasattr(command, "commands"):  # several of one name: mrse feed items
        command, words = command.commands[words[1]], words[1:]
    known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    options = {word.split("=")[0] for word in words[1:] if word.startswith("--")}
    assert options <= known | {"--help"}, f"{page}: {line}"


def test_readme_has_a_line_for_every_folder_that_stands_in_the_repository() -> None:
    tree = (ROOT / "README.md").read_text("utf-8")
    folders = {p.name for p in ROOT.iterdir() if p.is_dir() and not p.name.startswith((".", "_"))}
    folders -= {"build", "runs"} | {p.name for p in ROOT.glob("*.egg-info")}
    assert {f for f in folders if f"{f}/" not in tree} == set()


def test_links_between_pages_lead_somewhere() -> None:
    wrong = [
        f"{page.name}: {target}"
        for page in PAGES
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text("utf-8"))
        if not (page.parent / target).exists()
    ]
    assert not wrong


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    named = {word for page in PAGES for line in code_lines(page) for word in re.findall(r"^make ([a-z]+)", line)}
    assert named >= {"demo", "test"}
    assert {target for target in named if not re.search(rf"^{target}:", makefile, re.M)} == set()


def test_the_split_that_a_page_shows_is_by_query(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pd = pytest.importorskip("pandas")
    from mrse_model.data.search_log import query_key

    monkeypatch.chdir(tmp_path)
    queries = [f"{'Red ' if n % 2 else ' red'} dress {n // 4}" for n in range(400)]
    pd.DataFrame({"query": queries, "item_id": list(map(str, range(400))), "grade": 2}).to_parquet("judgments.parquet")
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "training.md").read_text("utf-8"), re.S)
    exec(code, {})
    train, val = (pd.read_parquet(f"judgments_{part}.parquet") for part in ("train", "val"))
    assert len(train) + len(val) == 400 and 10 < len(val) < 100
    assert not set(map(query_key, train["query"])) & set(map(query_key, val["query"]))


def test_the_settings_that_a_page_shows_are_read() -> None:
    from mrse_model.config import Config, overlay

    blocks = re.findall(r"```toml\n(.*?)```", (ROOT / "docs" / "training.md").read_text("utf-8"), re.S)
    (found,) = [overlay(Config(), tomllib.loads(block)) for block in blocks]
    assert found.model.experts == ("vbert", "ft_att", "history")
    rest = overlay(found, {"model": {"experts": list(Config().model.experts)}})
    assert rest == Config(), "all else in the example is a default"
