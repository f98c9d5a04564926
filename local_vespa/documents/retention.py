"""Which documents a cluster keeps: `<document selection>` of services.xml, applied to puts and by garbage collection.

As Vespa does it: a put that is not selected is ignored, an update passes (its document is not at hand where Vespa
routes it), and garbage collection removes what is surely not selected; where a selection has no answer, the document
stays.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import DeployError
from ..package.services import Services
from .selection import Selection, SelectionError, parse_selection


class Retention:
    """The selections of one application. Raises DeployError for one that cannot be parsed."""

    def __init__(self, services: Services) -> None:
        self.every = services.collect_every
        self._kept: dict[str, Selection] = {}
        self._gone: dict[str, Selection] = {}
        for document in services.documents:
            if document.selection:
                try:
                    self._kept[document.name] = parse_selection(document.selection)
                    self._gone[document.name] = parse_selection(f"not ({document.selection})")
                except SelectionError as e:
                    raise DeployError(f"Invalid application package: services.xml: {e}") from e

    @property
    def collects(self) -> tuple[str, ...]:
        """Document types that garbage collection looks at."""
        return tuple(self._gone) if self.every else ()

    def accepts(self, schema: str, id: str, fields: Mapping[str, Any]) -> bool:
        """Whether a put is stored; otherwise it is ignored."""
        return schema not in self._kept or self._kept[schema].matches(id, fields)

    def expired(self, schema: str, id: str, fields: Mapping[str, Any]) -> bool:
        """Whether garbage collection removes the document."""
        return schema in self._gone and self._gone[schema].matches(id, fields)
