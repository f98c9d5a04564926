"""`mrse export`: a checkpoint into an application package."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mrse_cli.config import Config
from mrse_cli.console import console


def export(
    checkpoint: Annotated[Path, typer.Argument(help="Folder of a run (mrse train --out).")] = Path("runs/mrse"),
    app: Annotated[Path, typer.Option(help="Application package; files go into its models/.")] = Path("vespa_app"),
    out: Annotated[Path | None, typer.Option(help="Folder to write to instead, for a model to migrate to.")] = None,
    config: Config = None,
) -> None:
    """Export the query and item towers (ONNX), the tokenizer and the manifest; and the image encoder.

    Example: mrse export runs/mrse --app vespa_app
    """
    from mrse_model.export import export_run
    from vespa_package.bundled import require_package

    if out is None:
        require_package(app)
    folder, say = out or app / "models", console().print
    done = export_run(checkpoint, folder)
    say(f"{done.manifest.model_version} → {folder}")
    if done.image_encoder and done.manifest.image_encoder:
        say(f"{done.manifest.image_encoder.name} → {done.image_encoder} (for mrse feed items --image-encoder)")
