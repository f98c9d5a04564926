"""What a folder of training examples holds: the schemas of its files and its summary (docs/contracts.md)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mrse_model.atomic_file import atomic_file
from mrse_model.config import EVENTS
from mrse_model.data.search_log import query_key
from mrse_model.errors import InputError

KINDS = (*EVENTS, "judged", "pseudo-query")
JUDGED, PSEUDO = 3, 4
DEV_QUERIES = "dev_queries.json"
FORMAT = 2  # of the folder, in its summary: 1 named the targets item and items

ITEMS, AGES = pa.list_(pa.int32()), pa.list_(pa.float32())
HISTORY = {"history_items": ITEMS, "history_kind": pa.list_(pa.int8()), "history_age": AGES}
EXAMPLE_SCHEMA = pa.schema(
    {"query": pa.string(), "target_item": pa.int32(), "kind": pa.int8(), "timestamp": pa.int64()}
    | {"user_id": pa.string(), "search_id": pa.string()}
    | HISTORY
    | {"hard": ITEMS, "known": ITEMS, "skipped": ITEMS}
)
VALIDATION_SCHEMA = pa.schema(
    {"query": pa.string(), "target_items": ITEMS, "kinds": pa.list_(pa.int8()), "timestamp": pa.int64()}
    | {"user_id": pa.string(), "search_id": pa.string()}
    | HISTORY
)
ITEM_QUERIES_SCHEMA = pa.schema({"item": pa.int32(), "queries": pa.list_(pa.string())})


@dataclass(frozen=True)
class ExampleSummary:
    """What `write_examples` wrote and what it left out."""

    examples: dict[str, int]  # by the name of the kind
    validation_searches: int
    empty_history_share: float | None  # of the examples from clicks, carts and orders; None where there are none
    empty_validation_share: float | None
    split: int | None  # seconds since 1970; validation is from here on
    dropped: dict[str, int]  # reason → searches (or events, where the reason says so)
    spam_users: int
    items_with_queries: int
    hard_share: float  # of all examples, those with a judged hard negative
    positive_grade: int | None
    pseudo_queries: str | None  # what they are made of, where there are any
    pseudo_share: float = 0.0  # of a batch in training
    unspaced_titles: int = 0  # in a script without spaces between words
    format: int = FORMAT

    @property
    def rows(self) -> int:
        """Number of training examples."""
        return sum(self.examples.values())

    def lines(self) -> list[str]:
        """The summary as lines to print."""
        counts = ", ".join(f"{n:,} {name}" for name, n in self.examples.items() if n)
        lines = [
            f"{self.rows:,} training examples: {counts or 'none'}; {self.hard_share:.0%} with a judged hard negative"
        ]
        if self.pseudo_queries:
            mixed = 0 < self.pseudo_share < 1
            made = f"{self.pseudo_share:.0%} of each batch are" if mixed else "no searches: the queries are"
            lines.append(f"{made} {self.pseudo_queries}; they do not show how users ask")
        if self.unspaced_titles:
            lines.append(
                f"warning: {self.unspaced_titles:,} titles are in a script without spaces between words: queries made "
                "of them are spans of characters, and BM25 takes each for one word (docs/your-data.md)"
            )
        if self.split is not None:
            start = datetime.fromtimestamp(self.split, UTC).isoformat(" ", "minutes")
            lines.append(f"{self.validation_searches:,} validation searches from {start} on")
        if self.empty_history_share is not None:
            lines.append(f"history is empty for {self.empty_history_share:.0%} of the examples from clicks")
        if self.spam_users:
            lines.append(f"{self.spam_users:,} spam users removed")
        lines += [f"left out: {n:,} × {reason}" for reason, n in self.dropped.items() if n]
        return lines

    @staticmethod
    def load(folder: str | Path) -> ExampleSummary:
        """Reads the summary of a folder of examples. Raises InputError for another folder, and for another format."""
        path, fix = Path(folder) / "summary.json", "Run mrse train in a new folder"
        try:
            raw = json.loads(path.read_text())
            found = raw.get("format", 1)
            summary = ExampleSummary(**raw)
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise InputError("this is not a folder of training examples", file=folder, fix=fix) from error
        if found != FORMAT:
            problem = f"another version wrote these training examples (format {found} instead of {FORMAT})"
            raise InputError(problem, file=folder, fix=fix)
        return summary


def item_queries(folder: str | Path, items: int) -> list[list[str]]:
    """The item queries of each of the `items` items before the split, most frequent first; [] for none."""
    queries: list[list[str]] = [[] for _ in range(items)]
    for row in pq.read_table(Path(folder) / "item_queries.parquet").to_pylist():
        queries[row["item"]] = row["queries"]
    return queries


def queries_in_training(folder: str | Path) -> dict[str, set[str]]:
    """The queries (`query_key`) of a folder's training examples, by what they were learnt from: judgments, clicks (and
    what follows them), or texts, of which pseudo-queries are spans.
    """
    found: dict[str, set[str]] = {"judgments": set(), "clicks": set(), "texts": set()}
    for shard in sorted(Path(folder).glob("train-*.parquet")):
        for batch in pq.ParquetFile(shard).iter_batches(8192, columns=["query", "kind"]):
            kind = batch["kind"]
            rows = (pc.equal(kind, JUDGED), pc.less(kind, JUDGED), pc.equal(kind, PSEUDO))
            for learnt, chosen in zip(found.values(), rows, strict=True):
                learnt.update(map(query_key, batch.filter(chosen)["query"].to_pylist()))
    return found


def save_dev_queries(examples: Path, queries: Sequence[str]) -> None:
    """Writes which queries a run holds out of training, beside its examples."""
    with atomic_file(examples.parent / DEV_QUERIES) as part:
        part.write_text(json.dumps(list(queries), ensure_ascii=False) + "\n", "utf-8")


def dev_queries(examples: Path) -> list[str]:
    """The queries that a run held out of training; none where an older version trained it."""
    path = examples.parent / DEV_QUERIES
    return list(json.loads(path.read_text("utf-8"))) if path.is_file() else []


@dataclass(frozen=True)
class Pairs:
    """Distinct queries, and the rows of their positives and of their judged near misses."""

    queries: list[str]
    positives: list[np.ndarray]
    negatives: list[np.ndarray]


def has_real_queries(examples: Path) -> bool:
    """Whether a run's training examples are of any query but pseudo-queries."""
    shards = (pq.read_table(shard, columns=["kind"])["kind"] for shard in sorted(examples.glob("train-*.parquet")))
    return any(pc.any(pc.not_equal(kinds, PSEUDO)).as_py() for kinds in shards)


