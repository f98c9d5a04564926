"""The models that a service searches with: its own, and those that it is compared with (`Settings.compare`).

A compared model has an index of its own, or is the second set of vectors of a migration under way. It runs with its own
export and its own caches; the user's history is always read where the service writes it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from vespa.application import Vespa

from mrse_model.serving.exported_model import ExportedModel
from retrieval.backend import Deadline, Plan
from retrieval.embed_producer import EmbedProducer
from retrieval.history.users import items_by_id
from retrieval.results import read_hits, read_total
from retrieval.searcher import AsyncSearcher
from retrieval.service.settings import MAIN, Settings
from vespa_package.fields import DocumentType
from vespa_package.second_set import SUFFIX

KNOWN_SECONDS = 60.0  # a user who was here so lately is searched for while his events are read again
MAX_ITEMS = 100  # ids that one request looks up


@dataclass(frozen=True)
class Held:
    """items: of the index with this model's vectors. without: its items that have none. lacks: of the items asked for,
    those that are not among the former. problem: why nothing is known, "" where all is.
    """

    items: int = 0
    without: int = 0
    lacks: list[str] = field(default_factory=list)
    problem: str = ""


@dataclass(frozen=True)
class ServedModel:
    """searcher: over the index with the model's vectors. producer, fields: None where there is no application package.
    suffix: of the set of vectors in that index.
    """

    name: str
    searcher: AsyncSearcher
    producer: EmbedProducer | None
    fields: Mapping[str, str] | None
    suffix: str = ""

    @property
    def version(self) -> str:
        return self.producer.model_version if self.producer is not None else ""

    async def held(self, deadline: float, items: Sequence[str] = ()) -> Held:
        """What the index has of this model. deadline: seconds. Raises InputError, as a search."""
        return await self.searcher.backend.arun(self._held_plan(items, Deadline(deadline)))

    def _held_plan(self, items: Sequence[str], deadline: Deadline) -> Plan[Held]:
        ask, body = self.searcher.backend.ask, {"ranking": "unranked", "hits": 0}
        total = read_total((yield from ask(body | {"yql": "select item_id from item where true"}, deadline)))
        ours = "true"
        if self.version:
            ours, body = f"model_version{self.suffix} contains @model_version", body | {"model_version": self.version}
        held = read_total((yield from ask(body | {"yql": f"select item_id from item where {ours}"}, deadline)))
        if not items:
            return Held(held, total - held)
        condition, looked_up = items_by_id(items)
        body |= looked_up | {"yql": f"select item_id from item where {condition} and {ours}"}
        found = {hit.item_id for hit in read_hits((yield from ask(body, deadline)))}
        return Held(held, total - held, [item for item in items if item not in found])


def open_models(settings: Settings) -> dict[str, ServedModel]:
    """By name, the service's own first. Raises InputError for what cannot be loaded; asks no index."""
    load = cache(ExportedModel.load)  # models of one package share its graphs
    own = _open(settings, load, MAIN, settings.endpoint, settings.app, warm=settings.warm)
    compared = [
        _open(settings, load, one.name, one.endpoint or settings.endpoint, one.app or settings.app, one.next_models)
        for one in settings.compare
    ]
    return {model.name: model for model in (own, *compared)}


def _open(
    settings: Settings,
    load: Callable[[Path], ExportedModel],
    name: str,
    endpoint: str,
    app: str | None,
    next_models: str | None = None,
    warm: str | None = None,
) -> ServedModel:
    vespa = Vespa(endpoint.rstrip("/"), cert=settings.cert, key=settings.key)
    models = Path(next_models) if next_models else Path(app) / "models" if app else None
    producer = EmbedProducer(load(models), precomputed=warm) if models else None
    fields = DocumentType.load(Path(app)).fields if app else None
    suffix = SUFFIX if next_models else ""
    searcher = AsyncSearcher(
        vespa,
        producer=producer,
        suffix=suffix,
        profiles=settings.profiles,
        fields=fields,
        deadline=settings.deadline,
        language=settings.language,
        known_seconds=KNOWN_SECONDS,
    )
    return ServedModel(name, searcher, producer, fields, suffix)
