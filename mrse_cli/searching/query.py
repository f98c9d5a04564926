"""`mrse query`: one query, its hits as a table or as JSON."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Literal

import typer

from mrse_cli.config import Config
from mrse_cli.console import console
from mrse_cli.endpoint import LOCAL, Authority, Certificate, Endpoint, Key, Package, connect
from mrse_cli.searching.hits import AsJson, Timeout, print_hits, print_json
from mrse_model.errors import InputError


def query(
    text: Annotated[str, typer.Argument(help="Text of the query.")] = "",
    app: Package = Path("vespa_app"),
    endpoint: Endpoint = LOCAL,
    profile: Annotated[
        str | None,
        typer.Option(
            help="ann, exact, bm25, hybrid, hybrid_linear, three_queues, query_tower; any other name is a rank "
            "profile of your own over nearest neighbours. Default: what the model's training recommends, if the model "
            "is here (--embed here), else ann."
        ),
    ] = None,
    user: Annotated[str | None, typer.Option(help="User whose `shopper` document in Vespa gives the history.")] = None,
    clicked: Annotated[
        list[str] | None, typer.Option(help="An item clicked just now, in addition to the history; may be repeated.")
    ] = None,
    filter: Annotated[
        list[str] | None, typer.Option(help="colour=red|blue, price<=50, category!=Shoes; may be repeated.")
    ] = None,
    sort: Annotated[list[str] | None, typer.Option(help="price or -price, instead of rank; may be repeated.")] = None,
    facet: Annotated[list[str] | None, typer.Option(help="Count the values of a field; may be repeated.")] = None,
    input: Annotated[list[str] | None, typer.Option(help="A rank input: alpha=0.7; may be repeated.")] = None,
    hits: Annotated[int, typer.Option(min=1, max=400, help="How many hits.")] = 10,
    offset: Annotated[int, typer.Option(min=0, max=1000, help="Hits to leave out at the start.")] = 0,
    target_hits: Annotated[int, typer.Option(min=1, help="Candidates from each nearest-neighbour search.")] = 200,
    collapse: Annotated[
        str | None, typer.Option(help="A string field: the best hit of each of its values, and every item without one.")
    ] = None,
    ranks: Annotated[
        bool, typer.Option("--ranks", help="Show each hit's rank in each recall queue (three_queues).")
    ] = False,
    explain: Annotated[
        bool,
        typer.Option("--explain", help="Show what each hit's score loses without text, history, images, each expert."),
    ] = False,
    embed: Annotated[
        Literal["vespa", "here"],
        typer.Option(help="Where the query vector is made: in Vespa, or here with the exported model of --app."),
    ] = "vespa",
    warm: Annotated[Path | None, typer.Option(help="Query vectors of `mrse warm`, for --embed here.")] = None,
    language: Annotated[
        str | None, typer.Option(help="Language of the text: en, pt-BR. Default: Vespa detects it.")
    ] = None,
    timeout: Timeout = 10.0,
    now: Annotated[
        float | None,
        typer.Option(help="Unix seconds: the time at which the age of a user's events is measured. Default: now."),
    ] = None,
    json: AsJson = False,
    cert: Certificate = None,
    key: Key = None,
    ca: Authority = None,
    config: Config = None,
) -> None:
    """Search, and print the hits as a table.

    --user and --clicked need the exported model in --app, which encodes the history.

    Example: mrse query "red dress" --profile three_queues --user u17 --filter "price<=50"
    """
    from mrse_model.serving.exported_model import ExportedModel
    from retrieval import Event, Facet, Filter, RankProfile, Searcher, Sort
    from retrieval.embed_producer import EmbedProducer
    from retrieval.profiles import TABLE
    from retrieval.why import explained
    from vespa_package.fields import DocumentType

    local = embed == "here" or user is not None or bool(clicked)
    producer = EmbedProducer(ExportedModel.load(app / "models"), precomputed=warm) if local else None
    moment = time.time() if now is None else now
    clicks = [Event(item, "click", moment) for item in clicked or []]
    has_schema = (app / "schemas" / "item.sd").is_file()  # without --app, Vespa alone knows the fields
    fields = DocumentType.load(app).fields if has_schema else None
    with Searcher(connect(endpoint, cert, key, ca), producer=producer, fields=fields, deadline=timeout) as searcher:
        result = searcher.search(
            text,
            user=user,
            clicks=clicks,
            filters=[Filter.parse(f) for f in filter or []],
            sort=[Sort.parse(s) for s in sort or []],
            facets=[Facet(f) for f in facet or []],
            inputs=dict(_input(i) for i in input or []),
            hits=hits,
            offset=offset,
            profile=profile if profile is None or profile in TABLE else RankProfile(profile),
            target_hits=target_hits,
            collapse=collapse,
            ranks=ranks,
            language=language,
            now=moment,
        )
        shares = explained(searcher, text, result, user=user, clicks=clicks, now=moment) if explain else None
    out = console()
    if json:
        print_json(out, result, shares)
        return
    note = f", {result.clicks} clicked items" if local and (user or clicked) else ""
    print_hits(out, result, shares, note)


def _input(text: str) -> tuple[str, float]:
    name, equals, value = text.partition("=")
    try:
        if equals:
            return name.strip(), float(value)
    except ValueError:
        pass
    raise InputError(f"not a rank input: {text!r}", field="--input", fix="Write alpha=0.7")
