"""Which documents of a journal has the index lost: dropped, expired, or another index under the same address?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from vespa.application import Vespa

from feeders.index.deployed import get
from feeders.index.journal import Journal
from feeders.operations import NAMESPACE, document_path
from mrse_model.errors import InputError


def reconcile(
    app: Vespa, doctype: str, journal: Journal, held: int, sample: Sequence[str], *, surely: bool = False
) -> int:
    """Makes the journal forget the documents that the index lost, so that they are fed again; returns how many they
    were. held: how many documents the index has. sample: ids of the input, some of which the journal knows. surely: ask
    for every id, whatever the count says.

    A count alone does not see the loss of some documents where others came: those of the sample are asked for.
    """
    if not surely and len(journal) <= held:
        known = [item_id for item_id, before in zip(sample, journal.known(sample), strict=True) if before]
        if _all_there(app, doctype, known):
            return 0
    return journal.keep_only(document_ids(app, doctype))


def _all_there(app: Vespa, doctype: str, ids: Sequence[str]) -> bool:
    with app.syncio() as session:
        for item_id in ids:
            path = document_path(doctype, item_id)
            status, body = get(session, path, {"fieldSet": "[id]"})
            if status == 404:
                return False
            _check(app, path, status, body)
    return True


def document_ids(app: Vespa, doctype: str) -> Iterator[str]:
    """The ids of all documents of the index, by visiting it."""
    return (document["id"].split("::", 1)[1] for document in visit(app, doctype, "[id]"))


def visit(app: Vespa, doctype: str, field_set: str, **more: str) -> Iterator[dict[str, Any]]:
    """All documents of the index with these fields: {"id": …, "fields": {…}}. more: parameters of the visit."""
    path = f"/document/v1/{NAMESPACE}/{doctype}/docid"
    parameters = {"fieldSet": field_set, "wantedDocumentCount": "1024", **more}
    with app.syncio() as session:
        while True:
            status, body = get(session, path, parameters)
            _check(app, path, status, body)
            yield from body["documents"]
            if "continuation" not in body:
                return
            parameters["continuation"] = body["continuation"]


def _check(app: Vespa, path: str, status: int, body: Any) -> None:
    if status != 200 or not isinstance(body, dict):
        raise InputError(f"{app.end_point}{path} answers {status}: {body}", fix="Give an --endpoint with document-api")
