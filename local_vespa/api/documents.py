"""/document/v1: put, update, remove, get and visit."""

from __future__ import annotations

import asyncio
import base64
import time
import zlib
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import orjson

from ..documents.operations import Operation, read_put, read_selection, read_update
from ..documents.values import Fields, check_id, document_json
from ..engine import Engine
from ..errors import DocumentError, unsupported
from ..http import Request, Response, json_response
from ..package.schema import Schema
from ..search.parameters import DURATION

ROOT = "/document/v1/"
SCAN_SECONDS = 5.0  # after this a visit answers with what it has and a continuation
_COMMON = {"timeout", "route", "tracelevel", "format.tensors", "tensorShortForm", "tensorDirectValues"}
_WRITE = _COMMON | {"condition", "create", "dryRun"}
_VISIT = _COMMON | {
    "cluster", "selection", "continuation", "wantedDocumentCount", "slices", "sliceId", "concurrency", "stream",
    "bucketSpace",
    "fieldSet", "timeChunk",
}  # fmt: skip
Place = tuple[str | None, str | None, str | None]
"""namespace, document type, and what the id has behind its type (`:x`, `n=1:x`)"""


class DocumentApi:
    """Handles requests under /document/v1/ for one engine."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    async def handle(self, request: Request) -> Response:
        """Any request; a refusal is Vespa's JSON with `pathId` and `message`."""
        try:
            return await self._dispatch(request)
        except DocumentError as e:
            shown = {"pathId": _path_id(request.path)}
            if e.document_id is not None:
                shown["id"] = e.document_id
            return json_response(e.status, {**shown, "message": e.message})

    async def _dispatch(self, request: Request) -> Response:
        namespace, kind, rest = read_path(request.path)
        application = self.engine.application
        if application is None:
            raise DocumentError(503, "No application is deployed; deploy one first")
        method, query = request.method, request.query
        if "route" in query and query["route"] not in ("default", application.cluster):
            raise DocumentError(400, unsupported(f"the route '{query['route']}'"))
        if query.get("cluster", application.cluster) != application.cluster:
            raise DocumentError(
                400, f"Your Vespa deployment has no content cluster '{query['cluster']}', only: '{application.cluster}'"
            )
        if not DURATION.fullmatch(query.get("timeout", "1")):
            raise DocumentError(400, f"Failed parsing value for 'timeout': '{query['timeout']}' is not a duration")
        if rest is None:
            _allow(query, _VISIT, request.path)
            if method == "GET":
                return await asyncio.to_thread(self._visit, request, namespace, kind)
            if method in ("DELETE", "PUT"):
                return await self._change_where(request, namespace, kind)
            raise DocumentError(
                405, f"'{method}' not allowed at '{request.path}'. Allowed methods are: DELETE, GET, PUT"
            )
        assert kind is not None
        id = f"id:{namespace}:{kind}:{rest}"
        check_id(id)
        schema = self.engine.schema(kind)
        if method == "GET":
            _allow(query, _COMMON | {"fieldSet", "cluster"}, request.path)
            return self._get(request, id, schema)
        _allow(query, _WRITE, request.path)
        operation = self._operation(request, id, schema)
        if query.get("dryRun") != "true":
            await self.engine.submit(operation)
        return json_response(200, {"pathId": _path_id(request.path), "id": id})

    def _operation(self, request: Request, id: str, schema: Schema) -> Operation:
        condition = read_selection(request.query.get("condition"))
        create = _flag(request.query, "create") if "create" in request.query else None
        if request.method == "DELETE":
            return Operation("remove", id, schema, condition=condition)
        if request.method not in ("POST", "PUT"):
            raise DocumentError(
                405, f"'{request.method}' not allowed at '{request.path}'. Allowed methods are: DELETE, GET, POST, PUT"
            )
        body = read_json(request.body)
        read = read_put if request.method == "POST" else read_update
        return read(schema, id, body, condition, create)

    def _get(self, request: Request, id: str, schema: Schema) -> Response:
        chosen = _field_set(request.query.get("fieldSet"), schema)
        fields = self.engine.get(id)
        self.engine.counts["get"] += 1
        shown: dict[str, Any] = {"pathId": _path_id(request.path), "id": id}
        if fields is None:
            return json_response(404, shown)
        shown["fields"] = document_json(schema, fields, chosen, _tensors(request.query))
        return json_response(200, shown)

    # Visiting

    def _selected(
        self, request: Request, kind: str | None, namespace: str | None, limit: int | None
    ) -> Iterator[tuple[int, str, str, Fields]]:
        """The documents that a visit means, from its continuation on, up to `limit` and its time."""
        query = request.query
        application = self.engine.application
        assert application is not None
        if kind is not None:
            self.engine.schema(kind)
        if query.get("bucketSpace", "default") == "global":
            return
        selection = read_selection(query.get("selection"))
        slices, slice = _number(query, "slices", 1), _number(query, "sliceId", 0)
        if not 0 <= slice < slices:
            raise DocumentError(400, f"sliceId must be non-negative and less than slices ({slices}), but was {slice}")
        after, found, until = _position(query.get("continuation")), 0, time.monotonic() + SCAN_SECONDS
        prefix = f"id:{namespace}:" if namespace else ""
        while True:
            page = list(self.engine.page(after, 512, kind))
            for position, id, name, fields in page:
                after = position
                if not id.startswith(prefix) or zlib.crc32(id.encode()) % slices != slice:
                    continue
                if selection is not None and not selection.matches(id, fields):
                    continue
                yield position, id, name, fields
                found += 1
                if limit is not None and found >= limit:
                    return
            if not page:
                yield -1, "", "", {}  # all were seen
                return
            if limit is not None and time.monotonic() > until:
                yield -2 - after, "", "", {}  # out of time
                return

    def _visit(self, request: Request, namespace: str | None, kind: str | None) -> Response:
        query = request.query
        limit = None if query.get("stream") == "true" else min(max(_number(query, "wantedDocumentCount", 1), 1), 1024)
        tensors, documents, last, more = _tensors(query), [], 0, True
        for position, id, name, fields in self._selected(request, kind, namespace, limit):
            if position == -1:
                more = False
            elif position < 0:
                last = -2 - position
            else:
                schema = self.engine.schema(name)
                chosen = _field_set(query.get("fieldSet"), schema)
                documents.append({"id": id, "fields": document_json(schema, fields, chosen, tensors)})
                last = position
        self.engine.counts["visit"] += 1
        answer = {"pathId": _path_id(request.path), "documents": documents, "documentCount": len(documents)}
        if more and (documents or last):
            answer["continuation"] = _continuation(last)
        return json_response(200, answer)

    async def _change_where(self, request: Request, namespace: str | None, kind: str | None) -> Response:
        """DELETE and PUT with a selection: a part of the documents at a time."""
        for needed in ("cluster", "selection"):
            if needed not in request.query:
                raise DocumentError(400, f"Must specify '{needed}' at '{request.path}'")
        body = read_json(request.body) if request.method == "PUT" else None
        condition = read_selection(request.query["selection"])  # again: a document may be another one since the scan
        found = await asyncio.to_thread(lambda: list(self._selected(request, kind, namespace, 1024)))
        last, more, futures = 0, True, []
        for position, id, name, _ in found:
            if position == -1:
                more = False
            elif position < 0:
                last = -2 - position
            else:
                schema, last = self.engine.schema(name), position
                if body is None:
                    operation = Operation("remove", id, schema, condition=condition)
                else:
                    operation = read_update(schema, id, body, condition)
                futures.append(self.engine.submit(operation))
        for problem in await asyncio.gather(*futures, return_exceptions=True):
            if problem is not None and getattr(problem, "status", None) != 412:
                raise problem
        answer: dict[str, Any] = {"pathId": _path_id(request.path), "documentCount": len(futures)}
        if more and last:
            answer["continuation"] = _continuation(last)
        return json_response(200, answer)


