"""Schemathesis asks whatever OpenAPI allows, and what it does not: never a 5xx, and answers of the promised shape."""

from __future__ import annotations

import pytest

pytest.importorskip("schemathesis")

import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode

from retrieval.service import bodies
from retrieval.service.app import create_app
from retrieval.service.settings import Settings

EXAMPLES = 25  # of each route and mode
ANSWERS = {
    "/v1/search": bodies.SearchAnswer,
    "/v1/similar/{item}": bodies.SearchAnswer,
    "/v1/users/{user}": bodies.UserAnswer,
}


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_no_request_is_answered_by_a_fault_of_the_service(engine, package, mode, tmp_path) -> None:
    chosen = Settings(endpoint=engine, app=str(package), demo=True, deadline=10, log=str(tmp_path / "served"))
    schema = schemathesis.openapi.from_asgi("/openapi.json", create_app(chosen))
    asked: set[tuple[str, int]] = set()
    for result in schema.get_all_operations():
        operation = result.ok()
        if mode is GenerationMode.NEGATIVE and not (operation.body or list(operation.iter_parameters())):
            continue  # /health, /ready, …: no input, so none that is wrong

        @settings(max_examples=EXAMPLES, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
        @given(case=operation.as_strategy(generation_mode=mode))
        def ask(case: schemathesis.Case) -> None:
            answer = case.call()
            path, status = case.operation.path, answer.status_code
            asked.add((f"{case.operation.method.upper()} {path}", status))
            assert status < 500, (path, case.body, answer.text)
            assert answer.headers["x-request-id"]
            if status >= 400:
                bodies.ErrorAnswer.model_validate(answer.json())
            elif path in ANSWERS and case.operation.method != "delete":
                ANSWERS[path].model_validate(answer.json())

        ask()
    if mode is GenerationMode.POSITIVE:
        assert {("POST /v1/search", 200), ("GET /v1/search", 200), ("GET /v1/similar/{item}", 404)} <= asked
    else:
        assert ("POST /v1/search", 422) in asked
