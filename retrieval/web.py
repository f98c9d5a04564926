"""A search page to look at: query, user, profile, the hits of each recall queue with their images.

For trying out and for demos; it listens on this machine only and has no users. `mrse web` starts it.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote

import orjson
from granian.constants import HTTPModes, Interfaces
from granian.server.embed import Server

from mrse_model.data.contract import ItemsFile
from mrse_model.errors import InputError
from retrieval.filters import Filter
from retrieval.searcher import PROFILES, Searcher

PAGE = Path(__file__).with_name("web.html")
Reply = tuple[int, str, bytes]


class Site:
    """The three addresses of the page: `/`, `/search?…`, `/image/ITEM_ID`."""

    def __init__(self, searcher: Searcher, items: Path | None = None) -> None:
        """items: an items file whose images are shown; they are copied to a temporary file on disk."""
        self._searcher = searcher
        self._images = sqlite3.connect("", check_same_thread=False)
        self._images.execute("CREATE TABLE image(id TEXT PRIMARY KEY, data BLOB) WITHOUT ROWID")
        if items is not None:
            for batch in ItemsFile(items, title=None).batches(256, images=True):
                self._images.executemany(
                    "INSERT OR REPLACE INTO image VALUES (?, ?)", zip(batch.ids, batch.images, strict=True)
                )

    def reply(self, path: str, query: str) -> Reply:
        """Status, content type and body of a GET."""
        if path == "/":
            return 200, "text/html; charset=utf-8", PAGE.read_bytes()
        if path == "/search":
            return self._search({name: values[0] for name, values in parse_qs(query).items()})
        if path.startswith("/image/"):
            item_id = unquote(path.removeprefix("/image/"))
            found = self._images.execute("SELECT data FROM image WHERE id = ?", (item_id,)).fetchone()
            if found and found[0]:
                return 200, _image_type(found[0]), found[0]
        return 404, "text/plain", b"not found"

    def _search(self, given: dict[str, str]) -> Reply:
        try:
            profile: Any = given.get("profile", PROFILES[0])
            result = self._searcher.search(
                given.get("q", ""),
                user=given.get("user") or None,
                filters=[Filter.parse(part) for part in given.get("filter", "").split(",") if part.strip()],
                hits=24,
                profile=profile,
            )
        except InputError as error:
            return 400, "application/json", orjson.dumps({"error": str(error)})
        hits = [
            {"id": h.item_id, "title": h.title, "category": h.category, "score": h.score, "features": h.features}
            for h in result.hits
        ]
        body = {"hits": hits, "total": result.total, "seconds": result.seconds, "clicks": result.clicks}
        return 200, "application/json", orjson.dumps(body)


def _image_type(data: bytes) -> str:
    """The media type of JPEG, PNG or WebP bytes, by their first ones."""
    return {b"\xff\xd8\xff": "image/jpeg", b"\x89PN": "image/png"}.get(data[:3], "image/webp")


def serve(site: Site, port: int, started: Callable[[str], None]) -> None:
    """Serves until Ctrl-C."""
    lock = asyncio.Lock()  # the Searcher holds one connection

    async def respond(scope: Any, protocol: Any) -> None:
        async with lock:
            status, kind, body = await asyncio.to_thread(site.reply, scope.path, scope.query_string)
        protocol.response_bytes(status, [("content-type", kind), ("x-content-type-options", "nosniff")], body)

    async def run() -> None:
        server = Server(
            respond, port=port, interface=Interfaces.RSGI, http=HTTPModes.auto, websockets=False, log_enabled=False
        )
        started(f"http://127.0.0.1:{port}")
        await server.serve()

    asyncio.run(run())
