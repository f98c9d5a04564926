"""The config server's part of Vespa's API: deploy, prepare, activate, convergence; and the status pages."""

from __future__ import annotations

import hashlib
import re
import time
from typing import Any

from ..application import Application
from ..engine import Engine
from ..errors import DeployError, StorageFull, unsupported
from ..http import Request, Response, json_response

ROOT = "/application/v2/"
VERSION = "8.0.0"  # what tools that ask get to see; the engine follows Vespa 8
_INSTANCE = re.compile(
    r"/application/v2/tenant/(\w+)/application/(\w+)(?:/environment/\w+/region/\w+/instance/(\w+))?(/.*)?"
)
_SESSION = re.compile(r"/application/v2/tenant/(\w+)/session(?:/(\d+)/(prepared|active))?/?")
_DEPLOY = re.compile(r"/application/v2/tenant/(\w+)/prepareandactivate/?")


class DeployApi:
    """Handles /application/v2/. `port` is where this engine serves queries and documents."""

    def __init__(self, engine: Engine, port: int) -> None:
        self.engine, self.port = engine, port

    def handle(self, request: Request) -> Response:
        """Any request; a refusal is Vespa's JSON with `error-code` and `message`."""
        try:
            return self._dispatch(request)
        except DeployError as e:
            return _error(400, "INVALID_APPLICATION_PACKAGE", str(e))
        except StorageFull as e:
            return _error(507, "OUT_OF_CAPACITY", str(e))
        except RecursionError:
            return _error(400, "INVALID_APPLICATION_PACKAGE", "Invalid application package: nested too deeply")

    def _dispatch(self, request: Request) -> Response:
        method, path = request.method, request.path
        if _DEPLOY.fullmatch(path) and method in ("POST", "PUT"):
            _zip(request)
            return self._activated(request, self.engine.deploy(request.body), with_log=True)
        if match := _SESSION.fullmatch(path):
            return self._session(request, int(match[2]) if match[2] else None, match[3])
        if match := _INSTANCE.fullmatch(path):
            return self._instance(request, match[4] or "")
        return _error(404, "NOT_FOUND", f"Nothing at path '{path}'")

    def _session(self, request: Request, session: int | None, step: str | None) -> Response:
        if session is None and request.method == "POST":
            _zip(request)
            session = self.engine.prepare(request.body)
            base = f"http://{request.authority}/application/v2/tenant/default/session/{session}"
            shown = {
                "tenant": "default",
                "session-id": str(session),
                "prepared": f"{base}/prepared",
                "message": f"Session {session} for tenant 'default' created.",
            }
            return json_response(200, {"log": [], **shown, "content": f"{base}/content/"})
        if session is not None and step == "prepared" and request.method in ("PUT", "GET"):
            if self.engine.store.package(session) is None:
                return _error(404, "NOT_FOUND", f"Session {session} was not found")
            return json_response(
                200,
                {"log": [], "tenant": "default", "session-id": str(session), "activate": f"http://{request.authority}/application/v2/tenant/default/session/{session}/active",
                 "message": f"Session {session} for tenant 'default' prepared.",
                 "configChangeActions": {"restart": [], "refeed": [], "reindex": []}},
            )  # fmt: skip
        if session is not None and step == "active" and request.method == "PUT":
            return self._activated(request, self.engine.activate(session), with_log=False)
        return _error(405, "METHOD_NOT_ALLOWED", f"Method '{request.method}' is not supported")

    def _activated(self, request: Request, application: Application, with_log: bool) -> Response:
        session = application.generation
        base = f"http://{request.authority}/application/v2/tenant/default/application/default/environment/prod/region/default/instance/default"
        shown: dict[str, Any] = {
            "tenant": "default",
            "session-id": str(session),
            "url": base,
            "message": f"Session {session} for tenant 'default' "
            + ("prepared and activated." if with_log else "activated."),
        }
        if with_log:
            shown = {
                "log": _log(application.warnings),
                **shown,
                "configChangeActions": {"restart": [], "refeed": [], "reindex": []},
            }
        return json_response(200, shown)

    def _instance(self, request: Request, rest: str) -> Response:
        application = self.engine.application
        if request.method != "GET":
            return _error(405, "METHOD_NOT_ALLOWED", unsupported(f"{request.method} of an application"))
        if rest == "/logs":
            return Response(200, b"", "text/plain;charset=UTF-8")
        if application is None:
            return _error(404, "NOT_FOUND", "No such application id: 'default'")
        generation = application.generation
        if rest == "/serviceconverge":
            service = {
                "host": "localhost", "port": self.port, "type": "container", "clusterName": "default",
                "url": f"http://{request.authority}{request.path}/localhost:{self.port}",
                "currentGeneration": generation,
            }  # fmt: skip
            shown = {
                "services": [service],
                "url": f"http://{request.authority}{request.path}",
                "currentGeneration": generation,
            }
            return json_response(200, {**shown, "wantedGeneration": generation, "converged": True})
        if rest in ("", "/"):
            return json_response(
                200, {"generation": generation, "applicationPackageFileReference": "", "modelVersions": [VERSION]}
            )
        return _error(404, "NOT_FOUND", unsupported(f"'{rest}' of an application"))


