"""MRSE: the whole learned model, and its checkpoint: model.safetensors, config.toml, tokenizer.json, meta.json.

model = MRSE.from_pretrained("runs/demo")
queries = model.query_vectors(["red dress"])
items = model.item_vectors(["Red dress"], [["Clothes"]]).embedding
queries @ items.T
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import Tensor, nn

from mrse_model.atomic_file import atomic_file
from mrse_model.config import Config, read_config, write_config
from mrse_model.errors import InputError
from mrse_model.experts import Adaptor, NGrams
from mrse_model.serving.exported_model import ItemVectors, QueryHistory, history_arrays, item_query_tokens
from mrse_model.serving.texts import item_texts, token_matrix
from mrse_model.towers import ItemTower, QueryTower

WEIGHTS, CONFIG, TOKENIZER, META = "model.safetensors", "config.toml", "tokenizer.json", "meta.json"


class MRSE(nn.Module):
    """Two towers, the shared n-gram table and the shared image adaptor (Jiang et al. 2024).

    meta is whatever training knows of itself: data fingerprint, split dates, metrics, versions, the image encoder.
    """

    def __init__(self, config: Config, tokenizer: Tokenizer, meta: dict[str, Any] | None = None) -> None:
        super().__init__()
        size = config.model
        if tokenizer.get_vocab_size() != size.vocab_size:
            raise ValueError(f"tokenizer has {tokenizer.get_vocab_size()} tokens, the config {size.vocab_size}")
        self.config, self.tokenizer, self.meta = config, tokenizer, meta or {}
        self.ngrams = NGrams(size)
        self.adaptor = Adaptor(size) if size.image_dims else None
        self.query, self.item = QueryTower(size), ItemTower(size)
        self._same_start()

    def _same_start(self) -> None:
        """Both towers begin alike: the same word then has the same vector in a query and in a title from step 0."""
        start = {k: v for k, v in self.query.state_dict().items() if not k.startswith("image_history.")}
        for name in ("vbert_text.position.weight", "light_bert.position.weight"):
            ours = self.item.state_dict()[name].clone()
            ours[: len(start[name])] = start[name]
            start[name] = ours
        self.item.load_state_dict(start, strict=False)

    @torch.no_grad()
    def start_tables(self, table: np.ndarray, from_teacher: bool) -> None:
        """Takes the first vectors of the tokens, float32 [vocabulary, ngram_dims]. A teacher's are used as they are:
        what the item tower's attention adds to their mean starts at 0.
        """
        if from_teacher:
            self.ngrams.start_from_teacher(table)
            nn.init.zeros_(self.item.attention.mix)
        else:
            self.ngrams.start(table)

    def leave_out(self, expert: str) -> None:
        """Does without an expert from now on: zeros stand for it, and nothing is computed."""
        experts = tuple(name for name in self.config.model.experts if name != expert)
        self.config = replace(self.config, model=replace(self.config.model, experts=experts))
        for tower in (self.query, self.item):
            tower.leave_out(expert)

    def query_embedding(
        self, ids: Tensor, mask: Tensor, history_text: Tensor, history_image: Tensor, history_weight: Tensor
    ) -> Tensor:
        """ids, mask int64 [b, t ≤ 16]; history_* [b, 20, d], [b, 20, d], [b, 20] → [b, d], unit norm."""
        texts = self.query.texts(self.ngrams, ids, mask)
        return self.query.fuse(texts, history_text, history_image, history_weight)

    def components(self, features: Tensor) -> Tensor:
        """Frozen image features [b, F] → what the model reads of an image [b, image_components]; without images they
        pass.
        """
        return features if self.adaptor is None else self.adaptor.components(features)

    def image_embedding(self, components: Tensor, present: Tensor) -> Tensor:
        """An image's `components`, present [b, 1] → [b, d]: unit norm, or zeros where there is no image."""
        if self.adaptor is None:
            return present * torch.zeros(1, self.config.model.dims, device=components.device)
        return self.adaptor(components) * present

    def image_residual(self, components: Tensor) -> Tensor | None:
        """An image's `components` → [b, d], the item tower's own view of it; None without images."""
        return None if self.item.image_residual is None else self.item.image_residual(components)

    def mean_ngrams(self, ids: Tensor, mask: Tensor) -> Tensor:
        """The mean n-gram vector of texts, unit norm. ids, mask [..., t] → [..., d]."""
        return F.normalize(self.ngrams.mean(ids, mask), dim=-1, eps=1e-6)

    def item_embeddings(
        self,
        ids: Tensor,
        mask: Tensor,
        components: Tensor,
        image: Tensor,
        present: Tensor,
        history_ids: Tensor,
        history_mask: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """ids, mask [b, t ≤ 64]; an image's components, image [b, d] (image_embedding's), present [b, 1]; history_*
        [b, 8, 16], the item queries → its vector [b, d], and its text feature [b, d], which a user's
        history reads: its vector without those queries, the same on its first day and later.
        """
        texts, image_residual = self.item.texts(self.ngrams, ids, mask), self.image_residual(components)
        entries, has_queries = self.mean_ngrams(history_ids, history_mask), (history_mask.sum(-1) > 0).float()
        with_queries, alone = (
            self.item.fuse(texts, image, present, entries, weight, image_residual)
            for weight in (has_queries, torch.zeros_like(has_queries))
        )
        return with_queries, alone

    # ---- numpy in, numpy out: the same signatures as mrse_model.serving.exported_model.ExportedModel

    @torch.no_grad()
    def query_vectors(
        self, texts: Sequence[str], histories: Sequence[QueryHistory | None] | None = None, batch: int = 512
    ) -> np.ndarray:
        """As ExportedModel.query_vectors: float32 [n, d]."""
        self.eval()
        size = self.config.model
        out = np.empty((len(texts), size.dims), np.float32)
        for start in range(0, len(texts), batch):
            some = texts[start : start + batch]
            ids, mask = token_matrix(self.tokenizer, some, size.query_tokens)
            known = histories[start : start + batch] if histories is not None else [None] * len(some)
            past = history_arrays(known, size.history_length, size.dims)
            inputs = (torch.from_numpy(x) for x in (ids, mask, *past.values()))
            out[start : start + batch] = self.query_embedding(*inputs).numpy()
        return out

    @torch.no_grad()
    def item_vectors(
        self,
        titles: Sequence[str],
        categories: Sequence[Sequence[str]],
        image_features: np.ndarray | None = None,
        queries: Sequence[Sequence[str]] | None = None,
        batch: int = 512,
    ) -> ItemVectors:
        """As ExportedModel.item_vectors: image_features float32 [n, F] with NaN rows, or None."""
        self.eval()
        size = self.config.model
        n = len(titles)
        out = ItemVectors(*(np.empty((n, size.dims), np.float32) for _ in range(3)))
        for start in range(0, n, batch):
            rows = slice(start, min(start + batch, n))
            some = item_texts(size.text_columns, titles[rows], categories[rows])
            ids, mask = map(torch.from_numpy, token_matrix(self.tokenizer, some, size.item_tokens))
            width = max(size.image_dims, 1)
            raw = np.full((len(some), width), np.nan, np.float32)
            if image_features is not None and size.image_dims:
                raw = image_features[rows]
            present = torch.from_numpy((~np.isnan(raw[:, :1])).astype(np.float32))
            seen = self.components(torch.from_numpy(np.nan_to_num(raw)))
            image = self.image_embedding(seen, present)
            some_queries = queries[rows] if queries is not None else [()] * len(some)
            asked = item_query_tokens(self.tokenizer, some_queries, size.item_history_queries, size.query_tokens)
            query_ids, query_mask = map(torch.from_numpy, asked)
            found = self.item_embeddings(ids, mask, seen, image, present, query_ids, query_mask)
            out.embedding[rows], out.text_feature[rows] = (vectors.numpy() for vectors in found)
            out.image_embedding[rows] = np.where(present.numpy() > 0, image.numpy(), np.nan)
        return out

    # ---- checkpoint

    def save_pretrained(self, folder: str | Path) -> Path:
        """Writes the checkpoint; weights and meta.json appear whole or not at all, meta.json last."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_file(folder / WEIGHTS) as part:
            save_file({k: v.contiguous() for k, v in self.state_dict().items()}, part)
        write_config(self.config, folder / CONFIG)
        self.tokenizer.save(str(folder / TOKENIZER))
        self.save_meta(folder)
        return folder

    def save_meta(self, folder: str | Path) -> None:
        """Writes the checkpoint's meta.json, whole or not at all."""
        with atomic_file(Path(folder) / META) as part:
            part.write_text(json.dumps(self.meta, indent=1, default=str) + "\n", "utf-8")

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> MRSE:
        """Reads a checkpoint. Raises InputError when a file of it is missing or does not fit the others."""
        folder = Path(folder)
        for name in (WEIGHTS, CONFIG, TOKENIZER, META):
            if not (folder / name).is_file():
                raise InputError("the checkpoint lacks this file", file=folder / name, fix="Run: mrse train")
        try:
            config = read_config(folder / CONFIG)
        except InputError as error:
            raise InputError(
                f"{error.problem}: another version of mrse wrote this checkpoint, or it was changed since",
                file=error.file,
                field=error.field,
                fix="Run: mrse train, or use the version that wrote it",
            ) from None
        tokenizer = Tokenizer.from_file(str(folder / TOKENIZER))
        try:
            model = cls(config, tokenizer, json.loads((folder / META).read_text("utf-8")))
            model.load_state_dict(load_file(folder / WEIGHTS))
        except (ValueError, RuntimeError, SafetensorError) as error:
            raise InputError(
                f"does not fit its config: {error}", file=folder / WEIGHTS, fix="Run: mrse train"
            ) from None
        return model.eval()
