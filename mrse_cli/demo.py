"""`mrse demo`: the main job from nothing to answers, by the same commands that a team runs on its own Parquet."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from mrse_cli.config import Config
from mrse_cli.console import console
from mrse_model.errors import InputError

EXAMPLE = "blue striped dress"


def demo(
    folder: Annotated[Path, typer.Option(help="Where all that it makes goes; an older demo there is replaced.")] = Path(
        "build/demo"
    ),
    app: Annotated[
        Path | None,
        typer.Option(
            help="Application package; the model goes into its models/. Default: vespa_app, or, where there is none, "
            "a new one in --folder."
        ),
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the engine running at the end.")] = False,
    port: Annotated[int, typer.Option(help="Port of the engine; 0 for any free one.")] = 0,
    config: Config = None,
) -> None:
    """Sample catalogue → MRSE → ONNX → application package → embedded engine → feed → nearestNeighbor queries.

    Example: mrse demo --keep --port 8080
    """
    from local_vespa.testing import free_port, start
    from mrse_cli.deploy import deploy
    from mrse_cli.evaluate import evaluate
    from mrse_cli.export import export
    from mrse_cli.feed import feed
    from mrse_cli.query import query
    from mrse_cli.sample import sample
    from mrse_cli.train import train
    from vespa_package.bundled import write_package

    if app is None and Path("vespa_app").is_dir():
        app = Path("vespa_app")
    if app is not None and not (app / "services.xml").is_file():
        raise InputError("no application package here", file=app, field="--app", fix="Give the folder of services.xml")
    out = console()
    began = time.perf_counter()
    if folder.exists() and any(folder.iterdir()) and not (folder / "catalogue").exists():
        raise InputError("the folder holds something else", file=folder, fix="Give a new one with --folder")
    shutil.rmtree(folder, ignore_errors=True)
    if app is None:
        [app] = write_package(folder, ("vespa_app",))
        out.print(f"$ mrse init {folder}", style="dim")
    catalogue, run = folder / "catalogue", folder / "run"
    items, searches = catalogue / "items.parquet", catalogue / "searches.parquet"
    step = 0

    def say(what: str, command: str) -> None:
        nonlocal step
        step += 1
        out.print(f"\n{step}/6 {what} · {time.perf_counter() - began:.0f} s", style="bold")
        out.print(f"$ {command}", style="dim")

    say("a catalogue with images, searches, judgments", f"mrse sample {catalogue}")
    sample(catalogue)

    judgments = catalogue / "judgments.parquet"
    say("train", f"mrse train {items} --searches {searches} --judgments {judgments} --preset tiny --out {run}")
    train(items, out=run, searches=searches, judgments=judgments, preset="tiny")
    out.print(f"$ mrse evaluate {run} {items}", style="dim")
    evaluate(run, items)  # the clicks of the last weeks, which training has not seen
    held_out = catalogue / "judgments_val.parquet"
    out.print(f"$ mrse evaluate {run} {items} --judgments {held_out}", style="dim")
    evaluate(run, items, judgments=held_out)

    say("export to ONNX, into the application package", f"mrse export {run} --app {app}")
    export(run, app=app)

    port = port or free_port()
    url = f"http://127.0.0.1:{port}"
    say("the embedded engine, and the package deployed to it", f"mrse serve-local --port {port} --data {folder}/engine")
    engine = start(folder / "engine", port)
    stays = False  # a demo that fails takes its engine with it
    try:
        out.print(f"$ mrse deploy {app} --config-server {url}", style="dim")
        deploy(app, config_server=url)

        features = run / "cache" / "features.parquet"
        say(
            "feed",
            f"mrse feed items {items} --features {features} --searches {searches} --judgments {judgments} "
            f"--endpoint {url}",
        )
        feed(items, app=app, endpoint=url, features=features, searches=searches, judgments=judgments)
        feed(searches, app=app, endpoint=url, shoppers=True)

        say("search", f'mrse query "{EXAMPLE}" --endpoint {url}')
        user, wish = _user(run)
        for title, text, options in (
            ("nearestNeighbor(embedding, q) with q = embed(text, @query), made in the engine", EXAMPLE, {}),
            ("the same with a filter", EXAMPLE, {"filter": ["in_stock=true", "price<=60"]}),
            ("hybrid with BM25, reciprocal rank fusion", EXAMPLE, {"profile": "hybrid"}),
            ("another query, for nobody in particular", wish, {}),
            (
                f"that query for {user}, who clicked before",
                wish,
                {"user": user, "now": _end(searches)},
            ),
        ):
            out.print(f'\n"{text}": {title}', style="bold")
            query(text, app=app, endpoint=url, hits=5, **options)
        out.print(f"\nThe demo took {time.perf_counter() - began:.0f} s.")
        stays = keep
        if keep:
            _how_to_ask(out, url, engine.pid)
    finally:
        if not stays:
            engine.terminate()
            engine.wait(30)


def _end(searches: Path) -> float:
    """Unix seconds of the log's last search: users are as old as their log."""
    from mrse_model.data.contract import SearchesFile

    return float(max(int(batch.timestamps.max()) for batch in SearchesFile(searches).batches() if len(batch)))


def _user(run: Path) -> tuple[str, str]:
    """Someone with a long history, and what they searched for next: a search that training has not seen."""
    from mrse_model.evaluation.personal import personal_searches

    searches = personal_searches(run / "cache" / "examples" / "validation.parquet")
    row = max(range(len(searches)), key=lambda row: len(searches.history[row]))
    return searches.users[row], searches.queries[row]


def _how_to_ask(out: Console, url: str, pid: int) -> None:
    out.print(f"The engine is up at {url}; stop it with: kill {pid}")
    out.print("Ask it with curl:")
    body = f'{{"queryProfile": "q2i", "query": "{EXAMPLE}", "hits": 3}}'
    out.print(f"  curl -s {url}/search/ --json '{body}'")
    out.print("and with the vespa CLI:")
    yql = "select title, category from item where {targetHits: 100}nearestNeighbor(embedding, q)"
    out.print(
        f"  .venv/bin/vespa query -t {url} 'yql={yql}' 'input.query(q)=embed(text, @query)' \\\n"
        f"    'query={EXAMPLE}' ranking=ann",
    )
