"""One golden input for every rank-profile function, and what numpy and onnxruntime say each function is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

D, H, PIECES = 128, 20, 14
Values = dict[str, Any]  # function → array or number
rng = np.random.default_rng(11)


def unit(*shape: int) -> np.ndarray:
    """Random unit vectors, exact in bfloat16."""
    a = rng.normal(size=shape).astype(np.float32)
    a /= np.linalg.norm(a, axis=-1, keepdims=True)
    return (a.view(np.uint32) & 0xFFFF0000).view(np.float32)


def bits(a: np.ndarray) -> np.ndarray:
    """binarize | pack_bits: the sign of each dimension, most significant bit first, as int8."""
    return np.packbits(a > 0, axis=-1).view(np.int8)


def int8(a: np.ndarray) -> np.ndarray:
    """Unit vectors as whole numbers, as the feeder and query_text's second output make them."""
    return np.rint(127 * a).astype(np.int8)


q, i2i, image, embedding, image_embedding, text_feature = unit(6, D)
tokens = np.zeros(PIECES, np.float32)
tokens[:3] = [4, 9, 6]
history_text, history_image = np.zeros((2, 1, H, D), np.float32)
history_text[0, :3], history_image[0, :3] = unit(3, D), unit(3, D)
history_weight = np.zeros((1, H), np.float32)
history_weight[0, :3] = [3.0, 1.0, 0.25]
number = {
    "bm25(title_and_category)": 5.5,
    "bm25(description)": 1.5,
    "closeness(field,embedding)": 0.61,
    "closeness(field,embedding_bits)": 0.02,
    "closeness(field,embedding_int8)": 0.6,
    "itemRawScore(q2i)": 0.7,
    "itemRawScore(i2i)": 0.9,
    "itemRawScore(image)": 0.8,
    "firstPhase": 0.61,
    "query(alpha)": 0.3,
    "query(popularity)": 0.02,
    "attribute(popularity)": 99,
}


def literal(a: np.ndarray) -> str:
    """Vespa's text form of a dense tensor."""
    return str(a.item()) if a.ndim == 0 else "[" + ",".join(literal(row) for row in a) + "]"


def features() -> dict[str, str | float]:
    """Values for the arguments of all functions, by feature name."""
    dense = {
        "query(q)": q,
        "query(i2i)": i2i,
        "query(image)": image,
        "query(q_bits)": bits(q),
        "query(tokens)": tokens,
        "query(history_text)": history_text,
        "query(history_image)": history_image,
        "query(history_weight)": history_weight,
        "attribute(embedding)": embedding,
        "attribute(image_embedding)": image_embedding,
        "attribute(text_feature)": text_feature,
        "attribute(embedding_bits)": bits(embedding),
        "attribute(embedding_int8)": int8(embedding),
    }
    mapped = {}
    return {k: literal(v) for k, v in dense.items()} | mapped | number


