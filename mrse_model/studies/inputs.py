"""What a study reads: the files are checked before anything is trained, and subsets of them are made."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console

from mrse_model.atomic_file import atomic_file
from mrse_model.data.contract import SearchesFile
from mrse_model.data.examples import ExampleSettings
from mrse_model.data.search_log import query_key
from mrse_model.data.table import Table
from mrse_model.errors import InputError
from mrse_model.sample.catalogue import write_sample
from mrse_model.studies.study import Data, Study

FIX = {
    "searches": "Give --searches, or leave --items out to run it on the generated sample",
    "judgments": "Give --judgments to learn from, or --searches; or leave --items out to run on the generated sample",
}


def sample_data(folder: Path, items: int = 2400) -> Data:
    """The generated sample in `folder`, written if it is not there."""
    if not (folder / "judgments_val.parquet").exists():
        write_sample(folder, items=items)
    return Data(
        folder / "items.parquet", folder / "judgments_val.parquet", folder / "searches.parquet",
        folder / "judgments.parquet",
    )  # fmt: skip


def given_data(
    sample: Path,
    items: Path | None,
    validation: Path | None,
    searches: Path | None = None,
    judgments: Path | None = None,
    features: Path | None = None,
    *,
    title: str = Data.title,
    feature_column: str = Data.feature_column,
    encoder: str = Data.encoder,
) -> Data:
    """The given files, or, without items, the generated sample, written into `sample` if it is not there.

    Raises InputError for files beside no items, and for items without judgments to measure on.
    """
    if items is None:
        given = {"searches": searches, "judgments": judgments, "validation-judgments": validation, "features": features}
        for option, path in given.items():
            if path is not None:
                raise InputError(f"--{option} needs a catalogue of your own", field=f"--{option}", fix="Give --items")
        return replace(sample_data(sample), encoder=encoder)
    if validation is None:
        fix = "Give judgments of queries that are not learnt from, or leave --items out for the generated sample"
        raise InputError("the study has no queries to measure on", field="--validation-judgments", fix=fix)
    return Data(items, validation, searches, judgments, features, title, feature_column, encoder)


def check(study: Study, data: Data, sample: Path, console: Console) -> Data:
    """The data that the study runs on: the given one, or the sample in `sample` where a log has no carts and orders.

    Raises InputError for a file that the study needs and that is not given, or that lacks what the study asks about.
    """
    if "judgments" in study.needs and data.judgments is None and data.searches is None:
        problem = f"the study {study.name!r} has nothing to learn from"
        raise InputError(problem, field="--judgments", fix=FIX["judgments"])
    if "searches" in study.needs and data.searches is None:
        raise InputError(f"the study {study.name!r} needs a search log", field="--searches", fix=FIX["searches"])
    if "carts or orders" in study.needs and not _has_carts(data.searches):
        console.print(f"{data.searches} has neither carts nor orders: the study runs on the generated sample")
        return replace(sample_data(sample), encoder=data.encoder)
    if "returning users" in study.needs and data.searches is not None and not _has_returning_users(data.searches):
        raise InputError(
            f"the study {study.name!r} needs users who click before the split and search after it; this log has none",
            file=data.searches, field="user_id", fix=FIX["searches"],
        )  # fmt: skip
    return data


def _has_carts(searches: Path | None) -> bool:
    if searches is None:
        return False
    for name in {"carted", "ordered"} & set(Table(searches).schema.names):
        for _, batch in Table(searches).batches([name], 1 << 16):
            if any(batch.column(0).to_pylist()):
                return True
    return False


def _has_returning_users(searches: Path) -> bool:
    """Whether a search that will be for validation, by its time, has a click and a user who clicked earlier."""
    first: dict[str, int] = {}  # user → time of the first click
    last: dict[str, int] = {}
    times = [np.zeros(0, np.int64)]
    for batch in SearchesFile(searches).batches():
        clicks = zip(batch.clicked, batch.carted, batch.ordered, strict=True)
        rows = [row for row, items in enumerate(clicks) if any(items)]
        times.append(batch.timestamps[rows])
        for user, time in zip((batch.user_ids[row] for row in rows), times[-1].tolist(), strict=True):
            if user:
                first[user] = min(time, first.get(user, time))
                last[user] = max(time, last.get(user, time))
    if not first:
        return False
    split = np.quantile(np.concatenate(times), 1 - ExampleSettings.validation_fraction)
    return any(time >= split and time > first[user] for user, time in last.items())


def some_queries(data: Data, share: float, folder: Path) -> Data:
    """The data with that share of the distinct queries, by a hash of the query: 0.1's are among 0.3's.

    The smaller files are written to `folder`; the items and what is measured on stay.
    """
    if share >= 1:
        return data
    folder.mkdir(parents=True, exist_ok=True)
    kept: dict[str, Path | None] = {}
    for name in ("searches", "judgments"):
        source: Path | None = getattr(data, name)
        kept[name] = folder / f"{name}.parquet" if source else None
        if source is None or (folder / f"{name}.parquet").exists():
            continue
        table = Table(source)  # a folder of parts, too, whose types may differ where they read alike
        with atomic_file(folder / f"{name}.parquet") as part, pq.ParquetWriter(part, table.schema) as out:
            for _, batch in table.batches(table.schema.names, 1 << 16):
                chosen = pa.array([_chosen(q, share) for q in batch["query"].to_pylist()])
                rows = pa.Table.from_batches([batch.filter(chosen)]).select(table.schema.names)
                out.write_table(rows.cast(table.schema))
    return replace(data, searches=kept["searches"], judgments=kept["judgments"])


def _chosen(query: str | None, share: float) -> bool:
    """By a query's number in [0, 1), the same for all its spellings. A null is of no query."""
    digest = hashlib.sha256(query_key(query or "").encode()).digest()
    return query is not None and int.from_bytes(digest[:8], "big") / 2**64 < share
