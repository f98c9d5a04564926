"""The recipes of docs/howto.md do what they say."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from vespa.application import Vespa

from local_vespa.testing import running_engine
from mrse_model.data.contract import ItemsFile, SearchesFile
from retrieval.profiles import RankProfile
from retrieval.searcher import Searcher
from tests.helpers.feeding import *  # noqa: F403
from vespa_package.checks.all import validate
from vespa_package.deploy import deploy_package
from vespa_package.variants import build_variant, list_variants

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "howto.md").read_text("utf-8")


def recipe(heading: str, language: str) -> str:
    """The first block of a language under a heading."""
    section = PAGE.split(f"## {heading}\n")[1].split("\n## ")[0]
    found = re.search(rf"```{language}\n(.*?)```", section, re.DOTALL)
    assert found, f"{heading} has no block of {language}"
    return found[1]


@pytest.fixture
def changed(package: Path, tmp_path: Path) -> Path:
    """A copy of the package for a recipe to change."""
    return Path(shutil.copytree(package, tmp_path / "app"))


def test_the_parquet_files_are_in_the_contract(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pandas")
    monkeypatch.chdir(tmp_path)
    exec(recipe("Make the Parquet files", "python"), {})
    assert ItemsFile(tmp_path / "items.parquet").check() == 2
    assert SearchesFile(tmp_path / "searches.parquet").rows == 1


def test_a_field_is_fed_and_filtered_by_in_every_variant(changed: Path, tmp_path: Path) -> None:
    schema = changed / "schemas" / "item.sd"
    text = schema.read_text("utf-8")
    usage = re.search(r"    field usage .*?\n    }\n", text, re.DOTALL)
    assert usage
    schema.write_text(text.replace(usage[0], usage[0] + recipe("Add a field, and filter by it", "sd")), "utf-8")
    items = tmp_path / "items.parquet"
    pq.write_table(pa.table({"item_id": ["a"], "title": ["dress"], "warranty": pa.array([2], pa.int32())}), items)
    assert not errors(changed, items)
    for name in list_variants(ROOT / "variants"):
        built = build_variant(changed, ROOT / "variants", name, tmp_path / name)
        assert not errors(built, items), name
        assert "field warranty" in (built / "schemas" / "item.sd").read_text("utf-8")


def errors(app: Path, items: Path | None = None) -> list[str]:
    return [str(problem) for problem in validate(app, items)]


def test_a_rank_profile_ranks(changed: Path, tmp_path: Path) -> None:
    (changed / "schemas" / "item" / "stocked.profile").write_text(recipe("Add a rank profile", "profile"), "utf-8")
    assert not errors(changed)
    with running_engine(tmp_path / "engine") as url:
        deploy_package(changed, url)
        app = Vespa(url)
        for n, stocked in enumerate((False, True)):
            vector = [1.0] + [0.0] * 127 if not stocked else [0.0, 1.0] + [0.0] * 126
            fields = {"item_id": f"i{n}", "title": "red dress", "in_stock": stocked, "embedding": vector}
            assert app.feed_data_point("item", f"i{n}", fields).is_successful()
        found = Searcher(app).search("red dress", profile=RankProfile("stocked"))
        assert [hit.item_id for hit in found.hits] == ["i1", "i0"], "what is in stock comes first"


def test_a_market_is_a_query_profile(changed: Path) -> None:
    file = changed / "search" / "query-profiles" / "q2i_se.xml"
    file.write_text(recipe("Add a market", "xml"), "utf-8")
    assert not errors(changed)


def test_the_settings_of_fewer_experts_are_read(tmp_path: Path) -> None:
    from mrse_model.config import preset, read_config

    (tmp_path / "s.toml").write_text(recipe("Leave an expert out, or add one", "toml"), "utf-8")
    config = read_config(tmp_path / "s.toml", preset("tiny"))
    assert config.model.experts == ("vbert", "ft_att", "history")


def test_the_site_builds_and_no_link_is_broken(tmp_path: Path) -> None:
    build: Callable[..., None] = pytest.importorskip("mkdocs.commands.build").build
    from mkdocs.config import load_config

    build(load_config(str(ROOT / "mkdocs.yml"), site_dir=str(tmp_path / "site"), strict=True))
    assert (tmp_path / "site" / "howto" / "index.html").is_file()
    # Markdown wants a blank line before a list or a table; without one, its source is the text of a paragraph.
    pages = {page: page.read_text("utf-8") for page in (tmp_path / "site").rglob("index.html")}
    raw = re.compile(r"(?:<p>|^)(?:\| .* \||[*-] <strong>|```)", re.MULTILINE)
    prose = {page: re.sub(r"<pre.*?</pre>", "", text, flags=re.DOTALL) for page, text in pages.items()}
    assert {page.parent.name: raw.findall(text) for page, text in prose.items() if raw.search(text)} == {}
