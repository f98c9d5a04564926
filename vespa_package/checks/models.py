"""The exported models against what Vespa's runtime can take."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from mrse_model.errors import InputError
from mrse_model.serving.manifest import Manifest

IR, OPSET = 13, 26  # the most that ONNX Runtime 1.23, which Vespa 8.700 has, reads


def check_models(app: Path, manifest: Manifest) -> Iterable[InputError]:
    """What Vespa's ONNX Runtime and its lower-casing model evaluation can take."""
    for name, model in manifest.models.items():
        file = app / "models" / model.file
        if model.ir_version > IR or model.opset > OPSET:
            yield InputError(
                f"IR {model.ir_version}, opset {model.opset}: Vespa's ONNX Runtime reads IR ≤ {IR}, opset ≤ {OPSET}",
                file=file, field=name, fix="Run: mrse export, which writes what Vespa reads",
            )  # fmt: skip
        if model.file != model.file.lower():
            yield InputError(
                "an upper-case letter: /model-evaluation/v1 lowers its paths and would not find it",
                file=file, field=name, fix=f"Rename it {model.file.lower()}",
            )  # fmt: skip
