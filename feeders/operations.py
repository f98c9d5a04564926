"""One document operation and its outcome: what every source of a feed makes and the transport sends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import quote

import orjson

NAMESPACE = "item"
Kind = Literal["put", "update", "remove"]
Method = Literal["GET", "POST", "PUT", "DELETE"]
METHOD: dict[Kind, Method] = {"put": "POST", "update": "PUT", "remove": "DELETE"}


@dataclass(frozen=True, slots=True)
class ItemDigest:
    """What a journal compares of a document. columns: hash of its plain fields; inputs: of all that its vectors are
    made of; vectors: a bit for each that it has.
    """

    columns: int
    inputs: int = 0
    vectors: int = 0


@dataclass(frozen=True, slots=True)
class Operation:
    """A put, a partial update (fields hold {"assign": …} and the like) or a remove of one document.

    id: the user-specified part of the document id. digest: of the content, for the journal. create: an update makes a
    missing document. condition: a document selection that must hold, else Vespa answers 412.
    """

    kind: Kind
    doctype: str
    id: str
    fields: dict[str, Any] | None = None
    digest: ItemDigest | None = None
    create: bool = False
    condition: str = ""

    @property
    def document_id(self) -> str:
        return f"id:{NAMESPACE}:{self.doctype}::{self.id}"

    @property
    def path(self) -> str:
        """Path and query of the request in /document/v1. Every character of the id that could mean something in a
        path is encoded, the slash too: `a/../b` is one segment, not another document.
        """
        path = document_path(self.doctype, self.id)
        if not self.create and not self.condition:
            return path
        condition = f"condition={quote(self.condition, safe='')}" if self.condition else ""
        return path + "?" + "&".join(filter(None, ("create=true" if self.create else "", condition)))

    @property
    def body(self) -> bytes | None:
        """The JSON of the request; None for a remove."""
        return None if self.fields is None else orjson.dumps({"fields": self.fields})

    @classmethod
    def from_json(cls, document: Any) -> Operation:
        """The inverse of `json_line`. Raises ValueError for what is no operation on a document of this namespace."""
        kinds = [kind for kind in METHOD if isinstance(document, dict) and kind in document]
        if len(kinds) != 1:
            raise ValueError("must have exactly one of put, update and remove")
        [kind] = kinds
        scheme, namespace, doctype, options, *name = f"{document[kind]}".split(":", 4) + [""] * 4
        if (scheme, namespace, options) != ("id", NAMESPACE, "") or not name[0]:
            raise ValueError(f"{document[kind]!r} is no id like id:{NAMESPACE}:item::B01")
        fields = document.get("fields")
        if (kind == "remove") == isinstance(fields, dict):
            raise ValueError(f"a {kind} {'has no' if kind == 'remove' else 'needs'} fields")
        create, condition = document.get("create", False), document.get("condition", "")
        return cls(kind, doctype, name[0], fields, None, create is True, str(condition))

    def json_line(self) -> bytes:
        """The operation in Vespa's document JSON format, one line, as `vespa feed` reads it."""
        document: dict[str, Any] = {self.kind: self.document_id}
        if self.create:
            document["create"] = True
        if self.condition:
            document["condition"] = self.condition
        if self.fields is not None:
            document["fields"] = self.fields
        return orjson.dumps(document, option=orjson.OPT_APPEND_NEWLINE)


@dataclass(frozen=True, slots=True)
class DeliveryResult:
    """What Vespa said to an operation. status 0: no answer at all."""

    operation: Operation
    status: int
    message: str = ""

    @property
    def ok(self) -> bool:
        return self.status == 200


def document_path(doctype: str, item_id: str) -> str:
    """The path of a document in /document/v1."""
    return f"/document/v1/{NAMESPACE}/{doctype}/docid/{quote(item_id, safe='')}"
