"""A sentence encoder of random weights, in a folder as transformers and sentence-transformers write one."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "red", "dress", "steel", "mug", "lawn", "mower", "a", "b", "c", "d", "e")


def random_teacher(folder: Path, pooling: str | None = None, seed: int = 0) -> Path:
    """A small BERT of random weights, as transformers and sentence-transformers write one."""
    torch.manual_seed(seed)
    size = BertConfig(
        vocab_size=len(WORDS), hidden_size=48, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
    )
    BertModel(size).save_pretrained(folder)
    tokenizer = Tokenizer(models.WordPiece({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)
    if pooling is not None:
        (folder / "1_Pooling").mkdir()
        (folder / "1_Pooling" / "config.json").write_text(json.dumps({pooling: True}))
    return folder
