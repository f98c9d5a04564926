"""From the result of a search to Vespa's JSON: hits with their summary, groups, coverage."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import partial
from typing import Any

import numpy as np

from .. import grouping
from ..application import Application
from ..documents.values import decode, is_undefined, json_value
from ..errors import ILLEGAL_QUERY, INVALID_PARAMETER, QueryError, unsupported
from ..index.attributes import MultiColumn, NumberColumn, StringColumn
from ..index.table import Table
from ..package.schema import INTEGERS
from ..search.executor import Hit, Part, SearchResult, feature_values
from ..search.plan import Plan
from ..store import Row, Store
from ..tensors import Tensor


def root_json(total: int, errors: Iterable[QueryError]) -> dict[str, Any]:
    """The root of an answer without hits."""
    root: dict[str, Any] = {"id": "toplevel", "relevance": 1.0, "fields": {"totalCount": total}}
    if listed := [e.json() for e in errors]:
        root["errors"] = listed
    return {"root": root}


def render(store: Store, application: Application, plan: Plan, result: SearchResult) -> tuple[dict[str, Any], bool]:
    """The JSON of a result, and whether it has something to show in spite of its errors. Reads columns for groups and
    summary features: the engine's lock must be held where there are any."""
    renderer = HitRenderer(store, application, plan)
    errors = list(result.errors)
    unknown = not any(renderer.knows(p.schema) for p in result.parts)
    if unknown:
        errors.append(QueryError(INVALID_PARAMETER, f"Summary '{plan.presentation.summary}' does not exist"))
    parts = {p.schema: p for p in result.parts}
    renderer.fetch([parts[h.schema].table.ids[h.row] for h in result.hits])
    shown = [renderer.hit(h, parts[h.schema]) for h in result.hits]
    root = root_json(result.total, errors)["root"]
    listed = root.pop("errors", None)
    asked = len(plan.types) + len(plan.refusals)
    root["coverage"] = _coverage(result, asked)
    if listed:
        root["errors"] = listed
    groups = _groups(plan, result, renderer, application)
    if shown or groups:
        # Groups stand after sorted hits; otherwise where their relevance of 1 puts them (HitSortOrderer, Hit.java).
        before = len(shown) if plan.sorting else sum(hit["relevance"] >= 1 for hit in shown)
        root["children"] = shown[:before] + groups + shown[before:]
    return {"root": root}, bool((shown or groups) and not unknown)


class HitRenderer:
    """Makes the JSON of hits."""

    def __init__(self, store: Store, application: Application, plan: Plan) -> None:
        self.store, self.application = store, application
        self.summary, self.tensors = plan.presentation.summary, plan.presentation.tensors
        self.chosen = plan.presentation.fields
        self._rows: dict[str, Row] = {}
        self._known: dict[tuple[str, str], dict[str, str]] = {}

    def fetch(self, ids: list[str]) -> None:
        """Reads the documents of hits that are about to be rendered, in one go."""
        self._rows = self.store.get_all(ids)

    def knows(self, schema: str, summary: str | None = None) -> bool:
        """Whether a type has the summary class."""
        return (summary or self.summary) in ("default", *self.application.schemas[schema].summaries)

    def hit(self, hit: Hit, part: Part, summary: str | None = None) -> dict[str, Any]:
        """One hit. Of a summary class that its type lacks only the id, relevance and source."""
        summary = summary or self.summary
        id = part.table.ids[hit.row]
        fields: dict[str, Any] = {}
        if hit.features is not None:
            fields["matchfeatures"] = self._features(hit.features)
        known = self.knows(hit.schema, summary)
        if known:
            plain = self._summary(hit.schema, id, summary)
            if part.profile.summary_features:
                features = feature_values(part.context, np.array([hit.row]), part.profile.summary_features)[0]
                plain["summaryfeatures"] = self._features(features) | {"vespa.summaryFeatures.cached": 0.0}
            fields |= {k: v for k, v in plain.items() if k in self.chosen} if self.chosen else plain
        cluster = self.application.cluster
        shown: dict[str, Any] = {
            "id": id if "documentid" in fields else _hit_id(cluster, id),
            "relevance": hit.relevance,
            "source": cluster,
        }
        return shown | {"fields": fields} if known else shown

    def group_hit(self, part: Part, position: int, summary: str | None) -> dict[str, Any]:
        """A hit in a group's list, by its position among the matches."""
        hit = Hit(part.schema, int(part.rows[position]), float(part.relevance[position]))
        return self.hit(hit, part, summary)

    def _features(self, features: dict[str, Any]) -> dict[str, Any]:
        return {k: json_value(v, self.tensors) if isinstance(v, Tensor) else v for k, v in sorted(features.items())}

    def _sources(self, schema: str, summary: str) -> dict[str, str]:
        """The fields of a summary class that are asked for, each with the field of the document that it shows."""
        found = self._known.get((schema, summary))
        if found is None:
            kind = self.application.schemas[schema]
            if summary == "default":
                found = {"documentid": "documentid"} | {n: n for n, f in kind.fields.items() if f.summary}
            else:
                found = kind.summaries[summary]
            if self.chosen:
                found = {name: source for name, source in found.items() if name in self.chosen}
            self._known[schema, summary] = found
        return found

    def _summary(self, schema: str, id: str, summary: str) -> dict[str, Any]:
        """The fields of a summary class of a document as it is stored now."""
        row = self._rows.get(id) or self.store.get(id)
        if row is None:
            return {}
        kind, sources = self.application.schemas[schema], self._sources(schema, summary)
        fields = decode(kind, row[2], row[3], set(sources.values()))
        shown: dict[str, Any] = {"sddocname": schema}
        for name, source in sources.items():
            if source == "documentid":
                shown[name] = id
                continue
            field, value = kind.fields.get(source), fields.get(source)
            if field is None:
                continue
            if field.attribute and field.type.scalar == "bool" and not field.type.collection and value is None:
                value = False
            # Vespa's renderer leaves out texts that are empty, a content node attributes that are undefined and
            # collections without elements; a bool is never undefined.
            empty = value is None or (isinstance(value, (str, list, dict)) and not value)
            if not empty and not (field.attribute and is_undefined(field, value)):
                shown[name] = json_value(value, self.tensors)
        return shown


