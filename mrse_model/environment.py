"""What other libraries read from the environment while they are loaded, set here before any of them is.

Every module of `mrse_model` is imported after `prepare()`, and all other folders import from it before they load one.
What a user has set himself stays.
"""

from __future__ import annotations

import os

LOOPBACK = ("localhost", "127.0.0.1", "::1")


def prepare() -> None:
    """Threads that sleep while they wait, no telemetry, and no proxy between this machine and itself."""
    # Torch's threads spin while they wait for each other by default, which makes every small layer ten times slower as
    # soon as another process wants the same cores (a shared machine, CI).
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # onnxruntime sends a device id and what runs on it to its makers by default since 1.32.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    # A proxy, as companies have it in http_proxy, cannot reach an engine on the user's machine. The vespa CLI leaves
    # loopback out by itself; pyvespa's and httpx's HTTP clients do what no_proxy says.
    for name in ("no_proxy", "NO_PROXY"):  # clients differ in which of the two wins
        given = os.environ.get(name) or os.environ.get(name.swapcase()) or ""
        hosts = [host.strip() for host in given.split(",") if host.strip()]
        if "*" not in hosts:
            os.environ[name] = ",".join([*hosts, *(host for host in LOOPBACK if host not in hosts)])
