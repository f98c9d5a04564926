"""What a run's folder belongs to: one set of data and settings. And what a run takes over from another of equal ones.

A run is made of parts: what is cached, and the stages. `READ_BY` says which of them read a setting or an input file,
`BUILDS_ON` which read another part; so what two runs have in common follows from their claims alone.
`train(init_from=run)` links the parts that are equal instead of making them again: the variants of a study.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from mrse_model.atomic_file import atomic_file
from mrse_model.config import Config, differences, result_affecting, summarize, write_config
from mrse_model.data.contract import ItemsFile
from mrse_model.data.examples import ExampleSettings
from mrse_model.data.table import Table
from mrse_model.errors import InputError
from mrse_model.images import DEFAULT_ENCODER
from mrse_model.images.extract import image_files
from mrse_model.teacher.encoders import teaches_images
from mrse_model.training.run_folder import Run
from mrse_model.training.stages import STAGES
from mrse_model.training.teacher.text_start import SourceBert

CLAIM = "run.json"  # in a run's folder
OTHER_FOLDER = "Give another --out, or delete this folder"
FORMAT = 9  # of what a run keeps, and of the figures it leads to: raise it when a change of the code alters either

FILES: dict[str, tuple[str, ...]] = {
    "features": ("cache/features.npy", "cache/features.parquet"),
    "examples": ("cache/examples",),
    "tokenizer": ("cache/tokenizer.json",),
    "ngrams": ("cache/ngrams.npy",),
    "item_tokens": ("cache/item_tokens.npy",),
    "teacher": ("cache/teacher",),
    **{stage: (f"state/{stage}.pt",) for stage in STAGES},
}
GROWING = ("teacher",)  # a run appends to these files: they are copied, not linked
BUILDS_ON: dict[str, tuple[str, ...]] = {
    "teacher": (),
    "features": (),
    "examples": (),
    "tokenizer": ("examples",),
    "ngrams": ("tokenizer",),
    "item_tokens": ("tokenizer",),
    "adaptor": ("features", "examples"),
    "ft_att": ("ngrams", "item_tokens"),
    "light_bert": ("item_tokens",),
    "vbert": ("adaptor", "ft_att"),
    "dssm": ("vbert", "light_bert"),
}
# Keys of a claim → the parts that read them. One that is not named here is read by all: a setting that was forgotten
# costs a training, not a wrong one. A table stands for all keys in it.
READ_BY: dict[str, tuple[str, ...]] = {
    "data.items": ("features", "examples"),
    "data.images": ("features",),
    "data.features": ("features",),
    "data.searches": ("examples",),
    "data.judgments": ("examples",),
    "data.text_init": ("light_bert", "vbert"),
    "inputs.title": ("examples",),
    "inputs.examples": ("examples",),
    "inputs.teacher": ("examples", "teacher"),
    "inputs.encoder": ("features",),
    "inputs.image_size": ("features",),
    "inputs.feature_column": ("features",),
    "settings.model.use_images": ("features",),
    "settings.model.use_category": ("tokenizer",),
    "settings.model.vocab_size": ("tokenizer",),
    "settings.model.ngrams": ("ngrams",),
    "settings.model.ngram_dims": ("ngrams",),
    "settings.model.ngram_min": ("ngrams",),
    "settings.model.ngram_max": ("ngrams",),
    "settings.model.item_tokens": ("item_tokens",),
    "settings.model.query_tokens": ("ft_att", "light_bert"),
    "settings.model.image_components": ("adaptor",),
    "settings.model.bert_layers": ("light_bert", "vbert"),
    "settings.model.bert_heads": ("light_bert", "vbert"),
    "settings.model.bert_dims": ("light_bert", "vbert"),
    "settings.model.history_length": ("vbert",),
    "settings.model.item_history_queries": ("dssm",),
    "settings.model.dssm_hidden": ("dssm",),
    "settings.model.experts": ("dssm",),
    "settings.model.dims": STAGES,
    "settings.model.dropout": STAGES,
    "settings.loss.temperature": ("ft_att", "light_bert"),
    "settings.loss.log_q": ("ft_att", "light_bert"),
    "settings.loss.distil": ("ft_att", "light_bert"),
    "settings.loss.distil_real": ("ft_att", "light_bert"),
    "settings.loss.pseudo_contrast": ("ft_att", "light_bert"),
    "settings.loss.adaptor_temperature": ("adaptor",),
    "settings.loss.alpha": ("vbert",),
    "settings.loss.beta": ("vbert",),
    "settings.loss.margin": ("vbert",),
    "settings.loss.hard_in_softmax": ("vbert",),
    **{f"settings.train.{stage}": (stage,) for stage in STAGES},
    "settings.train.ft_att_taught": ("ft_att",),
    "settings.train.seed": ("ngrams", *STAGES),
    "settings.train.modality_dropout": ("vbert",),
    "settings.train.history_dropout": ("vbert",),
    "settings.train.event_weights": ("vbert",),
    "settings.train.half_life_days": ("vbert",),
    "settings.train.evaluate_every": STAGES,
    "settings.train.patience": STAGES,
    "settings.train.bf16": STAGES,
}


@dataclass(frozen=True)
class Inputs:
    """What a run learns from. Only items is needed.

    title: the column of items to read as the title. features: a Parquet file of image features; without it the images
    are encoded with `encoder`. teacher: a public encoder to learn from, of texts or of both texts and images
    (mrse_model.teacher.encoders). text_init: a BERT whose weights ours start from
    (mrse_model.training.teacher.text_start).
    examples: how history, validation and pseudo-queries are made.
    """

    items: Path
    searches: Path | None = None
    judgments: Path | None = None
    features: Path | None = None
    feature_column: str = "feature"
    encoder: str = DEFAULT_ENCODER
    image_size: int | None = None
    title: str = "title"
    teacher: str | None = None
    text_init: str | None = None
    examples: ExampleSettings = field(default_factory=ExampleSettings)


def data_fingerprint(inputs: Inputs) -> str:
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
    """Which image files the items name, where the run, or its teacher, extracts their features."""
    reads = inputs.features is None or teaches_images(inputs.teacher)
    return image_files(ItemsFile(inputs.items, title=None)) if reads else ""


def claim_of(inputs: Inputs, config: Config) -> dict[str, Any]:
    """What a run of these inputs and settings belongs to. Raises InputError for an input file that is none."""
    by_content = ("items", "searches", "judgments", "features", "text_init")
    given = {k: v for k, v in asdict(inputs).items() if k not in by_content}
    data = {"images": _image_files(inputs), **_file_hashes(inputs)}
    if inputs.text_init is not None:
        data["text_init"] = SourceBert(inputs.text_init).fingerprint
    claim = {"format": FORMAT, "data": data, "settings": result_affecting(config), "inputs": given}
    return json.loads(json.dumps(claim, default=str))


def stake(folder: Path, claim: Mapping[str, Any], config: Config) -> None:
    """Writes the claim into the run's folder: what is cached there must not be mixed with another's.

    As long as nothing but images was made there, the folder may be given to another: what was wrong in the input is
    corrected so. Raises InputError where it belongs to other data or settings.
    """
    path, cache = folder / CLAIM, folder / "cache"
    if path.exists():
        before = json.loads(path.read_text("utf-8"))
        if before["format"] != FORMAT:
            raise InputError("this run was started by another version of mrse", file=folder, fix=OTHER_FOLDER)
        changed = differences(before, claim)
        if changed and ((cache / "examples").exists() or any((folder / "state").glob("*.pt"))):
            problem = f"this run was begun with other data or settings ({summarize(changed)})"
            raise InputError(problem, file=folder, fix=OTHER_FOLDER)
        if "features" not in equal_parts(before, claim):
            for file in FILES["features"]:  # images half encoded have a key of their own
                (folder / file).unlink(missing_ok=True)
    write_config(config, folder / "settings.toml")
    with atomic_file(path) as part:
        part.write_text(json.dumps(claim, indent=1), "utf-8")


def title_of(folder: Path) -> str:
    """The column of items that a run reads as the title."""
    path = folder / CLAIM
    return str(json.loads(path.read_text("utf-8"))["inputs"]["title"]) if path.exists() else "title"


# ---- what runs have in common


def equal_parts(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """The parts that two runs with these claims have in common, in the order in which they are made."""
    changed = {line.partition(": ")[0] for line in differences(one, other)}
    touched = {part for key in changed for part in _readers(key)}
    equal: list[str] = []
    for part, earlier in BUILDS_ON.items():
        if part == "ngrams" and teaches_images(one["inputs"]["teacher"]):  # whose items are images, too
            earlier = (*earlier, "features")
        if part == "light_bert" and one["inputs"]["teacher"] is not None:  # it is held against FtAtt (stages.experts)
            earlier = (*earlier, "ft_att")
        if part not in touched and all(name in equal for name in earlier):
            equal.append(part)
    return equal


def _readers(key: str) -> tuple[str, ...]:
    """The parts that read a key of a claim: by its own name, or by that of the table that it stands in."""
    while key:
        if key in READ_BY:
            return READ_BY[key]
        key = key.rpartition(".")[0]
    return tuple(BUILDS_ON)


def best_run(candidates: Iterable[Path], claim: Mapping[str, Any]) -> Path | None:
    """Of these runs the one from which a run with this claim can take over most finished stages; None where none has
    any.
    """
    best, most = None, 0
    for folder in candidates:
        if (before := _read_claim(folder)) is not None:
            count = sum(_finished(folder, part) for part in equal_parts(before, claim) if part in STAGES)
            best, most = (folder, count) if count > most else (best, most)
    return best


def take_over(source: Path, run: Run, claim: Mapping[str, Any]) -> list[str]:
    """Links into the run's folder what it has in common with a run of the same format in `source`: cached files, and
    finished stages with their lines of the log. What is there already stays. Returns the parts that are there now.

    Raises InputError where there is no run in `source`, or one of another version.
    """
    before = _read_claim(source)
    if before is None:
        raise InputError(
            "the folder has no training run of this version of mrse",
            file=source,
            field="init_from",
            fix="Give a folder of mrse train",
        )
    taken = []
    for part in equal_parts(before, claim):
        if part in STAGES and not _finished(source, part):
            continue
        if part in STAGES and not (run.folder / FILES[part][0]).exists():
            run.take_over_log(Run(source, run.train, run.console), part)
        for file in FILES[part]:
            if (source / file).exists() and not (run.folder / file).exists():
                _link(source / file, run.folder / file, shutil.copy2 if part in GROWING else _link_file)
        if any((run.folder / file).exists() for file in FILES[part]):
            taken.append(part)
    return taken


def _read_claim(folder: Path) -> dict[str, Any] | None:
    path = folder / CLAIM
    claim = json.loads(path.read_text("utf-8")) if path.is_file() else None
    return claim if claim and claim["format"] == FORMAT else None


def _finished(folder: Path, stage: str) -> bool:
    path = folder / FILES[stage][0]
    return path.is_file() and bool(torch.load(path, weights_only=True, mmap=True)["done"])


def _link(source: Path, target: Path, one: Callable[[str | Path, str | Path], object]) -> None:
    """Makes target the same content as source, whole or not at all, each file by `one`. Nothing that is linked may be
    written into; it is replaced.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}-{os.getpid()}")
    if source.is_dir():
        shutil.copytree(source, part, copy_function=one)
    else:
        one(source, part)
    part.rename(target)


def _link_file(source: str | Path, target: str | Path) -> None:
    """A hard link, or a copy between disks."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
