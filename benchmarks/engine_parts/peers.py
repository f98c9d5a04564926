"""One embedded vector database in a process of its own, for engine.py: load, search, put, and what a kill -9 leaves.

Needs only numpy and the database, so that `engine.py --python PATH` can run it from another environment:
`python peers.py DATABASE measure|put|check FOLDER data.npz`. Prints JSON; `put` prints the number of each
document that was acknowledged until it is killed.
"""

from __future__ import annotations

import importlib.metadata
import itertools
import json
import sys
import time
from pathlib import Path
from typing import Any, Protocol

import numpy as np

K, SHARE, PUT_SECONDS, MOST_PUTS = 10, 0.05, 2.0, 2000


class Database(Protocol):
    """A folder of vectors with a price each. `put` returns when the database has acknowledged."""

    def load(self, vectors: np.ndarray, prices: np.ndarray) -> None: ...
    def search(self, query: np.ndarray, below: float | None) -> list[int]: ...
    def put(self, number: int, vector: np.ndarray, price: float) -> None: ...
    def has(self, numbers: list[int]) -> int: ...


class LocalVespa:
    """local_vespa in this process: requests as HTTP would bring them, without the network."""

    package = "local_vespa"

    def __init__(self, folder: Path) -> None:
        import asyncio

        sys.path[:0] = [str(Path(__file__).resolve().parents[up]) for up in (1, 2)]  # of benchmarks/ and the repository
        from engine_parts.data import write_package
        from local_vespa.api.documents import DocumentApi
        from local_vespa.api.search import SearchApi
        from local_vespa.engine import Engine
        from local_vespa.http import Request
        from local_vespa.package.reader import zip_folder

        self.request, self.engine = Request, Engine(folder / "data")
        if self.engine.application is None:
            self.engine.deploy(zip_folder(write_package(folder / "package")))
        self.documents, self.searches, self.loop = (
            DocumentApi(self.engine),
            SearchApi(self.engine),
            asyncio.new_event_loop(),
        )

    def load(self, vectors: np.ndarray, prices: np.ndarray) -> None:
        import asyncio

        async def some(rows: range) -> None:
            await asyncio.gather(*(self._put(row, vectors[row], float(prices[row])) for row in rows))

        for start in range(0, len(vectors), 256):
            self.loop.run_until_complete(some(range(start, min(start + 256, len(vectors)))))

    async def _put(self, number: int, vector: np.ndarray, price: float) -> None:
        body = json.dumps({"fields": {"price": price, "embedding": {"values": vector.tolist()}}}).encode()
        path = f"/document/v1/bench/item/docid/{number}"
        answer = await self.documents.handle(self.request("POST", path, {}, {}, body, "localhost"))
        assert answer.status == 200, answer.body

    def put(self, number: int, vector: np.ndarray, price: float) -> None:
        self.loop.run_until_complete(self._put(number, vector, price))

    def search(self, query: np.ndarray, below: float | None) -> list[int]:
        where = "" if below is None else f" and price < {below}"
        body = {
            "yql": f"select documentid from item where {{targetHits:{K}}}nearestNeighbor(embedding,q)" + where,
            "ranking": "ann",
            "hits": K,
            "input.query(q)": query.tolist(),
        }
        headers = {"content-type": "application/json"}
        answer = self.searches.handle(
            self.request("POST", "/search/", {}, headers, json.dumps(body).encode(), "localhost")
        )
        return [int(hit["id"].rsplit(":", 1)[1]) for hit in json.loads(answer.body)["root"]["children"]]

    def has(self, numbers: list[int]) -> int:
        return sum(self.engine.get(f"id:bench:item::{n}") is not None for n in numbers)


