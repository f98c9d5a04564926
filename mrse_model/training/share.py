"""What runs share: cached inputs and finished stages, kept in one folder by a fingerprint of all that they depend on.

The variants of a study are equal up to some stage: it is trained once, by the first of them, and read by the others.
A stage's fingerprint is taken over the content of what it reads (token ids, examples, weights of earlier stages), not
over the names of settings; so it is right whatever made that content. It leaves out the fresh weights that a stage
starts from: two models of one seed whose shapes differ elsewhere begin a stage with other random numbers.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from mrse_model.atomic_file import atomic_file
from mrse_model.model import MRSE
from mrse_model.training.dataset import Ragged
from mrse_model.training.loop import Run
from mrse_model.training.stages import Corpus


def code_of(*modules: str) -> str:
    """A hash over the source of these modules of mrse_model: what another version of them made is another thing."""
    return hashlib.sha256(
        b"".join((Path(__file__).parent.parent / f"{m}.py").read_bytes() for m in modules)
    ).hexdigest()


# Read when this module is imported, like that code itself.
TOKENIZER_CODE, NGRAMS_CODE = code_of("serving/texts"), code_of("training/ngrams")
TOKENS_CODE = code_of("training/dataset", "serving/texts")
EXAMPLES_CODE = code_of(
    "data/contract", "data/example_files", "data/examples", "data/history", "data/pseudo_queries", "data/search_log",
    "data/shards", "data/table",
)  # fmt: skip
STAGES_CODE = code_of(
    "cpu_threads", "experts", "layers", "losses", "model", "towers", "training/dataset", "training/distributed",
    "training/hard_negatives", "training/loop", "training/stages",
)  # fmt: skip


def fingerprint_of(*parts: Any) -> str:
    """24 hex digits over arrays, tensors, ragged lists, dataclasses and whatever is JSON."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, Ragged):
            part = np.concatenate([part.start, part.values])
        if isinstance(part, Tensor):
            part = part.detach().cpu().numpy()
        if isinstance(part, np.ndarray):
            digest.update(f"{part.dtype} {part.shape}".encode())
            digest.update(np.ascontiguousarray(part))  # type: ignore[arg-type]
        else:
            digest.update(json.dumps(asdict(part) if is_dataclass(part) else part, default=str).encode())  # type: ignore[arg-type]
        digest.update(b"\0")
    return digest.hexdigest()[:24]


class Share:
    """A folder of things that runs have made; with None nothing is shared."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)

    @contextmanager
    def kept(self, path: Path, *depends: Any) -> Iterator[None]:
        """A block that makes the file or folder `path` unless it is there: what another run made from the same
        `depends` is there before, and what the block made is kept for others. A kept file must never be written into.
        """
        if self.folder is None:
            yield
            return
        stored = self.folder / f"{path.stem}-{fingerprint_of(path.name, *depends)}{path.suffix}"
        if stored.exists() and not path.exists():
            _link(stored, path)
        yield
        if path.exists() and not stored.exists():
            _link(path, stored)

    @contextmanager
    def stage(self, run: Run, name: str, keys: StageKeys | None, model: MRSE) -> Iterator[None]:
        """A block that trains a stage: begins with the weights and log lines of a run that has trained the same one."""
        if keys is None:
            yield
            return
        key = keys.of(name, model)
        state, log = run.folder / "state" / f"{name}.pt", run.folder / "state" / f"{name}.jsonl"
        with self.kept(log, key), self.kept(state, key):  # the weights are stored first, and looked for last
            if log.exists() and state.exists() and not _stage_lines(run, name):
                with open(run.folder / "log.jsonl", "a", encoding="utf-8") as file:
                    file.write(log.read_text("utf-8"))
            yield
            if state.exists() and not log.exists():
                with atomic_file(log) as part:
                    part.write_text("".join(_stage_lines(run, name)), "utf-8")


def _stage_lines(run: Run, name: str) -> list[str]:
    path = run.folder / "log.jsonl"
    lines = path.read_text("utf-8").splitlines(keepends=True) if path.exists() else []
    whole = (line for line in lines if line.endswith("}\n"))  # a kill may have cut the last one
    return [line for line in whole if json.loads(line)["stage"] == name]


def _link(source: Path, target: Path) -> None:
    """Makes target the same content as source, whole or not at all: hard links, or copies between disks."""
    part = target.with_name(f".{target.name}-{os.getpid()}")
    if source.is_dir():
        shutil.copytree(source, part, copy_function=_link_file)
    else:
        _link_file(source, part)
    part.rename(target)


def _link_file(source: str | Path, target: str | Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


class StageKeys:
    """The fingerprints of the stages over one corpus."""

    def __init__(self, corpus: Corpus, counted: int = 65536) -> None:
        self.corpus = corpus
        queries, dev = corpus.queries, corpus.dev
        self.asked = fingerprint_of(queries.known, dev.rows, Ragged.of([list(r) for r in dev.relevant]), dev.pool)
        self.tokens = fingerprint_of(corpus.item_tokens, queries.tokens, dev.tokens)
        self.images = fingerprint_of(corpus.features if corpus.features is not None else None)
        pairs, histories = hashlib.sha256(), hashlib.sha256()
        for start in range(0, corpus.examples.count, counted):
            rows = corpus.examples.read(start, counted)
            for field in ("query", "item"):
                pairs.update(rows[field].tobytes())
            for field in ("items", "weight"):
                histories.update(rows[field].tobytes())
        self.pairs, self.histories = pairs.hexdigest(), histories.hexdigest()

    def of(self, name: str, model: MRSE) -> str:
        """The fingerprint of a stage that is about to begin: after the stages before it, mining included."""
        size, loss, train = model.config.model, model.config.loss, model.config.train
        always = [
            STAGES_CODE, name, getattr(train, name), train.seed, train.evaluate_every, train.patience, train.bf16,
            size.dims, size.dropout, self.asked,
        ]  # fmt: skip
        sharp, soft = loss.temperature, loss.adaptor_temperature
        bert = [size.vocab_size, size.bert_layers, size.bert_heads, size.bert_dims, size.query_tokens, size.item_tokens]
        if name == "adaptor":
            return fingerprint_of(*always, soft, self.images, size.image_components)
        if name == "ft_att":
            return fingerprint_of(
                *always, sharp, self.tokens, self.pairs, loss.log_q, _weights(model, ("ngrams.table",))
            )
        if name == "light_bert":
            return fingerprint_of(*always, sharp, self.tokens, self.pairs, loss.log_q, *bert)
        if name == "vbert":
            # The query's image is asked for by its n-grams; without histories there is no such image.
            past = _weights(model, ("ngrams.",)) if train.history_dropout < 1 else ""
            return fingerprint_of(
                *always, self.tokens, self.pairs, self.images, self.corpus.queries.hard, loss, *bert,
                train.modality_dropout, train.history_dropout, past, past and self.histories,
                _weights(model, ("adaptor.",)),
            )  # fmt: skip
        return fingerprint_of(
            *always, self.tokens, self.pairs, self.images, self.histories, self.corpus.queries.hard,
            self.corpus.item_queries, loss, size, train.modality_dropout, train.history_dropout, _weights(model),
        )  # fmt: skip


def _weights(model: MRSE, prefixes: tuple[str, ...] = ("",), fresh: tuple[str, ...] = (".history.", ".dssm.")) -> str:
    """Over the weights whose names begin so; without those that only the last stage trains."""
    state = model.state_dict()
    names = sorted(n for n in state if n.startswith(prefixes) and not any(f in n for f in fresh))
    return fingerprint_of(*(part for n in names for part in (n, state[n])))
