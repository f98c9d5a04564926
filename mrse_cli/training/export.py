"""`mrse export`: a checkpoint into an application package."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mrse_cli.config import Config
from mrse_cli.console import console
from mrse_model.errors import InputError


def export(
    checkpoint: Annotated[Path, typer.Argument(help="Folder of a run (mrse train --out).")] = Path("runs/mrse"),
    app: Annotated[Path, typer.Option(help="Application package; files go into its models/.")] = Path("vespa_app"),
    out: Annotated[Path | None, typer.Option(help="Folder to write to instead, for a model to migrate to.")] = None,
    config: Config = None,
) -> None:
    """Export the query and item towers (ONNX), the tokenizer and the manifest; and the image encoder.

    Example: mrse export runs/mrse --app vespa_app
    """
    from mrse_model.export import export as write
    from mrse_model.images.encoders import export_onnx, load_encoder
    from mrse_model.model import MRSE

    if out is None and not (app / "services.xml").is_file():
        fix = "Give the folder of services.xml, or run: mrse init, which writes one"
        raise InputError("no application package here", file=app, field="--app", fix=fix)
    say, folder = console().print, out or app / "models"
    model = MRSE.from_pretrained(checkpoint)
    manifest = write(model, folder)
    say(f"{manifest.model_version} → {folder}")
    info = manifest.image_encoder
    if info is not None and info.size:  # size 0: the user's own vectors, and no encoder of ours
        path = checkpoint / "image_encoder.onnx"
        export_onnx(load_encoder(info.name, info.size), path)
        say(f"{info.name} → {path} (for mrse feed items --image-encoder)")
