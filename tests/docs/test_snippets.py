"""The Python that README shows runs as it stands: six lines, against the embedded engine with a stand-in model."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from vespa.application import Vespa

from feeders.events import EventWriter
from feeders.feed import feed_items
from feeders.image_features import ExtractedFeatures
from feeders.items import ItemSource
from local_vespa.testing import running_engine
from mrse_model.serving.exported_model import ExportedModel
from tests.helpers.feeding import *  # noqa: F403
from vespa_package.deploy import deploy_package
from vespa_package.fields import DocumentType

README = (Path(__file__).resolve().parents[2] / "README.md").read_text("utf-8")


def test_the_six_lines_of_the_readme_search_for_a_user(
    package: Path,
    items: Path,
    features: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README, re.S)
    assert len([line for line in code.splitlines() if line.strip()]) == 6
    (tmp_path / "vespa_app").symlink_to(package)
    monkeypatch.chdir(tmp_path)
    with running_engine(tmp_path / "engine") as url:
        deploy_package(package, url)
        app = Vespa(url)
        model = ExportedModel.load(package / "models")
        source = ItemSource.open(items, DocumentType.load(package), model, ExtractedFeatures(features, model.manifest))
        assert feed_items(app, source, tmp_path / "journal.sqlite").ok == 12
        with EventWriter(app) as events:
            events.record("u17", "i3", "click")
        assert "http://localhost:8080" in code
        capsys.readouterr()
        exec(code.replace("http://localhost:8080", url), {})
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 10 and all(re.match(r"red dress \d+ 0\.\d+", line) for line in lines), lines
