"""How much memory, how many nodes: Vespa's published figures applied to a catalogue, each with its source."""

from __future__ import annotations

import math
from dataclasses import dataclass

from mrse_model.errors import InputError

DOC = "docs.vespa.ai"
BILLION = "blog.vespa.ai/billion-scale-knn-part-two"
MULTI = "blog.vespa.ai/semantic-search-with-multi-vector-indexing"
BFLOAT = "blog.vespa.ai/bge-embedding-models-in-vespa-using-bfloat16"
PAGED = f"{DOC}/en/writing/indexing-paged-vectors.html"
ATTRIBUTES = f"{DOC}/en/content/attributes.html"
BYTES = {"double": 8.0, "float": 4.0, "bfloat16": 2.0, "int8": 1.0, "bits": 0.125}


@dataclass(frozen=True)
class Catalogue:
    """What is to be held and how. vector_fields: indexed vectors an item (embedding, image_embedding)."""

    items: int
    dims: int = 128
    cell: str = "bfloat16"
    vector_fields: int = 2
    features: int = 1
    max_links: int = 16
    copies: int = 2
    filter_bytes: float = 130
    text_bytes: int = 500
    node_memory_gb: float = 64
    node_vcpus: int = 16
    queries_per_second: float = 100


@dataclass(frozen=True)
class Row:
    """One line of the answer; amount is bytes, nodes, or what `unit` says."""

    what: str
    amount: float
    unit: str
    how: str
    source: str


@dataclass(frozen=True)
class Sizing:
    memory: tuple[Row, ...]
    totals: tuple[Row, ...]
    drivers: tuple[str, ...]


def graph_bytes(max_links: int) -> float:
    """Bytes a vector of an HNSW graph: 92 at 16 links and 40 at 8 are published, others lie on the line between."""
    return max(0.0, 40 + (max_links - 8) * (92 - 40) / 8)


def size(c: Catalogue) -> Sizing:
    """Raises InputError for a cell type or a number that makes no sense."""
    if c.cell not in BYTES:
        raise InputError(f"unknown cell type {c.cell!r}", field="--cell", fix=f"Take one of: {', '.join(BYTES)}")
    for name in ("items", "dims", "copies", "node_memory_gb", "node_vcpus", "max_links"):
        if getattr(c, name) <= 0:
            raise InputError(
                f"{getattr(c, name)} is not a positive number",
                field="--" + name.replace("_", "-"),
                fix="Give one above 0",
            )
    vectors = c.items * c.dims * BYTES[c.cell] * c.vector_fields
    floats = c.items * c.dims * BYTES["bfloat16"] * (c.vector_fields + c.features)
    paged = c.cell in ("bits", "int8")
    features = 0.0 if paged else c.items * c.dims * BYTES["bfloat16"] * c.features
    memory = (
        Row(
            "vectors", vectors, "B", f"{c.items:,} x {c.dims} x {BYTES[c.cell]:g} B x {c.vector_fields} fields",
            f"{DOC}/en/reference/ranking/tensor.html (cell types)",
        ),
        Row(
            "HNSW graphs", c.items * c.vector_fields * graph_bytes(c.max_links), "B",
            f"{graph_bytes(c.max_links):.0f} B a vector at max-links-per-node {c.max_links}", BILLION,
        ),
        Row("behaviour features", features, "B", f"{c.features} more vectors, not indexed" + ", paged" * paged, PAGED),
        Row("document meta store", c.items * 33.0, "B", "33 B a document", BILLION),
        Row(
            "filters", float(c.items * c.filter_bytes), "B",
            f"{c.filter_bytes:.0f} B an item: the attributes of item.sd, or --filter-bytes", ATTRIBUTES,
        ),
    )  # fmt: skip
    raw = sum(row.amount for row in memory)
    by_parts = raw * 1.2 * c.copies / 0.65
    official = vectors * c.copies * 1.2 / 0.65
    needed = max(by_parts, official)
    nodes = max(c.copies, math.ceil(needed / (c.node_memory_gb * 1e9)))
    nodes += -nodes % c.copies  # every copy gets as many nodes
    per_group = nodes // c.copies
    capacity = 250.0 * c.node_vcpus
    groups = max(c.copies, math.ceil(c.queries_per_second / capacity))
    disk = c.items * c.text_bytes * 2.0 + floats
    inserts = 5521 / 64 * c.node_vcpus * per_group * groups
    totals = (
        Row("memory of one copy", raw, "B", "sum of the above", ""),
        Row(
            "memory, all copies", by_parts, "B", f"x {c.copies} copies x 1.2 resize / 0.65 filled",
            f"{PAGED}; {ATTRIBUTES}",
        ),
        Row("Vespa's rule of thumb", official, "B", "raw vectors x copies x 1.2 / 0.65", PAGED),
        Row(
            "disk of one copy", disk, "B",
            f"texts x 2 + all float vectors; {c.text_bytes} B of text an item: --text-bytes, yours to measure", "",
        ),
        Row(
            "content nodes", per_group * groups, "nodes",
            f"{groups} groups with a copy each, {per_group} nodes of {c.node_memory_gb:g} GB a group", PAGED,
        ),
        Row(
            "vector queries a core", 250, "per s",
            "4 ms, one thread, 90 % recall@10, a billion vectors of 104 bits", BILLION,
        ),
        Row(
            "queries a group", capacity, "per s",
            f"{c.node_vcpus} vCPU x 250; ranking, text and filters come on top", BILLION,
        ),
        Row(
            "first feed", c.items * c.vector_fields * groups / inserts / 3600, "h",
            "5,521 vectors/s on 64 vCPU (384 floats, 16 links)", MULTI,
        ),
    )  # fmt: skip
    return Sizing(memory, totals, tuple(_drivers(c, memory, groups)))


def _drivers(c: Catalogue, memory: tuple[Row, ...], groups: int) -> list[str]:
    """What the bill hangs on, the heaviest first."""
    raw = sum(row.amount for row in memory)
    heaviest = sorted(memory, key=lambda row: -row.amount)
    found = [f"{row.what}: {row.amount / raw:.0%} of memory" for row in heaviest if row.amount >= 0.1 * raw]
    if c.cell in ("float", "double"):
        found.append(f"bfloat16 halves the vectors, at 20-30 % more CPU a distance ({BFLOAT})")
    floats_in_memory = 0 if c.cell in ("bits", "int8") else c.items * c.dims * 2 * c.features
    for variant, cell in (("int8", "int8"), ("compact", "bits")):
        saved = c.items * c.dims * (BYTES[c.cell] - BYTES[cell]) * c.vector_fields + floats_in_memory
        if BYTES[cell] < BYTES[c.cell]:
            found.append(
                f"variants/{variant} ({cell} in memory, floats paged) saves {saved / raw:.0%} of memory and reads disk"
            )
    if c.max_links > 8:
        saved = c.items * c.vector_fields * (graph_bytes(c.max_links) - graph_bytes(8))
        found.append(
            f"max-links-per-node 8 saves {saved / raw:.0%} of memory and loses recall (64 % for 90 %, {BILLION})"
        )
    found.append(
        f"queries scale with groups, not nodes ({groups} groups here): ten times fewer items a node only halve "
        f"the time ({DOC}/en/querying/approximate-nn-hnsw.html)"
    )
    return found
