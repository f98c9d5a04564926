"""A shop's own rules of search, from a TOML file: synonyms, and items pinned or buried for a query.

[synonyms]                        # whole words of a query, and what is searched in their place
kicks = "trainers"
"evening gown" = "evening dress"

[[queries]]                       # queries are the same in any case and spacing, and after the synonyms
query = ["red dress", "red gown"]
pinned = ["B17", "B03"]           # first, in this order, as far as the filters let them through
buried = ["B44"]                  # behind everything else
"""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mrse_model.errors import InputError
from retrieval.query_text import cleaned, key_of
from retrieval.searcher import MAX_PINNED, SearchRequest

QUERY_KEYS = {"query", "pinned", "buried"}


@dataclass(frozen=True)
class QueryRule:
    pinned: tuple[str, ...] = ()
    buried: tuple[str, ...] = ()


@dataclass(frozen=True)
class Rules:
    """synonyms: words of a phrase, as `key_of` writes them → what replaces them. queries: key of a query, synonyms
    replaced → its items.
    """

    synonyms: Mapping[tuple[str, ...], str] = field(default_factory=dict)
    queries: Mapping[str, QueryRule] = field(default_factory=dict)

    @classmethod
    def read(cls, file: str | Path) -> Rules:
        """Raises InputError with the table and key of whatever is not as above; nothing is guessed or left out."""
        try:
            raw = tomllib.loads(Path(file).read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise InputError(f"cannot be read: {error}", file=file) from None
        try:
            return _parsed(raw)
        except InputError as error:
            raise InputError(error.problem, file=file, field=error.field, fix=error.fix) from None

    def rewritten(self, text: str) -> str:
        """The text with synonyms replaced: the longest phrase first, from left to right, once. Text without a synonym
        is given back as it is.

        >>> Rules({("kicks",): "trainers"}).rewritten("Red KICKS")
        'Red trainers'
        """
        words, out, at = text.split(), [], 0
        longest = max(map(len, self.synonyms), default=0)
        while at < len(words):
            for length in range(min(longest, len(words) - at), 0, -1):
                phrase = tuple(key_of(word) for word in words[at : at + length])
                if phrase in self.synonyms:
                    out.append(self.synonyms[phrase])
                    at += length
                    break
            else:
                out.append(words[at])
                at += 1
        changed = " ".join(out)
        return changed if changed != " ".join(words) else text

    def applied(self, request: SearchRequest) -> SearchRequest:
        """The request with its text rewritten, and the items of its query. A vector is left alone. Raises InputError
        for a blank query.
        """
        if not isinstance(request.query, str):
            return request
        text = self.rewritten(cleaned(request.query))
        rule = self.queries.get(key_of(text), QueryRule())
        return dataclasses.replace(request, query=text, pinned=rule.pinned, buried=rule.buried)


def _parsed(raw: dict[str, Any]) -> Rules:
    for name in raw.keys() - {"synonyms", "queries"}:
        raise InputError("unknown table", field=name, fix="Write [synonyms] or [[queries]]")
    given = raw.get("synonyms", {})
    if not isinstance(given, dict):
        raise InputError("must be a table", field="synonyms", fix='Write [synonyms] and under it kicks = "trainers"')
    synonyms: dict[tuple[str, ...], str] = {}
    for phrase, text in given.items():
        where = f"synonyms.{phrase}"
        words = tuple(_key(phrase, where).split())
        if words in synonyms:
            raise InputError("the phrase occurs twice", field=where)
        _key(text, where)
        synonyms[words] = cleaned(text)
    rules = Rules(synonyms)
    for words, text in synonyms.items():
        if rules.rewritten(text) != text:
            fix = f"Write {rules.rewritten(text)!r}"
            raise InputError(f"{text!r} has a synonym of its own", field=f"synonyms.{' '.join(words)}", fix=fix)
    listed = raw.get("queries", [])
    if not isinstance(listed, list) or not all(isinstance(one, dict) for one in listed):
        raise InputError("must be a list of tables", field="queries", fix="Write [[queries]]")
    queries: dict[str, QueryRule] = {}
    for n, one in enumerate(listed, 1):
        where = f"queries {n}"
        for name in one.keys() - QUERY_KEYS:
            raise InputError("unknown key", field=f"{where}.{name}", fix="One of query, pinned, buried")
        pinned, buried = (_items(one.get(name, []), f"{where}.{name}") for name in ("pinned", "buried"))
        if both := set(pinned) & set(buried):
            raise InputError(f"{min(both)!r} is pinned and buried", field=where)
        if not pinned and not buried:
            raise InputError("neither pinned nor buried items", field=where)
        texts = one.get("query")
        texts = texts if isinstance(texts, list) else [texts]
        if not texts:
            raise InputError("no query", field=f"{where}.query", fix='Write query = "red dress"')
        for text in texts:
            _key(text, f"{where}.query")
            key = key_of(rules.rewritten(cleaned(text)))
            if key in queries:
                raise InputError(f"{text!r} occurs twice", field=f"{where}.query")
            queries[key] = QueryRule(pinned, buried)
    return Rules(synonyms, queries)


def _key(text: Any, where: str) -> str:
    if not isinstance(text, str) or not text.strip():
        raise InputError(f"must be a non-blank string, got {text!r}", field=where)
    return key_of(cleaned(text))


def _items(ids: Any, where: str) -> tuple[str, ...]:
    if not isinstance(ids, list) or not all(isinstance(one, str) and one.strip() for one in ids):
        raise InputError("must be a list of item ids", field=where, fix='Write ["B17", "B03"]')
    if len(set(ids)) < len(ids):
        raise InputError("an item occurs twice", field=where)
    if len(ids) > MAX_PINNED:
        raise InputError(f"{len(ids)} items exceed {MAX_PINNED}", field=where)
    return tuple(ids)
