"""Finds every YQL that the repository shows or sends: README, docs, notebooks, code, query profiles, tests."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

YQL = re.compile(r"\s*select\s.+?\sfrom\s", re.DOTALL)  # SQL is written in capitals here
CODE = ["feeders", "retrieval", "mrse_cli", "benchmarks", "vespa_package"]


@dataclass(frozen=True)
class Written:
    """A statement and the file it stands in."""

    file: str
    yql: str


def all_written(repo: Path) -> list[Written]:
    """Every statement once."""
    found: dict[str, Written] = {}
    for file, yql in _candidates(repo):
        text = " ".join(yql.split())
        if YQL.match(text + " "):
            found.setdefault(text, Written(str(file.relative_to(repo)), text))
    return list(found.values())


def _candidates(repo: Path) -> Iterator[tuple[Path, str]]:
    for file in [repo / "README.md", *sorted((repo / "docs").glob("*.md"))]:
        if file.is_file():
            for block in re.findall(r"```.*?```|`[^`\n]+`", file.read_text("utf-8"), re.DOTALL):
                yield from ((file, yql) for yql in _in_text(block))
    for folder in CODE:
        for file in sorted((repo / folder).rglob("*.py")):
            yield from ((file, yql) for yql in _in_python(file.read_text("utf-8")))
    for file in sorted((repo / "notebooks").glob("*.ipynb")):
        for cell in json.loads(file.read_text("utf-8"))["cells"]:
            source = "".join(cell["source"])
            code = "\n".join("" if line.startswith(("%", "!")) else line for line in source.splitlines())
            yield from ((file, yql) for yql in (_in_python(code) if cell["cell_type"] == "code" else _in_text(source)))
    for folder in ("vespa_app", "variants"):
        for file in sorted((repo / folder).rglob("search/query-profiles/*.xml")):
            for field in ElementTree.parse(file).getroot().iter("field"):
                if field.get("name") == "yql":
                    yield file, field.text or ""
    for file in sorted((repo / "vespa_app" / "tests").rglob("*.json")):
        for step in json.loads(file.read_text("utf-8")).get("steps", []):
            yield file, step["request"].get("body", {}).get("yql", "")


def _in_text(text: str) -> Iterator[str]:
    """YQL in a shell command, a JSON body or prose: up to the quote that closes it."""
    for line in re.sub(r"\\\n\s*", " ", text).splitlines():
        for match in re.finditer(r"""(['"`])\s*((?:yql=)?select\s.+?\sfrom\s.+?)(?<!\\)\1(?=[\s,}`)]|$)""", line):
            yield match[2].removeprefix("yql=").replace('\\"', '"')


def _in_python(source: str) -> Iterator[str]:
    """String constants; in an f-string a placeholder stands for a vector field and its query vector, for a condition, a
    number, or no suffix.
    """
    tree = ast.parse(source)
    inside = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inside:
            yield node.value
        elif isinstance(node, ast.JoinedStr):
            text = ""
            for part in node.values:
                if isinstance(part, ast.Constant):
                    text += str(part.value)
                elif text.endswith("nearestNeighbor("):
                    text += "embedding"
                elif text.endswith("nearestNeighbor(embedding, "):
                    text += "q"
                elif re.search(r"(where|and|or|not|\()\s*$", text):
                    text += "true"
                elif not re.search(r"\w$", text):  # within a word it is the suffix of a name: none
                    text += "10"
            yield text
