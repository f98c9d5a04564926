"""ONNX models and embedders of an application, run by onnxruntime as Vespa's container and content node do."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import DeployError
from ..package.schema import OnnxModel
from ..package.services import Component
from ..tensors import Tensor, TensorType
from ..tensors.types import Dimension

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_CELLS = {
    "tensor(float)": "float", "tensor(double)": "double", "tensor(float16)": "float", "tensor(bfloat16)": "bfloat16",
    "tensor(int8)": "int8", "tensor(uint8)": "float", "tensor(int16)": "float", "tensor(int32)": "float",
    "tensor(int64)": "float",
}  # fmt: skip
_NUMPY = {
    "tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(float16)": np.float16, "tensor(int8)": np.int8,
    "tensor(uint8)": np.uint8, "tensor(int16)": np.int16, "tensor(int32)": np.int32, "tensor(int64)": np.int64,
}  # fmt: skip


class OnnxRunner:
    """One ONNX file. Names are cleaned as Vespa does (every character that is no identifier becomes `_`)."""

    def __init__(self, path: str, data: bytes, threads: int = 1) -> None:
        import onnxruntime  # 30 MB that a package without models does without

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = threads
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        except Exception as e:  # onnxruntime has a class of its own for each way to fail
            raise DeployError(f"Invalid application package: Model '{path}' cannot be loaded: {e}") from e
        self.path = path
        self.inputs = {clean(i.name): i for i in self._session.get_inputs()}
        self.outputs = {clean(o.name): o for o in self._session.get_outputs()}
        for name, port in [*self.inputs.items(), *self.outputs.items()]:
            if port.type not in _NUMPY:
                raise DeployError(
                    f"Invalid application package: Model '{path}': '{name}' is a {port.type}, which Vespa refuses"
                )

    def input_type(self, name: str) -> TensorType:
        """The tensor type that Java's evaluator shows for an input: a symbolic dimension is given as size 1 here."""
        return _type_of(self.inputs[name].type, self.inputs[name].shape)

    def output_type(self, name: str, inputs: Mapping[str, TensorType]) -> TensorType:
        """The type of an output for inputs of these types; symbolic sizes are taken from them."""
        sizes: dict[Any, int] = {}
        for key, kind in inputs.items():
            for symbol, dimension in zip(self.inputs[key].shape, kind.indexed, strict=False):
                if not isinstance(symbol, int):
                    sizes[symbol] = dimension.size or 1
        shape = [s if isinstance(s, int) else sizes.get(s, 1) for s in self.outputs[name].shape]
        return _type_of(self.outputs[name].type, shape)

    def batches(self) -> bool:
        """Whether the first dimension of every input and output is left open, so that candidates can be stacked."""
        ports = [*self.inputs.values(), *self.outputs.values()]
        return all(p.shape and not isinstance(p.shape[0], int) for p in ports)

    def run(self, inputs: Mapping[str, np.ndarray], outputs: list[str] | None = None) -> dict[str, np.ndarray]:
        """Runs it; arrays are cast to the model's types, float16 results to float32."""
        feed = {
            self.inputs[name].name: np.ascontiguousarray(values).astype(_NUMPY[self.inputs[name].type])
            for name, values in inputs.items()
        }
        wanted = outputs or list(self.outputs)
        found = self._session.run([self.outputs[name].name for name in wanted], feed)
        return {
            name: np.asarray(v, np.float64 if np.asarray(v).dtype == np.float64 else np.float32)
            for name, v in zip(wanted, found, strict=True)
        }


def clean(name: str) -> str:
    """A name of a model's graph as Vespa shows it."""
    return re.sub(r"\W", "_", name)


def _type_of(element: str, shape: list[Any]) -> TensorType:
    dimensions = [Dimension(f"d{i}", s if isinstance(s, int) and s > 0 else 1) for i, s in enumerate(shape)]
    return TensorType.of(_CELLS[element], dimensions)


def onnx_inputs(model: OnnxModel, runner: OnnxRunner) -> dict[str, str]:
    """Where each input of a model comes from; one that is not listed is the query input of its name. Raises
    DeployError."""
    for name in model.inputs:
        if name not in runner.inputs:
            raise DeployError(
                f"onnx-model '{model.name}': the model {model.file} has no input '{name}'; "
                f"it has {', '.join(runner.inputs)}"
            )
    return {name: model.inputs.get(name, f"query({name})") for name in runner.inputs}


