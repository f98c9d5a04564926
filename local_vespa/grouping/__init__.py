"""Grouping: the language after `|` in YQL, and its execution over columns.

request = parse_grouping("all(group(colour) order(-count()) each(output(count())))")
group = execute(request, GroupingSource(count, column, relevance, summary))   # the JSON of group:root:0
"""

from .ast import GroupingError, GroupingRequest
from .execute import Column, GroupingSource, execute
from .parse import parse_grouping
from .plan import DEFAULT_LIMITS, Limits

__all__ = [
    "DEFAULT_LIMITS",
    "Column",
    "GroupingError",
    "GroupingRequest",
    "GroupingSource",
    "Limits",
    "execute",
    "parse_grouping",
]
