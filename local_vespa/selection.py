"""Document selection: `product.stock > 45 and not product.title = "*hoodie*"`, of conditions, visits and services.xml."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


class SelectionError(ValueError):
    """A selection that cannot be parsed, with the position."""


@dataclass(frozen=True)
class Selection:
    """A parsed selection."""

    text: str

    def matches(self, document_id: str, fields: Mapping[str, Any]) -> bool:
        """Whether it selects the document with this id (`id:ns:type::x`, which names its type) and these fields as JSON
        values (absent: null). A comparison that has no answer, such as with a missing field, does not match."""
        raise NotImplementedError


def parse_selection(text: str) -> Selection:
    """Parses a selection. Raises SelectionError."""
    raise NotImplementedError
