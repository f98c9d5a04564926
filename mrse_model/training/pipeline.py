"""Training, end to end: Parquet → examples → tokenizer, n-grams, images → the stages → a checkpoint with its report.

One folder a run: cache/ (what is frozen, made once), state/ (a file a stage), log.jsonl, report.md, and the checkpoint.
Call it again after a kill: what is done is not done again.
"""

from __future__ import annotations

import hashlib
import json
import platform
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from filelock import FileLock, Timeout
from rich.console import Console
from tokenizers import Tokenizer

from mrse_model.atomic_file import atomic_file
from mrse_model.config import Config, ModelConfig, differences, result_affecting, summarize, write_config
from mrse_model.data.contract import Catalogue, ItemsFile, SearchesFile, read_catalogue, read_judgments
from mrse_model.data.example_files import ExampleSummary, item_queries, save_dev_queries
from mrse_model.data.examples import ExampleSettings, write_examples
from mrse_model.data.search_log import query_key
from mrse_model.data.table import Table
from mrse_model.errors import InputError
from mrse_model.images import DEFAULT_ENCODER
from mrse_model.images.encoders import load_encoder
from mrse_model.images.extract import extract, image_files
from mrse_model.images.features import FeatureFile
from mrse_model.model import META, MRSE
from mrse_model.progress import steps_shown
from mrse_model.serving.manifest import EncoderInfo
from mrse_model.serving.texts import item_text, train_tokenizer
from mrse_model.training.dataset import Dev, Examples, Queries, Ragged, build_examples, split_dev, tokenise_items
from mrse_model.training.diagnostics import check_histories, check_stage, check_training
from mrse_model.training.distributed import Processes
from mrse_model.training.hard_negatives import mine_hard_negatives
from mrse_model.training.loop import Run
from mrse_model.training.ngrams import piece_vectors, random_vectors
from mrse_model.training.preference import fit_preference
from mrse_model.training.share import (
    EXAMPLES_CODE,
    NGRAMS_CODE,
    TOKENIZER_CODE,
    TOKENS_CODE,
    Share,
    StageKeys,
    fingerprint_of,
)
from mrse_model.training.stages import Corpus, Stages


@dataclass(frozen=True)
class Inputs:
    """What a run learns from. Only items is needed.

    title: the column of items to read as the title. features: a Parquet file of image features; without it the images
    are encoded with `encoder`. examples: how history, validation and pseudo-queries are made.
    """

    items: Path
    searches: Path | None = None
    judgments: Path | None = None
    features: Path | None = None
    feature_column: str = "feature"
    encoder: str = DEFAULT_ENCODER
    image_size: int | None = None
    title: str = "title"
    examples: ExampleSettings = field(default_factory=ExampleSettings)


CLAIM = "run.json"  # in a run's folder: the data and settings that it belongs to
OTHER_FOLDER = "Give another --out, or delete this folder"
FORMAT = 5  # of what a run keeps there (caches, states of stages): another version of this code would misread it
MIN_ITEMS = 32  # a page of results; with fewer, nearly every item of a batch is right for nearly every query
STAGES = ("adaptor", "ft_att", "light_bert", "vbert", "dssm")
# Of the claim: what the cached images' features depend on.
IMAGE_CLAIMS = tuple(
    f"{name}:"
    for name in (
        "data.items", "data.images", "data.features", "inputs.encoder", "inputs.image_size", "inputs.feature_column",
        "settings.model.use_images",
    )
)  # fmt: skip


