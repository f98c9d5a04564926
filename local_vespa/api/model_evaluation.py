"""/model-evaluation/v1: the package's ONNX models over REST (ModelsEvaluationHandler.java)."""

from __future__ import annotations

from urllib.parse import parse_qsl

import orjson

from ..application import Application
from ..http import Request, Response, json_response
from ..ranking.onnx_models import OnnxRunner
from ..tensors import FORMATS, Tensor, TensorError, TensorType, parse_query_tensor, render
from ..tensors.types import Dimension

ROOT = "/model-evaluation/v1"


def handle(application: Application, request: Request) -> Response:
    """Any request. Paths are lower-cased, as Vespa does."""
    parts = [p for p in request.path[len(ROOT) :].lower().split("/") if p]
    base = f"http://{request.authority}{ROOT}"
    models = application.models
    if not parts:
        return json_response(200, {name: f"{base}/{name}" for name in models})
    if parts[0] not in models:
        return _error(404, f"No model named '{parts[0]}'. Available models: {', '.join(models)}")
    runner, url = models[parts[0]], f"{base}/{parts[0]}"
    evaluates = parts[-1] == "eval"
    names = parts[1:-1] if evaluates else parts[1:]
    if len(names) > 1 or (names and names[0] not in runner.outputs):
        return _error(
            404,
            f"No function '{'/'.join(names)}' in model '{parts[0]}'. Available functions: {', '.join(runner.outputs)}",
        )
    if not names and evaluates and len(runner.outputs) > 1:
        return _error(
            404,
            f"More than one function is available in model '{parts[0]}', but no name is given. "
            f"Available functions: {', '.join(runner.outputs)}",
        )
    output = names[0] if names else next(iter(runner.outputs))
    if evaluates:
        return _evaluate(runner, output, request)
    if names:
        return json_response(200, {"function": output, **_function(runner, output, url)})
    functions = [{"function": name, **_function(runner, name, url)} for name in runner.outputs]
    return json_response(200, {"model": parts[0], "functions": functions})


def _function(runner: OnnxRunner, output: str, url: str) -> dict[str, object]:
    arguments = [{"name": name, "type": _shown(runner, name)} for name in runner.inputs]
    return {"info": f"{url}/{output}", "eval": f"{url}/{output}/eval", "arguments": arguments}


def _shown(runner: OnnxRunner, name: str) -> str:
    """An input's type with open sizes as `[]`."""
    kind = runner.input_type(name)
    sizes = [str(s) if isinstance(s, int) and s > 0 else "" for s in runner.inputs[name].shape]
    return f"tensor<{kind.cell}>({','.join(f'd{i}[{s}]' for i, s in enumerate(sizes))})"


def _evaluate(runner: OnnxRunner, output: str, request: Request) -> Response:
    values = dict(request.query)
    if request.method == "POST":
        values |= dict(parse_qsl(request.body.decode("utf-8", "replace"), keep_blank_values=True))
    form = values.get("format.tensors", "short")
    if form not in FORMATS:
        return _error(400, f"Unknown tensor format '{form}'")
    tensors: dict[str, Tensor] = {}
    for name in runner.inputs:
        if name not in values:
            return _error(400, f"Argument '{name}' must be bound to a value of type {_shown(runner, name)}")
        try:
            tensors[name] = parse_query_tensor(_sized(runner, name, values[name]), values[name])
        except TensorError as e:
            return _error(400, f"Argument '{name}': {e}")
    try:
        found = runner.run({n: t.array for n, t in tensors.items()}, [output])[output]
    except Exception as e:  # onnxruntime has a class of its own for each way to fail
        return _error(400, f"The model {runner.path} cannot be evaluated with these arguments: {e}")
    kind = runner.output_type(output, {n: t.type for n, t in tensors.items()})
    return json_response(200, render(Tensor.dense(kind, found.reshape(kind.shape)), form))


def _sized(runner: OnnxRunner, name: str, text: str) -> TensorType:
    """An input's type with the open sizes that a nested list literal has."""
    kind, shape = runner.input_type(name), runner.inputs[name].shape
    try:
        value = orjson.loads(text[text.index("[") :] if "[" in text else text)
    except orjson.JSONDecodeError:
        return kind
    sizes = []
    while isinstance(value, list):
        sizes.append(len(value))
        value = value[0] if value else None
    if len(sizes) != len(shape):
        return kind
    known = [s if isinstance(s, int) and s > 0 else max(1, n) for s, n in zip(shape, sizes, strict=True)]
    return TensorType.of(kind.cell, [Dimension(f"d{i}", size) for i, size in enumerate(known)])


def _error(status: int, message: str) -> Response:
    return json_response(status, {"error": message})
