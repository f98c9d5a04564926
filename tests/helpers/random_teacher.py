"""Encoders of random weights, in folders as transformers and sentence-transformers write them: of sentences, and of
texts and images.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertModel,
    CLIPConfig,
    CLIPModel,
    PreTrainedTokenizerFast,
    SiglipConfig,
    SiglipModel,
)

WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "red", "dress", "steel", "mug", "lawn", "mower", "a", "b", "c", "d", "e")


def random_teacher(
    folder: Path, pooling: str | None = None, seed: int = 0, words: Sequence[str] = WORDS, **size: int | str
) -> Path:
    """A small BERT of random weights. words: its word pieces. size: further settings of BertConfig."""
    torch.manual_seed(seed)
    small = {"hidden_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    model = BertModel(BertConfig(vocab_size=len(words), **(small | size)))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "LayerNorm" in name and size:  # as training leaves them: those of the start say nothing
                weight.add_(0.3 * torch.randn_like(weight))
    model.save_pretrained(folder)
    tokenizer = Tokenizer(models.WordPiece({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
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


TEXT = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
VISION = {**TEXT, "patch_size": 8, "image_size": 16}


def random_pair(folder: Path, kind: str = "clip", seed: int = 0) -> str:
    """A small CLIP or SigLIP of random weights with tokenizer and image processor. Returns its name for --teacher."""
    torch.manual_seed(seed)
    folder.mkdir(parents=True, exist_ok=True)
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    if kind == "clip":
        vocabulary = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
        (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(vocabulary)}))
        (folder / "merges.txt").write_text("#version: 0.2\n")
        (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "CLIPTokenizer"}))
        ends = {"bos_token_id": len(vocabulary) - 2, "eos_token_id": len(vocabulary) - 1, "pad_token_id": 1}
        text = {**TEXT, "vocab_size": len(vocabulary), "max_position_embeddings": 77, **ends}
        size = CLIPConfig(text_config=text, vision_config=VISION, projection_dim=24)
        CLIPModel(size).save_pretrained(folder)
    else:
        tokenizer = Tokenizer(
            models.BPE({token: i for i, token in enumerate(["<pad>", "<unk>", "</s>", *letters])}, [])
        )
        tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.Whitespace()
        tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 2)])
        special = {"pad_token": "<pad>", "unk_token": "<unk>", "eos_token": "</s>"}
        PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=64, **special).save_pretrained(folder)
        text = {**TEXT, "vocab_size": 3 + len(letters), "max_position_embeddings": 64, "projection_size": 32}
        SiglipModel(SiglipConfig(text_config=text, vision_config=VISION)).save_pretrained(folder)
    cut = {"size": {"shortest_edge": 16}, "crop_size": {"height": 16, "width": 16}}
    sides = cut if kind == "clip" else {"size": {"height": 16, "width": 16}}
    processor = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "rescale_factor": 1 / 255, "resample": 3, **sides}
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return f"{kind}:{folder}"
