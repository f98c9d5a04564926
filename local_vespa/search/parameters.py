"""Query parameters: from URL, form or JSON, with aliases, query profiles and defaults, to one flat dict of full
names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl

import orjson

from ..errors import BAD_REQUEST, ILLEGAL_QUERY, UNSPECIFIED, QueryError, unsupported
from ..http import Request
from ..package.query_profiles import QueryProfile

ALIASES = {
    "ranking": "ranking.profile", "count": "hits", "start": "offset", "query": "model.queryString",
    "type": "model.type",
    "default-index": "model.defaultIndex", "defaultIndex": "model.defaultIndex", "sources": "model.sources",
    "search": "model.sources", "restrict": "model.restrict", "filter": "model.filter", "language": "model.language",
    "lang": "model.language", "locale": "model.locale", "sorting": "ranking.sorting", "summary": "presentation.summary",
    "format": "presentation.format", "timing": "presentation.timing", "bolding": "presentation.bolding",
    "format.tensors": "presentation.format.tensors", "tracelevel": "trace.level", "traceLevel": "trace.level",
    "listFeatures": "ranking.listFeatures", "rankfeatures": "ranking.listFeatures",
    "rerankCount": "ranking.rerankCount",
    "ranking.secondPhase.rerankCount": "ranking.rerankCount",
}  # fmt: skip
_FEATURES = ("input.query(", "rankfeature.query(", "rank.features.query(", "ranking.features.query(")
# Parameters of Vespa that would change the answer and are not done here.
REFUSED = {
    "model.filter", "model.type.profile", "model.type.isYqlDefault", "recall", "collapsefield", "collapsesize",
    "collapse.summary", "searchChain",
    "ranking.location", "ranking.diversity", "ranking.significance", "model.searchPath", "presentation.reportCoverage",
}  # fmt: skip
REFUSED_GROUPS = (
    "pos.", "streaming.", "select.", "rules.", "ranking.matchPhase.", "ranking.properties.", "ranking.elementGap.",
    "significance.", "weakAnd.", "wand.",
)  # fmt: skip
# Limits of the application: a request cannot lift them (DefaultProperties.java, GroupingQueryParser.java).
OF_PROFILES = ("maxOffset", "maxHits", "maxQueryItems")
GROUPING_LIMIT = "grouping.globalMaxGroups"
INTEGERS = (
    "hits", "offset", "trace.level", "ranking.rerankCount", "ranking.globalPhase.rerankCount", "ranking.keepRankCount",
    "grouping.defaultMaxGroups", "grouping.defaultMaxHits",
)  # fmt: skip
_VARIABLE = re.compile(r"%\{([^}]+)\}")
_TIME = re.compile(r"\s*([\d.]+)\s*(\S*)\s*")
_UNITS = {"ks": 1000.0, "ms": 1e-3, "\u00b5s": 1e-6}  # seconds; what is no unit is read as seconds
MAX_TIMEOUT = 1_000_000_000  # milliseconds
DURATION = re.compile(r"\s*\d*\.?\d+\s*(s|ms|us|µs|ks|min)?\s*")


def read(request: Request) -> dict[str, Any]:
    """A request's own parameters by full name. Raises QueryError 400."""
    found: dict[str, Any] = dict(request.query)
    if request.method == "POST" and request.body.strip():
        kind = request.headers.get("content-type", "")
        if kind.startswith("application/x-www-form-urlencoded"):
            found |= dict(parse_qsl(request.body.decode("utf-8", "replace"), keep_blank_values=True))
        else:
            try:
                body = orjson.loads(request.body)
            except orjson.JSONDecodeError as e:
                raise QueryError(ILLEGAL_QUERY, f"Json parse error.: {e}") from e
            if not isinstance(body, dict):
                raise QueryError(ILLEGAL_QUERY, "Json parse error.: expected an object")
            found |= dict(_flat(body, ""))
    return {full_name(k): v for k, v in found.items()}


def _flat(value: Mapping[str, Any], prefix: str) -> list[tuple[str, Any]]:
    """{"a": {"b": 1}} as a.b; the value of a query feature stays as it is, tensors being objects too."""
    flat: list[tuple[str, Any]] = []
    for key, inner in value.items():
        name = prefix + key
        if isinstance(inner, dict) and not name.startswith(_FEATURES) and name != "select":
            flat += _flat(inner, name + ".")
        elif inner is not None:
            flat.append((name, inner))
    return flat


