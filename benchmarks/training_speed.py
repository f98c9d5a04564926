"""Pairs per second: MRSE's trainer against sentence-transformers' trainer with MultipleNegativesRankingLoss.

Ran against: sentence-transformers on the same machine, in the same process, in turns. Both train a BERT of the same
size (2 layers, 128-d, the same vocabulary) on the same query-item pairs with the same batch size and in-batch negatives
alone, with the same number of threads; MRSE has a tower each for queries and items, sentence-transformers one model for
both. A round times the same number of steps of each, set-up and the tokenising of their texts included; on a machine
that others use, `--clock cpu` counts the processors' seconds instead of the wall's. Each trains in its defaults'
precision: theirs float32, MRSE bfloat16 in the dense layers where the processor has it (`--bf16 off`: float32 too).
With `--bars` it ends in lines `bar NAME VALUE TARGET ok|short` and exits with 1 if one is short.

    pip install "sentence-transformers[train]"
    python benchmarks/training_speed.py --bars
"""

from __future__ import annotations

import mrse_model  # noqa: F401  # isort: skip  # before torch: its threads then wait asleep, on both sides

import argparse
import dataclasses
import importlib.metadata
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from bars import Bar, verdict
from quality_data import Data, sample_data
from rich.console import Console
from tokenizers import Tokenizer

from mrse_model.config import Config, ModelConfig, StageConfig, preset
from mrse_model.data.contract import Catalogue, read_catalogue, read_judgments
from mrse_model.data.examples import write_examples
from mrse_model.errors import InputError
from mrse_model.model import MRSE
from mrse_model.serving.texts import item_texts, token_matrix
from mrse_model.training.corpus import Corpus, split_dev
from mrse_model.training.dataset import Examples, Queries, build_examples, tokenise_items
from mrse_model.training.frozen_vectors import FrozenVectors
from mrse_model.training.run_folder import Run
from mrse_model.training.stages import LightBertStage
from mrse_model.training.tokenizer import train_tokenizer

TARGET = 2.0
BATCH, STEPS, ROUNDS = 256, 60, 3
NEEDS = 'pip install "sentence-transformers[train]"'
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


def prepare(data: Path, folder: Path, batch: int, steps: int) -> tuple[Config, Tokenizer, Corpus, Catalogue]:
    """What both trainers read: tokenizer, examples, tokenised texts."""
    files = Data.find(data)
    if files.learn is None:
        raise InputError("there are no judgments to learn from", file=data, fix="Add judgments_train.parquet")
    catalogue = read_catalogue(files.items)
    judgments = read_judgments(files.learn, catalogue)
    write_examples(folder / "examples", catalogue, judgments=judgments)
    base = preset("base")
    texts = item_texts(base.model.text_columns, catalogue.titles, catalogue.categories)
    tokenizer = train_tokenizer(texts + judgments.queries, base.model.vocab_size)
    model = dataclasses.replace(base.model, vocab_size=tokenizer.get_vocab_size())
    stage = StageConfig(epochs=1e6, batch=batch, extra_negatives=0, max_steps=steps)
    config = dataclasses.replace(
        base, model=model, train=dataclasses.replace(base.train, light_bert=stage, evaluate_every=10**9)
    )
    shards = sorted((folder / "examples").glob("train-*.parquet"))
    examples, queries = build_examples(shards, folder / "examples.bin", tokenizer, model, config.train)
    examples, dev = split_dev(examples, queries, len(catalogue), 1, folder / "train.bin")
    # The evaluation before and after is no training: it is made as small as it can be.
    dev = dataclasses.replace(dev, tokens=dev.tokens[:1], relevant=dev.relevant[:1], pool=dev.pool[:64])
    tokens = tokenise_items(catalogue, tokenizer, model)
    nothing = type(queries.known).of([[] for _ in range(len(catalogue))])
    return config, tokenizer, Corpus(tokens, None, nothing, queries, examples, dev, np.zeros(len(catalogue))), catalogue


def ours(
    config: Config, tokenizer: Tokenizer, corpus: Corpus, pairs: list[tuple[str, str]], folder: Path,
    clock: Callable[[], float],
) -> float:  # fmt: skip
    """Seconds of the Light-Bert stage. Its texts are in the corpus as tokens; here those of the round are made again,
    a batch at a time, because the other side makes them while it trains.
    """
    torch.manual_seed(0)
    batch, began = config.train.light_bert.batch, clock()
    for start in range(0, len(pairs), batch):
        queries, items = zip(*pairs[start : start + batch], strict=True)
        token_matrix(tokenizer, queries, config.model.query_tokens)
        token_matrix(tokenizer, items, config.model.item_tokens)
    vectors = FrozenVectors(MRSE(config, tokenizer), corpus, torch.device("cpu"), folder)
    LightBertStage(Run(folder, config.train, Console(quiet=True)), vectors).train()
    return clock() - began


