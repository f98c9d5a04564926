"""What Vespa's code is asked: packages, functions, graphs, statements and requests, as one job for one JVM."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import numpy as np

from mrse_model.serving.manifest import Manifest
from tests.helpers.make_models import make_models
from tests.helpers.vespa.broken import CHANGES, DEFECTS, GRAMS, plant
from tests.helpers.vespa.golden import features, literal
from tests.helpers.written_yql import Written, all_written
from vespa_package.checks import vespa_java as judge
from vespa_package.second_set import double_package, plain_package
from vespa_package.variants import build_variant, list_variants

REPO = Path(__file__).parents[3]

PROFILES = ["q2i", "hybrid", "three_queues", "query_tower", "explain"]
BY_QUEUE = ("three_queues", "explain")
STEPS = ("second-set", "turned", "new-model-twice", "turned-back", "second-set-gone")  # feeders/migration.py
SERVED = ("default", "compact", "int8")
HITS = [
    {
        "id": f"id:item:item::{name}",
        "relevance": relevance,
        "fields": {"item_id": name, "title": f"item {name}"},
        "features": {"lexical": lexical, "semantic": semantic},
    }
    for name, relevance, lexical, semantic in [("a", 3.0, 0.0, 0.9), ("b", 2.0, 8.0, 0.8), ("c", 1.0, 2.0, 0.1)]
]


PUT, UPDATE = {"update": False}, {"update": True}
WRITES: list[dict[str, Any]] = [  # of the texts that item.sd joins
    PUT | {"fields": {"title": "Red dress", "category": ["Women", "Clothes"]}},
    PUT | {"fields": {"title": "Red dress"}},
    PUT | {"fields": {"category": ["Women"]}},
    UPDATE | {"fields": {"title": "Blue hat", "category": ["Men"]}},
    UPDATE | {"fields": {"title": "Blue hat"}},
    UPDATE | {"fields": {"category": ["Men"]}},
    UPDATE | {"fields": {"brand": "Acme"}},
]
OWN_FIELD = "field season type string {\n indexing: summary | attribute\n attribute: fast-search\n }\n"


@dataclass(frozen=True)
class Judged:
    """models: the stand-in models. yql: statements in the order of answer["yql"].

    torch: what torch says to the runs of answer["torch"], by graph and output; empty without torch.
    """

    answer: dict[str, Any]
    models: Path
    yql: list[Written]
    torch: dict[str, np.ndarray]


def ask_all(work: Path) -> Judged:
    """Writes the packages into the empty folder `work`, runs the JVM once, and returns its answer."""
    app = work / "default"
    shutil.copytree(REPO / "vespa_app", app, ignore=shutil.ignore_patterns("models"))
    schema = app / "schemas" / "item.sd"  # a field of the shop's own, which each variant must take too
    text = schema.read_text("utf-8").replace("document item {\n", f"document item {{\n{OWN_FIELD}", 1)
    schema.write_text(text, "utf-8")
    if exported := os.environ.get("MRSE_MODELS"):  # a real export instead of the stand-ins
        shutil.copytree(exported, app / "models")
    else:
        make_models(app / "models")
    packages: list[dict[str, Any]] = [{"name": "default", "dir": str(app)}]
    for name in list_variants(REPO / "variants"):
        built = build_variant(app, REPO / "variants", name, work / name)
        if name == "cloud":  # the client's certificate is the deployer's own
            (built / "security").mkdir()
            (built / "security" / "clients.pem").write_bytes((Path(__file__).parent / "clients.pem").read_bytes())
        packages.append({"name": name, "dir": str(built), "hosted": name == "cloud"})
    make_models(work / "new", "mrse-ffffffffffff", seed=8)
    for package in packages.copy():
        packages += migration_steps(package, app / "models", work / "new", work / "steps")
    packages += [{"name": d.name, "dir": str(plant(d, app, work / "broken" / d.name))} for d in (*DEFECTS, GRAMS)]
    packages += [
        {"name": c.name, "dir": str(plant(c, app, work / "change" / c.name)), "after": "default"} for c in CHANGES
    ]
    yql, (torch_runs, said_by_torch) = all_written(REPO), torch_golden(work / "torch")
    job = {
        "packages": packages,
        "config": ["default", "cluster", "compact", "int8"],
        "functions": [{"package": name, "features": features()} for name in SERVED],
        "onnx": onnx_runs(app / "models") + torch_runs,
        "yql": [{"package": package_of(w), "yql": w.yql, "parameters": parameters(w)} for w in yql],
        "indexing": [{"statement": joined_text(text), "writes": WRITES}],
        "serve": [
            {"package": str(work / name), "port": free_port(), "hits": HITS, "requests": asked}
            for name, asked in zip(SERVED, (requests(app / "models"), compact_requests(), int8_requests()), strict=True)
        ],
    }
    answer = judge.ask(job)
    answer["torch"] = answer["onnx"][len(job["onnx"]) - len(torch_runs) :]
    return Judged(answer, app / "models", yql, said_by_torch)


def joined_text(schema: str) -> str:
    """The indexing statement of title_and_category."""
    found = re.search(r"field title_and_category .*?indexing: (.*?)\n", schema, re.DOTALL)
    assert found, "item.sd has changed"
    return found[1]


def migration_steps(package: dict[str, Any], old: Path, new: Path, out: Path) -> list[dict[str, Any]]:
    """The packages of `mrse migrate`, each judged as a change of the one before it."""
    base, before, steps = Path(package["dir"]), package["name"], []
    for number, step in enumerate(STEPS):
        folder = out / package["name"] / step
        folder.parent.mkdir(parents=True, exist_ok=True)
        if step == "second-set-gone":
            plain_package(base, new, folder)
        else:
            double_package(base, old if number < 2 else new, new, folder, serve_next=number in (1, 2))
        name = f"{package['name']}/{step}"
        steps.append({"name": name, "dir": str(folder), "hosted": package.get("hosted", False), "after": before})
        before = name
    return steps


def torch_golden(work: Path) -> tuple[list[dict[str, Any]], dict[str, np.ndarray]]:
    """An MRSE of random weights as `mrse export` writes it, to be run by Vespa's evaluator, and what torch answers."""
    if importlib.util.find_spec("torch") is None:
        return [], {}
    import torch

    from mrse_model.config import Config, ModelConfig
    from mrse_model.export import export, graphs
    from mrse_model.model import MRSE
    from mrse_model.training.tokenizer import train_tokenizer

    tokenizer = train_tokenizer(["Red cotton dress", "Blue denim jacket", "Green leather shoes"] * 3, 200)
    sizes = ModelConfig(vocab_size=tokenizer.get_vocab_size(), bert_dims=32, bert_heads=2, ngram_dims=16, image_dims=12)
    model = MRSE(Config(model=sizes), tokenizer).eval()
    torch.manual_seed(0)
    for weight in model.parameters():  # some start at zero: every one must count
        torch.nn.init.normal_(weight, std=0.2)
    export(model, work / "models")
    runs, said = [], {}
    for name, graph, ports, outputs, example in graphs(model):
        with torch.no_grad():
            found = graph(*example)
        inputs = {port: typed(value.numpy()) for port, value in zip(ports, example, strict=True)}
        for output, value in zip(outputs, found if isinstance(found, tuple) else (found,), strict=True):
            runs.append({"file": str(work / "models" / f"{name}.onnx"), "output": output, "inputs": inputs})
            said[f"{name}.{output}"] = value.numpy()
    return runs, said