def full_name(name: str) -> str:
    """`input.query(q)` and other short names by their full ones."""
    for prefix in _FEATURES:
        if name.startswith(prefix):
            return "ranking.features.query(" + name[len(prefix) :]
    return ALIASES.get(name, name)


class Parameters:
    """A query's parameters: those of the request over those of its query profile. Raises QueryError on a query profile
    that does not exist and on parameters that this engine does not do."""

    def __init__(self, request: Mapping[str, Any], profiles: Mapping[str, QueryProfile]) -> None:
        asked = request.get("queryProfile")
        if asked is not None and str(asked) not in profiles:
            raise QueryError(ILLEGAL_QUERY, f"Could not resolve query profile '{asked}'")
        profile = profiles.get(str(asked or "default"), QueryProfile("default", {}))
        own = {full_name(k): v for k, v in profile.fields.items()}
        fixed = {full_name(k) for k in profile.fixed}
        given = {k: v for k, v in request.items() if k not in fixed}
        self.values: dict[str, Any] = own | given  # which the profile's own values may refer to
        self.values = {k: self._substituted(v) for k, v in own.items()} | given
        for name, value in self.values.items():
            if (name in REFUSED or name.startswith(REFUSED_GROUPS)) and value not in ("", None):
                raise QueryError(ILLEGAL_QUERY, unsupported(f"the query parameter '{name}'"))
        self.timeout()
        for name in INTEGERS:
            self.integer(name, 0)
        for name in OF_PROFILES:
            if name in request:
                raise QueryError(UNSPECIFIED, f"Failed: {name} must be specified in a query profile.")
        if GROUPING_LIMIT in request:
            problem = f"{GROUPING_LIMIT} must be specified in a query profile."
            raise QueryError(BAD_REQUEST, f"Invalid request [/search/]: {problem}")
        if self.flag("ranking.listFeatures"):
            raise QueryError(ILLEGAL_QUERY, unsupported("ranking.listFeatures"))
        if self.text("presentation.format") not in (None, "json", "default", "JsonRenderer"):
            raise QueryError(ILLEGAL_QUERY, unsupported(f"presentation.format={self.values['presentation.format']}"))

    def _substituted(self, text: str) -> str:
        """A profile's value with each `%{name}`, short or full, replaced by the request's or the profile's own."""
        return _VARIABLE.sub(lambda m: self.text(full_name(m[1])) or "", text)

    def text(self, name: str) -> str | None:
        """A parameter as text, None where it is not given."""
        value = self.values.get(name)
        if isinstance(value, bool):
            return str(value).lower()
        return None if value is None else str(value)

    def integer(self, name: str, default: int) -> int:
        """A parameter as an integer. Raises QueryError."""
        value = self.values.get(name)
        if value is None:
            return default
        try:
            return int(str(value))
        except ValueError:
            raise QueryError(ILLEGAL_QUERY, f"Could not set '{name}': '{value}' is not a valid integer") from None

    def number(self, name: str) -> float | None:
        """A parameter as a number. Raises QueryError."""
        value = self.values.get(name)
        if value is None:
            return None
        try:
            return float(str(value))
        except ValueError:
            raise QueryError(ILLEGAL_QUERY, f"Could not set '{name}': '{value}' is not a valid double") from None

    def timeout(self) -> float | None:
        """The parameter timeout in seconds (ParameterParser.java). Raises QueryError."""
        text = self.text("timeout")
        if text is None:
            return None
        found = _TIME.match(text)
        try:
            milliseconds = int(float(found[1]) * _UNITS.get(found[2], 1.0) * 1000) if found else None
        except ValueError:
            milliseconds = None
        if milliseconds is None:
            raise QueryError(ILLEGAL_QUERY, f"Could not set 'timeout': Error parsing '{text}': Invalid number '{text}'")
        if milliseconds > MAX_TIMEOUT:
            problem = f"'timeout' must be positive and smaller than {MAX_TIMEOUT} ms but was {milliseconds}"
            raise QueryError(ILLEGAL_QUERY, f"Could not set 'timeout': {problem}")
        return milliseconds / 1000

    def flag(self, name: str) -> bool:
        return self.text(name) in ("true", "1")

    def features(self) -> dict[str, Any]:
        """The values given for query(name), by name."""
        start = "ranking.features.query("
        return {k[len(start) :].rstrip(")"): v for k, v in self.values.items() if k.startswith(start)}

    def for_yql(self) -> dict[str, Any]:
        """What `@name` in YQL and embed() can refer to: full names and the short names of aliases."""
        short = {a: self.values[f] for a, f in ALIASES.items() if f in self.values}
        return short | self.values