def onnx_output(model: OnnxModel, runner: OnnxRunner, asked: str | None) -> str:
    """The model's own name of the output that a feature asks for (the only or first one where it asks for none)."""
    if asked is None:
        return next(iter(runner.outputs))
    own = next((name for name, known in model.outputs.items() if known == asked), asked)
    if own not in runner.outputs:
        raise DeployError(
            f"onnx-model '{model.name}': the model {model.file} has no output '{asked}'; "
            f"it has {', '.join(runner.outputs)}"
        )
    return own


class EmbedError(ValueError):
    """A text that cannot be embedded into the type that was asked for."""


class TokenizerComponent:
    """`hugging-face-tokenizer`: a text's token ids without special tokens, cut to the tensor and padded with 0."""

    def __init__(self, component: Component, files: Mapping[str, bytes]) -> None:
        self.id = component.id
        self._tokenizer = load_tokenizer(component, "model", files)
        self._tokenizer.no_truncation()

    def embed(self, text: str, kind: TensorType, destination: str) -> Tensor:
        """The ids as a tensor of one indexed dimension. Raises EmbedError."""
        size = only_size(kind)
        ids = self._tokenizer.encode(text, add_special_tokens=False).ids[:size]
        return Tensor.dense(kind, np.array(ids + [0] * (size - len(ids)), np.float64))


class Embedder:
    """`hugging-face-embedder`, as HuggingFaceEmbedder.java."""

    def __init__(self, component: Component, files: Mapping[str, bytes]) -> None:
        s = component.settings
        self.id = component.id
        path = s.get("transformer-model", "")
        if path not in files:
            raise DeployError(
                f"Invalid application package: component '{self.id}': the model '{path}' is not in the package"
            )
        self._model = OnnxRunner(path, files[path])
        self._names = self._input_names(component)
        self._output = s.get("transformer-output") or "last_hidden_state"
        if self._output not in self._model.outputs:
            raise self._error("output", self._output, self._model.outputs)
        self._pooling = s.get("pooling-strategy") or "mean"
        rank = len(self._model.outputs[self._output].shape)
        if rank == 2 and self._pooling != "none":
            raise DeployError("Invalid application package: Expected pooling-strategy 'none' with 2 output dimensions")
        if rank == 3 and self._pooling == "none":
            raise DeployError(
                "Invalid application package: Unexpected pooling-strategy 'none' with 3 output dimensions"
            )
        self._normalize = s.get("normalize") == "true"
        self._prepend = {"query": s.get("prepend-query", ""), "document": s.get("prepend-document", "")}
        self._tokenizer = load_tokenizer(component, "tokenizer-model", files)
        truncation = self._tokenizer.truncation
        if not truncation or truncation.get("strategy") != "longest_first":
            tokens = s.get("max-tokens") or "512"
            if not tokens.isdecimal() or not 0 < int(tokens) <= 1 << 20:
                raise DeployError(
                    f"Invalid application package: component '{self.id}': max-tokens is a number, not '{tokens}'"
                )
            limit = int(tokens)
            own = (truncation or {}).get("max_length", 0)
            self._tokenizer.enable_truncation(own if 0 < own <= limit else limit)

    def _input_names(self, component: Component) -> list[str]:
        s, known = component.settings, self._model.inputs
        wanted = [
            s.get("transformer-input-ids") or "input_ids",
            s.get("transformer-attention-mask") or "attention_mask",
            s.get("transformer-token-type-ids") or "token_type_ids",
        ][: len(known)]
        if len(known) > 3:
            raise DeployError(f"Invalid application package: Model needs more than 3 inputs: {list(known)}")
        for name in wanted:
            if name not in known:
                raise self._error("input", name, known)
        return wanted

    @staticmethod
    def _error(kind: str, name: str, known: Mapping[str, Any]) -> DeployError:
        return DeployError(
            f"Invalid application package: Model does not contain required {kind}: '{name}'. "
            f"Model contains: {','.join(known)}"
        )

    def embed(self, text: str, kind: TensorType, destination: str) -> Tensor:
        """The text's vector in a type of one indexed dimension: cut to its size, binarised where it is int8. Raises
        EmbedError."""
        size = only_size(kind)
        prefix = self._prepend["query" if destination.startswith("query") else "document"]
        encoding = self._tokenizer.encode(prefix + text)
        arrays = [encoding.ids, encoding.attention_mask, encoding.type_ids]
        inputs = {n: np.array([a]) for n, a in zip(self._names, arrays, strict=False)}
        output = self._model.run(inputs, [self._output])[self._output].astype(np.float64)
        if self._pooling == "mean":
            vector = output[0].sum(0) / max(1, sum(encoding.attention_mask))
        else:
            vector = output[0][0] if self._pooling == "cls" else output[0]
        wanted = 8 * size if kind.cell == "int8" else size
        if wanted > len(vector):
            raise EmbedError(f"the embedder '{self.id}' gives {len(vector)} values, not {wanted} for {kind}")
        vector = vector[:wanted]
        if self._normalize:
            vector = vector / (np.linalg.norm(vector) or 1.0)
        if kind.cell == "int8":
            vector = np.packbits(vector > 0).view(np.int8).astype(np.float64)
        return Tensor.dense(kind, vector)


