"""`mrse demo`: the main job from nothing to answers, by the same commands that a team runs on its own Parquet."""

from __future__ import annotations

import shutil
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from mrse_cli.config import Config
from mrse_cli.console import console
from mrse_model.errors import InputError

EXAMPLE = "blue striped dress"
STEPS = 7
# Steps that show what each stage does: first answers within three minutes on two cores.
QUICK = """[train]
evaluate_every = 100

[train.adaptor]
max_steps = 100

[train.ft_att]
max_steps = 200

[train.light_bert]
max_steps = 60

[train.vbert]
max_steps = 60

[train.dssm]
max_steps = 200
"""


def demo(
    folder: Annotated[Path, typer.Option(help="Folder for everything it makes; replaces an older demo.")] = Path(
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
    """Go from a sample catalogue to answers: train MRSE, export it, deploy it to the embedded engine, feed and search.

    Example: mrse demo --keep --port 8080
    """
    from local_vespa.testing import free_port, start
    from mrse_cli.application.deploy import deploy
    from mrse_cli.data.sample import sample
    from mrse_cli.feeding.feed import feed
    from mrse_cli.searching.query import query
    from mrse_cli.training.evaluate import evaluate
    from mrse_cli.training.export import export
    from mrse_cli.training.train import train
    from mrse_model.data.contract import SearchesFile
    from mrse_model.evaluation.personal import personal_searches
    from vespa_package.bundled import require_package, write_package

    if app is None and Path("vespa_app").is_dir():
        app = Path("vespa_app")
    if app is not None:
        require_package(app)
    out = console()
    steps = Steps(out)
    if folder.exists() and any(folder.iterdir()) and not (folder / "catalogue").exists():
        raise InputError("the folder holds other files", file=folder, fix="Give a new one with --folder")
    shutil.rmtree(folder, ignore_errors=True)
    if app is None:
        [app] = write_package(folder, ("vespa_app",))
        out.print(f"$ mrse init {folder}", style="dim")
    catalogue, run = folder / "catalogue", folder / "run"
    items, searches = catalogue / "items.parquet", catalogue / "searches.parquet"
    judgments, held_out = catalogue / "judgments.parquet", catalogue / "judgments_val.parquet"
    learn_from = f"--searches {searches} --judgments {judgments}"

    steps.begin("a catalogue with images, searches and judgments", "10 s", f"mrse sample {catalogue}")
    sample(catalogue)

    settings = folder / "quick.toml"
    settings.write_text(QUICK, "utf-8")
    steps.begin(
        "train a small model on it, in fewer steps than it needs: the first answers matter", "90 s",
        f"mrse train {items} {learn_from} --preset tiny --settings {settings} --out {run}",
    )  # fmt: skip
    train(items, out=run, searches=searches, judgments=judgments, preset="tiny", settings=settings)

    steps.begin("export it to ONNX, into the application package", "1 minute", f"mrse export {run} --app {app}")
    export(run, app=app)

    port = port or free_port()
    url = f"http://127.0.0.1:{port}"
    steps.begin(
        "start the embedded engine and deploy the package to it", "5 s",
        f"mrse serve-local --port {port} --data {folder}/engine",
    )  # fmt: skip
    engine = start(folder / "engine", port)
    stays = False  # a demo that fails takes its engine with it
    try:
        out.print(f"$ mrse deploy {app} --config-server {url}", style="dim")
        deploy(app, config_server=url)

        features = run / "cache" / "features.parquet"
        steps.begin("feed it", "10 s", f"mrse feed items {items} --features {features} {learn_from} --endpoint {url}")
        feed(items, app=app, endpoint=url, features=features, searches=searches, judgments=judgments)
        feed(searches, app=app, endpoint=url, shoppers=True)

        steps.begin("search", "a moment", f'mrse query "{EXAMPLE}" --app {app} --endpoint {url}')
        user, wish = personal_searches(run / "cache" / "examples" / "validation.parquet").longest_history()
        now = float(SearchesFile(searches).last_timestamp())  # users are as old as their log
        for title, text, options in (
            ("nearestNeighbor(embedding, q) with q = embed(text, @query), made in the engine", EXAMPLE, {}),
            ("the same with a filter", EXAMPLE, {"filter": ["in_stock=true", "price<=60"]}),
            ("hybrid with BM25, reciprocal rank fusion", EXAMPLE, {"profile": "hybrid"}),
            ("another query, without a user", wish, {}),
            (f"that query for {user}, who clicked before", wish, {"user": user, "now": now}),
        ):
            out.print(f'\n"{text}": {title}', style="bold")
            query(text, app=app, endpoint=url, hits=5, **options)
        out.print(f"\nFirst answers after {steps.seconds():.0f} s.", style="bold")

        steps.begin("measure it on searches that training has not seen", "1 minute", f"mrse evaluate {run} {items}")
        evaluate(run, items)
        out.print(f"$ mrse evaluate {run} {items} --judgments {held_out}", style="dim")
        evaluate(run, items, judgments=held_out)
        out.print(
            f"\nThe demo took {steps.seconds():.0f} s. Without --settings, mrse train --preset tiny trains longer and "
            "finds more."
        )
        stays = keep
        if keep:
            served = {"endpoint": url, "app": str(app), "items": str(items), "now": now}
            _how_to_ask(out, url, engine.pid, _page(served, folder / "page.log"))
    finally:
        if not stays:
            engine.terminate()
            engine.wait(30)


class Steps:
    """Numbers the steps, and says of each beforehand how long it takes."""

    def __init__(self, out: Console) -> None:
        self.out, self.number, self.began = out, 0, time.perf_counter()

    def begin(self, what: str, about: str, command: str) -> None:
        """about: the time on two cores."""
        self.number += 1
        self.out.print(f"\n{self.number}/{STEPS} {what} (about {about}; {self.seconds():.0f} s so far)", style="bold")
        self.out.print(f"$ {command}", style="dim")

    def seconds(self) -> float:
        return time.perf_counter() - self.began


def _page(settings: dict[str, Any], log: Path) -> tuple[str, int] | None:
    """Starts mrse serve on a free port; its address and process id, or None where its packages are not installed."""
    from local_vespa.testing import free_port
    from mrse_cli.main import WEB

    if any(find_spec(module) is None for module in WEB):
        return None
    from retrieval.service.run import start
    from retrieval.service.settings import Settings

    chosen = Settings(port=free_port(), demo=True, **settings)
    return f"http://{chosen.address}:{chosen.port}", start(chosen, log).pid


def _how_to_ask(out: Console, url: str, pid: int, page: tuple[str, int] | None) -> None:
    out.print("Ask the engine with curl:")
    body = f'{{"queryProfile": "q2i", "query": "{EXAMPLE}", "hits": 3}}'
    out.print(f"  curl -s {url}/search/ --json '{body}'")
    out.print("and with the vespa CLI:")
    yql = "select title, category from item where {targetHits: 100}nearestNeighbor(embedding, q)"
    out.print(
        f"  .venv/bin/vespa query -t {url} 'yql={yql}' 'input.query(q)=embed(text, @query)' \\\n"
        f"    'query={EXAMPLE}' ranking=ann",
    )
    out.print(f"The engine is at {url}; stop it with: kill {pid}")
    if page is None:
        out.print('A page to search with: pip install "mrse-vespa[web]", then mrse serve --demo')
    else:
        out.print(f"A page to search with is at {page[0]}; stop it with: kill {page[1]}")
