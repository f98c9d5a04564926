"""`mrse migrate`: from the deployed model to a new one while queries run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import TaskID

from mrse_cli.config import Config
from mrse_cli.console import console, resumable
from mrse_cli.endpoint import (
    LOCAL,
    LOCAL_CONFIG_SERVER,
    Authority,
    Certificate,
    ConfigServer,
    Endpoint,
    Key,
    Package,
    QueryEndpoint,
    connect,
)
from mrse_cli.feeding.feed import GiveUp, State
from mrse_model.progress import progress_bar

if TYPE_CHECKING:
    from feeders.report import Report


def migrate(
    models: Annotated[Path, typer.Argument(help="Folder of the new exported model.")],
    items: Annotated[Path, typer.Argument(help="Items file: all items that are in the index.")],
    app: Package = Path("vespa_app"),
    endpoint: Endpoint = LOCAL,
    query_endpoint: QueryEndpoint = None,
    config_server: ConfigServer = LOCAL_CONFIG_SERVER,
    features: Annotated[Path | None, typer.Option(help="Image features of the items (mrse features).")] = None,
    feature_column: Annotated[str, typer.Option(help="Column of the vectors in --features.")] = "feature",
    image_encoder: Annotated[Path | None, typer.Option(help="image_encoder.onnx, to encode the images here.")] = None,
    images: Annotated[bool, typer.Option(help="--no-images: encode the texts alone.")] = True,
    searches: Annotated[Path | None, typer.Option(help="Search log: where item queries come from.")] = None,
    judgments: Annotated[Path | None, typer.Option(help="Judgments: further item queries.")] = None,
    title: Annotated[str, typer.Option(help="Column to take as the title.")] = "title",
    language: Annotated[str | None, typer.Option(help="The --language that mrse feed items was given.")] = None,
    give_up_after: GiveUp = 5,
    state: State = None,
    wait: Annotated[float, typer.Option(help="Seconds to wait for each deployment.")] = 300,
    cert: Certificate = None,
    key: Key = None,
    ca: Authority = None,
    config: Config = None,
) -> None:
    """Switch to a new model without downtime: backfill a second set of vectors, then switch over.

    Queries by query profile keep working, and none compares vectors of two models. At the end vespa_app/models holds
    the new model (which mrse export runs/new --out runs/new/export wrote). After a failure, run it again to resume.

    Example: mrse migrate runs/new/export items.parquet --features features.parquet
    """
    from functools import partial

    from feeders.index.journal import journal_file
    from feeders.inputs import open_items
    from feeders.item_queries import item_queries_for
    from feeders.migration import Migration
    from feeders.transport import Policy
    from mrse_model.serving.manifest import Manifest
    from vespa_package.deploy import deploy_package, tls_context

    out = console()
    vespa, tls = connect(endpoint, cert, key, ca), tls_context(cert, key, ca)
    manifest = Manifest.load(models)
    open_source = partial(
        open_items,
        items,
        app,
        features=features,
        feature_column=feature_column,
        image_encoder=image_encoder,
        images=images,
        item_queries=item_queries_for(manifest, searches, judgments, warn=out.print),
        columns=(),  # the vectors alone
        title=title,
        language=language,
        warn=lambda line: None,  # said once, above
    )

    def deploy(folder: Path) -> None:
        done = deploy_package(folder, config_server, tls=tls, wait=wait, say=out.print)
        out.print(f"generation {done.generation} runs ({done.size / 1e6:.1f} MB, {done.seconds:.1f} s)")

    with resumable(out), progress_bar(out) as bar:
        tasks: dict[str, TaskID] = {}

        def progress(step: str, report: Report) -> None:
            task = tasks.setdefault(step, bar.add_task(step)) if step not in tasks else tasks[step]
            bar.update(task, total=report.rows, completed=report.ok + report.failed + report.unchanged)

        version = Migration(
            app,
            models,
            open_source,
            deploy,
            vespa,
            connect(query_endpoint or endpoint, cert, key, ca),
            state or journal_file(app),
            out.print,
            progress,
            Policy(give_up_after=60 * give_up_after),
        ).run()
    out.print(f"{app}/models and the index are of model {version}")
    if manifest.popularity is not None:  # a plain field, and vectors alone were fed
        out.print("its hybrid ranks popular items higher: mrse feed items, with all files, writes their popularity")
