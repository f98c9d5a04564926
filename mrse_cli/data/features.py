"""`mrse features`: encode the images of a catalogue once, into a Parquet file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mrse_cli.config import Config
from mrse_cli.console import console, resumable
from mrse_model.images import DEFAULT_ENCODER


def features(
    items: Annotated[Path, typer.Argument(help="Items file with an image or image_path column.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Feature file to write.")] = Path("features.parquet"),
    encoder: Annotated[
        str,
        typer.Option(
            help="efficientnet-lite0, efficientnet-lite0-colours, or clip:, siglip:, hf: and a name or folder."
        ),
    ] = DEFAULT_ENCODER,
    size: Annotated[
        int | None, typer.Option(min=32, help="Side of an image in pixels. Default: the encoder's own.")
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Images per batch.")] = 64,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads. Default: all cores.")] = None,
    onnx: Annotated[
        Path | None, typer.Option(help="Also write the encoder as ONNX, for mrse feed items --image-encoder.")
    ] = None,
    config: Config = None,
) -> None:
    """Extract image features, once per catalogue. Identical images are encoded once, an interrupted run resumes, and
    into the features file of an earlier catalogue only new images are encoded.

    Example: mrse features items.parquet -o features.parquet
    """
    from mrse_model.images.encoders import export_onnx, load_encoder
    from mrse_model.images.extract import extract

    out_console = console()
    model = load_encoder(encoder, size)
    with resumable(out_console):
        done = extract(items, out, model, batch=batch, threads=threads)
    if done.distinct is None:
        out_console.print(f"{done.path}: {done.items} items, all done before")
    else:
        out_console.print(
            f"{done.path}: {done.items} items, {done.without_image} without, {done.distinct} distinct images, "
            f"{done.encoded} encoded now, {done.resumed} items done before"
        )
    if onnx is not None:
        out_console.print(str(export_onnx(model, onnx)))
