"""`mrse watch`: a resident process that brings changes into the index as they happen."""

from __future__ import annotations

import signal
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mrse_cli.config import Config
from mrse_cli.console import console
from mrse_cli.endpoint import LOCAL, Authority, Certificate, Endpoint, Key, Package, QueryEndpoint, connect
from mrse_cli.feeding.feed import Encoder, GiveUp, State

if TYPE_CHECKING:
    from feeders.live.metrics import Metrics

LINE_EVERY = 10.0  # seconds


def watch(
    folder: Annotated[
        Path | None,
        typer.Argument(
            help="Folder that finished files are moved into (Parquet, JSON lines); - for JSON lines on stdin."
        ),
    ] = None,
    app: Package = Path("vespa_app"),
    endpoint: Endpoint = LOCAL,
    query_endpoint: QueryEndpoint = None,
    kafka: Annotated[str | None, typer.Option(help="Brokers of Kafka, host:port, instead of a folder.")] = None,
    topic: Annotated[str, typer.Option(help="Topic of the changes.")] = "mrse",
    group: Annotated[str, typer.Option(help="Consumer group, whose offsets are kept.")] = "mrse-watch",
    image_encoder: Encoder = None,
    metrics_port: Annotated[
        int, typer.Option(min=0, help="Port that serves /metrics for Prometheus; 0: no metrics.")
    ] = 0,
    give_up_after: GiveUp = 5,
    state: State = None,
    threads: Annotated[int, typer.Option(min=1, help="Threads for the item tower.")] = 1,
    cert: Certificate = None,
    key: Key = None,
    ca: Authority = None,
    config: Config = None,
) -> None:
    """Watch for changes (items, updates, removals, user events) and bring each into the index within seconds.

    SIGTERM and Ctrl-C end it after the current batch. Changes that were not committed are read again at the next start.

    Example: mrse watch drops/
    """
    from feeders.index.journal import journal_file
    from feeders.live.metrics import serve_metrics
    from feeders.live.sources import open_source
    from feeders.live.watch import Watch, letters_file, unreadable_file
    from feeders.transport import Policy

    source, out = open_source(folder, kafka=kafka, topic=topic, group=group), console()
    stop, last = threading.Event(), [time.monotonic()]

    def on_batch(metrics: Metrics) -> None:
        if time.monotonic() - last[0] > LINE_EVERY:
            last[0] = time.monotonic()
            out.print(_line(metrics))

    journal, vespa = state or journal_file(app), connect(endpoint, cert, key, ca)
    watching = Watch.open(
        vespa,
        app,
        journal,
        queries=connect(query_endpoint or endpoint, cert, key, ca),
        image_encoder=image_encoder,
        threads=threads,
        folder=folder if folder and folder.is_dir() else Path(),
        policy=Policy(give_up_after=60 * give_up_after),
        on_batch=on_batch,
        on_wait=out.print,
    )
    if metrics_port:
        serve_metrics(watching.metrics, metrics_port)
    ended: list[int] = []

    def end(number: int, *_: object) -> None:
        ended.append(number)
        stop.set()

    before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    out.print(f"watching {kafka or folder} for {vespa.end_point}")
    try:
        metrics = watching.run(source, stop)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    out.print(_line(metrics))
    if metrics.refused:
        out.print(f"refused: see {letters_file(journal)} (mrse feed retry) and {unreadable_file(journal)}")
    if metrics.stopped:
        out.print(f"gave up: {metrics.stopped}. Run the same command again to resume")
        raise typer.Exit(1)
    if signal.SIGINT in ended:
        raise typer.Exit(130)


def _line(metrics: Metrics) -> str:
    return (
        f"{metrics.changes} changes ({metrics.rate:.1f}/s), {metrics.refused} refused, {metrics.retries} retried, "
        f"lag {metrics.lag:.2f} s, at most {metrics.largest_lag:.2f} s"
    )
