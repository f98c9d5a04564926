"""The project's own conformance set for vespa_app/: requests whose right answers are computed from first principles.

`conformance_cases.jsonl` holds the requests. What is right is worked out below with numpy and published formulas
(cosine, Vespa's closeness, BM25), never recorded from a server, so the set holds for this engine and a real Vespa.
The server must run vespa_app/ freshly deployed, without documents, with the models of make_models.py or of an export.

    python -m tests.helpers.conformance_check http://localhost:8080 vespa_app/models
"""

from __future__ import annotations

import json
import math
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

CASES = Path(__file__).with_name("conformance_cases.jsonl")
COUNT, DIMS = 40, 128
# no stemmer changes these
WORDS = ("kalmut", "borvik", "tendal", "furgon", "mistral", "pondok", "valdur", "quorat", "zembil", "hartuk")
COLOURS, BRANDS = ("red", "blue", "green"), ("acme", "orbit")
K1, B = 1.2, 0.75
Item = dict[str, Any]


def unit(seed: int) -> np.ndarray:
    """A vector [128] of norm 1 that bfloat16 holds exactly: 64 cells of ±1/8."""
    random = np.random.default_rng(seed)
    vector = np.zeros(DIMS, np.float32)
    vector[random.permutation(DIMS)[:64]] = random.choice((-0.125, 0.125), 64)
    return vector


def documents() -> dict[str, Item]:
    """The fields of every document by item_id; every fourth has no image, every fifth no description."""
    made = {}
    for n in range(COUNT):
        random = np.random.default_rng(1000 + n)
        item: Item = {
            "item_id": f"c{n}", "title": " ".join(random.choice(WORDS, 2 + n % 5)), "colour": COLOURS[n % 3],
            "brand": BRANDS[n % 2], "category": ["all", f"part {n % 4}"], "price": float(10 + 3 * n),
            "in_stock": n % 7 != 0, "added": 1_700_000_000 + n, "embedding": unit(n), "text_feature": unit(300 + n),
        }  # fmt: skip
        if n % 5:
            item["description"] = " ".join(random.choice(WORDS, 3 + n % 7))
        if n % 4:
            item["image_embedding"] = unit(100 + n)
        made[f"c{n}"] = item
    return made


@dataclass(frozen=True)
class Reference:
    """The right answers over all documents."""

    items: Mapping[str, Item]
    models: Path

    def embed(self, text: str) -> np.ndarray:
        """The query vector of the exported model: [CLS] tokens [SEP], at most 16 tokens."""
        tokenizer = Tokenizer.from_file(str(self.models / "tokenizer.json"))
        tokenizer.enable_truncation(16)
        ids = np.array([tokenizer.encode(text).ids])
        session = onnxruntime.InferenceSession(self.models / "query_text.onnx")
        vector = session.run(["embedding"], {"input_ids": ids, "attention_mask": np.ones_like(ids)})[0][0]
        return vector / np.linalg.norm(vector)

    def bm25(self, of: Callable[[Item], str], words: list[str]) -> dict[str, float]:
        """Vespa's bm25 of a text of every item, for words that are each a term of the query."""
        texts = {id: of(item).split() for id, item in self.items.items()}
        average = float(np.mean([len(t) for t in texts.values() if t]))
        scores = dict.fromkeys(texts, 0.0)
        for word in words:
            frequency = sum(word in text for text in texts.values())
            idf = math.log(1 + (COUNT - frequency + 0.5) / (frequency + 0.5))
            for id, text in texts.items():
                count = text.count(word)
                scores[id] += idf * count * (K1 + 1) / (count + K1 * (1 - B + B * len(text) / average))
        return scores

    def cosine(self, field: str, vector: np.ndarray) -> dict[str, float]:
        """The inner product of every item that has the vector."""
        return {id: float(item[field] @ vector) for id, item in self.items.items() if field in item}

    def scores(self, case: Mapping[str, Any]) -> dict[str, float]:
        """Every item that matches and its relevance."""
        vectors = {name: unit(seed) for name, seed in case.get("vectors", {}).items()}
        if "embed" in case:
            vectors["q"] = self.embed(case["embed"])
        words = case.get("words", [])
        kept = {id for id, item in self.items.items() if _passes(item, case.get("filter", {}))}
        match case["right"]:
            case "cosine":
                found = self.cosine("embedding", vectors["q"])
            case "closeness" | "queues":  # the queues bring all of these few items; the query vector orders them
                found = {id: 1 / (2 - dot) for id, dot in self.cosine("embedding", vectors["q"]).items()}
            case "bm25":
                title = self.bm25(lambda item: " ".join([item["title"], *item["category"]]), words)
                description = self.bm25(lambda item: item.get("description", ""), words)
                found = {id: title[id] + 0.5 * description[id] for id in title if title[id] + description[id] > 0}
            case _:
                found = dict.fromkeys(self.items, 0.0)
        return {id: score for id, score in found.items() if id in kept}