def read_path(path: str) -> Place:
    """What a path under /document/v1/ names. Raises DocumentError 404."""
    parts = path[len(ROOT) :].split("/", 3) if path.startswith(ROOT) else [""]
    if parts == [""]:
        return None, None, None
    if len(parts) >= 3:
        namespace, kind, how = parts[:3]
        rest = parts[3] if len(parts) > 3 else ""
        if how == "docid":
            return namespace, kind, f":{rest}" if rest else None
        if how in ("number", "group") and rest:
            value, _, own = rest.partition("/")
            if own:
                return namespace, kind, f"{how[0]}={value}:{own}"
            raise DocumentError(400, unsupported(f"visiting one {how}"))
    if len(parts) == 2 or (len(parts) == 3 and parts[2] == ""):
        return parts[0], parts[1], None
    raise DocumentError(
        404,
        f"Nothing at '{path}'. Available paths are: /document/v1/, /document/v1/{{namespace}}/{{documentType}}/docid/…",
    )


def read_json(body: bytes) -> Any:
    """The JSON of a request. Raises DocumentError 400."""
    if not body.strip():
        raise DocumentError(400, 'document is missing the required "fields" field')
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as e:
        raise DocumentError(400, f"failed reading document JSON: {e}") from e


def _path_id(path: str) -> str:
    """The path as it is shown: the id behind docid/ percent-encoded."""
    parts = path.split("/docid/", 1)
    return f"{parts[0]}/docid/{quote(parts[1], safe='')}" if len(parts) == 2 else path


