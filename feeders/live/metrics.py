"""What a watch did so far, as numbers that Prometheus reads."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Metrics:
    """What a watch did so far. lag: seconds from the moment at which a batch's oldest change was there until it was in
    the index. stopped: why it gave up.
    """

    changes: int = 0
    refused: int = 0
    batches: int = 0
    retries: int = 0
    lag: float = 0.0
    largest_lag: float = 0.0
    started: float = field(default_factory=time.monotonic)
    stopped: str = ""

    @property
    def rate(self) -> float:
        """Changes a second since the start."""
        return self.changes / max(time.monotonic() - self.started, 1e-9)

    def prometheus(self) -> str:
        """In the text format of Prometheus."""
        lines = []
        for name, kind, value in (
            ("mrse_watch_changes_total", "counter", self.changes),
            ("mrse_watch_refused_total", "counter", self.refused),
            ("mrse_watch_batches_total", "counter", self.batches),
            ("mrse_watch_retries_total", "counter", self.retries),
            ("mrse_watch_lag_seconds", "gauge", round(self.lag, 3)),
            ("mrse_watch_largest_lag_seconds", "gauge", round(self.largest_lag, 3)),
        ):
            lines += [f"# TYPE {name} {kind}", f"{name} {value}"]
        return "\n".join(lines) + "\n"


def serve_metrics(metrics: Metrics, port: int) -> None:
    """Serves /metrics on this machine until the process ends."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = metrics.prometheus().encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
