"""What a study reads: the files are checked before anything is trained, and subsets of them are made."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console

from mrse_model.data.sample import write_sample
from mrse_model.data.search_log import query_key
from mrse_model.data.table import Table
from mrse_model.errors import InputError
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


def check(study: Study, data: Data, sample: Path, console: Console) -> Data:
    """The data that the study runs on: the given one, or the sample in `sample` where a log has no carts and orders.

    Raises InputError for a file that the study needs and that is not given.
    """
    if "judgments" in study.needs and data.judgments is None and data.searches is None:
        problem = f"the study {study.name!r} has nothing to learn from"
        raise InputError(problem, field="--judgments", fix=FIX["judgments"])
    if "searches" in study.needs and data.searches is None:
        raise InputError(f"the study {study.name!r} needs a search log", field="--searches", fix=FIX["searches"])
    if "carts or orders" in study.needs and not _has_carts(data.searches):
        console.print(f"{data.searches} has neither carts nor orders: the study runs on the generated sample")
        return sample_data(sample)
    return data


def _has_carts(searches: Path | None) -> bool:
    if searches is None:
        return False
    for name in {"carted", "ordered"} & set(Table(searches).schema.names):
        for _, batch in Table(searches).batches([name], 1 << 16):
            if any(batch.column(0).to_pylist()):
                return True
    return False


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
        table = pq.read_table(source)
        chosen = {q: q is not None and _place(q) < share for q in set(table["query"].to_pylist())}
        part = folder / f"{name}.part"
        pq.write_table(table.filter(pa.array([chosen[q] for q in table["query"].to_pylist()])), part)
        part.rename(folder / f"{name}.parquet")
    return Data(data.items, data.validation, kept["searches"], kept["judgments"], data.features, data.title)


def _place(query: str) -> float:
    """A query's place in [0, 1), the same for all its spellings."""
    digest = hashlib.sha256(query_key(query).encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
