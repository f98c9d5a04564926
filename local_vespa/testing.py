"""Runs an engine for tests: a process on a free port, stopped at the end."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from .package.reader import zip_folder

DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # a proxy cannot reach this machine's loopback


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def start(data: Path | str, port: int, *options: str) -> subprocess.Popen[bytes]:
    """Starts an engine and waits until it answers. Raises RuntimeError with its log if it ends instead."""
    data = Path(data).resolve()  # the process runs in another folder
    data.mkdir(parents=True, exist_ok=True)
    log = data / "engine.log"
    command = [sys.executable, "-m", "local_vespa", "--port", str(port), "--data", str(data), *options]
    root = Path(__file__).resolve().parents[1]
    with log.open("ab") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, cwd=root)
    until = time.monotonic() + 120
    while time.monotonic() < until and process.poll() is None:
        try:
            with DIRECT.open(f"http://127.0.0.1:{port}/status.html", timeout=5):
                return process
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.05)
    process.kill()
    raise RuntimeError(f"local_vespa did not start:\n{log.read_text()[-4000:]}")


@contextlib.contextmanager
def running_engine(data: Path | str, *options: str) -> Iterator[str]:
    """The URL of an engine that runs on a data folder for the time of the `with` block."""
    port = free_port()
    process = start(data, port, *options)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def deploy(url: str, package: Path | bytes) -> dict[str, object]:
    """Deploys a package folder (or its zip); the answer. Raises RuntimeError with the message of a refusal."""
    import json

    data = package if isinstance(package, bytes) else zip_folder(package)
    target = f"{url}/application/v2/tenant/default/prepareandactivate"
    request = urllib.request.Request(target, data, {"Content-Type": "application/zip"}, method="POST")
    try:
        with DIRECT.open(request, timeout=120) as response:
            return dict(json.load(response))
    except urllib.error.HTTPError as e:
        raise RuntimeError(json.loads(e.read())["message"]) from e
