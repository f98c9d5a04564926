"""What Prometheus reads at `/metrics`: requests, latency by stage, caches, fallbacks, coverage."""

from __future__ import annotations

import os

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, multiprocess

from retrieval.results import SearchResult
from retrieval.service.settings import MULTIPROCESS

BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


class Metrics:
    """Of one worker. Labels have few values: never a query, a user or an item."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.requests = Counter("mrse_requests", "Requests", ["route", "status"], registry=registry)
        self.seconds = Histogram("mrse_request_seconds", "Latency", ["route"], buckets=BUCKETS, registry=registry)
        self.stage = Histogram(
            "mrse_stage_seconds", "Latency of a search by stage", ["stage", "model"], buckets=BUCKETS, registry=registry
        )
        self.fallbacks = Counter("mrse_fallbacks", "Steps that were gone without", ["step", "model"], registry=registry)
        self.errors = Counter("mrse_errors", "Errors by kind", ["kind", "model"], registry=registry)
        self.degraded = Counter(
            "mrse_degraded_answers", "Answers from a part of the documents", ["model"], registry=registry
        )
        self.empty = Counter("mrse_empty_answers", "Searches without a hit", ["model"], registry=registry)
        self.events = Counter("mrse_events", "Events", ["kind", "recorded"], registry=registry)
        self.in_flight = Gauge("mrse_in_flight", "Requests under way", registry=registry, multiprocess_mode="livesum")
        self.vectors = Counter("mrse_query_vectors", "Query vectors by source", ["source", "model"], registry=registry)
        self.items = Counter(
            "mrse_item_vectors", "Look-ups of clicked items' vectors", ["found", "model"], registry=registry
        )
        self._seen: dict[tuple[str, str], int] = {}

    def searched(self, result: SearchResult, model: str) -> None:
        for stage, seconds in result.stages.items():
            self.stage.labels(stage, model).observe(seconds)
        for fallback in result.fallbacks:
            self.fallbacks.labels(fallback.step, model).inc()
        if not result.coverage.full:
            self.degraded.labels(model).inc()
        if not result.total:
            self.empty.labels(model).inc()

    def caches(self, model: str, vectors: dict[str, int], items: dict[str, int]) -> None:
        """Totals of a model's caches so far → counters."""
        for counter, totals in ((self.vectors, vectors), (self.items, items)):
            for name, total in totals.items():
                before = self._seen.get((name, model), 0)
                counter.labels(name, model).inc(max(total - before, 0))
                self._seen[name, model] = total

    def text(self) -> bytes:
        """The exposition format; of all workers where there are several."""
        if MULTIPROCESS in os.environ:
            registry = CollectorRegistry()
            multiprocess.MultiProcessCollector(registry)
            return generate_latest(registry)
        return generate_latest(self.registry)
