"""The features that an expression needs: what must exist when a package is deployed."""

from __future__ import annotations

from collections.abc import Mapping

from .ast import Function, Generate, Lambda, Merge, RankingNode, Reference, Subspaces
from .parse import parse_expression


def features_of(node: RankingNode, functions: Mapping[str, Function] | None = None) -> frozenset[Reference]:
    """The features that an expression needs, those of the functions it calls included; a reference to one of
    `functions` is followed, not listed."""
    found: set[Reference] = set()
    seen: set[str] = set()

    def visit(start: RankingNode, bound: frozenset[str]) -> None:
        if isinstance(start, Reference):
            function = (functions or {}).get(start.name)
            if function is not None and start.output is None and len(start.arguments) == len(function.parameters):
                for argument in start.arguments:
                    visit(parse_expression(argument), bound)
                if start.name not in seen:
                    seen.add(start.name)
                    visit(function.body, frozenset(function.parameters))
            elif start.arguments or start.name not in bound:
                found.add(start)
        for child in start.children:
            visit(child, bound)
        if isinstance(start, (Lambda, Merge)):
            visit(start.body, bound | set(start.parameters))
        elif isinstance(start, Subspaces):
            visit(start.body, bound | {start.parameter})
        elif isinstance(start, Generate):
            visit(start.body, bound | set(start.type.names))

    visit(node, frozenset())
    return frozenset(found)