def _allow(query: dict[str, str], names: set[str], path: str) -> None:
    for name in query:
        if name not in names:
            if name in _WRITE | _VISIT | {"fieldSet"}:
                raise DocumentError(400, f"May not specify '{name}' at '{path}'")
            if name in ("fromTimestamp", "toTimestamp", "includeRemoves", "destinationCluster"):
                raise DocumentError(400, unsupported(f"the parameter '{name}'"))


def _flag(query: dict[str, str], name: str) -> bool:
    if query[name] not in ("true", "false"):
        raise DocumentError(400, f"Failed parsing value for '{name}': '{query[name]}' is not a boolean")
    return query[name] == "true"


def _number(query: dict[str, str], name: str, default: int) -> int:
    try:
        return int(query.get(name, default))
    except ValueError:
        raise DocumentError(400, f"Failed parsing value for '{name}': '{query[name]}' is not an integer") from None


def _tensors(query: dict[str, str]) -> str:
    form = query.get("format.tensors", "short")
    if form not in ("short", "long", "short-value", "long-value", "hex", "hex-value"):
        raise DocumentError(400, f"Unknown tensor format '{form}'")
    return form


def _field_set(text: str | None, schema: Schema) -> frozenset[str] | None:
    """The fields of a fieldSet; None is all."""
    if text is None or text in ("[all]", "[document]"):
        return None
    if text in ("[id]", "[none]"):
        return frozenset()
    kind, _, names = text.partition(":")
    if kind != schema.name:
        raise DocumentError(
            400, f"Unknown field set '{text}': it names the document type '{kind}', not '{schema.name}'"
        )
    chosen = frozenset(n.strip() for n in names.split(",") if n.strip())
    if "[document]" in chosen:
        return None
    for name in chosen - schema.fields.keys():
        raise DocumentError(400, f"No such field '{name}' in document type '{schema.name}'")
    return chosen


def _continuation(position: int) -> str:
    return base64.urlsafe_b64encode(f"after:{position}".encode()).decode().rstrip("=")


def _position(text: str | None) -> int:
    if not text:
        return 0
    try:
        mark, _, number = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode().partition(":")
        if mark == "after":
            return int(number)
    except ValueError:
        pass
    raise DocumentError(400, f"Failed parsing value for 'continuation': '{text}'")