def package_of(written: Written) -> str:
    return next((name for name in SERVED if written.file.startswith(f"variants/{name}/")), "default")


def parameters(written: Written) -> dict[str, str]:
    """What a caller would send with a statement: the vectors it names, and text for each @reference."""
    sent = {name: "red dress" for name in re.findall(r"@(\w+)", written.yql)}
    if "nearestNeighbor" in written.yql:
        sent["ranking"] = "three_queues"
        vector = literal(np.ones(128))
        sent |= {f"input.query({name})": vector for name in ("q", "i2i", "image")}
    if package_of(written) == "int8":
        sent |= {f"input.query({name}_int8)": literal(np.ones(128)) for name in ("q", "i2i", "image")}
    if package_of(written) == "compact":
        sent |= {f"input.query({name}_bits)": literal(np.ones(16, np.int8)) for name in ("q", "i2i", "image")}
    return sent


def onnx_runs(models: Path) -> list[dict[str, Any]]:
    """Every output of every graph on the golden input."""
    inputs = {name: typed(value) for name, value in tower_inputs(models).items()}
    return [
        {
            "file": str(models / f"{name}.onnx"),
            "output": output.name,
            "inputs": {port: inputs[port] for port in INPUTS[name]},
        }
        for name, described in Manifest.load(models).models.items()
        for output in described.outputs
    ]


