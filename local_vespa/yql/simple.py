"""The simple query language: what a person types, to the same tree as YQL."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .ast import Node


@dataclass(frozen=True)
class UserTextDefaults:
    """What a request says of its user texts: `model.type`, `model.defaultIndex`, `model.locale`."""

    grammar: str = "weakAnd"
    default_index: str = "default"


def parse_user_text(
    text: str,
    grammar: str = "weakAnd",
    default_index: str = "default",
    is_index: Callable[[str], bool] = lambda name: False,
) -> Node | None:
    """The tree of a text in a grammar (all, any, weakAnd, phrase, tokenize, web, raw…); None where it holds no word.
    `is_index` says whether the `name:` of `name:word` is a field or fieldset. Raises YqlError on an unknown grammar."""
    raise NotImplementedError


def expand_user_input(
    tree: Node, is_index: Callable[[str], bool], defaults: UserTextDefaults = UserTextDefaults()
) -> Node:
    """The tree with each UserInput replaced by its parsed text. Raises YqlError where a text holds no word
    (`Parsing '' only resulted in NullItem.`), unless it allows that: then it is Always(False)."""
    raise NotImplementedError
