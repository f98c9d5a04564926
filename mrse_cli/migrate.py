"""`mrse migrate`: from the deployed model to a new one while queries run."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Annotated, Literal, cast

import typer
from vespa.application import Vespa

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
from mrse_cli.feed import images_from
from mrse_model.errors import InputError
from mrse_model.progress import progress_bar


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
    images: Annotated[bool, typer.Option(help="--no-images: encode the words alone.")] = True,
    searches: Annotated[Path | None, typer.Option(help="Search log: the queries that led to each item.")] = None,
    judgments: Annotated[Path | None, typer.Option(help="Judgments: the queries that each item is judged for.")] = None,
    title: Annotated[str, typer.Option(help="Column to take as the title.")] = "title",
    via: Annotated[str, typer.Option(help="pyvespa, or cli: the Go client.")] = "pyvespa",
    state: Annotated[Path | None, typer.Option(help="Journal of what was fed. Default: ITEMS.feed.sqlite.")] = None,
    wait: Annotated[float, typer.Option(help="Seconds to wait for each deployment.")] = 300,
    cert: Certificate = None,
    key: Key = None,
    ca: Authority = None,
    config: Config = None,
) -> None:
    """Go over to a new model without downtime: a second set of vectors, backfilled, switched to, and back.

    Queries by query profile run on, and none meets vectors of two models. At the end vespa_app/models holds the new
    model (mrse export runs/new --out runs/new/export wrote it). Started again after a failure, it goes on.

    Example: mrse migrate runs/new/export items.parquet --features features.parquet
    """
    from feeders.deployed import check_deployed, indexed
    from feeders.feed import backfill
    from feeders.item_queries import item_queries_for
    from feeders.items import ItemSource
    from feeders.migration import EXPORTED, SUFFIX, double_package, plain_package
    from mrse_model.serving.exported_model import ExportedModel
    from vespa_package.deploy import deploy_package, tls_context
    from vespa_package.fields import DocumentType

    if via not in ("pyvespa", "cli"):
        raise InputError(f"no transport {via!r}", field="--via", fix="Take pyvespa or cli")
    out = console()
    old, new = ExportedModel.load(app / "models"), ExportedModel.load(models)
    version = new.manifest.model_version
    if old.manifest.model_version == version:
        raise InputError(f"{app} has model {version} already", file=models, fix="Give the folder of another export")
    vespa, tls = connect(endpoint, cert, key, ca), tls_context(cert, key, ca)
    queries = connect(query_endpoint or endpoint, cert, key, ca)
    journal = state or items.with_name(items.name + ".feed.sqlite")
    source = ItemSource.open(
        items,
        DocumentType.load(app),
        new,
        images_from(items, new, features, feature_column, image_encoder, images),
        item_queries=item_queries_for(new.manifest, searches, judgments, warn=out.print),
        columns=(),  # the vectors alone
        title=title,
    )

    def fill(suffix: str, done: str) -> None:
        """Assigns the new vectors, and sees that no item of the index is without."""
        with progress_bar(out) as bar:
            task = bar.add_task(done, total=source.items.rows)
            report = backfill(
                vespa,
                source,
                journal,
                suffix=suffix,
                queries=queries,
                via=cast(Literal["pyvespa", "cli"], via),
                progress=lambda n: bar.advance(task, n),
            )
        _, without = indexed(queries, version, suffix)
        if report.failed or without:
            raise InputError(
                f"{without} items of the index have no vectors of {version} ({report.failed} updates were refused)",
                file=items,
                fix="The file must hold every item of the index: complete it and start again",
            )
        out.print(f"{done}: {report.ok} items in {report.seconds:.1f} s, {report.unchanged} had them before")

    def deploy_step(folder: Path, words: str) -> None:
        out.print(words)
        deploy_package(folder, config_server, tls=tls, wait=wait, say=out.print)

    filled, others = indexed(queries, version)
    with resumable(out), tempfile.TemporaryDirectory() as scratch:
        at = Path(scratch)
        if filled == 0:
            check_deployed(queries, old)
            both = double_package(app, app / "models", models, at / "1", serve_next=False)
            deploy_step(both, "1 a second set of vectors")
            fill(SUFFIX, "new vectors beside the old")
        if others:
            switched = double_package(app, app / "models", models, at / "2", serve_next=True)
            deploy_step(switched, "2 the query profiles turn to the new vectors")
            fill("", "new vectors in place of the old")
        if others or _has_second_set(queries, version):  # else it was killed after step 5: nothing to turn to
            deploy_step(
                double_package(app, models, models, at / "3", serve_next=True), "3 the new model has both names"
            )
            deploy_step(
                double_package(app, models, models, at / "4", serve_next=False), "4 the query profiles turn back"
            )
        deploy_step(plain_package(app, models, at / "5"), "5 the second set goes")
    for name in EXPORTED:
        shutil.copy2(models / name, app / "models" / name)
    out.print(f"{app}/models and the index are of model {version}")


def _has_second_set(vespa: Vespa, version: str) -> bool:
    """Whether the second fields are deployed and hold this version in every item. Vespa refuses to search a field that
    is not there.
    """
    from feeders.deployed import indexed
    from feeders.migration import SUFFIX

    try:
        _, without = indexed(vespa, version, SUFFIX)
    except InputError:
        return False
    return without == 0
