"""What training reads: token ids of items and queries, and the examples as fixed-size records on disk.

Only the item and query tables are held in memory. Examples stay on disk and are read in shuffled blocks, so memory
does not grow with the number of events; the order is a function of (seed, epoch), so that a resumed run sees what it
would have seen.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tokenizers import Tokenizer

from mrse_model.atomic_file import atomic_file
from mrse_model.config import ModelConfig, TrainConfig
from mrse_model.data.contract import Catalogue
from mrse_model.data.example_files import PSEUDO
from mrse_model.data.history import history_weight
from mrse_model.data.misspellings import misspelt_all
from mrse_model.data.search_log import MAX_SKIPPED, query_key
from mrse_model.serving.texts import item_texts, token_matrix
from mrse_model.training.ragged import Ragged, positions_within

BLOCK = 4096  # examples read together
GROUP = 64  # blocks shuffled together: 65 MB with 20 events of history each


def example_type(history: int) -> np.dtype:
    """One training example: the query and the item that it leads to (rows), the kind of the event, the user's history
    (rows of items, -1: none, and their weights), what was shown and skipped (rows of items, -1: none).
    """
    return np.dtype([
        ("query", "i4"), ("target_item", "i4"), ("kind", "i1"),
        ("history_items", "i4", (history,)), ("history_weight", "f4", (history,)), ("skipped", "i4", (MAX_SKIPPED,)),
    ])  # fmt: skip


@dataclass
class Queries:
    """The distinct queries, and what is known of each: its positives and its judged low grades.

    texts: as each is spelt first; case and white space make no other query (query_key). misspelt: its tokens with one
    edit (data.misspellings), where training is to learn from that. real: bool [Q], False for one that is a
    pseudo-query alone.
    """

    texts: list[str]
    tokens: np.ndarray  # int64 [Q, 16], padded with 0
    known: Ragged
    hard: Ragged
    misspelt: np.ndarray | None = None  # as tokens
    real: np.ndarray | None = None


class Examples:
    """Training examples in one file of records."""

    def __init__(self, path: Path, history: int) -> None:
        self.path, self.history, self.type = path, history, example_type(history)
        self.count = path.stat().st_size // self.type.itemsize

    def read(self, start: int, count: int) -> np.ndarray:
        return np.fromfile(self.path, self.type, count, offset=start * self.type.itemsize)

    def steps(self, batch: int) -> int:
        """Batches in one epoch; what does not fill one is left for another epoch's order."""
        return max(1, self.count // batch)

    def batches(self, batch: int, seed: int, epoch: int, skip: int = 0) -> Iterator[np.ndarray]:
        """The epoch's batches from number `skip` on. Blocks are shuffled over the file, examples within 64 blocks."""
        rng = np.random.default_rng([seed, epoch])
        blocks = rng.permutation((self.count + BLOCK - 1) // BLOCK)
        left = np.zeros(0, self.type)
        number = 0
        for group in range(0, len(blocks), GROUP):
            rows = np.concatenate([self.read(int(b) * BLOCK, BLOCK) for b in blocks[group : group + GROUP]])
            rows = np.concatenate([left, rows[np.random.default_rng([seed, epoch, group]).permutation(len(rows))]])
            for start in range(0, len(rows) - batch + 1, batch):
                if number >= skip:
                    yield rows[start : start + batch]
                number += 1
            left = rows[len(rows) - len(rows) % batch :]
        if not number and len(left):
            yield left

    def with_history(self, most: int) -> np.ndarray:
        """Up to `most` examples whose user has a history, from all over the file."""
        found: list[np.ndarray] = []
        for start in np.linspace(0, max(0, self.count - 4096), 8).astype(int):
            rows = self.read(int(start), 4096)
            found.append(rows[(rows["history_items"] >= 0).any(1)][: most // 8])
        return np.concatenate(found)


class MixedExamples(Examples):
    """Examples of real queries (`path`) and, in every batch, a share of pseudo-queries from a second file."""

    def __init__(self, path: Path, history: int, pseudo: Path, share: float) -> None:
        super().__init__(path, history)
        self.pseudo, self.share = Examples(pseudo, history), share

    def steps(self, batch: int) -> int:
        """Batches in which each of the two files is seen once or more."""
        made = self._made(batch)
        return max(1, self.count // (batch - made), self.pseudo.count // made)

    def batches(self, batch: int, seed: int, epoch: int, skip: int = 0) -> Iterator[np.ndarray]:
        """The epoch's batches from number `skip` on: real examples first, then pseudo-queries."""
        made, steps = self._made(batch), self.steps(batch)
        real = _endless(Examples(self.path, self.history), batch - made, seed, epoch * steps + skip)
        pseudo = _endless(self.pseudo, made, seed + 1, epoch * steps + skip)
        for _ in range(skip, steps):
            yield np.concatenate([next(real), next(pseudo)])

    def _made(self, batch: int) -> int:
        return min(batch - 1, max(1, round(self.share * batch)))


def _endless(examples: Examples, size: int, seed: int, number: int) -> Iterator[np.ndarray]:
    """Batches of `size`, one epoch's after the other's, from this number of all on; a short file is repeated."""
    if examples.count < size:
        rows = examples.read(0, examples.count)
        while True:
            yield np.random.default_rng([seed, number]).choice(rows, size)
            number += 1
    epoch, skip = divmod(number, examples.count // size)
    while True:
        yield from examples.batches(size, seed, epoch, skip)
        epoch, skip = epoch + 1, 0


def tokenise_items(catalogue: Catalogue, tokenizer: Tokenizer, size: ModelConfig) -> np.ndarray:
    """int32 [N, longest ≤ 64], padded with 0."""
    texts = item_texts(size.text_columns, catalogue.titles, catalogue.categories)
    parts = [token_matrix(tokenizer, texts[i : i + 8192], size.item_tokens)[0] for i in range(0, len(texts), 8192)]
    out = np.zeros((len(texts), max(p.shape[1] for p in parts)), np.int32)
    row = 0
    for part in parts:
        out[row : row + len(part), : part.shape[1]] = part
        row += len(part)
    return out


def _places(lists: pa.ListArray, length: int) -> tuple[tuple[np.ndarray, np.ndarray], np.ndarray]:
    """Where the values of the lists go in an array [n, length], row and column, and which of them do (bool)."""
    sizes = lists.value_lengths().fill_null(0).to_numpy()
    position = positions_within(sizes)
    kept = position < length
    return (np.repeat(np.arange(len(sizes)), sizes)[kept], position[kept]), kept


def query_tokens(texts: Sequence[str], tokenizer: Tokenizer, size: ModelConfig) -> np.ndarray:
    """int64 [Q, 16], padded with 0."""
    tokens = np.zeros((len(texts), size.query_tokens), np.int64)
    for start in range(0, len(texts), 8192):
        some, _ = token_matrix(tokenizer, texts[start : start + 8192], size.query_tokens)
        tokens[start : start + len(some), : some.shape[1]] = some
    return tokens


def build_examples(
    shards: Sequence[Path],
    out: Path,
    tokenizer: Tokenizer,
    size: ModelConfig,
    train: TrainConfig,
    misspellings: bool = False,
) -> tuple[Examples, Queries]:
    """Parquet shards (docs/contracts.md, "Training examples") to the record file, and the table of queries; with
    misspellings each of them with an edit, too.

    A record file that is there is kept: a resumed run's, or the main process's where several train together.
    Memory grows with the distinct queries and their judged items, not with the events.
    """
    number: dict[str, int] = {}
    texts: list[str] = []
    known: list[set[int]] = []
    hard: list[set[int]] = []
    complete: list[bool] = []  # all that is known of the query was read: each of its examples but a pseudo-query has it
    length = size.history_length
    with nullcontext(os.devnull) if out.exists() else atomic_file(out) as path, open(path, "wb") as file:
        for shard in shards:
            for rows in pq.ParquetFile(shard).iter_batches(8192):
                records = np.zeros(rows.num_rows, example_type(length))
                records["target_item"], records["kind"] = rows["target_item"].to_numpy(), rows["kind"].to_numpy()
                for i, (text, item) in enumerate(
                    zip(rows["query"].to_pylist(), rows["target_item"].to_pylist(), strict=True)
                ):
                    query = records["query"][i] = number.setdefault(query_key(text), len(number))
                    if query == len(texts):
                        texts.append(text)
                        known.append(set())
                        hard.append(set())
                        complete.append(False)
                    if not complete[query]:
                        known[query].update(rows["known"][i].as_py() or ())
                        hard[query].update(rows["hard"][i].as_py() or ())
                        complete[query] = records["kind"][i] != PSEUDO
                    known[query].add(item)
                at, kept = _places(rows["history_items"], length)
                items, kinds, ages = (rows[f"history_{n}"].flatten().to_numpy()[kept] for n in ("items", "kind", "age"))
                records["history_items"] = -1
                records["history_items"][at], records["history_weight"][at] = items, history_weight(kinds, ages, train)
                at, kept = _places(rows["skipped"], MAX_SKIPPED)
                records["skipped"] = -1
                records["skipped"][at] = rows["skipped"].flatten().to_numpy()[kept]
                file.write(records.tobytes())
    tokens = query_tokens(texts, tokenizer, size)
    wrong = query_tokens(misspelt_all(texts, train.seed), tokenizer, size) if misspellings else None
    positive = Ragged.of([sorted(k) for k in known])
    low = Ragged.of([sorted(h - k) for h, k in zip(hard, known, strict=True)])
    return Examples(out, length), Queries(texts, tokens, positive, low, wrong, np.array(complete))
