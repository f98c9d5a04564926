"""`mrse feed items|shoppers|updates|retry`: Parquet into Vespa."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from typer.core import TyperGroup

from mrse_cli.config import Config
from mrse_cli.console import console
from mrse_cli.endpoint import LOCAL, Authority, Certificate, Endpoint, Key, Package, QueryEndpoint, connect
from mrse_model.errors import InputError
from mrse_model.progress import progress_bar

if TYPE_CHECKING:
    from feeders.report import Report

OLD_SPELLINGS = {"--shoppers": "shoppers", "--update": "updates"}


class Commands(TyperGroup):
    """Also takes `mrse feed FILE`, with --update or --shoppers, as it was written before there were four commands."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Puts the command's name in front where it is missing, and says so."""
        if args and args[0] not in self.commands and not {"-h", "--help"} & set(args):
            old = [arg for arg in args if arg in OLD_SPELLINGS]
            if len(set(old)) > 1:
                raise InputError("--update and --shoppers exclude each other", fix="Run mrse feed twice")
            name = OLD_SPELLINGS[old[0]] if old else "items"
            flag = f" {old[0]}" if old else ""
            print(f"mrse feed FILE{flag} is now mrse feed {name} FILE")
            args = [name, *(arg for arg in args if arg not in OLD_SPELLINGS)]
        return super().parse_args(ctx, args)


group = typer.Typer(
    cls=Commands, no_args_is_help=True, rich_markup_mode=None, help="Feed Vespa from Parquet: items, updates, users."
)

State = Annotated[
    Path | None,
    typer.Option(help="Journal of what the index holds; refused documents go beside it. Default: beside --app."),
]
GiveUp = Annotated[
    float, typer.Option("--give-up-after", min=0, help="Give up after this many minutes without a success.")
]
MaxErrors = Annotated[int | None, typer.Option(min=1, help="Give up after this many refused documents.")]
Features = Annotated[Path | None, typer.Option(help="Image features of the items (mrse features).")]
FeatureColumn = Annotated[str, typer.Option(help="Column of the vectors in --features.")]
Encoder = Annotated[Path | None, typer.Option(help="image_encoder.onnx, to encode the images here.")]
WithImages = Annotated[bool, typer.Option(help="--no-images: encode the texts alone.")]
Searches = Annotated[Path | None, typer.Option(help="Search log: where item queries and popularity come from.")]
Judgments = Annotated[Path | None, typer.Option(help="Judgments: further item queries.")]
Title = Annotated[str, typer.Option(help="Column to take as the title.")]
Columns = Annotated[str | None, typer.Option(help="Further columns to feed: a,b,c. Default: those in the schema.")]
Vectors = Annotated[
    Path | None, typer.Option(help="Shards of the items' vectors (mrse encode), instead of encoding here.")
]
Language = Annotated[
    str | None,
    typer.Option(help="Language of the texts, if no column language gives it: sv. Default: the schema's."),
]
Since = Annotated[str | None, typer.Option(help="Leave out rows older than this: 2026-03-01, or 2026-03-01T12:00Z.")]
Limit = Annotated[int | None, typer.Option(min=1, help="Send at most this many documents.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Check and render all, show three documents, send nothing.")]
Via = Annotated[str, typer.Option(hidden=True)]


