"""A search log of any size on disk: sorted by time, without bots, with counts by query and item.

Memory stays flat in the number of searches: they go into a temporary SQLite file, whose ORDER BY is an external merge
sort (https://www.sqlite.org/tempfiles.html) and whose page cache is bounded. What Python holds is one batch.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mrse_model.config import EVENTS
from mrse_model.data.contract import SearchesFile

CACHE_KIB = 16 * 1024
PAIRS_IN_MEMORY = 50_000  # counts gathered before they are added to the file
MAX_SKIPPED = 20  # shown and left alone in one search, the first ones
MAX_KNOWN = 256  # known positives of one query that are passed on
CLICK, CART, ORDER = 0, 1, 2

Progress = Callable[[str, int, int], None]
"""Called as progress(step, done, total) once in a while."""


@dataclass(frozen=True)
class SpamRule:
    """Who is a bot. Jiang et al. 2024 remove spam users without saying how; these are our thresholds.

    A user with more than `searches_per_hour` searches within a clock hour, or one who clicked at least `click_share`
    of all that was shown in at least `min_searches` searches of `min_shown` or more results. The unknown user ("") is
    never one.
    """

    searches_per_hour: int = 60
    click_share: float = 0.8
    min_searches: int = 20
    min_shown: int = 5


class Search(NamedTuple):
    """A search with a click, cart or order of a known item; `kinds[i]` is the strongest event of `items[i]`.

    skipped: what was shown and left alone, in the order shown.
    """

    search_id: str
    user_id: str
    time: int
    query: str
    items: list[int]
    kinds: list[int]
    skipped: list[int]


def query_key(query: str) -> str:
    """What makes two queries the same: case and white space do not count.

    >>> query_key("  Red  Dress ")
    'red dress'
    """
    return " ".join(query.casefold().split())


def popularity_of(counts: NDArray[np.int64], weights: Mapping[str, float]) -> NDArray[np.float64]:
    """How popular items are by their events: counts [n, 3] of clicks, carts and orders, an item in a search counted
    once, as the strongest → [n]. weights: of the events, as `train.event_weights`.

    >>> popularity_of(np.array([[2, 0, 1]]), {"click": 1.0, "cart": 2.0, "order": 3.0}).tolist()
    [5.0]
    """
    return np.asarray(counts @ np.array([weights.get(event, 0.0) for event in EVENTS]))


class SearchLog:
    """Searches on disk. Close it, or use it as a context manager; the file is the caller's to delete.

    Attributes:
        dropped: reason → number of searches, or of events for "… not in items".
        spam_users: how many users the rule removed.
        events: (item, kind) → in how many searches this was the strongest event of the item, as far as `count_pairs`
            has counted.
    """

    def __init__(self, path: Path | Literal[""]) -> None:
        """path: "" for a file that vanishes when the log is closed."""
        self.dropped: Counter[str] = Counter()
        self.spam_users = 0
        self.events: Counter[tuple[int, int]] = Counter()
        # A feed asks in another thread than it reads in, one after the other.
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._db.executescript(
            f"""
            PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA temp_store = FILE;
            PRAGMA cache_size = -{CACHE_KIB};
            CREATE TABLE search (row INTEGER PRIMARY KEY, search_id TEXT, user_id TEXT, time INTEGER, query TEXT,
                                 shown INTEGER, clicked INTEGER, items BLOB, kinds BLOB, skipped BLOB);
            CREATE TABLE pair (query TEXT, item INTEGER, n INTEGER, PRIMARY KEY (query, item)) WITHOUT ROWID;
            CREATE TABLE spam (user_id TEXT PRIMARY KEY) WITHOUT ROWID;
            """
        )
        self.known_positives = lru_cache(maxsize=4096)(self._known_positives)

    def __enter__(self) -> SearchLog:
        return self

    def __exit__(self, *_: object) -> None:
        self._db.close()

    def load(self, searches: SearchesFile, row_of: Mapping[str, int], rule: SpamRule, progress: Progress) -> None:
        """Reads the file, looks the items up, and removes bots. row_of: item id → its row in the catalogue."""
        self._db.execute("BEGIN")
        for batch in searches.batches():
            rows = []
            for i in range(len(batch)):
                query = " ".join(batch.queries[i].split())
                if not query:
                    self.dropped["blank query"] += 1
                    continue
                kinds: dict[int, int] = {}
                for kind, ids in ((CLICK, batch.clicked[i]), (CART, batch.carted[i]), (ORDER, batch.ordered[i])):
                    for item_id in ids:
                        item = row_of.get(item_id)
                        if item is None:
                            self.dropped["clicked item not in items"] += 1
                        else:
                            kinds[item] = max(kind, kinds.get(item, kind))
                items = np.fromiter(kinds.keys(), np.int32, len(kinds)).tobytes()
                strongest = np.fromiter(kinds.values(), np.int8, len(kinds)).tobytes()
                shown = dict.fromkeys(row_of[item] for item in batch.shown[i] if item in row_of)
                left = [row for row in shown if row not in kinds][:MAX_SKIPPED]
                skipped = np.array(left, np.int32).tobytes()
                counts = len(batch.shown[i]), len(set(batch.clicked[i]))
                head = (batch.first_row + i, batch.search_ids[i], batch.user_ids[i], int(batch.timestamps[i]), query)
                rows.append((*head, *counts, items, strongest, skipped))
            self._db.executemany("INSERT INTO search VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)
            progress("reading searches", batch.first_row + len(batch), searches.rows)
        self._db.execute("COMMIT")
        self._remove_spam(rule)
        self.dropped["nothing clicked"] += self._number("SELECT count(*) FROM search WHERE items = x''")
        self._db.execute("DELETE FROM search WHERE items = x''")

    def _number(self, sql: str, *values: int | str) -> int:
        (number,) = self._db.execute(sql, values).fetchone()
        return int(number)

    def _remove_spam(self, rule: SpamRule) -> None:
        self._db.execute(
            """INSERT OR IGNORE INTO spam
               SELECT user_id FROM search WHERE user_id <> '' GROUP BY user_id, time / 3600 HAVING count(*) > ?""",
            (rule.searches_per_hour,),
        )
        self._db.execute(
            """INSERT OR IGNORE INTO spam
               SELECT user_id FROM search WHERE user_id <> '' AND shown >= ? GROUP BY user_id
               HAVING count(*) >= ? AND sum(clicked) >= ? * sum(shown)""",
            (rule.min_shown, rule.min_searches, rule.click_share),
        )
        self.spam_users = self._number("SELECT count(*) FROM spam")
        spam = "FROM search WHERE user_id IN (SELECT user_id FROM spam)"
        self.dropped["spam user"] += self._number(f"SELECT count(*) {spam}")
        self._db.execute(f"DELETE {spam}")

    def __len__(self) -> int:
        return self._number("SELECT count(*) FROM search")

    def time_after(self, share: float) -> int | None:
        """The time of the search before which this share of the searches lies; None for an empty log."""
        if not len(self):
            return None
        last = len(self) - 1
        before = min(int(share * len(self)), last)
        return self._number("SELECT time FROM search ORDER BY time LIMIT 1 OFFSET ?", before)

    def in_time_order(self, until: int | None = None) -> Iterator[Search]:
        """Yields the searches by time, then by row of the file; with `until` only strictly earlier ones."""
        where = "" if until is None else f"WHERE time < {int(until)}"
        rows = self._db.execute(
            f"SELECT search_id, user_id, time, query, items, kinds, skipped FROM search {where} ORDER BY time, row"
        )
        for search_id, user_id, time, query, items, kinds, skipped in rows:
            some, left = np.frombuffer(items, np.int32).tolist(), np.frombuffer(skipped, np.int32).tolist()
            yield Search(search_id, user_id, time, query, some, np.frombuffer(kinds, np.int8).tolist(), left)

    def count_pairs(self, until: int | None) -> None:
        """Counts clicks by query and item strictly before `until`, for `known_positives` and `item_queries`, and events
        by item.
        """
        counts: Counter[tuple[str, int]] = Counter()
        for search in self.in_time_order(until):
            key = query_key(search.query)
            counts.update((key, item) for item in search.items)
            self.events.update(zip(search.items, search.kinds, strict=True))
            if len(counts) >= PAIRS_IN_MEMORY:
                self._add_counts(counts)
        self._add_counts(counts)

    def _add_counts(self, counts: Counter[tuple[str, int]]) -> None:
        sql = "INSERT INTO pair VALUES (?, ?, ?) ON CONFLICT (query, item) DO UPDATE SET n = n + excluded.n"
        self._db.execute("BEGIN")
        self._db.executemany(sql, ((key, item, n) for (key, item), n in sorted(counts.items())))
        self._db.execute("COMMIT")
        counts.clear()

    def add_judged(self, pairs: Iterable[tuple[str, int]]) -> None:
        """Adds judged positives (`query_key`, item) to what was clicked, after every click."""
        self._db.execute("BEGIN")
        self._db.executemany("INSERT INTO pair VALUES (?, ?, 0) ON CONFLICT (query, item) DO NOTHING", pairs)
        self._db.execute("COMMIT")

    def pairs(self) -> int:
        """How many distinct pairs of a query and its item `count_pairs` and `add_judged` have found."""
        return self._number("SELECT count(*) FROM pair")

    def _known_positives(self, key: str) -> tuple[int, ...]:
        """The items clicked for a query (a `query_key`) or judged its positives, most clicked first. Cached for the
        queries used last.
        """
        rows = self._db.execute("SELECT item FROM pair WHERE query = ? ORDER BY n DESC, item LIMIT ?", (key, MAX_KNOWN))
        return tuple(item for (item,) in rows)

    def index_items(self) -> None:
        """Makes `queries_of` fast, once all pairs are there."""
        self._db.execute("CREATE INDEX IF NOT EXISTS by_item ON pair (item)")

    def queries_of(self, item: int, limit: int) -> list[str]:
        """The `limit` most frequent queries of one item, in the order of `item_queries`; after `index_items`."""
        rows = self._db.execute("SELECT query FROM pair WHERE item = ? ORDER BY n DESC, query LIMIT ?", (item, limit))
        return [query for (query,) in rows]

    def item_queries(self, limit: int) -> Iterator[tuple[int, list[str]]]:
        """Yields (item, its `limit` most frequent queries) of every item that was clicked or judged a positive, items
        ascending; judged queries come last.
        """
        current, queries = -1, list[str]()
        for item, query in self._db.execute("SELECT item, query FROM pair ORDER BY item, n DESC, query"):
            if item != current:
                if queries:
                    yield current, queries
                current, queries = item, []
            if len(queries) < limit:
                queries.append(query)
        if queries:
            yield current, queries