def _passes(item: Item, wanted: Mapping[str, Any]) -> bool:
    tests: dict[str, Callable[[Any, Any], bool]] = {
        "category": lambda value, want: want in value,
        "below": lambda _, want: item["price"] < want,
    }
    return all(tests.get(name, lambda v, w: v == w)(item.get(name), want) for name, want in wanted.items())


def call(url: str, path: str, body: Any = None) -> Any:
    """The JSON of an answer, whatever its status."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url + path, data, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return json.load(response)
    except urllib.error.HTTPError as e:
        return json.load(e)


def feed(url: str) -> None:
    """Puts the documents."""
    for id, item in documents().items():
        fields = {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in item.items()}
        answer = call(url, f"/document/v1/item/item/docid/{id}", {"fields": fields})
        if "message" in answer:
            raise RuntimeError(f"the server refuses {id}: {answer['message']}")


def difference(case: Mapping[str, Any], reference: Reference, answer: Mapping[str, Any]) -> str | None:
    """What is wrong with an answer; None where nothing is. Hits of equal relevance may come in any order."""
    root = answer["root"]
    if "errors" in root:
        return f"refused: {root['errors']}"
    if "groups" in case:
        return _group_difference(case, reference, root)
    right = reference.scores(case)
    if root["fields"]["totalCount"] != len(right):
        return f"{root['fields']['totalCount']} match, {len(right)} would be right"
    hits = [(hit["fields"]["item_id"], hit["relevance"]) for hit in root.get("children", [])]
    if len(hits) != min(case["parameters"].get("hits", 10), len(right)):
        return f"{len(hits)} hits"
    if case["right"] == "order":
        want = sorted(right, key=lambda id: reference.items[id][case["by"]], reverse=case.get("down", False))
        return None if [id for id, _ in hits] == want[: len(hits)] else f"{hits} instead of {want[: len(hits)]}"
    for id, score in hits:
        if id not in right or not math.isclose(score, right[id], rel_tol=1e-4, abs_tol=1e-5):
            return f"{id} has {score}, {right.get(id)} would be right"
    if hits and max((s for id, s in right.items() if id not in dict(hits)), default=-9.0) > hits[-1][1] + 1e-4:
        return "a better item is missing"
    return None if [s for _, s in hits] == sorted((s for _, s in hits), reverse=True) else "not in order"


def _group_difference(case: Mapping[str, Any], reference: Reference, root: Mapping[str, Any]) -> str | None:
    by, summed = case["groups"], case["sum"]
    right: dict[str, list[float]] = {}
    for item in reference.items.values():
        for value in item[by] if isinstance(item[by], list) else [item[by]]:
            right.setdefault(value, []).append(item[summed])
    found = {
        group["value"]: (group["fields"]["count()"], group["fields"][f"sum({summed})"])
        for group in root["children"][0]["children"][0]["children"]
    }
    want = {value: (len(numbers), sum(numbers)) for value, numbers in right.items()}
    return None if found == want else f"{found} instead of {want}"


def problems(url: str, models: Path) -> dict[str, str]:
    """Feeds, asks every case, and gives what is wrong by the name of the case."""
    feed(url)
    reference, wrong = Reference(documents(), models), {}
    for line in CASES.read_text().splitlines():
        case = json.loads(line)
        parameters = dict(case["parameters"])
        for name, seed in case.get("vectors", {}).items():
            parameters[f"input.query({name})"] = unit(seed).tolist()
        if problem := difference(case, reference, call(url, "/search/", parameters)):
            wrong[case["name"]] = problem
    return wrong


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: conformance_check.py URL MODELS")
    found = problems(sys.argv[1].rstrip("/"), Path(sys.argv[2]))
    for name, problem in found.items():
        print(f"{name}: {problem}")
    print(f"{len(CASES.read_text().splitlines()) - len(found)} passed, {len(found)} failed")
    sys.exit(bool(found))
    sys.exit(bool(found))
