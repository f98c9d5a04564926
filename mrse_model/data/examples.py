"""Training examples from searches, judgments and the catalogue (docs/contracts.md, "Training examples").

One folder: `train-00000.parquet`, … in time order (judged pairs and pseudo-queries have no time and come first, at 0),
`validation.parquet` (the searches after the split, each with its history), `item_queries.parquet` (each item's
queries before the split) and `summary.json`. It appears when it is complete, never half.

No user's history knows the future: it holds strictly earlier events of other searches and never the target. Item
queries and what is a known positive are counted over all that is before the split, later searches than the example's
included; the trainer leaves the example's own query out. Bots are found by the whole log.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from mrse_model.data.contract import Catalogue, Judgments, SearchesFile, descriptions, positive_grade
from mrse_model.data.example_files import (
    EXAMPLE_SCHEMA,
    ITEM_QUERIES_SCHEMA,
    JUDGED,
    KINDS,
    PSEUDO,
    VALIDATION_SCHEMA,
    ExampleSummary,
)
from mrse_model.data.history import Event, Histories
from mrse_model.data.pseudo_queries import DESCRIPTION, MAX_MIXED, pseudo_queries, share_of_pseudo, taught_share
from mrse_model.data.scripts import is_unspaced
from mrse_model.data.search_log import MAX_KNOWN, Progress, Search, SearchLog, SpamRule, query_key
from mrse_model.data.shards import ShardWriter
from mrse_model.errors import InputError

MAX_HARD = 64  # judged low grades of one query that are passed on; a seeded choice among more


@dataclass(frozen=True)
class ExampleSettings:
    """How examples are made.

    Args:
        history_length: most events in a history. item_queries: most queries of an item.
        validation_from: start of the validation searches, an ISO date or time (UTC) or seconds since 1970; wins over
        validation_fraction: this last share of the searches, by time, is for validation; 0 for none.
        positive_grade: judged at least this is a positive, judged below is hard; where no judgment is that high, the
        highest one takes its place.
        pseudo_queries: of each item; None for 4 where no query leads to an item, for 2 where few do, else 0
        (pseudo_queries.share_of_pseudo). taught: by a teacher, which has to encode them: None is then 2, always.
        shard_rows: rows of a shard, and what is held in memory of them.
    """

    history_length: int = 20
    item_queries: int = 8
    validation_from: str | int | None = None
    validation_fraction: float = 0.1
    positive_grade: int = 2
    pseudo_queries: int | None = None
    taught: bool = False
    spam: SpamRule = field(default_factory=SpamRule)
    shard_rows: int = 1 << 16
    seed: int = 7

    def validation_start(self) -> int | None:
        """`validation_from` in seconds since 1970."""
        if self.validation_from is None or isinstance(self.validation_from, int):
            return self.validation_from
        try:
            moment = datetime.fromisoformat(self.validation_from)
        except ValueError as error:
            raise InputError(
                f"{self.validation_from!r} is not a date",
                field="validation_from",
                fix="Write 2026-03-01 or 2026-03-01T12:00",
            ) from error
        return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())


def write_examples(
    folder: str | Path,
    catalogue: Catalogue,
    *,
    searches: SearchesFile | None = None,
    judgments: Judgments | None = None,
    settings: ExampleSettings | None = None,
    progress: Progress = lambda step, done, total: None,
) -> ExampleSummary:
    """Writes a folder of training examples; an older one of ours at that place is replaced.

    A click, cart and order of one item in one search are one example, of the strongest kind. Judged positives have
    neither user nor history. Memory: the texts of the catalogue, the judgments, a bounded history a user, one shard.

    Raises:
        InputError: bad input, nothing to learn from, or a folder that holds something else.
    """
    folder, settings = Path(folder), settings or ExampleSettings()
    if folder.exists() and any(folder.iterdir()) and not (folder / "summary.json").exists():
        raise InputError("the folder holds other files", file=folder, fix="Give a new or an empty folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        summary = _Writer(part, catalogue, judgments, settings, progress).write(searches)
        if not summary.rows:
            if searches is None and judgments is not None:
                fix = "Give each query its relevant items, with a grade of 1 or more, or train without --judgments"
                raise InputError("no judged item is relevant for its query", file=judgments.path, fix=fix)
            found = "; ".join(summary.lines()[1:])
            raise InputError(
                f"there is nothing to train on: no click and no positive judgment ({found})",
                file=searches.path if searches is not None else None,
                fix="Check why rows were left out: ids that are not in the catalogue, bots (users who click nearly "
                "all that is shown), or a split date before the whole log",
            )
        (part / "summary.json").write_text(json.dumps(asdict(summary), indent=1) + "\n")
        part.chmod(0o755)
        if folder.exists():
            shutil.rmtree(folder)
        part.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return summary


@dataclass(frozen=True)
class _Judged:
    positive: list[int]
    low: list[int]


class _Writer:
    """The state of one `write_examples`."""

    def __init__(
        self,
        folder: Path,
        catalogue: Catalogue,
        judgments: Judgments | None,
        settings: ExampleSettings,
        progress: Progress,
    ) -> None:
        self.folder, self.catalogue, self.settings, self.progress = folder, catalogue, settings, progress
        self.rng = np.random.default_rng(settings.seed)
        self.counts = [0] * len(KINDS)
        self.empty = self.validation = self.empty_validation = self.with_hard = self.with_queries = 0
        self.positive_grade: int | None = None
        self.judged: dict[str, _Judged] = {}
        self.spelling: dict[str, str] = {}  # query_key → the query as it was judged first
        if judgments is not None and len(judgments):
            self._read_judgments(judgments)

    def _read_judgments(self, judgments: Judgments) -> None:
        self.positive_grade = grade = positive_grade(int(judgments.grade.max()), self.settings.positive_grade)
        for query, items, grades in judgments.groups():
            key = query_key(query)
            self.spelling.setdefault(key, " ".join(query.split()))
            low = items[grades < grade]
            low = low if len(low) <= MAX_HARD else np.sort(self.rng.choice(low, MAX_HARD, replace=False))
            before = self.judged.get(key, _Judged([], []))  # "Red dress" and "red dress" are one query …
            positive = list(dict.fromkeys(before.positive + items[grades >= grade].tolist()))
            both = set(positive)  # … and where they disagree, the item is no hard negative
            self.judged[key] = _Judged(positive, [row for row in before.low + low.tolist() if row not in both])

    def write(self, searches: SearchesFile | None) -> ExampleSummary:
        with SearchLog(self.folder / "searches.sqlite") as log:
            if searches is not None:
                log.load(searches, self.catalogue.row, self.settings.spam, self.progress)
            split = self._split(log)
            log.count_pairs(until=split)
            log.add_judged((key, item) for key, judged in self.judged.items() for item in judged.positive)
            self._write_item_queries(log)
            with ShardWriter(self.folder, "train", EXAMPLE_SCHEMA, self.settings.shard_rows) as train:
                for row in self._judged_examples(log):
                    train.add(row)
                share = self._pseudo_share(log, searches is not None)
                for row in self._pseudo_examples(share):
                    train.add(row)
                self._write_searches(log, split, train)
        (self.folder / "searches.sqlite").unlink()
        clicks = sum(self.counts[:JUDGED])
        return ExampleSummary(
            examples=dict(zip(KINDS, self.counts, strict=True)),
            validation_searches=self.validation,
            empty_history_share=self.empty / clicks if clicks else None,
            empty_validation_share=self.empty_validation / self.validation if self.validation else None,
            split=split,
            dropped=dict(log.dropped),
            spam_users=log.spam_users,
            items_with_queries=self.with_queries,
            hard_share=self.with_hard / max(sum(self.counts), 1),
            positive_grade=self.positive_grade,
            pseudo_queries=DESCRIPTION if self.counts[PSEUDO] else None,
            pseudo_share=share if self.counts[PSEUDO] else 0.0,
            unspaced_titles=sum(map(is_unspaced, self.catalogue.titles)),
        )

    def _split(self, log: SearchLog) -> int | None:
        start = self.settings.validation_start()
        if start is None and self.settings.validation_fraction > 0:
            start = log.time_after(1 - self.settings.validation_fraction)
        return start if len(log) else None

    def _write_item_queries(self, log: SearchLog) -> None:
        with ShardWriter(self.folder, "item_queries", ITEM_QUERIES_SCHEMA, single=True) as out:
            for item, queries in log.item_queries(self.settings.item_queries):
                out.add({"item": item, "queries": queries})
                self.with_queries += 1

    def _masks(self, log: SearchLog, key: str) -> tuple[list[int], list[int]]:
        """Of a query: its judged low grades, and its positives by judgment or click that are not judged low."""
        judged = self.judged.get(key, _Judged([], []))
        low = set(judged.low)
        positives = dict.fromkeys((*judged.positive, *log.known_positives(key)))
        return judged.low, [row for row in positives if row not in low]

    def _example(self, query: str, item: int, kind: int, hard: list[int], known: list[int]) -> dict[str, object]:
        """An example without user, time and history."""
        self.counts[kind] += 1
        hard = _without(hard, item)
        self.with_hard += bool(hard)
        return {
            "query": query,
            "target_item": item,
            "kind": kind,
            "timestamp": 0,
            "user_id": "",
            "search_id": "",
            "history_items": [],
            "history_kind": [],
            "history_age": [],
            "hard": hard,
            "known": _without(known, item)[:MAX_KNOWN],
            "skipped": [],
        }

    def _judged_examples(self, log: SearchLog) -> Iterator[dict[str, object]]:
        for key, judged in self.judged.items():
            masks = self._masks(log, key)
            for item in judged.positive:
                yield self._example(self.spelling[key], item, JUDGED, *masks)

    def _pseudo_share(self, log: SearchLog, has_searches: bool) -> float:
        """The share of a batch in training that is to be pseudo-queries; 0 where there are searches or judgments, and
        not one of them leads to an item: that is an error in the input, which they would hide.
        """
        pairs = log.pairs()
        if not pairs and (has_searches or self.positive_grade is not None):
            return 0.0
        items = len(self.catalogue.ids)
        if self.settings.taught:
            return taught_share(pairs, min((self.settings.pseudo_queries or 2) * items, MAX_MIXED))
        return share_of_pseudo(pairs, items)

    def _pseudo_examples(self, share: float) -> Iterator[dict[str, object]]:
        """share: of a batch that will be pseudo-queries."""
        count, items = self.settings.pseudo_queries, len(self.catalogue.ids)
        if count is None:
            count = 4 if share == 1 and not self.settings.taught else 2 if share else 0
        if count == 0:
            return
        chosen = np.ones(items, bool)
        if share < 1 and count * items > MAX_MIXED:
            chosen = self.rng.random(items) < MAX_MIXED / (count * items)
        same_title: dict[str, list[int]] = {}  # a span of a title that two items share is of both
        for row, title in enumerate(self.catalogue.titles):
            same_title.setdefault(query_key(title), []).append(row)
        described = descriptions(self.catalogue.path)
        for row, (title, description) in enumerate(zip(self.catalogue.titles, described, strict=True)):
            if not chosen[row]:
                continue
            duplicates = same_title[query_key(title)]
            for query in pseudo_queries(title, self.catalogue.categories[row], count, self.rng, description):
                yield self._example(query, row, PSEUDO, [], duplicates)

    def _write_searches(self, log: SearchLog, split: int | None, train: ShardWriter) -> None:
        histories = Histories(self.settings.history_length)
        total = len(log)
        with ShardWriter(self.folder, "validation", VALIDATION_SCHEMA, single=True) as held_out:
            for done, search in enumerate(log.in_time_order()):
                if split is not None and search.time >= split:
                    held_out.add(self._validation_row(search, histories))
                else:
                    for row in self._search_examples(search, histories, log):
                        train.add(row)
                events = zip(search.items, search.kinds, strict=True)
                histories.add(search.user_id, [Event(search.time, i, k, search.search_id) for i, k in events])
                if done % 4096 == 0 or done + 1 == total:
                    self.progress("writing examples", done + 1, total)

    def _search_examples(self, search: Search, histories: Histories, log: SearchLog) -> Iterator[dict[str, object]]:
        masks = self._masks(log, query_key(search.query))
        for item, kind in zip(search.items, search.kinds, strict=True):
            history = self._history(histories, search, [item])
            self.empty += not history["history_items"]
            who = {"timestamp": search.time, "user_id": search.user_id, "search_id": search.search_id}
            yield self._example(search.query, item, kind, *masks) | who | history | {"skipped": search.skipped}

    def _validation_row(self, search: Search, histories: Histories) -> dict[str, object]:
        history = self._history(histories, search, search.items)
        self.validation += 1
        self.empty_validation += not history["history_items"]
        return {
            "query": search.query,
            "target_items": search.items,
            "kinds": search.kinds,
            "timestamp": search.time,
            "user_id": search.user_id,
            "search_id": search.search_id,
        } | history

    @staticmethod
    def _history(histories: Histories, search: Search, targets: list[int]) -> dict[str, object]:
        events = histories.before(search.user_id, search.time, search_id=search.search_id, targets=targets)
        return {
            "history_items": [e.item for e in events],
            "history_kind": [e.kind for e in events],
            "history_age": [float(search.time - e.time) for e in events],
        }


def _without(rows: list[int], item: int) -> list[int]:
    if item not in rows:
        return rows
    at = rows.index(item)
    return rows[:at] + rows[at + 1 :]
