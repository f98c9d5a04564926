"""The vectors of a whole catalogue as shards, by processes here or on a Ray cluster: `mrse encode`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from feeders.image_features import ExtractedFeatures
from feeders.item_queries import item_queries_for, write_item_queries
from feeders.shards.encode import Job, encode_groups, groups_of, shards_in
from mrse_model.data.contract import ItemsFile
from mrse_model.data.ids import Ids
from mrse_model.serving.manifest import Manifest

BATCH = 4096


@dataclass(frozen=True)
class EncodedCatalogue:
    """made: how many of the shards were not there before."""

    items: int
    shards: int
    made: int


def encode_catalogue(
    file: Path | Sequence[Path],
    models: Path,
    out: Path,
    *,
    features: Path | None = None,
    feature_column: str = "feature",
    searches: Path | None = None,
    judgments: Path | None = None,
    title: str = "title",
    processes: int = 1,
    ray: str | None = None,
    progress: Callable[[int, int], object] = lambda rows, of: None,
    warn: Callable[[str], object] = print,
) -> EncodedCatalogue:
    """Makes the shards that are not in `out` yet, one a row group of the items.

    models: the exported model. searches, judgments: where item queries come from. processes: or workers of Ray. ray:
    the address of a cluster, or "local" to start one here. progress: is given how many items are done and of how many.
    Raises InputError, with the finished shards left in place: the same call makes the others.
    """
    models, out, manifest = models.resolve(), out.resolve(), Manifest.load(models)
    items, done = ItemsFile(file, title=title), 0
    groups = groups_of(items, out)
    out.mkdir(parents=True, exist_ok=True)
    job = Job(models, title)
    if (queries := item_queries_for(manifest, searches, judgments, warn)) is not None:
        job = replace(job, item_queries=write_item_queries(queries, items, out / "item_queries.parquet"))
    if features is not None:
        extracted = ExtractedFeatures(features.resolve(), manifest, column=feature_column)
        if without := extracted.join(items, _ids(items)):
            warn(f"{without:,} of {items.rows:,} items are not in {features}: they have no image")
        aligned = extracted.in_order_of(items, out / "features.parquet")
        job = replace(job, features=aligned, feature_column=feature_column)

    def advance(rows: int) -> None:
        nonlocal done
        done += rows
        progress(done, items.rows)

    if ray is None:
        made = encode_groups(groups, job, processes=processes, progress=advance)
    else:
        from feeders.shards.ray_job import encode_with_ray

        address = None if ray == "local" else ray
        made = encode_with_ray(groups, job, workers=processes, address=address, progress=advance)
    for old in {*shards_in(out)} - {group.shard for group in groups}:  # of a catalogue that had more row groups
        old.unlink()
    return EncodedCatalogue(items.rows, len(groups), made)


def _ids(items: ItemsFile) -> Ids:
    """The ids with their rows. Raises InputError for one that comes twice."""
    ids = Ids()
    for first, batch in items.table.batches(["item_id"], BATCH):
        rows = list(enumerate(items.table.texts(batch, "item_id", first), start=first))
        for row, item_id, before in ids.add(rows):
            raise items.table.error(f"{item_id!r} is also the id of row {before}", row=row, field="item_id")
    return ids