@group.command("items")
def feed_items_command(
    file: Annotated[list[Path], typer.Argument(help="Parquet: an items file, several, or a folder of part files.")],
    app: Package = Path("vespa_app"),
    endpoint: Endpoint = LOCAL,
    query_endpoint: QueryEndpoint = None,
    features: Features = None,
    feature_column: FeatureColumn = "feature",
    image_encoder: Encoder = None,
    images: WithImages = True,
    searches: Searches = None,
    judgments: Judgments = None,
    columns: Columns = None,
    title: Title = "title",
    language: Language = None,
    full: Annotated[
        bool, typer.Option("--full", help="Feed all items, not only those that changed since the last feed.")
    ] = False,
    delete_missing: Annotated[
        bool, typer.Option("--delete-missing", help="Remove from the index what is not in FILE.")
    ] = False,
    max_removals: Annotated[
        int | None,
        typer.Option(min=0, help="Most items that --delete-missing may remove. Default: 100, or 5 % of the index."),
    ] = None,
    check_images: Annotated[bool, typer.Option(help="Decode every image before the first put.")] = True,
    vectors: Vectors = None,
    next_models: Annotated[
        Path | None, typer.Option(help="During a migration: the new model's export. Items get the vectors of both.")
    ] = None,
    to_jsonl: Annotated[
        Path | None,
        typer.Option(help="Write all items as puts for `vespa feed` to this file (- for stdout); send nothing."),
    ] = None,
    since: Since = None,
    since_column: Annotated[str, typer.Option(help="Column that says when an item changed, for --since.")] = "added",
    dry_run: DryRun = False,
    limit: Limit = None,
    give_up_after: GiveUp = 5,
    max_errors: MaxErrors = None,
    state: State = None,
    threads: Annotated[int, typer.Option(min=1, help="Threads for the item tower.")] = 2,
    via: Via = "",
    cert: Certificate = None,
    key: Key = None,
    ca: Authority = None,
    config: Config = None,
) -> None:
    """Feed items: send whatever differs between FILE and the index.

    The whole file is checked before the first document is sent. Run an interrupted feed again to resume it. Exit code
    1: some documents were refused, or not reached.

    Example: mrse feed items items.parquet --features features.parquet --searches searches.parquet
    """
    from feeders.export import puts, show_documents, write_jsonl
    from feeders.feed import feed_items
    from feeders.index.journal import journal_file
    from feeders.inputs import open_items
    from feeders.transport import Policy
    from mrse_model.serving.exported_model import ExportedModel

    if to_jsonl is not None and dry_run:
        raise InputError("--to-jsonl and --dry-run exclude each other", fix="Give one of them")
    # Messages go to stderr where the documents go to stdout.
    out = Console(stderr=True, markup=False, highlight=False, soft_wrap=True) if str(to_jsonl) == "-" else console()
    _say_of_via(via)
    vespa, queries = connect(endpoint, cert, key, ca), connect(query_endpoint or endpoint, cert, key, ca)
    with counted(out) as (report, progress):
        out.print(f"checking {', '.join(map(str, file))}")
        source = open_items(
            file,
            app,
            ExportedModel.load(app / "models", threads=threads),
            features=features,
            feature_column=feature_column,
            image_encoder=image_encoder,
            images=images,
            searches=searches,
            judgments=judgments,
            columns=[name.strip() for name in columns.split(",")] if columns is not None else None,
            title=title,
            language=language,
            check_images=check_images,
            vectors=vectors,
            next_models=next_models,
            warn=out.print,
        )
        if (seconds := _seconds(since)) is not None:
            source = source.changed_since(since_column, seconds)
        for notice in source.items.table.notices:
            out.print(notice)
        if source.left_out:
            out.print(f"not in {source.doctype.file.name}, left out: {', '.join(source.left_out)}")
        if missing := source.without_features:
            out.print(f"{missing:,} of {source.items.rows:,} items are not in {features}: they have no image")
        report.rows = source.items.rows
        if to_jsonl is not None:
            write_jsonl(source, to_jsonl, report, progress, limit)
        elif dry_run:
            show_documents(puts(source), report, progress, out.print, limit)
        else:
            feed_items(
                vespa,
                source,
                state or journal_file(app),
                queries=queries,
                full=full,
                delete_missing=delete_missing,
                max_removals=max_removals,
                report=report,
                progress=progress,
                policy=Policy(give_up_after=60 * give_up_after),
                max_errors=max_errors,
                limit=limit,
            )


