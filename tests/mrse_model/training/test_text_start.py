"""The BERTs' start from another's weights: what is equal, what is nearly so, and what does not fit."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import torch.nn.functional as F
from rich.console import Console

from mrse_model.config import Config, ModelConfig, overlay
from mrse_model.errors import InputError
from mrse_model.model import MRSE
from mrse_model.serving.texts import token_matrix
from mrse_model.training.claim import claim_of, equal_parts
from mrse_model.training.pipeline import Inputs, train
from mrse_model.training.teacher.text_start import SourceBert, start_texts
from mrse_model.training.tokenizer import train_tokenizer
from tests.helpers.random_teacher import WORDS, random_teacher
from tests.helpers.small_runs import few_steps

PIECES = (*WORDS, "shirt", "blue", "##s", "##ing", "cook", "ing")
TITLES = [" ".join(words) for words in product(("red", "steel", "lawn", "blue"), ("mug", "dress", "shirt"), "abcde")]
TITLES += [title + " cooking shirts" for title in TITLES]
SHAPE: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 128}
SIZE = ModelConfig(dims=24, bert_dims=32, bert_layers=2, bert_heads=2, query_tokens=8, item_tokens=16, dropout=0.0)


def bert(folder: Path, **other: Any) -> SourceBert:
    return SourceBert(str(random_teacher(folder, words=PIECES, **{**SHAPE, **other})))


def started(source: SourceBert, size: ModelConfig = SIZE) -> MRSE:
    tokenizer = train_tokenizer(TITLES, 150, min_count=1)
    model = MRSE(Config(model=replace(size, vocab_size=tokenizer.get_vocab_size())), tokenizer)
    items, _ = token_matrix(tokenizer, TITLES, size.item_tokens)
    queries, _ = token_matrix(tokenizer, [title[:-2] for title in TITLES], size.query_tokens)
    start_texts(model, source, items.astype(np.int32), queries, seed=1)
    return model.eval()


@torch.no_grad()
def test_a_token_is_the_mean_of_its_word_pieces(tmp_path: Path) -> None:
    source = bert(tmp_path)
    model = started(source)
    rows, place = model.item.light_bert.embed.weight, model.tokenizer.get_vocab()
    theirs, pieces = source.model.embeddings.word_embeddings.weight, source.tokenizer.get_vocab()
    scale = (rows[place["▁red"]] / theirs[pieces["red"]]).mean()
    assert torch.allclose(rows[place["▁red"]], scale * theirs[pieces["red"]], rtol=1e-4)
    mean = (theirs[pieces["shirt"]] + theirs[pieces["##s"]]) / 2
    assert torch.allclose(rows[place["▁shirts"]], scale * mean, rtol=1e-4, atol=1e-5)
    assert torch.allclose(rows[place["[SEP]"]], scale * theirs[pieces["[SEP]"]], rtol=1e-4)
    assert torch.allclose(rows[place["s"]], scale * theirs[pieces["##s"]], rtol=1e-4)  # from within a word
    near = F.cosine_similarity(rows[place["▁shirt"]], rows, dim=-1).topk(3).indices
    assert set(near.tolist()) == {place[token] for token in ("▁shirt", "shirt", "▁shirts")}  # of alike word pieces


@torch.no_grad()
def test_layers_are_the_sources(tmp_path: Path) -> None:
    source = bert(tmp_path)
    encoder, theirs = started(source).item.light_bert, source.model.state_dict()
    for index, block in enumerate(encoder.blocks):
        prefix = f"encoder.layer.{index}."
        query, key, value = block.qkv.weight.chunk(3)
        for ours, name in ((query, "query"), (key, "key"), (value, "value")):
            assert torch.equal(ours, theirs[f"{prefix}attention.self.{name}.weight"])
        assert torch.equal(block.up.weight, theirs[f"{prefix}intermediate.dense.weight"])
        for ours, name in ((block.out, "attention.output.dense"), (block.down, "output.dense")):
            ratio = theirs[f"{prefix}{name}.weight"] / ours.weight  # a row's scale
            assert torch.allclose(ratio, ratio[:, :1].expand_as(ratio), rtol=1e-3)
            assert torch.allclose(theirs[f"{prefix}{name}.bias"], ours.bias * ratio[:, 0], atol=1e-5)
    assert torch.equal(encoder.attention.value.weight, torch.zeros(32, 32))


@torch.no_grad()
def test_the_first_attention_is_exact_and_a_text_nearly_the_sources(tmp_path: Path) -> None:
    source = bert(tmp_path)
    model = started(source)
    texts = TITLES[: len(TITLES) // 2]  # whose words are single pieces of both
    ids, mask = map(torch.from_numpy, token_matrix(model.tokenizer, texts, SIZE.query_tokens))
    inputs = source.tokenizer(texts, return_tensors="pt")
    assert ids.shape == inputs["input_ids"].shape
    layer, encoder = source.model.encoder.layer[0], model.query.vbert_text
    theirs = layer.attention.self.query(source.model.embeddings(inputs["input_ids"]))
    first = encoder.blocks[0]
    ours = first.qkv(first.norm1(encoder.embed(ids) + encoder.position.weight[: ids.shape[1]]))[..., :32]
    assert (
        torch.allclose(ours, theirs, atol=0.05) and torch.corrcoef(torch.stack([ours, theirs]).flatten(1))[0, 1] > 0.999
    )

    def cosines(vectors: torch.Tensor) -> torch.Tensor:
        vectors = F.normalize(vectors - vectors.mean(0), dim=-1)
        return (vectors @ vectors.T)[~torch.eye(len(vectors), dtype=torch.bool)]

    means = source.model(**inputs).last_hidden_state.mean(1)  # no text is padded
    for encoder in (model.query.vbert_text, model.query.light_bert, model.item.vbert_text, model.item.light_bert):
        both = torch.stack([cosines(encoder(ids, mask)), cosines(means)])
        assert torch.corrcoef(both)[0, 1] > 0.95
    assert torch.allclose(encoder.padded(ids, mask), encoder(ids, mask), atol=1e-4)
    assert encoder(ids, mask).square().mean().sqrt() == pytest.approx(1, abs=0.3)


@pytest.mark.parametrize(
    ("shape", "size", "says"),
    [
        ({}, {"bert_dims": 64, "bert_layers": 1}, "bert_dims = 32, bert_layers = 2 under"),
        ({}, {"bert_heads": 4}, "bert_heads = 2 under"),
        ({"intermediate_size": 64}, {}, "intermediate_size is 128"),
        ({"hidden_act": "relu"}, {}, "gelu"),
        ({"max_position_embeddings": 12}, {}, "item_tokens to 12"),
        ({}, {"experts": ("ft_att",)}, "light_bert"),
    ],
)
def test_what_does_not_fit_is_said_with_the_setting(tmp_path: Path, shape: dict, size: dict, says: str) -> None:
    with pytest.raises(InputError, match=says) as raised:
        bert(tmp_path, **shape).require(replace(SIZE, **size))
    assert raised.value.field == "--text-init"


def test_what_is_no_bert_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(InputError, match="no BERT"):
        SourceBert(str(tmp_path))
    folder = random_teacher(tmp_path / "other")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "electra", "embedding_size": 48}))
    with pytest.raises(InputError, match="of type electra"):
        SourceBert(str(folder))


def shop(folder: Path, teacher: bool) -> tuple[Inputs, Config]:
    pq.write_table(pa.table({"item_id": [f"i{n}" for n in range(len(TITLES))], "title": TITLES}), folder / "i.parquet")
    random_teacher(folder / "bert", words=PIECES, **{**SHAPE, "hidden_size": 16, "intermediate_size": 64})
    inputs = Inputs(items=folder / "i.parquet", text_init=str(folder / "bert"))
    if teacher:
        inputs = replace(inputs, teacher=str(random_teacher(folder / "teacher")))
    return inputs, overlay(few_steps(), {"model": {"bert_dims": 16, "vocab_size": 150}})


@pytest.mark.parametrize("teacher", [False, True])
def test_a_run_starts_from_it_and_belongs_to_its_weights(tmp_path: Path, teacher: bool) -> None:
    inputs, config = shop(tmp_path, teacher)
    still = overlay(config, {"train": {"light_bert": {"lr": 0.0}}})
    model = train(inputs, tmp_path / "run", still, Console(quiet=True), until="light_bert")
    source = SourceBert(str(inputs.text_init))
    assert torch.equal(
        model.item.light_bert.blocks[0].up.weight, source.model.encoder.layer[0].intermediate.dense.weight
    )
    whole = train(inputs, tmp_path / "run", still, Console(quiet=True))
    assert whole.meta["training"]["text_init"] == source.fingerprint

    claim = claim_of(inputs, still)
    random_teacher(tmp_path / "bert", seed=1, words=PIECES, **{**SHAPE, "hidden_size": 16, "intermediate_size": 64})
    parts = equal_parts(claim, claim_of(inputs, still))
    assert "ft_att" in parts and not {"light_bert", "vbert", "dssm"} & set(parts)
    with pytest.raises(InputError, match=r"data\.text_init"):
        train(inputs, tmp_path / "run", still, Console(file=io.StringIO()))
    with pytest.raises(InputError, match="bert_dims = 16 under"):
        train(inputs, tmp_path / "other", overlay(still, {"model": {"bert_dims": 32}}), Console(quiet=True))
    assert not (tmp_path / "other" / "cache" / "examples").exists()