def only_size(kind: TensorType) -> int:
    """The size of a type's one indexed dimension. Raises EmbedError for any other type."""
    if len(kind.dimensions) != 1 or kind.mapped:
        raise EmbedError(f"Error in embedding to type '{kind}': should only have one indexed dimension.")
    return kind.shape[0]


def load_tokenizer(component: Component, setting: str, files: Mapping[str, bytes]) -> Tokenizer:
    """The tokenizer.json of a component, without padding. Raises DeployError."""
    from tokenizers import Tokenizer  # for packages with embedders only

    path = component.settings.get(setting, "")
    if path not in files:
        raise DeployError(
            f"Invalid application package: component '{component.id}': the tokenizer '{path}' is not in the package"
        )
    try:
        tokenizer = Tokenizer.from_buffer(files[path])
    except Exception as e:  # the library raises plain Exception
        raise DeployError(
            f"Invalid application package: component '{component.id}': {path} is not a tokenizer: {e}"
        ) from e
    tokenizer.no_padding()
    return tokenizer


class Embedders:
    """The embedders of an application by id, and the `embed(…)` syntax of query inputs (TensorConverter.java)."""

    _QUOTED = re.compile(r"^([A-Za-z0-9_@\-.]+),\s*([\"'].*[\"'])", re.DOTALL)
    _REFERENCE = re.compile(r"^([A-Za-z0-9_@\-.]+),\s*(@.*)", re.DOTALL)

    def __init__(self, components: Mapping[str, Component], files: Mapping[str, bytes]) -> None:
        self._components, self._files = components, files

    @cached_property
    def known(self) -> dict[str, Embedder | TokenizerComponent]:
        return {
            id: Embedder(c, self._files) if c.type == "hugging-face-embedder" else TokenizerComponent(c, self._files)
            for id, c in self._components.items()
        }

    def embed(self, call: str, kind: TensorType, destination: str, parameters: Mapping[str, Any]) -> Tensor:
        """The tensor of `embed(id, @parameter)`, `embed(id, "text")` or, with one embedder, `embed(text)`. A blank text
        is a zero tensor. Raises EmbedError."""
        if not call.endswith(")"):
            raise EmbedError("Expected any string enclosed in embed(), but the argument does not end by ')'")
        argument = call[len("embed(") : -1]
        ids = "Available embedder ids are " + ", ".join(f"'{id}'" for id in sorted(self.known)) + "."
        if match := self._QUOTED.match(argument) or self._REFERENCE.match(argument):
            if match[1] not in self.known:
                raise EmbedError(f"Can't find embedder '{match[1]}'. {ids}")
            embedder, argument = self.known[match[1]], match[2]
        elif not self.known:
            raise EmbedError("No embedders provided")
        elif len(self.known) > 1:
            problem = "no embedder id is given" if re.search("[\"']", argument) else "the string to embed is not quoted"
            raise EmbedError(f"Multiple embedders are provided but {problem}. Usage: embed(embedder-id, 'text'). {ids}")
        else:
            embedder = next(iter(self.known.values()))
        if len(argument) > 1 and argument[0] == argument[-1] and argument[0] in "\"'":
            text = argument[1:-1]
        elif argument.startswith("@"):
            name = argument[1:]
            if parameters.get(name) is None:
                raise EmbedError(f"Could not resolve query parameter reference '{name}' used in an embed() argument")
            text = str(parameters[name])
        else:
            text = argument
        if not text.strip():
            return Tensor.empty(kind)
        return embedder.embed(text, kind, destination)