def _coverage(result: SearchResult, asked: int) -> dict[str, Any]:
    """How many of the documents were examined; `asked` is how many types the query searches."""
    active, covered = (sum(p.table.count for p in result.parts), sum(p.covered for p in result.parts))
    full = covered == active
    coverage: dict[str, Any] = {"coverage": 100 if full else min(99, round(100 * covered / active))}
    coverage["documents"] = covered
    if not full:
        reasons = ("match-phase", "timeout", "adaptive-timeout", "anntimeout", "non-ideal-state")
        coverage["degraded"] = {reason: reason == "timeout" for reason in reasons}
    complete = asked - sum(p.covered < p.table.count for p in result.parts)
    return {**coverage, "full": full, "nodes": len(result.parts), "results": asked, "resultsFull": complete}


def _groups(plan: Plan, result: SearchResult, renderer: HitRenderer, application: Application) -> list[dict[str, Any]]:
    """The result of each grouping."""
    found = []
    for number, request in enumerate(plan.grouping):
        if len(result.parts) != 1:
            raise QueryError(ILLEGAL_QUERY, unsupported("grouping over more than one document type"))
        part = result.parts[0]
        for name in request.attributes():
            if name not in part.table.columns:
                raise QueryError(
                    ILLEGAL_QUERY, f"Grouping request references unknown attribute '{name}'", application.cluster
                )
        source = grouping.GroupingSource(
            len(part.rows), partial(_column, part.table, part.rows), part.relevance, partial(renderer.group_hit, part)
        )
        try:
            found.append(grouping.execute(request, source, number=number, limits=plan.limits))
        except grouping.GroupingError as e:
            raise QueryError(INVALID_PARAMETER, str(e), application.cluster) from e
    return found


def _column(table: Table, rows: np.ndarray, name: str) -> grouping.Column:
    column = table.columns[name]
    scalar = table.schema.fields[name].type.scalar
    kind = {"string": "string", "bool": "bool", "float": "float", "double": "float"}.get(scalar, "int")
    if isinstance(column, NumberColumn):
        unset: Any = np.nan if kind == "float" else -(1 << (INTEGERS.get(scalar, 1) - 1))
        present = column.present[rows].tolist()
        values = [v if p else unset for v, p in zip(column.values[rows].tolist(), present, strict=True)]
        return grouping.Column(kind, [bool(v) for v in values] if kind == "bool" else values)
    if isinstance(column, StringColumn):
        return grouping.Column(kind, column.strings(rows))
    if isinstance(column, MultiColumn):
        return grouping.Column(kind, [list(column.rows[row]) for row in rows], multi=True)
    raise grouping.GroupingError(unsupported(f"grouping by the tensor '{name}'"))


def _hit_id(cluster: str, id: str) -> str:
    """`index:<cluster>/0/<global id>`: the id of a hit whose summary has no document id. The global id is 12 bytes:
    where the document is (MD5 of what is specific in its id, or its number), then MD5 of the whole id."""
    specific = id.split(":", 4)[4]
    location = hashlib.md5(specific.encode(), usedforsecurity=False).digest()[:4]
    return f"index:{cluster}/0/{(location + hashlib.md5(id.encode(), usedforsecurity=False).digest()[4:12]).hex()}"
