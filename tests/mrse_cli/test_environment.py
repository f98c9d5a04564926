"""A stranger's machine: a proxy in the environment, another working directory, and no user who knows of either."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from local_vespa.testing import free_port, start

ROOT = Path(__file__).resolve().parents[2]
PROXY = dict.fromkeys(("http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY"), "http://127.0.0.1:9")


def python(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    known = {name: value for name, value in os.environ.items() if name.lower() != "no_proxy"}
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, env=known | environment, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("no_proxy", [{}, {"no_proxy": "intranet.example"}, {"NO_PROXY": "intranet.example"}])
def test_every_client_reaches_this_machine_although_there_is_a_proxy(vespa, no_proxy) -> None:
    code = f"""
import mrse_model, httpr, httpx, urllib.request, os
url = "{vespa.url}/ApplicationStatus"
for at in (url, url.replace("127.0.0.1", "localhost")):
    assert httpx.get(at).status_code == httpr.Client().get(at).status_code == 200
    assert urllib.request.urlopen(at).status == 200
print(os.environ["no_proxy"], os.environ["NO_PROXY"])
"""
    done = python("-c", code, **PROXY, **no_proxy)
    assert done.returncode == 0, done.stderr
    kept = "intranet.example,localhost" if no_proxy else "localhost"
    assert [hosts.startswith(kept) for hosts in done.stdout.split()] == [True, True]


def test_the_commands_reach_an_engine_on_this_machine_although_there_is_a_proxy(vespa, package, items) -> None:
    command = ["-m", "mrse_cli.main"]
    where = ["--app", package, "--endpoint", vespa.url.replace("127.0.0.1", "localhost")]
    for arguments in (
        ["deploy", package, "--config-server", vespa.url],
        ["feed", items, *where, "--no-images"],
        ["query", "red dress", *where],
    ):
        done = python(*command, *arguments, **PROXY)
        assert done.returncode == 0, done.stderr
    assert len(vespa.documents) == 12 and vespa.queries


def test_an_engine_for_tests_starts_behind_a_proxy_and_in_its_own_folder(monkeypatch, tmp_path) -> None:
    for name, value in PROXY.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    engine = start("engine", free_port())
    engine.terminate()
    engine.wait(30)
    assert (tmp_path / "engine" / "engine.log").is_file()


@pytest.mark.parametrize("module", ["mrse_model.serving.exported_model", "local_vespa.ranking.onnx_models"])
def test_onnxruntime_tells_nobody(module, tmp_path) -> None:
    """It else leaves a device id in the home folder as soon as it is loaded."""
    code = f"import time, {module}, onnxruntime; time.sleep(0.5)"
    assert python("-c", code, HOME=str(tmp_path), XDG_CACHE_HOME=str(tmp_path / "cache")).returncode == 0
    assert not [path for path in tmp_path.rglob("*") if "onnxruntime" in path.name.lower()]


def test_whoever_uses_onnxruntime_imports_what_silences_it_first() -> None:
    ours = ("mrse_model", "feeders", "retrieval", "local_vespa", "mrse_cli", "vespa_package")
    users = [
        path for folder in ours for path in (ROOT / folder).rglob("*.py") if "import onnxruntime" in path.read_text()
    ]
    assert users
    assert {path.relative_to(ROOT).parts[0] for path in users} <= {"mrse_model", "local_vespa"}, "others: by mrse_model"