def expected(models: Path) -> dict[str, Values]:
    """{profile: {function: value}} of the default package; `models` holds query_tower.onnx and query_experts.onnx."""
    session = onnxruntime.InferenceSession(models / "query_tower.onnx")
    experts = onnxruntime.InferenceSession(models / "query_experts.onnx")
    known = tokens[tokens > 0]
    ids = np.zeros((1, 16), np.float32)
    ids[0, : len(known) + 2] = [2, *known, 3]
    mask = np.zeros((1, 16), np.float32)
    mask[0, : len(known) + 2] = 1
    inputs = {
        "input_ids": ids,
        "attention_mask": mask,
        "history_text": history_text,
        "history_image": history_image,
        "history_weight": history_weight,
    }

    def tower(**changed: np.ndarray) -> np.ndarray:
        vector: np.ndarray = session.run(["embedding"], inputs | changed)[0][0]
        return vector

    def tower_profile(**changed: np.ndarray) -> Values:
        vector = tower(**changed)
        cosine = float(vector @ embedding)
        return inputs | changed | {"query_vector": vector, "similarity": cosine, "firstphase": cosine}

    zero_weight, zero_history = history_weight * 0, history_text * 0
    no_words = {"input_ids": np.zeros((1, 16)), "attention_mask": np.zeros((1, 16))}
    no_words["input_ids"][0, :2], no_words["attention_mask"][0, :2] = [2, 3], 1
    no_words = {name: value.astype(np.float32) for name, value in no_words.items()}

    cosine = float(q @ embedding)
    close, lexical = number["closeness(field,embedding)"], 5.5 + 0.5 * 1.5
    queues = {"from_query": 0.7, "from_clicks": 0.9, "from_images": 0.8}
    hybrid = {
        "lexical": lexical,
        "semantic": cosine,
        "candidate": cosine + lexical / (lexical + 10),
        "firstphase": cosine + lexical / (lexical + 10),
    }
    full = tower_profile()
    parts: Values = {
        "input_query_text": tower(**no_words),
        "input_history": tower(history_weight=zero_weight),
        "input_history_text": tower(history_text=zero_history),
        "input_history_image": tower(history_image=zero_history),
    }
    parts |= {
        output.name.replace("without_", "expert_"): vector[0]
        for output, vector in zip(experts.get_outputs(), experts.run(None, inputs), strict=True)
    }
    shares = {name: float(full["similarity"] - vector @ embedding) for name, vector in parts.items()}
    total = float(history_weight.sum())
    return {
        "ann": {"similarity": cosine, "firstphase": close},
        "exact": {"similarity": cosine, "firstphase": cosine},
        "bm25": {"lexical": lexical, "firstphase": lexical},
        "hybrid": hybrid,
        "hybrid_linear": hybrid | {"evidence": lexical**2 / (lexical**2 + 400), "log_popularity": np.log(100)},
        "ablation_words": hybrid | {"globalphase": cosine},
        "three_queues": queues | {"similarity": cosine, "firstphase": 1 / (2 - cosine)},
        "query_tower": full,
        "ablation_query_text": tower_profile(**no_words) | {"no_tokens": tokens * 0},
        "ablation_history": tower_profile(history_weight=zero_weight),
        "ablation_history_text": tower_profile(history_text=zero_history),
        "ablation_history_image": tower_profile(history_image=zero_history),
        "explain": full
        | shares
        | queues
        | {
            "no_tokens": tokens * 0,
            "zero_ids": no_words["input_ids"],
            "zero_mask": no_words["attention_mask"],
            "zero_weight": zero_weight,
            "zero_entries": zero_history,
            "history_total": total,
            "likeness_text": float((history_weight[0] @ history_text[0]) @ text_feature) / total,
            "likeness_image": float((history_weight[0] @ history_image[0]) @ image_embedding) / total,
            "lexical": lexical,
        },
    }


def expected_compact(models: Path) -> dict[str, Values]:
    """The same for the variant `compact`, where the graph is over bits and the float vectors re-rank."""
    same = expected(models)
    cosine, close = float(q @ embedding), number["closeness(field,embedding_bits)"]
    lexical = float(same["bm25"]["lexical"])
    differing = int(np.unpackbits((bits(q) ^ bits(embedding)).view(np.uint8)).sum())
    ann = {"coarse": close, "similarity": cosine, "firstphase": close, "secondphase": 10 + cosine}
    coarse = 1 - differing / 64
    bounded = lexical / (lexical + 10)
    hybrid = {
        "lexical": lexical,
        "semantic": cosine,
        "coarse": coarse,
        "candidate": coarse + bounded,
        "firstphase": coarse + bounded,
        "secondphase": 10 + cosine + bounded,
    }
    towers = {
        name: functions | {"firstphase": close, "secondphase": 10 + float(functions["similarity"])}
        for name, functions in same.items()
        if "query_vector" in functions
    }
    linear = hybrid | {name: same["hybrid_linear"][name] for name in ("evidence", "log_popularity")}
    changed = {"ann": ann, "hybrid": hybrid, "hybrid_linear": linear}
    changed["three_queues"] = same["three_queues"] | {
        "coarse": coarse,
        "firstphase": coarse,
        "secondphase": 10 + cosine,
    }
    return same | towers | changed | {"ablation_words": hybrid | {"globalphase": cosine}}


def expected_int8(models: Path) -> dict[str, Values]:
    """The same for the variant `int8`: as `compact`, with whole numbers in the place of bits."""
    same, compact = expected(models), expected_compact(models)
    coarse, close = float(q @ int8(embedding)) / 127, number["closeness(field,embedding_int8)"]
    graph = {"coarse": close, "firstphase": close}
    candidate = coarse + float(compact["hybrid"]["candidate"]) - float(compact["hybrid"]["coarse"])
    hybrid = compact["hybrid"] | {"coarse": coarse, "candidate": candidate, "firstphase": candidate}
    changed = {name: compact[name] | graph for name in ("ann",)}
    changed |= {name: compact[name] | {"firstphase": close} for name in same if "query_vector" in same[name]}
    changed |= {
        "hybrid": hybrid,
        "hybrid_linear": hybrid | {name: same["hybrid_linear"][name] for name in ("evidence", "log_popularity")},
        "ablation_words": hybrid | {"globalphase": float(q @ embedding)},
        "three_queues": compact["three_queues"] | {"coarse": coarse, "firstphase": coarse},
    }
    return same | changed
