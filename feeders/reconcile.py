"""Which documents of a journal has the index lost: dropped, expired, or another index under the same address?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

from vespa.application import Vespa

from feeders.deployed import get
from feeders.journal import Journal
from feeders.operations import NAMESPACE
from mrse_model.errors import InputError

ASKED_FOR = 100  # documents of the journal


def forget_lost(app: Vespa, doctype: str, journal: Journal, held: int, *, surely: bool = False) -> int:
    """Makes the journal forget the documents that the index lost, so that they are fed again; returns how many they
    were. held: how many documents the index has. surely: ask for every id, whatever the count says.

    A count alone does not see the loss of one file's documents where others fed the same index: some are asked for.
    """
    if not surely and len(journal) <= held and _all_there(app, doctype, journal.sample(ASKED_FOR)):
        return 0
    return journal.keep_only(_ids(app, doctype))


def _all_there(app: Vespa, doctype: str, ids: list[str]) -> bool:
    with app.syncio() as session:
        for item_id in ids:
            path = f"/document/v1/{NAMESPACE}/{doctype}/docid/{quote(item_id, safe='')}"
            status, body = get(session, path, {"fieldSet": "[id]"})
            if status == 404:
                return False
            _check(app, path, status, body)
    return True


def _ids(app: Vespa, doctype: str) -> Iterator[str]:
    """The ids of all documents of the index, by visiting it."""
    path, parameters = f"/document/v1/{NAMESPACE}/{doctype}/docid", {"fieldSet": "[id]", "wantedDocumentCount": "1024"}
    with app.syncio() as session:
        while True:
            status, body = get(session, path, parameters)
            _check(app, path, status, body)
            yield from (document["id"].split("::", 1)[1] for document in body["documents"])
            if "continuation" not in body:
                return
            parameters["continuation"] = body["continuation"]


def _check(app: Vespa, path: str, status: int, body: Any) -> None:
    if status != 200 or not isinstance(body, dict):
        raise InputError(f"{app.end_point}{path} answers {status}: {body}", fix="Give an --endpoint with document-api")
