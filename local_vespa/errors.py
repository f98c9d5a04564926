"""What the engine refuses, in the words and shapes of Vespa."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

ILLEGAL_QUERY = 3
INVALID_PARAMETER = 4
UNSPECIFIED = 5
SEARCH_REPLY = 8
TIMEOUT = 12
BAD_REQUEST = 17
SUMMARIES = {
    ILLEGAL_QUERY: "Illegal query",
    INVALID_PARAMETER: "Invalid query parameter",
    UNSPECIFIED: "Unspecified error",
    SEARCH_REPLY: "Error in search reply.",
    TIMEOUT: "Timed out",
    BAD_REQUEST: "Bad request.",
}


def unsupported(what: str) -> str:
    """The sentence for what Vespa does and this engine does not."""
    return f"local_vespa does not support {what}; see local_vespa/LIMITS.md"


class StorageFull(Exception):
    """The disk (or the database's limit) has no room: 507, and nothing of the write was done."""


class DeployError(ValueError):
    """An application package that is refused: 400 with `error-code` INVALID_APPLICATION_PACKAGE."""


@dataclass(eq=False)
class DocumentError(Exception):
    """A refused document operation. `document_id` is set where Vespa's answer has `id`."""

    status: int
    message: str
    document_id: str | None = None


@dataclass(eq=False)
class QueryError(Exception):
    """A refused query: one entry of `root.errors`. `source` is the content cluster where the cluster refused it."""

    code: int
    message: str
    source: str | None = None

    @property
    def status(self) -> int:
        """The HTTP status of an answer that has this error and nothing else (VespaHeaders.java)."""
        return {UNSPECIFIED: 500, TIMEOUT: 504}.get(self.code, 400)

    def json(self) -> dict[str, Any]:
        """The entry, as Vespa renders it."""
        entry: dict[str, Any] = {"code": self.code, "summary": SUMMARIES.get(self.code, "Error")}
        if self.source:
            entry["source"] = self.source
        return {**entry, "message": self.message}