def training_pairs(examples: Path) -> Pairs:
    """The pairs of a run's training examples (RUN/cache/examples), clicked and judged, or those of pseudo-queries where
    there are no others: each pair once, each query as it is spelt first.
    """
    real = has_real_queries(examples)
    spelling: dict[str, str] = {}
    positives: dict[str, set[int]] = {}
    negatives: dict[str, set[int]] = {}
    for shard in sorted(examples.glob("train-*.parquet")):
        for batch in pq.ParquetFile(shard).iter_batches(8192, columns=["query", "target_item", "hard", "kind"]):
            if real:
                batch = batch.filter(pc.not_equal(batch["kind"], PSEUDO))
            columns = (batch.column(name).to_pylist() for name in ("query", "target_item", "hard"))
            for query, item, hard in zip(*columns, strict=True):
                key = query_key(query)
                spelling.setdefault(key, query)
                positives.setdefault(key, set()).add(item)
                negatives.setdefault(key, set()).update(hard)
    if not positives:
        raise InputError("no training examples", file=examples, fix="Run: mrse train")
    near = ([*(rows - positives[key])] for key, rows in negatives.items())
    return Pairs(
        list(spelling.values()),
        [np.array(sorted(rows), np.int32) for rows in positives.values()],
        [np.array(sorted(rows), np.int32) for rows in near],
    )
