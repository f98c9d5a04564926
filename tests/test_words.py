"""Help and messages say each thing by one word, the field's: the glossary of CONTRIBUTING.md."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mrse_cli.main import app
from mrse_cli.reference import names

ROOT = Path(__file__).parent.parent
BEFORE_DOCSTRING = (tokenize.NEWLINE, tokenize.INDENT, tokenize.NL, tokenize.COMMENT)
FOLDERS = ("mrse_model", "feeders", "retrieval", "local_vespa", "mrse_cli", "vespa_package")


def glossary() -> dict[str, str]:
    """Old word → the word to say, from the table of CONTRIBUTING.md."""
    rows = re.findall(r"^\| ([^|]+) \| ([^|]+) \|$", (ROOT / "CONTRIBUTING.md").read_text("utf-8"), re.M)
    return {old.strip(): say.strip() for say, olds in rows[2:] for old in olds.split(",")}


def messages() -> Iterator[tuple[str, str]]:
    """(place, text) of every text in the code with a space in it but docstrings: what a user may come to read."""
    for path in sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")):
        tree = ast.parse(path.read_text("utf-8"))
        docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            text = node.value if isinstance(node, ast.Constant) and id(node) not in docstrings else None
            if isinstance(text, str) and " " in text:
                yield f"{path.relative_to(ROOT)}:{node.lineno}", text


def test_the_glossary_is_read() -> None:
    words = glossary()
    assert words["picture"] == "image" and len(words) > 20


def old_words(text: str) -> list[str]:
    return [old for old in glossary() if re.search(rf"\b{re.escape(old)}s?\b", text, re.I)]


def test_no_message_says_an_old_word() -> None:
    found = [(place, old, text) for place, text in messages() for old in old_words(text)]
    assert not found, "\n".join(f"{place}: {old!r} in {text!r}" for place, old, text in found)


def comments() -> Iterator[tuple[str, str]]:
    """(place, text) of every comment and docstring in the code."""
    for path in sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")):
        text, previous = path.read_text("utf-8"), tokenize.NEWLINE
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            docstring = token.type == tokenize.STRING and previous in BEFORE_DOCSTRING
            if token.type == tokenize.COMMENT or docstring:
                yield f"{path.relative_to(ROOT)}:{token.start[0]}", " ".join(token.string.split())
            previous = token.type


def test_no_comment_and_no_docstring_says_an_old_word() -> None:
    found = [f"{place}: {old!r}" for place, text in comments() for old in old_words(text)]
    assert found == []


@pytest.mark.parametrize("name", names())
def test_no_help_says_an_old_word(name: str) -> None:
    page = CliRunner().invoke(app, [*name.split(), "--help"]).output
    assert old_words(page) == [], page


PAGES = ["README.md", "SECURITY.md", "CHANGELOG.md", *(f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", sorted(PAGES))
def test_no_page_says_an_old_word(page: str) -> None:
    """CONTRIBUTING.md has the table itself, dev/LOG.md the words of its day."""
    assert old_words((ROOT / page).read_text("utf-8")) == []
