"""manifest.json: the one seam between trainer, schema, feeder and searcher (docs/contracts.md). Needs no torch."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from mrse_model.errors import InputError

FILE = "manifest.json"
FORMAT = 2
TEXT_COLUMNS = {"title", "category"}
MODELS = ("query_text", "query_tower", "query_experts", "item_tower")


def sha256(path: Path) -> str:
    """Hex SHA-256 of a file, read in blocks."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True)
class Port:
    """An ONNX input or output. shape holds sizes, or names of dynamic axes."""

    name: str
    type: str
    shape: tuple[int | str, ...]


@dataclass(frozen=True)
class OnnxFile:
    """One exported graph."""

    file: str
    sha256: str
    ir_version: int
    opset: int
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]


@dataclass(frozen=True)
class TokenizerFile:
    file: str
    sha256: str
    vocab_size: int


@dataclass(frozen=True)
class EncoderInfo:
    """The frozen image encoder whose features the item tower takes. size: pixels of a side, 0 for vectors the user
    brought.
    """

    name: str
    dims: int
    size: int


@dataclass(frozen=True)
class Manifest:
    """What an exported model is: see docs/contracts.md for each key."""

    model_version: str
    created: str
    dims: int
    distance_metric: str
    query_tokens: int
    item_tokens: int
    item_text: tuple[str, ...]  # the columns that an item's text is made of, in their order (texts.item_texts)
    history_length: int
    item_history_queries: int
    event_weights: dict[str, float]
    half_life_days: float
    special_tokens: dict[str, int]
    tokenizer: TokenizerFile
    models: dict[str, OnnxFile]
    image_encoder: EncoderInfo | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    profile: str = "ann"  # the rank profile that training recommends
    popularity: str | None = None  # what hybrid_linear adds: of the items' "column", or of their "clicks"
    format: int = FORMAT

    @classmethod
    def load(cls, folder: str | Path, check_hashes: bool = True) -> Manifest:
        """Reads and checks `folder`/manifest.json.

        Raises InputError when it is missing, not JSON, of another format, lacks or has unknown keys, or when a file it
        names is missing or (check_hashes) is not the one that was exported.
        """
        path = Path(folder) / FILE
        export = "Run: mrse export CHECKPOINT --app vespa_app"
        if not path.is_file():
            raise InputError("the folder has no exported model", file=path, fix=export)
        try:
            raw = json.loads(path.read_text("utf-8"))
        except ValueError as error:
            raise InputError(f"not JSON: {error}", file=path, fix=export) from None
        if not isinstance(raw, dict) or raw.get("format") != FORMAT:
            found = raw.get("format") if isinstance(raw, dict) else None
            problem = f"another version wrote this model (format {found!r} instead of {FORMAT})"
            raise InputError(problem, file=path, field="format", fix=export)
        known = {f.name for f in fields(cls)}
        optional = {"image_encoder", "metrics", "training", "profile", "popularity"}
        for key in sorted(raw.keys() - known):
            raise InputError("unknown key", file=path, field=key, fix=export)
        for key in sorted(known - optional - raw.keys()):
            raise InputError("key is missing", file=path, field=key, fix=export)
        try:
            manifest = cls(
                **{k: v for k, v in raw.items() if k not in ("tokenizer", "models", "image_encoder", "item_text")},
                item_text=tuple(raw["item_text"]),
                tokenizer=TokenizerFile(**raw["tokenizer"]),
                models={name: _onnx_file(model) for name, model in raw["models"].items()},
                image_encoder=EncoderInfo(**raw["image_encoder"]) if raw.get("image_encoder") else None,
            )
        except (TypeError, KeyError, AttributeError) as error:
            raise InputError(f"malformed: {error}", file=path, fix=export) from None
        if not manifest.item_text or not set(manifest.item_text) <= TEXT_COLUMNS:
            problem = f"must list title, category or both, got {list(manifest.item_text)}"
            raise InputError(problem, file=path, field="item_text", fix=export)
        for name in MODELS:
            if name not in manifest.models:
                raise InputError("model is missing", file=path, field=f"models.{name}", fix=export)
        for file, digest in manifest.files().items():
            target = Path(folder) / file
            if not target.is_file():
                raise InputError(f"the file is missing, and {path} lists it", file=target, fix=export)
            if check_hashes and sha256(target) != digest:
                raise InputError(
                    f"the file has changed since {path} was written (SHA-256 differs)", file=target, fix=export
                )
        return manifest

    def files(self) -> dict[str, str]:
        """File name → SHA-256 of everything the manifest names."""
        return {m.file: m.sha256 for m in self.models.values()} | {self.tokenizer.file: self.tokenizer.sha256}

    def save(self, folder: str | Path) -> Path:
        """Writes `folder`/manifest.json and returns its path."""
        path = Path(folder) / FILE
        path.write_text(json.dumps(asdict(self), indent=1) + "\n", "utf-8")
        return path


def _onnx_file(raw: dict[str, Any]) -> OnnxFile:
    def ports(rows: list[dict[str, Any]]) -> tuple[Port, ...]:
        return tuple(Port(r["name"], r["type"], tuple(r["shape"])) for r in rows)

    return OnnxFile(**{**raw, "inputs": ports(raw["inputs"]), "outputs": ports(raw["outputs"])})
