"""The images of an items file, for a demo: copied to a temporary SQLite file, so that memory does not hold them."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path

from mrse_model.data.contract import ItemsFile

TYPES = {b"\xff\xd8\xff": "image/jpeg", b"\x89PN": "image/png"}


class Images:
    def __init__(self, items: str | Path | None) -> None:
        self._lock = threading.Lock()
        self._db = sqlite3.connect("", check_same_thread=False)
        self._db.execute("CREATE TABLE image(id TEXT PRIMARY KEY, data BLOB) WITHOUT ROWID")
        if items is not None:
            for batch in ItemsFile(items, title=None).batches(256, images=True):
                rows = zip(batch.ids, batch.images, strict=True)
                self._db.executemany("INSERT OR REPLACE INTO image VALUES (?, ?)", rows)

    def get(self, item_id: str) -> tuple[str, bytes] | None:
        """Media type and bytes; None for an item without an image."""
        with self._lock:
            found = self._db.execute("SELECT data FROM image WHERE id = ?", (item_id,)).fetchone()
        if not found or not found[0]:
            return None
        return TYPES.get(found[0][:3], "image/webp"), found[0]
