"""YQL text to `ast.Query`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .ast import Query


class YqlError(ValueError):
    """A query that Vespa refuses with code 4; the message has the position where there is one."""


def parse_yql(yql: str, parameters: Mapping[str, Any]) -> Query:
    """The statement, with every `@name` looked up in the request's parameters. userQuery() takes `model.queryString`
    or `query` from there, `model.type` and `model.defaultIndex` with it.

    Raises YqlError: syntax, an unknown operator or annotation value, a missing parameter, too deep nesting."""
    raise NotImplementedError
