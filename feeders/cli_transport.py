"""Operations to Vespa through `vespa feed -`: the fast way for a whole catalogue.

The Go client leaves 0 behind even when every document failed (and the wheel's own `vespa` always does), so neither is
believed: each operation's result is read from the lines of `--verbose`, and the summary must agree with the count.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import threading
from collections.abc import Callable, Iterable
from typing import IO

import vespacli
from vespa.application import Vespa

from feeders.operations import DeliveryResult, Operation
from mrse_model.errors import InputError

# client/go/internal/vespa/feed/dispatcher.go: feed: got status 200 (no body) for put id:item:item::a[: not retryable]
LINE = re.compile(
    r"^feed: got (?:status (?P<status>\d+)|error \"(?P<error>.*)\") \((?P<body>.*)\) for \w+ (?P<id>id:.*?)"
    r"(?P<end>: retrying|: not retryable|: giving up.*)?$"
)
DEADLINE = 60  # seconds without a success after which the client gives up


def send(
    app: Vespa,
    operations: Iterable[Operation],
    on_result: Callable[[DeliveryResult], None],
    *,
    connections: int = 8,
) -> None:
    """Pipes all operations into `vespa feed -` and reports each result.

    Raises InputError when the client breaks off or its summary does not add up, and whatever `operations` raises, after
    what was sent has been reported.
    """
    command = [vespacli.get_binary_path(), "feed", "-", "--target", app.end_point, "--verbose"]
    # Bodies are hex tensors on a fast network: gzip would cost more than it saves.
    command += ["--connections", str(connections), "--deadline", str(DEADLINE), "--compression", "none"]
    client = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=_environment(app)
    )
    assert client.stdin and client.stdout and client.stderr
    under_way: dict[str, Operation] = {}
    other_lines: list[str] = []
    summary: list[bytes] = []
    failure: list[Exception] = []

    def hear(result: DeliveryResult) -> None:
        try:
            if not failure:
                on_result(result)
        except Exception as error:  # the lines must be read on, or the client waits for ever
            failure.append(error)

    readers = [
        threading.Thread(target=_read_outcomes, args=(client.stderr, under_way, hear, other_lines)),
        threading.Thread(target=lambda: summary.append(client.stdout.read())),  # type: ignore[union-attr]
    ]
    for reader in readers:
        reader.start()
    sent = 0
    try:
        for operation in operations:
            if failure:
                break
            under_way[operation.document_id] = operation
            client.stdin.write(operation.json_line())
            sent += 1
    except BrokenPipeError:
        pass  # the client is gone; its words and the unanswered operations say so below
    finally:
        _close(client.stdin)
        client.wait()
        for reader in readers:
            reader.join()
    if failure:
        raise failure[0]
    for operation in list(under_way.values()):
        on_result(DeliveryResult(operation, 0, "no answer"))
    if client.returncode != 0 or _count(summary) != sent:
        words = other_lines[-1] if other_lines else f"exit code {client.returncode}"
        raise InputError(f"vespa feed broke off: {words}", fix="Run the same command again: it goes on")


def _read_outcomes(
    lines: IO[bytes],
    under_way: dict[str, Operation],
    on_result: Callable[[DeliveryResult], None],
    other_lines: list[str],
) -> None:
    for raw in lines:
        line = raw.decode("utf-8", "replace").rstrip("\n")
        found = LINE.match(line)
        if found is None:
            other_lines.append(line)
        elif found["end"] != ": retrying":
            operation = under_way.pop(found["id"], None)
            if operation is not None:
                on_result(DeliveryResult(operation, int(found["status"] or 0), found["error"] or found["body"]))


def _count(summary: Iterable[bytes]) -> int:
    try:
        return int(json.loads(b"".join(summary))["feeder.operation.count"])
    except (ValueError, KeyError):
        return -1


def _close(pipe: IO[bytes]) -> None:
    with contextlib.suppress(BrokenPipeError):
        pipe.close()


def _environment(app: Vespa) -> dict[str, str]:
    """The client's own variables for the certificate of the data plane (vespa help config)."""
    given = {"CERT_FILE": app.cert, "KEY_FILE": app.key, "TOKEN": app.vespa_cloud_secret_token}
    return os.environ | {f"VESPA_CLI_DATA_PLANE_{name}": value for name, value in given.items() if value}