class LanceDB:
    """An HNSW index with scalar quantisation over all rows; filters before the search."""

    package = "lancedb"

    def __init__(self, folder: Path) -> None:
        import lancedb

        self.connection = lancedb.connect(str(folder))
        found = (folder / "items.lance").exists()
        self.table: Any = self.connection.open_table("items") if found else None

    def load(self, vectors: np.ndarray, prices: np.ndarray) -> None:
        import pyarrow as pa

        cells = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])
        rows = {"number": np.arange(len(vectors)), "price": prices, "vector": cells}
        self.table = self.connection.create_table("items", pa.table(rows))
        self.table.create_index(metric="dot", index_type="IVF_HNSW_SQ", num_partitions=1)

    def search(self, query: np.ndarray, below: float | None) -> list[int]:
        search = self.table.search(query).metric("dot").limit(K).select(["number", "_distance"])
        if below is not None:
            search = search.where(f"price < {below}", prefilter=True)
        return search.to_arrow()["number"].to_pylist()

    def put(self, number: int, vector: np.ndarray, price: float) -> None:
        row = [{"number": number, "price": price, "vector": vector}]
        if self.table is None:
            self.table = self.connection.create_table("items", row)
        else:
            self.table.add(row)

    def has(self, numbers: list[int]) -> int:
        return self.table.count_rows(f"number >= {min(numbers)} and number <= {max(numbers)}")


class QdrantEdge:
    """HNSW with filters inside the search, built by `optimize`."""

    package = "qdrant-edge-py"

    def __init__(self, folder: Path) -> None:
        import qdrant_edge as q

        self.q = q
        if (folder / "segments").exists():
            self.shard = q.EdgeShard.load(str(folder))
        else:
            folder.mkdir(parents=True, exist_ok=True)
            vectors = {"": q.EdgeVectorParams(size=128, distance=q.Distance.Dot)}
            self.shard = q.EdgeShard.create(str(folder), q.EdgeConfig(vectors=vectors))

    def load(self, vectors: np.ndarray, prices: np.ndarray) -> None:
        for start in range(0, len(vectors), 1000):
            part = range(start, min(start + 1000, len(vectors)))
            self._upsert([self._point(row, vectors[row], float(prices[row])) for row in part])
        self.shard.update(self.q.UpdateOperation.create_field_index("price", self.q.PayloadSchemaType.Float))
        self.shard.optimize()

    def _point(self, number: int, vector: np.ndarray, price: float) -> Any:
        return self.q.Point(number, vector.tolist(), {"price": price})

    def _upsert(self, points: list[Any]) -> None:
        self.shard.update(self.q.UpdateOperation.upsert_points(points))

    def search(self, query: np.ndarray, below: float | None) -> list[int]:
        q = self.q
        chosen = None
        if below is not None:
            chosen = q.Filter(must=[q.FieldCondition(key="price", range=q.RangeFloat(lt=below))])
        request = q.QueryRequest(query=q.Query.Nearest(query.tolist()), filter=chosen, limit=K)
        return [int(point.id) for point in self.shard.query(request)]

    def put(self, number: int, vector: np.ndarray, price: float) -> None:
        self._upsert([self._point(number, vector, price)])

    def has(self, numbers: list[int]) -> int:
        return len(self.shard.retrieve(numbers, False, False))


class MilvusLite:
    """Its own default index."""

    package = "milvus-lite"

    def __init__(self, folder: Path) -> None:
        from pymilvus import MilvusClient

        folder.mkdir(parents=True, exist_ok=True)
        self.client = MilvusClient(str(folder / "items.db"))
        if not self.client.has_collection("items"):
            self.client.create_collection("items", dimension=128, metric_type="IP", auto_id=False)

    def load(self, vectors: np.ndarray, prices: np.ndarray) -> None:
        for start in range(0, len(vectors), 1000):
            part = range(start, min(start + 1000, len(vectors)))
            self.client.insert(
                "items", [{"id": r, "vector": vectors[r].tolist(), "price": float(prices[r])} for r in part]
            )
        self.client.load_collection("items")

    def search(self, query: np.ndarray, below: float | None) -> list[int]:
        where = "" if below is None else f"price < {below}"
        return [hit["id"] for hit in self.client.search("items", [query.tolist()], filter=where, limit=K)[0]]

    def put(self, number: int, vector: np.ndarray, price: float) -> None:
        self.client.upsert("items", [{"id": number, "vector": vector.tolist(), "price": price}])

    def has(self, numbers: list[int]) -> int:
        self.client.load_collection("items")
        return len(self.client.get("items", ids=numbers))