@group.command("updates")
def feed_updates_command(
    file: Annotated[list[Path], typer.Argument(help="Parquet: item_id and the fields to assign.")],
    app: Package = Path("vespa_app"),
    endpoint: Endpoint = LOCAL,
    language: Language = None,
    dry_run: DryRun = False,
    limit: Limit = None,
    give_up_after: GiveUp = 5,
    max_errors: MaxErrors = None,
    state: State = None,
    via: Via = "",
    cert: Certificate = None,
    key: Key = None,
    ca: Authority = None,
    config: Config = None,
) -> None:
    """Feed partial updates: price, stock and the like, without touching texts or vectors. A null leaves a field alone.

    Example: mrse feed updates prices.parquet
    """
    from feeders.export import show_documents
    from feeders.feed import feed_updates
    from feeders.index.journal import journal_file
    from feeders.report import Report
    from feeders.transport import Policy
    from feeders.updates import UpdateSource
    from vespa_package.fields import LANGUAGE, DocumentType

    out = console()
    _say_of_via(via)
    vespa = connect(endpoint, cert, key, ca)
    with counted(out) as (report, progress):
        out.print(f"checking {', '.join(map(str, file))}")
        source = UpdateSource.open(file, DocumentType.load(app), language=language)
        if source.language and language is None and LANGUAGE not in source.columns:
            texts = ", ".join(name for name in source.columns if name in source.doctype.texts)
            out.print(f"{texts}: taken as {source.language}; a column language, or --language, says another")
        report.rows = source.table.rows
        if dry_run:
            show_documents(source.operations(Report()), report, progress, out.print, limit)
            return
        policy = Policy(give_up_after=60 * give_up_after)
        feed_updates(vespa, source, state or journal_file(app, "updates"), report=report, progress=progress,
                     policy=policy, max_errors=max_errors, limit=limit)  # fmt: skip
    out.print("an id that Vespa does not have is not made: its update changes nothing, and counts as fed")


@group.command("shoppers")
def feed_shoppers_command(
    file: Annotated[Path, typer.Argument(help="Parquet: a search log, or a folder of part files.")],
    app: Package = Path("vespa_app"),
    endpoint: Endpoint = LOCAL,
    since: Since = None,
    keep_days: Annotated[
        float, typer.Option(min=0, help="Days after the last write until a user's history expires.")
    ] = 365,
    dry_run: DryRun = False,
    limit: Limit = None,
    give_up_after: GiveUp = 5,
    max_errors: MaxErrors = None,
    state: State = None,
    full: Annotated[bool, typer.Option("--full", hidden=True)] = False,
    query_endpoint: Annotated[str | None, typer.Option(hidden=True)] = None,
    via: Via = "",
    cert: Certificate = None,
    key: Key = None,
    ca: Authority = None,
    config: Config = None,
) -> None:
    """Feed the last clicks, carts and orders of each user of a search log. Events that arrived live are kept.

    Example: mrse feed shoppers searches.parquet
    """
    from feeders.export import show_documents
    from feeders.index.journal import journal_file
    from feeders.shoppers import ShopperSource, additions, feed_shoppers
    from feeders.transport import Policy

    out = console()
    _say_of_via(via)
    vespa = connect(endpoint, cert, key, ca)
    with counted(out, "users") as (report, progress):
        out.print(f"checking {file}")
        source = ShopperSource(file, since=_seconds(since))
        if dry_run:
            show_documents(additions(source), report, progress, out.print, limit)
            return
        policy = Policy(give_up_after=60 * give_up_after)
        feed_shoppers(vespa, source, state or journal_file(app, "shoppers"), report=report, progress=progress,
                      policy=policy, keep_days=keep_days, max_errors=max_errors, limit=limit)  # fmt: skip


@group.command("retry")
def feed_retry_command(
    file: Annotated[Path, typer.Argument(help="Refused documents of an earlier feed: ….refused.jsonl.")],
    endpoint: Endpoint = LOCAL,
    give_up_after: GiveUp = 5,
    cert: Certificate = None,
    key: Key = None,
    ca: Authority = None,
    config: Config = None,
) -> None:
    """Send refused documents again. Those that are refused once more stay in FILE.

    Example: mrse feed retry vespa_app.feed.refused.jsonl
    """
    from feeders.feed import feed_again
    from feeders.transport import Policy

    out = console()
    vespa = connect(endpoint, cert, key, ca)
    with counted(out) as (report, progress):
        feed_again(vespa, file, report=report, progress=progress, policy=Policy(give_up_after=60 * give_up_after))


