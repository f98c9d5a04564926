"""Each variant of a package whose item.sd has a field of its own: built, deployed, fed and queried by the commands.

Those for several nodes, which the embedded engine refuses, are judged by Vespa's own code, with a field added too
(tests/vespa_java).
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner
from vespa.application import Vespa

from local_vespa.testing import running_engine
from mrse_cli import main
from mrse_model.errors import InputError
from tests.helpers.make_models import make_models

REPO = Path(__file__).parents[2]
FIELD = """field season type string {
      indexing: summary | attribute
      attribute: fast-search
      rank: filter
    }
"""
TITLES = [
    f"{c} {m} {t}" for c in ("red", "blue", "green") for m in ("wool", "cotton") for t in ("dress", "bag", "shoe")
]


def mrse(*arguments: object) -> str:
    result = CliRunner().invoke(main.app, list(map(str, arguments)), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The default package with stand-in models and one field more."""
    app = tmp_path_factory.mktemp("package") / "app"
    shutil.copytree(REPO / "vespa_app", app, ignore=shutil.ignore_patterns("models"))
    make_models(app / "models")
    schema = app / "schemas" / "item.sd"
    schema.write_text(
        schema.read_text("utf-8").replace("document item {\n", f"document item {{\n    {FIELD}", 1), "utf-8"
    )
    return app


@pytest.mark.parametrize("variant", [None, "int8", "compact"])
def test_a_variant_with_a_field_added_finds_what_is_fed(app: Path, variant: str | None, tmp_path: Path) -> None:
    items = tmp_path / "items.parquet"
    season = ["winter" if "wool" in title else "summer" for title in TITLES]
    ids = [f"i{n}" for n in range(len(TITLES))]
    pq.write_table(pa.table({"item_id": ids, "title": TITLES, "season": season}), items)
    with running_engine(tmp_path / "engine") as url:
        deployed, choice = app, []
        if variant:
            deployed = tmp_path / "built"
            choice = ["--variant", variant, "--variants", REPO / "variants", "--out", deployed]
        mrse("deploy", app, "--config-server", url, *choice)
        if variant == "int8":  # the default package's schema would leave this one's fields empty
            refused = CliRunner().invoke(main.app, list(map(str, ["feed", "items", items, "--app", app, "-e", url])))
            assert isinstance(refused.exception, InputError) and "embedding_int8" in str(refused.exception)
            held = Vespa(url).query(body={"yql": "select * from item where true", "hits": 0}).json
            assert held["root"]["fields"]["totalCount"] == 0
        assert f"{len(TITLES)} fed" in mrse("feed", "items", items, "--app", deployed, "-e", url)
        for profile in ("q2i", "hybrid", "query_tower"):
            body = {"queryProfile": profile, "query": "red wool dress", "hits": 50}
            everything = Vespa(url).query(body=body).json["root"]["children"]
            assert "red wool dress" in {hit["fields"]["title"] for hit in everything}, profile
            assert {hit["fields"]["season"] for hit in everything} == {"winter", "summer"}, profile
