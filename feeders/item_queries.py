"""Item queries, from clicks and judgments: the item side's history (paper, H_i), counted on disk."""

from __future__ import annotations

import filecmp
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from mrse_model.data.contract import ItemsFile, SearchesFile, judged_positives
from mrse_model.data.search_log import SearchLog, SpamRule, query_key
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