def theirs(
    config: Config, tokenizer: Tokenizer, pairs: list[tuple[str, str]], steps: int, folder: Path,
    clock: Callable[[], float],
) -> float:  # fmt: skip
    """Seconds of sentence-transformers' trainer."""
    from datasets import Dataset
    from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer
    from sentence_transformers import SentenceTransformerTrainingArguments as Arguments
    from sentence_transformers.losses import MultipleNegativesRankingLoss
    from sentence_transformers.models import Pooling, Transformer
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    size = config.model
    bert = BertConfig(
        vocab_size=size.vocab_size, hidden_size=size.bert_dims, num_hidden_layers=size.bert_layers,
        num_attention_heads=size.bert_heads, intermediate_size=4 * size.bert_dims,
        max_position_embeddings=size.item_tokens, hidden_dropout_prob=size.dropout, pad_token_id=0,
    )  # fmt: skip
    BertModel(bert, add_pooling_layer=False).save_pretrained(folder / "bert")
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    ).save_pretrained(folder / "bert")
    data = Dataset.from_dict({"anchor": [q for q, _ in pairs], "positive": [i for _, i in pairs]})
    began = clock()
    transformer = Transformer(str(folder / "bert"), max_seq_length=size.item_tokens)
    model = SentenceTransformer(modules=[transformer, Pooling(size.bert_dims)], device="cpu")
    arguments = Arguments(
        output_dir=str(folder / "st"), per_device_train_batch_size=config.train.light_bert.batch, max_steps=steps,
        learning_rate=config.train.light_bert.lr, save_strategy="no", logging_strategy="no", report_to="none",
        disable_tqdm=True, use_cpu=True, dataloader_drop_last=True,
    )  # fmt: skip
    loss = MultipleNegativesRankingLoss(model, scale=1 / config.loss.temperature)
    SentenceTransformerTrainer(model=model, args=arguments, train_dataset=data, loss=loss).train()
    return clock() - began


def text_pairs(examples: Examples, queries: Queries, catalogue: Catalogue, count: int) -> list[tuple[str, str]]:
    """The same examples as texts."""
    rows = examples.read(0, count)
    texts = item_texts(ModelConfig().text_columns, catalogue.titles, catalogue.categories)
    return [(queries.texts[q], texts[i]) for q, i in zip(rows["query"], rows["target_item"], strict=True)]


def installed() -> bool:
    """Whether sentence-transformers' trainer can be imported."""
    return all(find_spec(name) for name in ("datasets", "sentence_transformers"))


def compare(
    data: Path, folder: Path, batch: int = BATCH, steps: int = STEPS, rounds: int = ROUNDS, threads: int = 0,
    bf16: str = "auto", clock: str = "wall",
) -> float:  # fmt: skip
    """MRSE's pairs a second over sentence-transformers', the median of the rounds; prints each.

    Args:
        data: a folder as of quality.py, with judgments to learn from. folder: for what is made. steps: of a round.
        threads: of both; 0: torch's choice. bf16: of MRSE. clock: a key of CLOCKS.
    """
    torch.set_num_threads(threads or torch.get_num_threads())
    print(f"against sentence-transformers {importlib.metadata.version('sentence-transformers')}, torch "
          f"{torch.__version__}, {torch.get_num_threads()} threads, batch {batch}, {steps} steps a round, "
          f"{clock} clock, MRSE's bf16 {bf16}")  # fmt: skip
    config, tokenizer, corpus, catalogue = prepare(data, folder, batch, steps)
    config = dataclasses.replace(config, train=dataclasses.replace(config.train, bf16=bf16))
    total, ratios = batch * steps, []
    pairs = text_pairs(corpus.examples, corpus.queries, catalogue, total)
    for number in range(rounds):
        round_folder = folder / f"round-{number}"
        mine = total / ours(config, tokenizer, corpus, pairs, round_folder, CLOCKS[clock])
        other = total / theirs(config, tokenizer, pairs, steps, round_folder, CLOCKS[clock])
        ratios.append(mine / other)
        print(f"round {number + 1}: MRSE {mine:7.0f} pairs/s, sentence-transformers {other:7.0f}, "
              f"ratio {mine / other:.2f}", flush=True)  # fmt: skip
    return statistics.median(ratios)


def bar(ratio: float | None, why: str = "") -> Bar:
    """The bar; ratio: None where it was not measured, and why."""
    return Bar("training_pairs_per_second_ratio", ratio, TARGET, why=why)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="as of quality.py; default: the generated sample")
    parser.add_argument("--batch", type=int, default=BATCH)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--threads", type=int, default=0, help="of both; 0: torch's choice")
    parser.add_argument("--bf16", choices=("auto", "on", "off"), default="auto", help="of MRSE")
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--bars", action="store_true")
    args = parser.parse_args()
    if not installed():
        print(f"needs: {NEEDS}", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = args.data or sample_data(folder / "sample")
        ratio = compare(data, folder, args.batch, args.steps, args.rounds, args.threads, args.bf16, args.clock)
    print(f"median ratio {ratio:.2f}")
    return verdict([bar(ratio)]) if args.bars else 0


if __name__ == "__main__":
    sys.exit(main())
