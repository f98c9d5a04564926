"""A server that records what it is sent and answers as it is told: for what a real engine cannot be made to do.

It keeps documents, counts them by model version, evaluates query_text, and fails on demand. HTTP/1.1 and h2c, as the
clients want.
"""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import re
import socket
import threading
import time
import urllib.request
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote

import numpy as np
import onnxruntime
from granian.constants import HTTPModes, Interfaces
from granian.server.embed import Server

from vespa_package.fields import DocumentType

VISITED = 5  # documents that a visit answers at a time


class RecordingVespa:
    """status: decides the status of a document operation, given (method, document path, how often it was tried)."""

    def __init__(self, models: Path) -> None:
        self.documents: dict[str, dict[str, Any]] = {}
        self.operations: list[tuple[str, str, dict[str, Any]]] = []
        self.queries: list[dict[str, Any]] = []
        self.status: Callable[[str, str, int], int] = lambda method, path, tries: 200
        self.answer: Callable[[dict[str, Any]], dict[str, Any]] | None = None
        self.on_deploy: Callable[[bytes], None] | None = None
        self.fields = set(DocumentType.load(models.parent).fields)  # of the deployed schema
        self.other_model = False  # answers as a model of another version would
        self.deployed: list[bytes] = []
        self.deployment: tuple[int, dict[str, Any]] = (200, {"session-id": "1", "log": []})
        self._tries: dict[str, int] = {}
        self._model = onnxruntime.InferenceSession(models / "query_text.onnx", providers=["CPUExecutionProvider"])
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> RecordingVespa:
        self._server = Server(
            self._serve,
            port=self.port,
            interface=Interfaces.ASGINL,
            http=HTTPModes.auto,
            websockets=False,
            log_enabled=False,
        )
        self._loop = asyncio.new_event_loop()
        run = lambda: self._loop.run_until_complete(self._server.serve())  # noqa: E731
        self._thread = threading.Thread(target=run, daemon=True)
        self._thread.start()
        for _ in range(200):
            try:
                urllib.request.urlopen(f"{self.url}/ApplicationStatus", timeout=5).close()
                return self
            except OSError:
                time.sleep(0.02)
        raise RuntimeError("the recording server does not start")

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._server.stop)
        self._thread.join(10)

    async def _serve(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        parameters = {k: v[0] for k, v in parse_qs(scope["query_string"].decode()).items()}
        if (b"content-encoding", b"gzip") in scope["headers"]:
            body = gzip.decompress(body)
        status, answer = self._route(scope["method"], unquote(scope["path"]), parameters, body)
        headers = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": json.dumps(answer).encode()})

    def _route(self, method: str, path: str, parameters: dict[str, str], body: bytes) -> tuple[int, Any]:
        if path.endswith("/prepareandactivate"):
            self.deployed.append(body)
            schema = zipfile.ZipFile(io.BytesIO(body)).read("schemas/item.sd").decode()
            self.fields = set(re.findall(r"\bfield (\w+) type", schema))
            if self.on_deploy:
                self.on_deploy(body)
            return self.deployment
        if path.startswith("/document/v1/"):
            return self._document(method, path, parameters, json.loads(body or b"{}"))
        if path.startswith("/search"):
            return 200, self._search(parameters | json.loads(body or b"{}"))
        if path == "/model-evaluation/v1/query_text/embedding/eval":
            inputs = {k: np.array(json.loads(parameters[k]), np.int64) for k in ("input_ids", "attention_mask")}
            vector = self._model.run(["embedding"], inputs)[0]
            return 200, (-vector if self.other_model else vector).tolist()
        if path == "/ApplicationStatus":
            return 200, {}
        if path.endswith("serviceconverge"):
            return 200, {"converged": True, "currentGeneration": 1, "wantedGeneration": 1, "services": []}
        return 404, {"error": "unknown API"}

    def _document(self, method: str, path: str, parameters: dict[str, str], body: dict[str, Any]) -> tuple[int, Any]:
        namespace, doctype, _, *rest = path.removeprefix("/document/v1/").split("/", 3)
        if not rest:  # a visit, some documents an answer
            ids = [i for i in self.documents if i.startswith(f"id:{namespace}:{doctype}::")]
            start = int(parameters.get("continuation", 0))
            answer: dict[str, Any] = {"documents": [{"id": i, "fields": {}} for i in ids[start : start + VISITED]]}
            return 200, answer | ({"continuation": str(start + VISITED)} if start + VISITED < len(ids) else {})
        [name] = rest
        document_id = f"id:{namespace}:{doctype}::{name}"
        if parameters.get("dryRun") == "true":
            unknown = sorted(set(body["fields"]) - self.fields)
            message = f"No field '{unknown[0]}' in the structure of type 'item'" if unknown else ""
            return (400, {"message": message}) if unknown else (200, {"id": document_id})
        self._tries[path] = self._tries.get(path, 0) + 1
        status = self.status(method, path, self._tries[path])
        if status != 200:
            return status, {"pathId": path, "message": f"told to answer {status}"}
        if method != "GET":
            self.operations.append((method, document_id, body.get("fields", {})))
        if method == "POST":
            self.documents[document_id] = body["fields"]
        elif doctype == "shopper" and method == "PUT":
            self._shopper(document_id, parameters, body["fields"])
        elif method == "PUT" and (document_id in self.documents or parameters.get("create") == "true"):
            document = self.documents.setdefault(document_id, {})
            for field, change in body["fields"].items():
                document[field] = change["assign"]
                if document[field] is None:
                    del document[field]
        elif method == "DELETE":
            self.documents.pop(document_id, None)
        elif method == "GET":
            found = self.documents.get(document_id)
            return (200, {"id": document_id, "fields": found}) if found else (404, {"id": document_id})
        return 200, {"pathId": path, "id": document_id}

    def _shopper(self, document_id: str, parameters: dict[str, str], fields: dict[str, Any]) -> None:
        """Assigns fields, and adds and removes cells."""
        document = self.documents.setdefault(document_id, {})
        for field, changes in fields.items():
            if "assign" in changes:
                document[field] = changes["assign"]
            cells = document[field]["cells"] if isinstance(document.get(field), dict) else {}
            if isinstance(cells, list):  # of two dimensions: a list of address and value
                gone = changes.get("remove", {"addresses": []})["addresses"]
                added = changes.get("add", {"cells": []})["cells"]
                replaced = [*gone, *(cell["address"] for cell in added)]
                cells[:] = [cell for cell in cells if cell["address"] not in replaced] + added
                continue
            cells |= changes.get("add", {"cells": {}})["cells"]
            for address in changes.get("remove", {"addresses": []})["addresses"]:
                cells.pop(address["item"], None)

    def _search(self, body: dict[str, Any]) -> dict[str, Any]:
        self.queries.append(body)
        if self.answer is not None:
            return self.answer(body)
        doctype = re.search(r"from (\w+)", body["yql"])[1]  # type: ignore[index]
        documents = [d for i, d in self.documents.items() if f":{doctype}::" in i]
        version = body.get("version")
        field = re.search(r"(model_version\w*) contains @version", body["yql"])
        held = [d for d in documents if field is None or d.get(field[1]) == version]
        return {"root": {"id": "toplevel", "relevance": 1.0, "fields": {"totalCount": len(held)}}}
