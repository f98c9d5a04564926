"""The settings of a model and of its training: frozen dataclasses, read strictly from TOML.

`tiny` is for tests and the demo, `base` has the paper's sizes (Jiang et al. 2024, §Methodology and §Experiments).
"""

from __future__ import annotations

import difflib
import json
import math
import tomllib
import types
import typing
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

from mrse_model.errors import InputError

EXPERTS = ("vbert", "light_bert", "ft_att", "history")
EVENTS = ("click", "cart", "order")
BF16 = ("auto", "on", "off")


@dataclass(frozen=True)
class ModelConfig:
    """Sizes. The paper's are the defaults; it leaves bert_heads, dssm_hidden and item_history_queries open."""

    dims: int = 128  # of every expert and of the fused vector
    vocab_size: int = 30_000
    query_tokens: int = 16  # CLS and SEP included
    item_tokens: int = 64
    bert_layers: int = 2
    bert_heads: int = 4
    bert_dims: int = 128
    ngram_dims: int = 256
    ngram_min: int = 2
    ngram_max: int = 4
    image_dims: int = 0  # of the frozen encoder's features; 0: no images. Training fills it in
    image_components: int = 1024  # of those features that are learned from, at most
    history_length: int = 20
    item_history_queries: int = 8
    dssm_hidden: int = 256
    dropout: float = 0.1
    experts: tuple[str, ...] = EXPERTS  # an absent one is zeros (ablation)
    use_images: bool = True
    use_category: bool = True
    ngrams: str = "fasttext"  # "teacher": the table starts as a teacher's; "off": random, the ablation's last row

    def __post_init__(self) -> None:
        _finite(self)
        for name in ("dims", "vocab_size", "bert_layers", "bert_heads", "bert_dims", "ngram_dims", "ngram_min",
                     "image_components", "history_length", "item_history_queries", "dssm_hidden"):  # fmt: skip
            require(getattr(self, name) >= 1, self, name, "at least 1")
        for name in ("query_tokens", "item_tokens"):
            require(getattr(self, name) >= 3, self, name, "at least 3 (two are CLS and SEP)")
        require(self.query_tokens <= self.item_tokens, self, "query_tokens", f"at most item_tokens, {self.item_tokens}")
        require(self.image_dims >= 0, self, "image_dims", "at least 0")
        require(self.bert_dims % self.bert_heads == 0, self, "bert_heads", f"a divisor of bert_dims, {self.bert_dims}")
        require(self.ngram_max >= self.ngram_min, self, "ngram_max", f"at least ngram_min, {self.ngram_min}")
        require(0 <= self.dropout <= 0.9, self, "dropout", "from 0 to 0.9")
        known = set(self.experts) <= set(EXPERTS) and set(self.experts) - {"history"}
        require(bool(known), self, "experts", f"some of {', '.join(EXPERTS)}, but not history alone")
        require(self.ngrams in ("fasttext", "off", "teacher"), self, "ngrams", "fasttext, teacher or off")

    @property
    def text_columns(self) -> tuple[str, ...]:
        """The columns of an item that its text is made of, in their order (mrse_model.serving.texts.item_texts)."""
        return ("title", "category") if self.use_category else ("title",)

    @property
    def image_width(self) -> int:
        """How many numbers of an image the model learns from."""
        return min(self.image_components, self.image_dims)


@dataclass(frozen=True)
class LossConfig:
    """Hybrid = alpha · MNSCE + beta · HNST (paper §Losses)."""

    temperature: float = 0.06  # the paper has 0.1; lower finds more here (dev/LOG.md)
    adaptor_temperature: float = 0.1  # of the adaptor's pairs of images, where a negative may be as right
    margin: float = 0.15
    alpha: float = 1.0
    beta: float = 10.0  # the paper has 30; here it is best between 0 and 15 (dev/LOG.md)
    hard_in_softmax: bool = True  # the hard negatives of a batch are negatives of MNSCE, too; the paper has them apart
    distil: float = 1.0  # weight of a teacher's similarities for pseudo-queries; 0: its table alone is taken
    distil_real: float = 0.5  # the same for real queries, at most: it falls with the share of pseudo-queries
    pseudo_contrast: float = 0.3  # weight of MNSCE for pseudo-queries, where a teacher says more than they do
    log_q: bool = False  # correct the in-batch softmax for the popularity of its items (Yi et al. 2019)

    def __post_init__(self) -> None:
        _finite(self)
        for name in ("temperature", "adaptor_temperature"):
            require(getattr(self, name) > 0, self, name, "above 0")
        for name in ("margin", "alpha", "beta", "distil", "distil_real", "pseudo_contrast"):
            require(getattr(self, name) >= 0, self, name, "at least 0")
        require(self.alpha + self.beta > 0, self, "alpha", "above 0 where beta is 0 (else nothing is learnt)")


