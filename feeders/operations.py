"""One document operation and its result: what every source of a feed makes and both transports send."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import orjson

NAMESPACE = "item"
Kind = Literal["put", "update", "remove"]


@dataclass(frozen=True)
class Operation:
    """A put, a partial update (fields hold {"assign": …} and the like) or a remove of one document.

    id: the user-specified part of the document id. digest: of the content, for the journal. create: an update makes a
    missing document.
    """

    kind: Kind
    doctype: str
    id: str
    fields: dict[str, Any] | None = None
    digest: bytes = b""
    create: bool = False

    @property
    def document_id(self) -> str:
        return f"id:{NAMESPACE}:{self.doctype}::{self.id}"

    def json_line(self) -> bytes:
        """The operation in Vespa's document JSON format, one line, as `vespa feed` reads it."""
        document: dict[str, Any] = {self.kind: self.document_id}
        if self.create:
            document["create"] = True
        if self.fields is not None:
            document["fields"] = self.fields
        return orjson.dumps(document, option=orjson.OPT_APPEND_NEWLINE)


@dataclass(frozen=True)
class DeliveryResult:
    """What Vespa said to an operation. status 0: no answer at all."""

    operation: Operation
    status: int
    message: str = ""

    @property
    def ok(self) -> bool:
        return self.status == 200
