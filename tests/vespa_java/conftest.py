"""One JVM run for all tests of this folder; the tests assert on its answer."""

from __future__ import annotations

import os

import pytest

from tests.helpers.vespa.job import Judged, ask_all
from vespa_package.checks import vespa_java as judge


@pytest.fixture(scope="session")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Judged:
    reason = judge.why_not()
    if reason and os.environ.get("CI") == "true":
        pytest.fail(f"Vespa's code must judge on CI: {reason}")
    if reason:
        pytest.skip(reason)
    return ask_all(tmp_path_factory.mktemp("packages"))