class Chroma:
    """HNSW with its defaults, in a persistent client."""

    package = "chromadb"

    def __init__(self, folder: Path) -> None:
        import chromadb

        settings = chromadb.Settings(anonymized_telemetry=False)
        self.client = chromadb.PersistentClient(str(folder), settings=settings)
        self.items = self.client.get_or_create_collection("items", metadata={"hnsw:space": "ip"})

    def load(self, vectors: np.ndarray, prices: np.ndarray) -> None:
        for start in range(0, len(vectors), 1000):
            part = range(start, min(start + 1000, len(vectors)))
            self.items.add(
                ids=[str(r) for r in part],
                embeddings=vectors[part.start : part.stop],
                metadatas=[{"price": float(prices[r])} for r in part],
            )

    def search(self, query: np.ndarray, below: float | None) -> list[int]:
        where: Any = None if below is None else {"price": {"$lt": below}}
        found = self.items.query(query_embeddings=query[None], n_results=K, where=where, include=["distances"])
        return [int(number) for number in found["ids"][0]]

    def put(self, number: int, vector: np.ndarray, price: float) -> None:
        self.items.upsert(ids=[str(number)], embeddings=vector[None], metadatas=[{"price": price}])

    def has(self, numbers: list[int]) -> int:
        return len(self.items.get(ids=[str(n) for n in numbers], include=[])["ids"])


DATABASES: dict[str, type[Any]] = {
    "local_vespa": LocalVespa,
    "LanceDB": LanceDB,
    "Qdrant Edge": QdrantEdge,
    "Milvus Lite": MilvusLite,
    "Chroma": Chroma,
}


def resident() -> int:
    """Bytes of memory of this process (Linux)."""
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("VmRSS"))
    return int(line.split()[1]) * 1024


def recall(found: list[list[int]], truth: np.ndarray) -> float:
    """Share of the true neighbours found."""
    return float(np.mean([len(set(f) & set(t)) / len(t) for f, t in zip(found, truth.tolist(), strict=True)]))


def measure(kind: type[Any], folder: Path, data: dict[str, np.ndarray]) -> dict[str, Any]:
    """Loads the data, searches it, puts single documents; the figures of one row of the table."""
    vectors, prices, queries = data["vectors"], data["prices"], data["queries"]
    before = resident()
    database: Database = kind(folder)
    began = time.process_time()
    database.load(vectors, prices)
    figures: dict[str, Any] = {"load_cpu_s": time.process_time() - began}
    for name, below in (("all", None), ("filtered", SHARE)):
        for query in queries[:10]:
            database.search(query, below)
        began = time.process_time()
        found = [database.search(query, below) for query in queries]
        figures[f"{name}_ms"] = (time.process_time() - began) / len(queries) * 1e3
        figures[f"{name}_recall"] = recall(found, data[f"{name}_truth"])
    figures["memory"] = resident() - before
    began, done = time.perf_counter(), 0
    while time.perf_counter() - began < PUT_SECONDS and done < MOST_PUTS:
        database.put(len(vectors) + done, vectors[done % len(vectors)], 0.5)
        done += 1
    figures["puts_s"] = done / (time.perf_counter() - began)
    version = "" if kind is LocalVespa else importlib.metadata.version(kind.package)
    return figures | {"version": version}


def main() -> int:
    name, step, folder, path = sys.argv[1], sys.argv[2], Path(sys.argv[3]), sys.argv[4]
    data = dict(np.load(path))
    if step == "measure":
        print(json.dumps(measure(DATABASES[name], folder, data)))
        sys.stdout.flush()
        return 0
    database: Database = DATABASES[name](folder)
    if step == "check":
        print(database.has([int(n) for n in sys.stdin.read().split()]))
        return 0
    for number in itertools.count(1_000_000):
        database.put(number, data["vectors"][number % len(data["vectors"])], 0.5)
        print(number, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