def typed(a: np.ndarray) -> dict[str, str]:
    sizes = ",".join(f"d{n}[{size}]" for n, size in enumerate(a.shape))
    return {"type": f"tensor<float>({sizes})", "value": literal(a)}


TOWER = ["input_ids", "attention_mask", "history_text", "history_image", "history_weight"]
INPUTS = {
    "query_text": ["input_ids", "attention_mask"],
    "query_tower": TOWER,
    "query_experts": TOWER,
    "item_tower": ["input_ids", "attention_mask", "image_feature", "image_present", "history_ids", "history_mask"],
}


def tower_inputs(models: Path) -> dict[str, np.ndarray]:
    """One golden input for all graphs."""
    encoder = Manifest.load(models).image_encoder
    rng = np.random.default_rng(5)
    ids = np.zeros((1, 16), np.int64)
    ids[0, :5] = [2, 4, 9, 6, 3]
    history = rng.normal(size=(2, 1, 20, 128)).astype(np.float32)
    return {
        "input_ids": ids,
        "attention_mask": (ids > 0).astype(np.int64),
        "history_text": history[0],
        "history_image": history[1],
        "history_weight": np.linspace(1, 0, 20, dtype=np.float32)[None],
        "image_feature": rng.normal(size=(1, encoder.dims if encoder else 1)).astype(np.float32),
        "image_present": np.ones((1, 1), np.float32),
        "history_ids": np.repeat(ids[:, None], 8, axis=1),
        "history_mask": np.repeat((ids > 0).astype(np.int64)[:, None], 8, axis=1),
    }


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port: int = free.getsockname()[1]
    return port


def compact_requests() -> list[dict[str, str]]:
    """The query profiles that `compact` changes; its three queues want the user's bits."""
    bits = literal(np.ones(16, np.int8))
    user = {f"input.query({name}_bits)": bits for name in ("i2i", "image")}
    asked = [{"queryProfile": name, "query": "Red dress"} | (user if name in BY_QUEUE else {}) for name in PROFILES]
    return [{"path": "/search/?" + urlencode(parameters)} for parameters in asked]


def int8_requests() -> list[dict[str, str]]:
    """A stranger in each query profile."""
    asked = [{"queryProfile": name, "query": "Red dress"} for name in PROFILES]
    return [{"path": "/search/?" + urlencode(parameters)} for parameters in asked]


def requests(models: Path) -> list[dict[str, str]]:
    """To the real container: each query profile with a text, then odd texts, then model evaluation."""
    asked = [{"queryProfile": name, "query": "Red dress"} for name in PROFILES]
    linear = {"ranking": "hybrid_linear", "input.query(alpha)": "0.3"}  # whatever the model says
    asked.append({"queryProfile": "hybrid", "query": "Red dress"} | linear)
    asked.append({"queryProfile": "q2i", "query": ""})
    asked.append({"queryProfile": "q2i", "query": '") or true; drop "{} \\'})
    asked.append({"queryProfile": "hybrid", "query": 'red" or true or "'})
    asked.append({"queryProfile": "hybrid", "query": "Red dress", "ranking": "hybrid"})
    paths = [{"path": "/search/?" + urlencode(parameters)} for parameters in asked]
    tower = {name: literal(tower_inputs(models)[name]) for name in INPUTS["query_tower"]}
    form = {"path": "/model-evaluation/v1/query_tower/eval", "type": "application/x-www-form-urlencoded"}
    return [*paths, {"path": "/model-evaluation/v1/"}, form | {"body": urlencode(tower)}]
