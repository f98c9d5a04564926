"""`mrse feed`: items, partial updates or shoppers from Parquet into Vespa."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast

import typer
from rich.console import Console

from mrse_cli.config import Config
from mrse_cli.console import console, resumable
from mrse_cli.endpoint import LOCAL, Authority, Certificate, Endpoint, Key, Package, QueryEndpoint, connect
from mrse_model.errors import InputError
from mrse_model.progress import progress_bar

if TYPE_CHECKING:
    from feeders.feed import Report
    from feeders.image_features import Images
    from mrse_model.data.contract import ItemsFile
    from mrse_model.serving.exported_model import ExportedModel


def feed(
    file: Annotated[Path, typer.Argument(help="Parquet: items, or what --update and --shoppers say.")],
    app: Package = Path("vespa_app"),
    endpoint: Endpoint = LOCAL,
    query_endpoint: QueryEndpoint = None,
    features: Annotated[Path | None, typer.Option(help="Image features of the items (mrse features).")] = None,
    feature_column: Annotated[str, typer.Option(help="Column of the vectors in --features.")] = "feature",
    image_encoder: Annotated[Path | None, typer.Option(help="image_encoder.onnx, to encode the images here.")] = None,
    images: Annotated[bool, typer.Option(help="--no-images: encode the words alone.")] = True,
    searches: Annotated[Path | None, typer.Option(help="Search log: the queries that led to each item.")] = None,
    judgments: Annotated[Path | None, typer.Option(help="Judgments: the queries that each item is judged for.")] = None,
    update: Annotated[bool, typer.Option("--update", help="FILE holds item_id and fields to assign.")] = False,
    shoppers: Annotated[bool, typer.Option("--shoppers", help="FILE is a search log; feed its people.")] = False,
    columns: Annotated[
        str | None, typer.Option(help="Further columns to feed: a,b,c. Default: those in the schema.")
    ] = None,
    title: Annotated[str, typer.Option(help="Column to take as the title.")] = "title",
    via: Annotated[str, typer.Option(help="pyvespa, or cli: the Go client, faster for whole catalogues.")] = "pyvespa",
    full: Annotated[bool, typer.Option("--full", help="Feed all, not only what changed since the last time.")] = False,
    delete_missing: Annotated[
        bool, typer.Option("--delete-missing", help="Remove what was fed before and is not in FILE now.")
    ] = False,
    check_images: Annotated[bool, typer.Option(help="Decode every image before the first put.")] = True,
    state: Annotated[Path | None, typer.Option(help="Journal of what was fed. Default: FILE.feed.sqlite.")] = None,
    threads: Annotated[int, typer.Option(min=1, help="Threads for the item tower.")] = 2,
    cert: Certificate = None,
    key: Key = None,
    ca: Authority = None,
    config: Config = None,
) -> None:
    """Feed Vespa from Parquet.

    The whole file is checked before the first document is sent. A feed that was cut off goes on when it is started
    again. Exit code 1: some documents were refused.

    Example: mrse feed items.parquet --features features.parquet --searches searches.parquet
    """
    from feeders.feed import feed_items, feed_shoppers, feed_updates
    from feeders.item_queries import item_queries_for
    from feeders.items import ItemSource
    from feeders.shoppers import ShopperSource
    from feeders.updates import UpdateSource
    from mrse_model.serving.exported_model import ExportedModel
    from vespa_package.fields import DocumentType

    if via not in ("pyvespa", "cli"):
        raise InputError(f"no transport {via!r}", field="--via", fix="Take pyvespa or cli")
    if update and shoppers:
        raise InputError("--update and --shoppers exclude each other", fix="Run mrse feed twice")
    way = cast(Literal["pyvespa", "cli"], via)
    out = console()
    vespa, queries = connect(endpoint, cert, key, ca), connect(query_endpoint or endpoint, cert, key, ca)
    journal = state or file.with_name(file.name + ".feed.sqlite")
    doctype = DocumentType.load(app, "shopper" if shoppers else "item")
    out.print(f"checking {file}")
    with progress_bar(out) as bar:
        task = bar.add_task("feeding", total=None)

        def advance(n: int) -> None:
            bar.advance(task, n)

        with resumable(out):
            if update:
                updates = UpdateSource.open(file, doctype)
                bar.update(task, total=updates.table.rows)
                report = feed_updates(vespa, updates, journal, via=way, progress=advance)
            elif shoppers:
                people = ShopperSource(file)
                bar.update(task, total=len(people))
                report = feed_shoppers(vespa, people, journal, queries=queries, via=way, full=full, progress=advance)
            else:
                model = ExportedModel.load(app / "models", threads=threads)
                seen = images_from(file, model, features, feature_column, image_encoder, images)
                source = ItemSource.open(
                    file,
                    doctype,
                    model,
                    seen,
                    item_queries=item_queries_for(model.manifest, searches, judgments, warn=out.print),
                    columns=[name.strip() for name in columns.split(",")] if columns is not None else None,
                    title=title,
                    check_images=check_images,
                )
                if source.left_out:
                    out.print(f"not in {doctype.file.name}, left out: {', '.join(source.left_out)}")
                if missing := _without_features(source.items, seen):
                    told = f"{missing:,} of {source.items.rows:,} items are not in {features}: they have no image"
                    out.print(told)
                bar.update(task, total=source.items.rows)
                report = feed_items(
                    vespa, source, journal, queries=queries, via=way, full=full, delete_missing=delete_missing,
                    progress=advance,
                )  # fmt: skip
    _tell(out, report)
    if update:
        out.print("an id that Vespa does not have is not made: its update changes nothing, and counts as fed")
    if report.failed:
        raise typer.Exit(1)


def images_from(
    file: Path, model: ExportedModel, features: Path | None, column: str, encoder: Path | None, wanted: bool
) -> Images:
    from feeders.image_features import EncodedImages, ExtractedFeatures, NoImages
    from mrse_model.data.contract import ItemsFile
    from mrse_model.serving.exported_model import ImageEncoder

    if features and encoder:
        raise InputError("--features and --image-encoder exclude each other", fix="Give one of them")
    if features:
        return ExtractedFeatures(features, model.manifest, column=column)
    if encoder:
        return EncodedImages(ImageEncoder.load(encoder), model.manifest, file)
    if wanted and model.manifest.image_encoder and ItemsFile(file, title=None).image_column:
        raise InputError(
            "the model sees images and the file has some, but there are no features of them",
            file=file,
            field="image",
            fix="Give --features (mrse features) or --image-encoder image_encoder.onnx, or --no-images",
        )
    return NoImages()


def _without_features(items: ItemsFile, images: Images) -> int:
    """How many items the file of features lacks. Raises InputError where it lacks all: it is of other items."""
    from feeders.image_features import ExtractedFeatures

    if not isinstance(images, ExtractedFeatures):
        return 0
    missing = sum(item_id not in images for batch in items.batches() for item_id in batch.ids)
    if missing == items.rows:
        raise InputError(
            "no item has a feature here", file=images.path, field="item_id", fix=f"Extract those of {items.path}"
        )
    return missing


def _tell(out: Console, report: Report) -> None:
    parts = [f"{report.ok} fed in {report.seconds:.1f} s ({report.per_second:.0f}/s)"]
    if report.unchanged:
        parts.append(f"{report.unchanged} unchanged")
    if report.removed:
        parts.append(f"{report.removed} removed")
    elif report.missing:
        parts.append(f"{report.missing} fed earlier are not in the file now (--delete-missing removes them)")
    out.print("; ".join(parts))
    if report.note:
        out.print(report.note)
    if report.failed:
        out.print(f"{report.failed} refused, see {report.dead_letters}; the first: {report.first_error}")