def feed(file: Path, *, update: bool = False, shoppers: bool = False, **options: Any) -> None:
    """The commands for Python callers: items, or what update and shoppers say."""
    if shoppers:
        feed_shoppers_command(file, **options)
    elif update:
        feed_updates_command([file], **options)
    else:
        feed_items_command([file], **options)


class Terminated(KeyboardInterrupt):
    """SIGTERM, which ends a feed as Ctrl-C does: in order, with its counts."""


@contextmanager
def counted(out: Console, what: str = "documents") -> Iterator[tuple[Report, Callable[[Report], None]]]:
    """Around a feed: a report that is printed whatever happens, a bar, and the exit code."""
    from feeders.report import Report

    report, before = Report(), None
    with suppress(ValueError):  # not the main thread: whoever runs it there handles signals
        before = signal.signal(signal.SIGTERM, _terminate)
    try:
        with progress_bar(out) as bar:
            task = bar.add_task("feeding", total=None)

            def progress(now: Report) -> None:
                words = f"{now.ok:,} acknowledged ({now.per_second:.0f}/s), {now.retries} retried, {now.failed} refused"
                words += f"; {now.waiting}" if now.waiting else ""
                done = now.ok + now.failed + now.unchanged
                bar.update(task, description=words, total=now.rows or None, completed=done)

            yield report, progress
    except KeyboardInterrupt as interrupt:
        _tell(out, report, what)
        out.print("interrupted: run the same command again to resume")
        if isinstance(interrupt, Terminated):
            raise typer.Exit(143) from None
        raise
    except Exception:
        if report.ok or report.failed:
            _tell(out, report, what)
        raise
    finally:
        if before is not None:
            signal.signal(signal.SIGTERM, before)
    _tell(out, report, what)
    if not report.complete:
        raise typer.Exit(1)


def _terminate(*_: object) -> None:
    raise Terminated


def _say_of_via(via: str) -> None:
    if via:
        print("--via: there is one transport now; vespa feed reads what --to-jsonl writes", file=sys.stderr)


def _seconds(text: str | None) -> int | None:
    from datetime import UTC, datetime

    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise InputError(f"{text!r} is not a time", field="--since", fix="Write it like 2026-03-01T12:00Z") from None
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())


def _tell(out: Console, report: Report, what: str) -> None:
    parts = [f"{report.ok} fed in {report.seconds:.1f} s ({report.per_second:.0f}/s)"]
    if report.unchanged:
        parts.append(f"{report.unchanged} unchanged")
    if report.failed:
        parts.append(f"{report.failed} refused")
    if report.not_reached:
        parts.append(f"{report.not_reached} not reached")
    if report.removed or report.not_removed:
        parts.append(f"{report.removed} removed" + (f", {report.not_removed} not" if report.not_removed else ""))
    elif report.missing:
        parts.append(f"{report.missing} fed earlier are not in the file now (--delete-missing removes them)")
    out.print("; ".join(parts))
    if report.older:
        out.print(
            f"{report.older} of the unchanged are newer in the index, from {report.newer_source} (--full feeds them)"
        )
    if report.kept:
        out.print(f"{report.kept} that are not in the file came from a newer one, and were left (--full removes them)")
    if report.expired:
        out.print(f"{report.expired} of the unchanged have expired, and were left out")
    if report.earlier:
        out.print(f"{report.earlier} of the unchanged are from before --since, and were left out")
    if report.retries:
        out.print(f"{report.retries} requests were repeated")
    if report.note:
        out.print(report.note)
    if report.failed:
        out.print(f"the first refusal: {report.first_error}")
    if report.dead_letters:
        out.print(f"refused {what}: {report.dead_letters}, to be fed again by: mrse feed retry {report.dead_letters}")
    if report.stopped:
        out.print(f"gave up: {report.stopped}. Run the same command again to resume")
