"""What a reader of vespa_app/ may rely on: one profile a file, examples at functions, docs that name everything."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

REPO = Path(__file__).parents[2]
APP = REPO / "vespa_app"
SHARED = [*sorted((APP / "schemas" / "item").glob("*.profile")), *sorted((REPO / "variants").rglob("*.profile"))]
QUERIES = [*sorted((APP / "search").rglob("*.xml")), *sorted((REPO / "variants").rglob("search/query-profiles/*.xml"))]


@pytest.mark.parametrize("file", SHARED, ids=lambda path: str(path.relative_to(REPO)))
def test_one_profile_a_file_with_an_example_at_each_function(file: Path) -> None:
    text = file.read_text("utf-8")
    assert re.findall(r"^rank-profile (\w+)", text, re.MULTILINE) == [file.stem]
    for function in re.findall(r"^  function .*", text, re.MULTILINE):
        comment = function.partition("#")[2]
        assert re.search(r"\d", comment), f"no example value: {function}"


def test_schemas_hold_fields_only() -> None:
    for schema in [*APP.rglob("*.sd"), *(REPO / "variants").rglob("*.sd")]:
        assert "rank-profile" not in schema.read_text("utf-8"), schema


@pytest.mark.parametrize("file", QUERIES, ids=lambda path: str(path.relative_to(REPO)))
def test_no_user_text_in_yql(file: Path) -> None:
    (yql,) = re.findall(r'<field name="yql">(.*?)</field>', file.read_text("utf-8"), re.DOTALL) or [""]
    assert "%{" not in yql
    assert set(re.findall(r"(\w+)\(@query", yql)) <= {"userInput"}


def test_docs_name_every_profile() -> None:
    page = (REPO / "docs" / "rank-profiles.md").read_text("utf-8")
    for file in [*(APP / "schemas" / "item").glob("*.profile"), *(APP / "search" / "query-profiles").glob("*.xml")]:
        if file.stem != "default":
            assert f"`{file.stem}`" in page, file.stem


def test_models_are_not_committed() -> None:
    assert "/vespa_app/models/" in (REPO / ".gitignore").read_text("utf-8").splitlines()
