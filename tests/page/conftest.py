"""A real browser over a real service over the embedded engine: skipped with a reason without Chromium, never on CI."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pyarrow.parquet as pq
import pytest

from local_vespa.testing import free_port, running_engine
from tests.helpers.make_models import make_models

ROOT = Path(__file__).resolve().parents[2]
CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    reason = None
    if CHROMIUM is None:
        reason = "no Chromium on this machine (apt install chromium)"
    try:
        import playwright  # noqa: F401
    except ImportError:
        reason = "playwright is not installed (pip install -e '.[dev]')"
    if reason is None or os.environ.get("CI"):
        return
    for item in items:
        if "page" in Path(str(item.fspath)).parts:
            item.add_marker(pytest.mark.skip(reason=reason))


@dataclass(frozen=True)
class Shop:
    """url: of the page. endpoint, app: of the engine behind it, and its package. users: ids with a history."""

    url: str
    users: list[str]
    endpoint: str = ""
    app: Path = Path("vespa_app")


def mrse(*arguments: object) -> None:
    subprocess.run([sys.executable, "-m", "mrse_cli.main", *map(str, arguments)], check=True, cwd=ROOT, timeout=300)


@pytest.fixture(scope="session")
def shop(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """The generated sample deployed, fed and served by the commands, as `make demo KEEP=1` leaves it. Compared with it:
    "half", a model that knows nothing, over half of the items, and "gone", whose Vespa does not answer.
    """
    if running := os.environ.get("MRSE_PAGE"):  # the address of a service that runs, to look at one test quickly
        yield Shop(running, users_of(running))
        return
    work = tmp_path_factory.mktemp("page")
    trained = request.getfixturevalue("trained")
    app, inputs = work / "app", trained.inputs
    shutil.copytree(ROOT / "vespa_app", app, ignore=shutil.ignore_patterns("models"))
    mrse("export", trained.run, "--app", app)
    now = max(pq.read_table(inputs.searches, columns=["timestamp"])["timestamp"].to_pylist()).timestamp() + 60
    other, half = work / "other", work / "half.parquet"
    shutil.copytree(ROOT / "vespa_app", other, ignore=shutil.ignore_patterns("models"))
    make_models(other / "models")
    table = pq.read_table(inputs.items)
    pq.write_table(table.slice(0, len(table) // 2), half)
    with running_engine(work / "engine") as endpoint, running_engine(work / "second") as second:
        mrse("deploy", other, "--config-server", second)
        mrse("feed", "items", half, "--app", other, "--endpoint", second, "--no-images")
        mrse("deploy", app, "--config-server", endpoint)
        to = ("--app", app, "--endpoint", endpoint)
        mrse("feed", "items", inputs.items, *to, "--features", trained.run / "cache" / "features.parquet")
        mrse("feed", "shoppers", inputs.searches, *to)
        mrse("warm", inputs.searches, "--app", app, "--out", work / "queries.arrow")
        options = ("--items", inputs.items, "--warm", work / "queries.arrow", "--log", work / "served", "--now", now)
        options += ("--compare", f"half={second},{other}", "--compare", f"gone=http://127.0.0.1:{free_port()}")
        with serving(work, "--demo", *to, *options) as url:
            yield Shop(url, users_of(url), endpoint, app)


@contextmanager
def serving(folder: Path, *options: object) -> Iterator[str]:
    """`mrse serve` with these options, as a process whose log is in the folder; yields its address."""
    port = free_port()
    command = [sys.executable, "-m", "mrse_cli.main", "serve", "--port", port, *options]
    with (folder / "serve.log").open("wb") as log:
        service = subprocess.Popen(list(map(str, command)), cwd=ROOT, stdout=log, stderr=log)
    try:
        url = f"http://127.0.0.1:{port}/"
        wait_for(url + "ready", service, folder / "serve.log")
        yield url
    finally:
        service.terminate()
        service.wait(30)


def users_of(url: str) -> list[str]:
    """Users with a history worth the name."""
    with httpx.Client(trust_env=False) as client:
        return [row["user"] for row in client.get(url + "v1/users?limit=50").json() if len(row["events"]) > 3]


def wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + 120
    with httpx.Client(trust_env=False) as client:
        while time.monotonic() < until and process.poll() is None:
            try:
                if client.get(url, timeout=5).status_code == 200:
                    return
            except httpx.HTTPError:
                time.sleep(0.1)
    raise RuntimeError(f"mrse serve did not start:\n{log.read_text()[-4000:]}")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Of a module, not of the session: until Playwright stops, its loop runs in this thread, and ``asyncio.run`` of a
    later test of the same worker fails."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()