def train(
    inputs: Inputs,
    folder: str | Path,
    config: Config,
    console: Console | None = None,
    tensorboard: bool = False,
    share: Path | None = None,
    until: str | None = None,
) -> MRSE:
    """Trains MRSE and writes its checkpoint into `folder`. Returns the model.

    A finished run is read, not trained again. Started by `accelerate launch`, several processes train together
    (mrse_model.training.distributed).

    share: a folder where runs keep what others need not make again (mrse_model.training.share).
    until: the stage to stop after; the model is then returned without a checkpoint.

    Raises InputError for bad input, and when `folder` holds a run of other data or other settings, or another training
    is at work in it.
    """
    folder, processes = Path(folder), Processes()
    console = (console or Console()) if processes.main else Console(quiet=True)
    if processes.unused:
        console.print(f"{processes.unused} more GPUs are idle: accelerate launch --multi_gpu -m mrse_cli.main train …")
    (folder / "cache").mkdir(parents=True, exist_ok=True)
    with _alone(folder) if processes.main else nullcontext():
        return _train(inputs, folder, config, processes, console, tensorboard, share, until)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Two trainings in one folder would write over each other's states. The lock goes with the process."""
    lock = FileLock(folder / "lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        fix = "Wait for it, or give another --out"
        raise InputError("another training is at work in this folder", file=folder, fix=fix) from None
    try:
        yield
    finally:
        lock.release()


def _train(
    inputs: Inputs,
    folder: Path,
    config: Config,
    processes: Processes,
    console: Console,
    tensorboard: bool,
    share: Path | None,
    until: str | None,
) -> MRSE:
    cache = folder / "cache"
    began, spent = time.perf_counter(), _Spent(folder)
    torch.set_num_threads(config.train.threads or torch.get_num_threads())
    run = Run(folder, config.train, console, tensorboard, processes=processes)

    # Read and check everything before anything is made of it; searches are checked as they are read.
    console.print("data", style="bold")
    processes.wait_for_main()
    catalogue = read_catalogue(inputs.items, title=inputs.title)
    if len(catalogue) < MIN_ITEMS:
        problem = f"{len(catalogue)} items are too few to learn from: an item is learnt against others"
        fix = f"Give at least {MIN_ITEMS}; some thousands make sense. mrse sample writes a catalogue to try with"
        raise InputError(problem, file=inputs.items, fix=fix)
    searches = SearchesFile(inputs.searches) if inputs.searches else None
    inputs.examples.validation_start()
    examples_folder, judgments = cache / "examples", None
    if inputs.judgments and not examples_folder.exists():
        judgments = read_judgments(inputs.judgments, catalogue, unknown="skip")
        if judgments.skipped:
            console.print(f"  left out: {judgments.skipped:,} judgments of items that are not in {inputs.items}")
        judgments.check()
    if processes.main:
        _claim(folder, inputs, config)
    if (folder / META).is_file() and until is None:  # the last thing that a training writes
        console.print(f"already trained: {folder}")
        processes.main_is_ready()
        return MRSE.from_pretrained(folder)
    share = share if processes.main else None
    shared, data = Share(share), fingerprint(inputs)
    seen = fingerprint(replace(inputs, searches=None, judgments=None))
    files = _image_files(inputs) if share else ""  # a look at every image's file, for the key in the share alone
    images = (cache / "features.npy", seen, files, inputs.feature_column, inputs.encoder, inputs.image_size)
    with shared.kept(*images), shared.kept(cache / "features.parquet", *images[1:]):
        features, encoder = image_features(inputs, catalogue, cache, config, console)
    with shared.kept(examples_folder, EXAMPLES_CODE, data, inputs.title, inputs.examples):
        if not examples_folder.exists():
            for left in cache.glob(f".{examples_folder.name}-*"):  # by a kill
                shutil.rmtree(left)
            with steps_shown(console) as progress:
                write_examples(
                    examples_folder, catalogue, searches=searches, judgments=judgments, settings=inputs.examples,
                    progress=progress,
                )  # fmt: skip
    summary = ExampleSummary.load(examples_folder)
    for line in summary.lines():
        console.print(f"  {line}")
    if "history" in config.model.experts:
        check_histories(run, summary)
    if processes.main:
        spent.on("data")
    shards = sorted(examples_folder.glob("train-*.parquet"))

    # What is frozen: the tokenizer, the n-gram table, token ids, example records.
    item_texts = [item_text(t, c) for t, c in zip(catalogue.titles, catalogue.categories, strict=True)]
    asked = _distinct_queries(shards)
    texts = item_texts + asked
    with (
        console.status(f"tokenizer of {len(texts):,} texts"),
        shared.kept(cache / "tokenizer.json", texts, config.model.vocab_size, TOKENIZER_CODE),
    ):
        tokenizer = _cached_tokenizer(cache / "tokenizer.json", texts, config.model.vocab_size)
    ngrams = (config.model.ngrams, config.model.ngram_dims, config.model.ngram_min, config.model.ngram_max)
    with (
        console.status(f"n-grams of {len(texts):,} texts"),
        shared.kept(cache / "ngrams.npy", texts, tokenizer.to_str(), ngrams, config.train.seed, NGRAMS_CODE),
    ):
        table = _cached_table(cache / "ngrams.npy", tokenizer, texts, config)
    size = replace(
        config.model,
        vocab_size=tokenizer.get_vocab_size(),
        image_dims=features.shape[1] if features is not None else 0,
    )
    config = replace(config, model=size)
    examples, queries = build_examples(shards, cache / "examples.bin", tokenizer, size, config.train)
    if not any(len(queries.hard[row]) for row in range(len(queries.hard))):
        console.print("  no judged low grades: hard negatives are mined once FtAtt is trained")
    examples, dev = split_dev(examples, queries, len(catalogue.ids), config.train.seed, cache / "train.bin")
    if processes.main:
        save_dev_queries(examples_folder, [queries.texts[row] for row in dev.rows])
    led = item_query_rows(item_queries(examples_folder, len(catalogue.ids)), queries, dev)
    lengths = (size.item_tokens, size.use_category)
    with shared.kept(cache / "item_tokens.npy", texts, tokenizer.to_str(), lengths, TOKENS_CODE):
        item_tokens = _cached_tokens(cache / "item_tokens.npy", catalogue, tokenizer, size)
    counts = _positive_counts(examples, len(catalogue.ids))
    corpus = Corpus(item_tokens, features, led, queries, examples, dev, counts)
    console.print(
        f"  {len(catalogue.ids):,} items, {len(queries.texts):,} distinct queries, {examples.count:,} examples, "
        f"{tokenizer.get_vocab_size():,} pieces, images: {encoder.name if encoder else 'none'}"
    )

    if processes.main:
        spent.on("frozen")
    processes.main_is_ready()

    # The stages.
    torch.manual_seed(config.train.seed)
    model = MRSE(config, tokenizer)
    model.ngrams.start(table)
    stages = Stages(run, model, corpus)
    stages.watch = partial(check_stage, run, stages)
    keys = StageKeys(corpus) if share is not None else None
    speed: dict[str, float] = {}
    for name in STAGES[: STAGES.index(until) + 1] if until else STAGES:
        if name in ("light_bert", "vbert") and name not in size.experts and name != until:
            continue
        if name == "light_bert" and until == "vbert":  # it reads nothing of Light-Bert
            continue
        console.print(name, style="bold")
        if name == "dssm":
            with console.status("the BERTs' vectors of all texts"):
                stages.freeze_texts()
        with shared.stage(run, name, keys, model):
            result = getattr(stages, name)()
            if result is not None and result.examples_per_second:
                speed[name] = result.examples_per_second
        if name == "ft_att":
            with console.status("hard negatives for queries without judged ones"):
                corpus.queries = mine_hard_negatives(stages, console)
        if processes.main:
            spent.on(name, result.cpu_seconds if result is not None else 0.0)
    processes.wait()
    if until or not processes.main:
        return model.cpu().eval()
    console.print("preference", style="bold")
    run.truncate_log("preference", -1)
    with console.status("a ridge regression over the clicks"):
        fit_preference(stages)
    spent.on("preference")
    check_training(run, stages)

    model.meta = {
        "image_encoder": asdict(encoder) if encoder else None,
        "training": {
            "data": data,
            "items": len(catalogue.ids),
            "item_ids": fingerprint_of(catalogue.ids),
            "examples": summary.examples,
            "split": summary.split,
            "pseudo_queries": summary.pseudo_queries,
            "seconds": round(time.perf_counter() - began, 1),
            "cpu_seconds": spent.seconds,
            "examples_per_second": {k: round(v) for k, v in speed.items() if v},
            "versions": {"python": platform.python_version(), "torch": torch.__version__},
            "warnings": list(run.signatures.values()),
        },
        "metrics": {},
    }
    _report(folder, model, summary)
    model.cpu().save_pretrained(folder)
    run.close()
    console.print(f"trained in {time.perf_counter() - began:.0f} s: {folder}")
    return model.eval()


class _Spent:
    """CPU seconds of each part of a run, kept in its folder: a resumed run does not count what it finds done."""

    def __init__(self, folder: Path) -> None:
        self.path, self.last = folder / "state" / "cpu_seconds.json", time.process_time()
        self.seconds: dict[str, float] = json.loads(self.path.read_text("utf-8")) if self.path.exists() else {}

    def on(self, part: str, at_least: float = 0.0) -> None:
        """All since the last call went into this part; at_least: what its steps took, in whichever run they were."""
        now = time.process_time()
        self.seconds[part] = max(self.seconds.get(part, 0.0), round(now - self.last, 1), at_least)
        self.last = now
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(self.path) as file:
            file.write_text(json.dumps(self.seconds), "utf-8")


def fingerprint(inputs: Inputs) -> str:
    """12 hex digits over the content of every input file: which data a model has seen."""
    return hashlib.sha256("".join(_file_hashes(inputs).values()).encode()).hexdigest()[:12]


def _file_hashes(inputs: Inputs) -> dict[str, str]:
    """12 hex digits over the content of each input file that is given. Raises InputError for one that is none."""
    found = {}
    for name in ("items", "searches", "judgments", "features"):
        if (path := getattr(inputs, name)) is not None:
            hashed = hashlib.sha256()
            for part in Table(path).parts:
                with part.open("rb") as file:
                    while block := file.read(1 << 20):
                        hashed.update(block)
            found[name] = hashed.hexdigest()[:12]
    return found


def _image_files(inputs: Inputs) -> str:
    """Which image files the items name, where the run extracts their features."""
    return image_files(ItemsFile(inputs.items, title=None)) if inputs.features is None else ""


def image_features(
    inputs: Inputs, catalogue: Catalogue, cache: Path, config: Config, console: Console
) -> tuple[np.ndarray | None, EncoderInfo | None]:
    """The catalogue's image features, float32 [N, F] with NaN rows, on disk (a memory map), and their encoder; or
    None.
    """
    if not config.model.use_images:
        return None, None
    path = inputs.features
    if path is None:
        items = ItemsFile(inputs.items, title=None)
        if items.image_column is None:
            console.print("  no images: the model learns from words alone")
            return None, None
        path = cache / "features.parquet"
        if not path.exists():
            extract(inputs.items, path, load_encoder(inputs.encoder, inputs.image_size))
    file = FeatureFile(path, column=inputs.feature_column)
    stored = cache / "features.npy"
    if not stored.exists():
        with atomic_file(stored) as part:
            matrix = np.lib.format.open_memmap(part, "w+", np.float32, (len(catalogue.ids), file.dims))
            matrix[:] = np.nan
            seen: dict[str, int] = {}
            for ids, values in file.batches():
                file.remember(ids, seen)
                rows = np.array([catalogue.row.get(item_id, -1) for item_id in ids])
                matrix[rows[rows >= 0]] = values[rows >= 0]
            matrix.flush()
    features = np.load(stored, mmap_mode="r")
    missing = int(np.isnan(features[:, 0]).sum())
    if missing == len(features):
        raise InputError("no item of the catalogue has a feature here", file=path, fix="Check its item_id column")
    if missing:
        console.print(f"  {missing:,} of {len(features):,} items have no image")
    return features, file.encoder


def _claim(folder: Path, inputs: Inputs, config: Config) -> None:
    """A run folder belongs to one set of data and settings: what is cached there must not be mixed with another's. As
    long as nothing but images was made there, it may be given to another: what was wrong in the input is mended so.
    """
    path, cache = folder / CLAIM, folder / "cache"
    given = {k: v for k, v in asdict(inputs).items() if k not in ("items", "searches", "judgments", "features")}
    data = {"images": _image_files(inputs), **_file_hashes(inputs)}
    claim = {"format": FORMAT, "data": data, "settings": result_affecting(config), "inputs": given}
    claim = json.loads(json.dumps(claim, default=str))
    if path.exists():
        before = json.loads(path.read_text("utf-8"))
        if before["format"] != FORMAT:
            raise InputError("this run was begun by another version", file=folder, fix=OTHER_FOLDER)
        changed = differences(before, claim)
        if changed and ((cache / "examples").exists() or any((folder / "state").glob("*.pt"))):
            problem = f"this run was begun with other data or settings ({summarize(changed)})"
            raise InputError(problem, file=folder, fix=OTHER_FOLDER)
        if any(line.startswith(IMAGE_CLAIMS) for line in changed):
            for name in ("features.npy", "features.parquet"):  # images half encoded have a key of their own
                (cache / name).unlink(missing_ok=True)
    write_config(config, folder / "settings.toml")
    with atomic_file(path) as part:
        part.write_text(json.dumps(claim, indent=1), "utf-8")


def title_of(folder: Path) -> str:
    """The column of items that a run reads as the title."""
    path = folder / CLAIM
    return str(json.loads(path.read_text("utf-8"))["inputs"]["title"]) if path.exists() else "title"


def _distinct_queries(shards: Sequence[Path]) -> list[str]:
    """The distinct query texts, in order of first appearance. Memory: the texts."""
    seen: dict[str, None] = {}
    for shard in shards:
        for batch in pq.ParquetFile(shard).iter_batches(65536, columns=["query"]):
            seen.update(dict.fromkeys(batch.column(0).to_pylist()))
    return list(seen)


def _cached_tokenizer(path: Path, texts: Sequence[str], vocab_size: int) -> Tokenizer:
    if not path.exists():
        with atomic_file(path) as part:
            train_tokenizer(texts, vocab_size).save(str(part))
    return Tokenizer.from_file(str(path))


def _cached_table(path: Path, tokenizer: Tokenizer, texts: Sequence[str], config: Config) -> np.ndarray:
    size = config.model
    if not path.exists():
        if size.ngrams == "off":
            table = random_vectors(tokenizer.get_vocab_size(), size.ngram_dims, config.train.seed)
        else:
            table = piece_vectors(
                tokenizer, texts, size.ngram_dims, size.ngram_min, size.ngram_max, seed=config.train.seed
            )
        with atomic_file(path) as part, open(part, "wb") as file:
            np.save(file, table)
    return np.load(path)


def _cached_tokens(path: Path, catalogue: Catalogue, tokenizer: Tokenizer, size: ModelConfig) -> np.ndarray:
    if not path.exists():
        with atomic_file(path) as part, open(part, "wb") as file:
            np.save(file, tokenise_items(catalogue, tokenizer, size))
    return np.load(path)


def item_query_rows(queries_of: list[list[str]], queries: Queries, dev: Dev) -> Ragged:
    """Each item's queries as rows. Dev queries are left out: they would tell their items that they are relevant."""
    number = {query_key(text): row for row, text in enumerate(queries.texts)}
    for row in dev.rows:
        number.pop(query_key(queries.texts[row]), None)
    return Ragged.of([[number[q] for q in some if q in number] for some in queries_of])


def _positive_counts(examples: Examples, items: int) -> np.ndarray:
    counts = np.zeros(items, np.int64)
    for start in range(0, examples.count, 65536):
        counts += np.bincount(examples.read(start, 65536)["item"], minlength=items)
    return counts


def _report(folder: Path, model: MRSE, summary: ExampleSummary) -> None:
    training = model.meta["training"]
    lines = ["# Training report", "", *(f"- {line}" for line in summary.lines()), ""]
    lines += [f"- {name}: {rate} examples/s" for name, rate in training["examples_per_second"].items()]
    lines += ["", "## Warnings", "", *(f"- {w}" for w in training["warnings"] or ["none"]), ""]
    (folder / "report.md").write_text("\n".join(lines), "utf-8")
