"""Item queries, from clicks and judgments: the item side's history (paper, H_i), counted on disk; and the items'
popularity, which is by the same clicks where the catalogue has no column of its own.
"""

from __future__ import annotations

import filecmp
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mrse_model.data.contract import POPULARITY, ItemsFile, SearchesFile, judged_positives
from mrse_model.data.search_log import CART, CLICK, ORDER, SearchLog, SpamRule, popularity_of, query_key
from mrse_model.serving.manifest import Manifest


def item_queries_for(
    manifest: Manifest, searches: str | Path | None, judgments: str | Path | None, warn: Callable[[str], object]
) -> ItemQueries | None:
    """The look-up for this model, None without either file. Warns of what the model was trained with and is not given:
    the items then get the vectors of new ones, which rank worse (docs/quality.md).
    """
    seen = manifest.training.get("examples", {})
    clicks, judged = sum(seen.get(kind, 0) for kind in manifest.event_weights), seen.get("judged", 0)
    for option, file, count, what in (
        ("--searches", searches, clicks, "clicks"),
        ("--judgments", judgments, judged, "judgments"),
    ):
        if count and not file:
            warn(
                f"without {option}: the model was trained with {count:,} {what}, and finds items better that have them"
            )
    return ItemQueries(manifest, searches, judgments) if searches or judgments else None


def write_item_queries(queries: ItemQueries, items: ItemsFile, file: Path) -> Path:
    """Writes the queries of these items, a row an item in their order, for the processes that encode shards; leaves a
    file that says the same untouched.
    """
    schema = pa.schema([("item_id", pa.string()), ("queries", pa.list_(pa.string()))])
    new = file.with_suffix(".new")
    with pq.ParquetWriter(new, schema) as out:
        for batch in items.batches():
            out.write_table(pa.table([batch.ids, queries.queries(batch.ids)], schema=schema))
    if file.is_file() and filecmp.cmp(new, file, shallow=False):
        new.unlink()
    else:
        new.replace(file)
    return file


class ItemQueries:
    """Look-up of the most frequent queries of an item, counted as in training (mrse_model/data/search_log.py): bots
    are left out, a search in which it was clicked counts once, judged queries come after clicked ones.
    """

    def __init__(
        self, manifest: Manifest, searches: str | Path | None = None, judgments: str | Path | None = None
    ) -> None:
        self._limit, self._rows, self._log = manifest.item_history_queries, _Numbers(), SearchLog("")
        self._weights, self.has_clicks = manifest.event_weights, searches is not None
        if searches:
            self._log.load(SearchesFile(searches), self._rows, SpamRule(), lambda *_: None)
            self._log.count_pairs(until=None)
        grade = int(manifest.training.get("positive_grade") or 2)  # as in training
        for pairs in judged_positives(judgments, grade) if judgments else ():
            keys = ((query_key(query), self._rows[item]) for query, item in pairs)
            self._log.add_judged((key, row) for key, row in keys if key)
        self._log.index_items()

    def queries(self, item_ids: Sequence[str]) -> list[list[str]]:
        """For each item its queries, the most frequent first, as many as the model takes."""
        rows = self._rows
        return [self._log.queries_of(rows[item], self._limit) if item in rows else [] for item in item_ids]

    @property
    def events(self) -> int:
        """How many clicks, carts and orders the log has, an item in a search counted once."""
        return self._log.events.total()

    def popularity(self, item_ids: Sequence[str]) -> list[float]:
        """For each item the weight of its events in the whole log, as training counts those before its split."""
        events, rows, kinds = self._log.events, self._rows, (CLICK, CART, ORDER)
        counts = [[events[rows[item], kind] for kind in kinds] if item in rows else [0, 0, 0] for item in item_ids]
        return popularity_of(np.array(counts).reshape(-1, 3), self._weights).tolist()


def counted_by(
    manifests: Sequence[Manifest], items: ItemsFile, fields: Collection[str], log: ItemQueries | None
) -> ItemQueries | None:
    """What counts the items' popularity, None where it is not counted: no model learnt from clicks, the catalogue has a
    column of its own, the schema has no field for it, or no search log is given.
    """
    learnt = any(manifest.popularity == "clicks" for manifest in manifests)
    if not learnt or POPULARITY in items.extra_columns or POPULARITY not in fields or log is None or not log.has_clicks:
        return None
    return log


def missing_popularity(
    manifest: Manifest, items: ItemsFile, fed: Collection[str], counted: ItemQueries | None
) -> str | None:
    """A line that says which popularity the model's hybrid adds to its scores and the feed does not write, or not in
    the unit that training knew; None where all is well. fed: the columns that are.
    """
    learnt = manifest.popularity
    if counted is not None and learnt == "clicks":
        seen = manifest.training.get("examples", {})
        before = sum(seen.get(kind, 0) for kind in manifest.event_weights)
        times = counted.events / before if before else 1.0
        if 0.5 <= times <= 2:
            return None
        much = "more" if times > 1 else "less"
        return (
            f"the search log has {times:.1f} times the events that training counted: popularity counts for {much} in "
            "hybrid_linear than it was measured to. Give a log about as long as training's"
        )
    if learnt is None or (learnt == "column" and POPULARITY in fed):
        return None
    if learnt == "clicks" and POPULARITY in items.extra_columns:
        what = "is fed" if POPULARITY in fed else "is left out, and takes the place of clicks"
        return (
            f"the items' column {POPULARITY} {what}, and the model learnt from clicks how much popularity counts in "
            "hybrid_linear. Train again with the column, or drop it and give --searches"
        )
    what, how = ("clicks", "--searches") if learnt == "clicks" else (f"column {POPULARITY}", f"the column {POPULARITY}")
    return (
        f"the items' popularity is not fed: hybrid_linear ranks popular items higher, by their {what} (give {how}). "
        "Without it, what the index has stays, and new items count as not popular"
    )


class _Numbers(Mapping[str, int]):
    """A number for each item that is asked for: what a log names need not be in the catalogue that is fed."""

    def __init__(self) -> None:
        self._number: dict[str, int] = {}

    def __getitem__(self, item_id: str) -> int:
        return self._number.setdefault(item_id, len(self._number))

    def __contains__(self, item_id: object) -> bool:
        return item_id in self._number

    def __iter__(self) -> Iterator[str]:
        return iter(self._number)

    def __len__(self) -> int:
        return len(self._number)
