"""Ranking expressions as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


class RankingError(ValueError):
    """An expression that Vespa refuses: syntax, unknown function, or tensors that do not fit."""


class Unsupported(RankingError):
    """A part of the language that this engine does not do; the message names it."""


@dataclass(frozen=True)
class RankingNode:
    """A node of an expression; `str()` writes it back."""


@dataclass(frozen=True)
class Reference(RankingNode):
    """A feature or function: `attribute(price)`, `closeness(field,embedding)`, `onnx(model).output`, `lexical`.

    `str()` is canonical, without spaces, and the key of matchfeatures is Vespa's same form."""

    name: str
    arguments: tuple[str, ...] = ()
    output: str | None = None


@dataclass(frozen=True)
class Function:
    """A rank profile's `function name(parameters) { expression: … }`."""

    name: str
    parameters: tuple[str, ...]
    body: RankingNode


def features_of(node: RankingNode, functions: Mapping[str, Function] | None = None) -> frozenset[Reference]:
    """The features that an expression needs, those of the functions it calls included; a reference to one of `functions`
    is followed, not listed. Global-phase functions (normalize_linear, reciprocal_rank, reciprocal_rank_fusion) are
    followed into their arguments."""
    raise NotImplementedError
