"""The real catalogues beside the repository, where they are: they must read."""

from __future__ import annotations

from pathlib import Path

import pytest

from mrse_model.data.contract import ItemsFile, SearchesFile, read_catalogue, read_judgments
from mrse_model.data.examples import write_examples

SHARED = Path(__file__).resolve().parents[4] / "shared" / "data"
pytestmark = pytest.mark.skipif(not SHARED.exists(), reason="the shared data is not beside the repository")


def test_luma_with_its_photos(tmp_path: Path) -> None:
    file = ItemsFile(SHARED / "luma/items.parquet")
    assert file.check(images=True) == 461
    summary = write_examples(tmp_path / "x", read_catalogue(file.path))
    assert summary.examples["pseudo-query"] == summary.rows > 3 * 461
    assert any("no searches" in line for line in summary.lines())


def test_icecat_without_photos_and_categories() -> None:
    file = ItemsFile(SHARED / "icecat/items.parquet")
    assert (file.check(images=True), file.image_column) == (19_406, None)
    judgments = read_judgments(SHARED / "icecat/judgments.parquet", read_catalogue(file.path))
    assert (len(judgments), len(judgments.queries), judgments.skipped) == (3_668, 135, 0)


def test_fashion_with_titles_without_colour() -> None:
    catalogue = read_catalogue(SHARED / "fashion/items.parquet", title="title_without_colour")
    assert len(catalogue) == 44_072 and catalogue.categories[0] == ["Apparel", "Topwear", "Kurtas"]
    assert "title" not in ItemsFile(catalogue.path, title="title_without_colour").extra_columns
    judgments = read_judgments(SHARED / "fashion/judgments_val.parquet", catalogue)
    assert (len(judgments), len(judgments.queries)) == (350_009, 549)
    assert sum(len(batch) for batch in SearchesFile(SHARED / "fashion/searches.parquet").batches()) == 15_973
