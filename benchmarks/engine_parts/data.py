"""What the benchmarks of the embedded engine share: clustered vectors, a package, documents, and readings of /proc.

The vectors imitate product embeddings: 100 categories, 5,000 clusters of Zipf sizes, a decaying spectrum, unit norm.
Everything comes from one seed, so that two runs search the same data.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import orjson

SEED, DIMS, CATEGORIES, CLUSTERS, WORDS = 7, 128, 100, 5_000, 20_000

SERVICES = """<services version="1.0">
  <container id="default" version="1.0">
    <search/><document-api/><nodes><node hostalias="node1"/></nodes>
  </container>
  <content id="shop" version="1.0">
    <min-redundancy>1</min-redundancy>
    <documents><document type="item" mode="index"/></documents>
    <nodes><node hostalias="node1" distribution-key="0"/></nodes>
  </content>
</services>
"""

SCHEMA = """schema item {
  document item {
    field title type string {
      indexing: index | summary
      index: enable-bm25
    }
    field price type float { indexing: attribute | summary }
    field embedding type tensor<float>(x[%d]) {
      indexing: attribute | index
      attribute { distance-metric: prenormalized-angular }
      index {
        hnsw {
          max-links-per-node: 16
          neighbors-to-explore-at-insert: 200
        }
      }
    }
  }
  fieldset default { fields: title }
  rank-profile ann {
    inputs { query(q) tensor<float>(x[%d]) }
    first-phase { expression: closeness(field, embedding) }
  }
}
"""


@dataclass(frozen=True)
class Corpus:
    """Vectors float32 [rows, 128], held-out queries float32 [n, 128], prices float32 [rows] uniform in [0, 1), so that
    `price < s` keeps the share s of the rows, and titles of 4 to 10 words."""

    vectors: np.ndarray
    queries: np.ndarray
    prices: np.ndarray
    titles: list[str]

    @property
    def raw_bytes(self) -> int:
        """Vectors and text alone."""
        return self.vectors.nbytes + sum(len(t) for t in self.titles)

    def head(self, rows: int) -> Corpus:
        """The first rows, with all queries."""
        return Corpus(self.vectors[:rows], self.queries, self.prices[:rows], self.titles[:rows])


def make_corpus(rows: int, queries: int = 1000, seed: int = SEED) -> Corpus:
    """Draws a corpus."""
    rng = np.random.default_rng(seed)
    spectrum = np.arange(1, DIMS + 1, dtype=np.float32) ** -0.5
    categories = rng.standard_normal((CATEGORIES, DIMS), np.float32)
    clusters = categories[rng.integers(CATEGORIES, size=CLUSTERS)] + 0.7 * rng.standard_normal(
        (CLUSTERS, DIMS), np.float32
    )
    sizes = np.arange(1, CLUSTERS + 1) ** -0.8
    chosen = rng.choice(CLUSTERS, rows + queries, p=sizes / sizes.sum())
    vectors = clusters[chosen] + 0.6 * rng.standard_normal((rows + queries, DIMS), np.float32)
    vectors *= spectrum
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    words = [f"{'bcdfghklmnprstvz'[i % 16]}{'aeiou'[i // 16 % 5]}{i:x}" for i in range(WORDS)]
    common = np.arange(1, WORDS + 1) ** -1.0
    drawn = rng.choice(WORDS, (rows, 10), p=common / common.sum())
    lengths = rng.integers(4, 11, rows)
    titles = [" ".join(words[w] for w in line[:n]) for line, n in zip(drawn.tolist(), lengths.tolist(), strict=True)]
    return Corpus(vectors[:rows], vectors[rows:], rng.random(rows, np.float32), titles)


def write_package(folder: Path) -> Path:
    """An application package with one schema, `item`."""
    (folder / "schemas").mkdir(parents=True)
    (folder / "services.xml").write_text(SERVICES)
    (folder / "schemas" / "item.sd").write_text(SCHEMA % (DIMS, DIMS))
    return folder


def write_feed(corpus: Corpus, path: Path, start: int, stop: int) -> Path:
    """The JSON lines of puts for `vespa feed`, of the rows from start to stop."""
    with path.open("wb") as out:
        for row in range(start, stop):
            fields = {
                "title": corpus.titles[row],
                "price": float(corpus.prices[row]),
                "embedding": {"values": corpus.vectors[row]},
            }
            put = {"put": f"id:bench:item::{row}", "fields": fields}
            out.write(orjson.dumps(put, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE))
    return path


def nearest(corpus: Corpus, queries: np.ndarray, k: int, share: float = 1.0) -> np.ndarray:
    """int [len(queries), k]: the true neighbours among the rows with price < share, in any order."""
    rows = np.flatnonzero(corpus.prices < share)
    scores = queries @ corpus.vectors[rows].T
    return rows[np.argpartition(-scores, k - 1, axis=1)[:, :k]]


def recall(found: list[np.ndarray], truth: np.ndarray) -> float:
    """Share of the true neighbours that were found."""
    return float(np.mean([len(np.intersect1d(f, t)) / len(t) for f, t in zip(found, truth, strict=True)]))


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far, all its threads (Linux)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory(pid: int) -> int:
    """Resident bytes of a process (Linux)."""
    line = next(x for x in Path(f"/proc/{pid}/status").read_text().splitlines() if x.startswith("VmRSS"))
    return int(line.split()[1]) * 1024