def _log(warnings: list[str]) -> list[dict[str, Any]]:
    """Warnings as a deployment's answer has them; the vespa CLI prints them."""
    now = int(time.time() * 1000)
    return [{"time": now, "level": "WARNING", "message": warning} for warning in warnings]


def _zip(request: Request) -> None:
    kind = request.headers.get("content-type", "")
    if "zip" not in kind or "gzip" in kind:
        raise DeployError(f"Request contained invalid type of application: '{kind}'; send application/zip")


def _error(status: int, code: str, message: str) -> Response:
    return json_response(status, {"error-code": code, "message": message})


def status_page(engine: Engine, request: Request, started: float) -> Response | None:
    """The pages by which clients see whether a server is up, and metrics; None for any other path."""
    now = int(time.time() * 1000)
    application = engine.application
    match request.path:
        case "/status.html":
            return Response(200, b"OK", "text/plain")
        case "/ApplicationStatus":
            meta = {
                "name": "default",
                "user": "unknown",
                "path": "",
                "generation": application.generation if application else 0,
                "timestamp": int(engine.deployed_at * 1000),
            }
            if application is not None:
                meta["checksum"] = hashlib.md5(
                    "".join(sorted(application.package.files)).encode(), usedforsecurity=False
                ).hexdigest()
            shown = {"application": {"vespa": {"version": VERSION}, "meta": meta, "user": {"version": ""}}}
            return json_response(200, shown) if application else json_response(503, shown)
        case "/state/v1" | "/state/v1/":
            names = ("config", "health", "metrics", "version")
            return json_response(
                200, {"resources": [{"url": f"http://{request.authority}/state/v1/{n}"} for n in names]}
            )
        case "/state/v1/health" | "/state/v1/metrics":
            values = [{"name": k, "values": {"count": v, "rate": 0.0}} for k, v in engine.counts.items()]
            snapshot = {"from": started, "to": now / 1000}
            return json_response(
                200, {"time": now, "status": {"code": "up"}, "metrics": {"snapshot": snapshot, "values": values}}
            )
        case "/state/v1/version":
            return json_response(200, {"version": VERSION})
        case "/state/v1/config":
            return json_response(200, {"config": {"generation": application.generation if application else 0}})
        case "/metrics":
            return Response(200, _prometheus(engine).encode(), "text/plain; version=0.0.4")
        case "/":
            return json_response(200, _root(request))
    return None


def _root(request: Request) -> dict[str, Any]:
    """The container's root page; `vespa visit` finds the document API in it."""
    bound = {
        "com.yahoo.search.handler.SearchHandler": ["http://*/search/*"],
        "com.yahoo.document.restapi.resource.DocumentV1ApiHandler": [
            "http://*/document/v1/*",
            "http://*/document/v1/*/",
        ],
        "ai.vespa.modelintegration.evaluator.ModelsEvaluationHandler": [
            "http://*/model-evaluation/v1",
            "http://*/model-evaluation/v1/*",
        ],
    }
    handlers = [{"id": c, "class": c, "bundle": "local_vespa", "serverBindings": b} for c, b in bound.items()]
    return {"application": {"vespa": {"version": VERSION}}, "handlers": handlers}


def _prometheus(engine: Engine) -> str:
    lines = [
        "# HELP local_vespa_operations_total Operations answered since the start.",
        "# TYPE local_vespa_operations_total counter",
    ]
    lines += [f'local_vespa_operations_total{{operation="{k}"}} {v}' for k, v in engine.counts.items()]
    lines += ["# HELP local_vespa_documents Live documents in memory.", "# TYPE local_vespa_documents gauge"]
    lines += [f'local_vespa_documents{{schema="{name}"}} {table.count}' for name, table in engine.tables.items()]
    lines += [
        "# HELP local_vespa_rows Rows in memory, those of replaced documents included.",
        "# TYPE local_vespa_rows gauge",
    ]
    lines += [f'local_vespa_rows{{schema="{name}"}} {len(table.ids)}' for name, table in engine.tables.items()]
    lines += [
        "# HELP local_vespa_generation Generation of the deployed application.",
        "# TYPE local_vespa_generation gauge",
    ]
    lines.append(f"local_vespa_generation {engine.application.generation if engine.application else 0}")
    return "\n".join(lines) + "\n"


def not_found(request: Request) -> Response:
    """The container's page for a path that nothing is bound to."""
    text = f"No binding for URI 'http://{request.authority}{request.path}'."
    shown = text.replace("&", "&amp;").replace("<", "&lt;").replace("'", "&apos;")
    title = f"<head>\n<title>Error 404 {shown}</title>\n</head>\n"
    page = f"<html>\n{title}<body><h2>HTTP ERROR 404 {shown}</h2></body>\n</html>\n"
    return Response(404, page.encode(), "text/html;charset=ISO-8859-1")


__all__ = ["DeployApi", "not_found", "status_page"]