@dataclass(frozen=True)
class StageConfig:
    """One stage of training. extra_negatives: I_e, items drawn uniformly from the whole catalogue for each batch."""

    epochs: float = 3.0
    batch: int = 256
    lr: float = 1e-3
    extra_negatives: int = 256
    min_steps: int = 200  # a small catalogue is seen in more epochs
    max_steps: int = 0  # 0: as many as the epochs give
    average: float = 0.0  # decay of the running mean of the weights that is kept instead of the last; 0: none

    def __post_init__(self) -> None:
        _finite(self)
        for name in ("epochs", "lr", "extra_negatives", "min_steps", "max_steps"):
            require(getattr(self, name) >= 0, self, name, "at least 0")
        require(self.batch >= 2, self, "batch", "at least 2 (an example's negatives are the others')")
        require(0 <= self.average < 1, self, "average", "at least 0 and below 1")


@dataclass(frozen=True)
class TrainConfig:
    """How the model is trained. Probabilities are per example and only while training."""

    seed: int = 1
    adaptor: StageConfig = field(
        default_factory=lambda: StageConfig(epochs=40.0, batch=512, lr=2e-3, extra_negatives=0)
    )
    vbert: StageConfig = field(default_factory=lambda: StageConfig(epochs=2.0, extra_negatives=64))
    light_bert: StageConfig = field(default_factory=lambda: StageConfig(epochs=1.0, extra_negatives=128))
    ft_att: StageConfig = field(default_factory=lambda: StageConfig(epochs=8.0, batch=1024, extra_negatives=512))
    # FtAtt where a teacher starts it: its table knows most from the start, and small steps soon have the rest.
    ft_att_taught: StageConfig = field(
        default_factory=lambda: StageConfig(epochs=4.0, batch=192, extra_negatives=64, min_steps=1000)
    )
    dssm: StageConfig = field(
        default_factory=lambda: StageConfig(epochs=10.0, batch=1024, lr=2e-3, extra_negatives=256, average=0.997)
    )
    modality_dropout: float = 0.1  # an expert's image or history goes missing
    history_dropout: float = 0.3  # the user is unknown: the query alone must do
    evaluate_every: int = 200  # steps
    patience: int = 4  # evaluations without a better one before a stage stops
    half_life_days: float = 30.0
    event_weights: dict[str, float] = field(default_factory=lambda: dict(zip(EVENTS, (1.0, 2.0, 3.0), strict=True)))
    bf16: str = "auto"  # auto: where the processor has matrix instructions for it; on; off
    threads: int = 0  # 0: torch's choice

    def __post_init__(self) -> None:
        _finite(self)
        for name in ("modality_dropout", "history_dropout"):
            require(0 <= getattr(self, name) <= 1, self, name, "from 0 to 1")
        for name in ("evaluate_every", "patience"):
            require(getattr(self, name) >= 1, self, name, "at least 1")
        for name in ("seed", "threads"):
            require(getattr(self, name) >= 0, self, name, "at least 0")
        require(self.half_life_days > 0, self, "half_life_days", "above 0")
        weights = self.event_weights
        require(set(weights) <= set(EVENTS), self, "event_weights", f"weights of {', '.join(EVENTS)}")
        require(all(w >= 0 for w in weights.values()), self, "event_weights", "weights of at least 0")
        require(self.bf16 in BF16, self, "bf16", ", ".join(BF16[:-1]) + f" or {BF16[-1]}")


def _finite(settings: Any) -> None:
    for name, value in vars(settings).items():
        if isinstance(value, float):
            require(math.isfinite(value), settings, name, "a finite number")


def require(condition: bool, settings: Any, name: str, right: str) -> None:
    if not condition:
        raise InputError(f"must be {right}, got {toml_literal(getattr(settings, name))}", field=name)


