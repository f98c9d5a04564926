"""The vectors of a whole catalogue as shards, by processes here or on a Ray cluster: `mrse encode`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from feeders.item_queries import item_queries_for, write_item_queries
from feeders.shards.encode import Job, encode_groups, groups_of
from mrse_model.data.contract import ItemsFile
from mrse_model.serving.manifest import Manifest


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
    models, out, features = models.resolve(), out.resolve(), features.resolve() if features else None
    items, path, done = ItemsFile(file, title=title), None, 0
    groups = groups_of(items, out)
    queries = item_queries_for(Manifest.load(models), searches, judgments, warn)
    if queries is not None:
        out.mkdir(parents=True, exist_ok=True)
        path = write_item_queries(queries, items, out / "item_queries.json")
    job = Job(models, title, features, feature_column, path)

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
    return EncodedCatalogue(items.rows, len(groups), made)
