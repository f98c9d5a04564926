"""The learned model, from Parquet to ONNX (Jiang et al. 2024, arXiv 2408.14968).

    from mrse_model import Inputs, MRSE, preset, train

    model = train(Inputs("items.parquet"), "runs/shop", preset("tiny"))
    model.query_vectors(["red dress"])

A name below is imported when it is first asked for: torch is not loaded where only `ExportedModel` is needed.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from mrse_model.environment import prepare

prepare()  # before torch, onnxruntime or an HTTP client is loaded

if TYPE_CHECKING:
    from mrse_model.config import Config, preset, read_config
    from mrse_model.data.contract import ItemsFile, SearchesFile, read_catalogue, read_judgments
    from mrse_model.errors import InputError
    from mrse_model.model import MRSE
    from mrse_model.serving.exported_model import ExportedModel, QueryHistory
    from mrse_model.serving.images import ImageEncoder
    from mrse_model.serving.manifest import Manifest
    from mrse_model.training.claim import Inputs
    from mrse_model.training.pipeline import train

_MODULES = {
    "config": ("Config", "preset", "read_config"),
    "data.contract": ("ItemsFile", "SearchesFile", "read_catalogue", "read_judgments"),
    "errors": ("InputError",),
    "model": ("MRSE",),
    "serving.exported_model": ("ExportedModel", "QueryHistory"),
    "serving.images": ("ImageEncoder",),
    "serving.manifest": ("Manifest",),
    "training.claim": ("Inputs",),
    "training.pipeline": ("train",),
}
_HOME = {name: f"mrse_model.{module}" for module, names in _MODULES.items() for name in names}
__all__ = [
    "MRSE", "Config", "ExportedModel", "ImageEncoder", "InputError", "Inputs", "ItemsFile", "Manifest", "QueryHistory",
    "SearchesFile", "preset", "read_catalogue", "read_config", "read_judgments", "train",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'mrse_model' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