@dataclass(frozen=True)
class Config:
    """All of it; saved as config.toml beside every checkpoint."""

    model: ModelConfig = field(default_factory=ModelConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    train: TrainConfig = field(default_factory=TrainConfig)


def preset(name: str) -> Config:
    """`base`: the paper's sizes. `tiny`: the same architecture for tests and `make demo`. Raises InputError."""
    if name == "base":
        return Config()
    if name == "tiny":
        stage = StageConfig(epochs=1.5, batch=128, extra_negatives=64, lr=2e-3)
        return Config(
            model=ModelConfig(vocab_size=2000, bert_heads=2, bert_dims=64, ngram_dims=64, dssm_hidden=128),
            train=TrainConfig(
                adaptor=replace(stage, epochs=3.0, extra_negatives=0),
                vbert=stage,
                light_bert=stage,
                ft_att=replace(stage, epochs=3.0),
                dssm=replace(stage, epochs=5.0, batch=256, extra_negatives=512, average=0.99),
            ),
        )
    raise InputError(f"unknown preset {name!r}", field="preset", fix="One of: tiny, base")


def choose(name: str, settings: str | Path | None = None, threads: int = 0) -> Config:
    """A preset, a TOML file over it, and a number of threads (0: as it says); the later ones win. Raises InputError."""
    chosen = preset(name)
    if settings is not None:
        chosen = read_config(settings, chosen)
    return overlay(chosen, {"train": {"threads": threads}}) if threads else chosen


def read_config(path: str | Path, base: Config | None = None) -> Config:
    """A TOML file over a base (default: `preset` named in the file, or base). An unknown key is an InputError naming
    the near one.
    """
    try:
        raw = tomllib.loads(Path(path).read_text("utf-8"))
    except FileNotFoundError:
        raise InputError("no such file", file=path) from None
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", file=path) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"not TOML: {error}", file=path) from None
    start = base or preset(raw.pop("preset", "base"))
    raw.pop("preset", None)
    return overlay(start, raw, file=path)


def overlay(config: Any, values: dict[str, Any], file: str | Path | None = None, prefix: str = "") -> Any:
    """config with the nested values replaced; unknown keys, wrong types and values out of range are InputErrors that
    name the key.
    """
    hints = typing.get_type_hints(type(config))
    known = {f.name for f in fields(config)}
    changes: dict[str, Any] = {}
    for key, value in values.items():
        where = prefix + key
        if key not in known:
            near = difflib.get_close_matches(key, known, 1)
            hint = f"Did you mean {prefix}{near[0]}?" if near else f"Known here: {', '.join(sorted(known))}"
            raise InputError("unknown setting", file=file, field=where, fix=hint.rstrip("?") if near else hint)
        old = getattr(config, key)
        if is_dataclass(old):
            if not isinstance(value, dict):
                raise InputError(f"must be a table, got {value!r}", file=file, field=where)
            changes[key] = overlay(old, value, file, where + ".")
        else:
            changes[key] = _typed(value, hints[key], file, where)
            if isinstance(old, dict):
                changes[key] = old | changes[key]
    try:
        return replace(config, **changes)
    except InputError as error:
        raise InputError(error.problem, file=file, field=f"{prefix}{error.field}", fix=error.fix) from None


def _typed(value: Any, hint: Any, file: str | Path | None, where: str) -> Any:
    origin = typing.get_origin(hint)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if origin is tuple and isinstance(value, list) and all(isinstance(v, str) for v in value):
        return tuple(value)
    if origin is dict and isinstance(value, dict):
        return {k: _typed(v, typing.get_args(hint)[1], file, f"{where}.{k}") for k, v in value.items()}
    wanted = origin or hint
    if (
        isinstance(wanted, type | types.UnionType)
        and isinstance(value, wanted)
        and isinstance(value, bool) == (hint is bool)
    ):
        return value
    name = getattr(hint, "__name__", str(hint))
    raise InputError(f"must be of type {name}, got {value!r}", file=file, field=where)


def config_toml(config: Config) -> str:
    """The resolved settings as TOML that `read_config` reads back equal."""
    lines: list[str] = []

    def table(prefix: str, values: dict[str, Any]) -> None:
        plain = {k: v for k, v in values.items() if not isinstance(v, dict)}
        if prefix:
            lines.append(f"[{prefix}]")
        lines.extend(f"{key} = {toml_literal(value)}" for key, value in plain.items())
        lines.append("")
        for key, value in values.items():
            if isinstance(value, dict):
                table(f"{prefix}.{key}" if prefix else key, value)

    table("", asdict(config))
    return "\n".join(lines).strip() + "\n"


def differences(before: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> list[str]:
    """What differs between two nested tables: `key: old → new`, one line a key."""
    found = []
    for key in {**before, **now}:
        old, new = before.get(key), now.get(key)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            found += differences(old, new, f"{prefix}{key}.")
        elif old != new:
            found.append(f"{prefix}{key}: {old} → {new}")
    return found


def summarize(changed: list[str]) -> str:
    """Some differences in one line."""
    return "; ".join(changed[:5]) + (f"; and {len(changed) - 5} more" if len(changed) > 5 else "")


def result_affecting(config: Config) -> dict[str, Any]:
    """The settings that decide what is learned, as tables; with how many threads is none of them."""
    tables = tomllib.loads(config_toml(config))
    del tables["train"]["threads"]
    return tables


def write_config(config: Config, path: str | Path) -> None:
    """`config_toml` to a file."""
    Path(path).write_text(config_toml(config), "utf-8")


def toml_literal(value: Any) -> str:
    """Strings, numbers, booleans and lists are written alike in JSON and in TOML."""
    return json.dumps(list(value) if isinstance(value, tuple) else value, ensure_ascii=False)
